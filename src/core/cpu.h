/*
 * A cpu is what only one thread at a time may use: stocks and a slab heap.
 * Whoever uses it excludes the others, by a lock (the GIL) or by being alone.
 *
 * A section is the time during which a cpu's user may hold records that it
 * found by following references (a task's objcg, an objcg's memcg, a memcg's
 * parent).  A record that was unlinked is recycled only after every section
 * that began before has ended: this core's read-copy-update.
 */
#ifndef OBJCG_CPU_H
#define OBJCG_CPU_H

#include "region.h"

#define CPU_MAX 1024u

/* A cpu for the caller's exclusive use; NULL when all are taken or memory is short. */
struct cpu *cpu_get(uint32_t kind);

/* Gives it back: stocks drained, heap kept for the next user. Caller is not in a section. */
void cpu_put(struct cpu *cpu);

/* The cpus ever used, for walks over all stocks: cpu_nth(0 .. cpu_count()-1). */
uint32_t cpu_count(void);
struct cpu *cpu_nth(uint32_t index);

/* For fork: no cpu is handed out meanwhile; in the child, no other thread is in a section. */
void cpus_lock(void);
void cpus_unlock(void);
void cpus_reset_after_fork(void);

/* Where a cpu's stock of an objcg is, if it has one. */
static inline struct stock *stock_slot(const struct cpu *cpu, uint32_t id)
{
	return &cpu->stocks[id % NR_STOCKS];
}

extern _Atomic uint64_t cpu_epoch;

static inline void section_enter(struct cpu *cpu)
{
	/*
	 * seq_cst: either epoch_passed() sees this section, or what was unlinked
	 * before its caller's epoch_advance() is no longer found in here.  For that
	 * the first reference that is followed in here is loaded seq_cst, too: a
	 * task's objcg, or an objcg's group.
	 */
	store_seq_cst(&cpu->record->section, load_relaxed(&cpu_epoch));
}

static inline void section_exit(struct cpu *cpu)
{
	store_release(&cpu->record->section, 0);
}

/* To be called after unlinking: the stamp to ask epoch_passed() about. */
uint64_t epoch_advance(void);

/* Whether every section that may have seen what was unlinked before `stamp` is over. */
bool epoch_passed(uint64_t stamp);

#endif
