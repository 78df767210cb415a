/*
 * Stocks: a cpu's charged but unused bytes, in direct-mapped slots by objcg id.
 *
 * Several slots, since tasks of several groups take turns on a cpu (one slot
 * thrashes); direct-mapped, so that finding one costs nothing.
 *
 * Only the cpu's user writes its slots.  Other threads and processes read them.
 */
#ifndef OBJCG_STOCK_H
#define OBJCG_STOCK_H

#include "cpu.h"
#include "objcg.h"
#include "task.h"

/* The most that is charged ahead, and, twice that, the most a slot holds. */
#define STOCK_BATCH_MAX ((int64_t)16 << 10)
#define STOCK_BATCH_MIN ((int64_t)4 << 10)
#define STOCK_MAX (2 * STOCK_BATCH_MAX)

/* 0 in a variant of lab/, for what is inline here. */
#ifndef STOCK_COUNTS_BLOCKS
#define STOCK_COUNTS_BLOCKS 1
#endif

static inline void stock_count(struct stock *stock, enum domain domain, int64_t bytes,
			       int64_t blocks)
{
	if (STOCK_COUNTS_BLOCKS)
		add_single_writer(&stock->blocks, blocks);
	if (domain != DOMAIN_OBJECT)
		add_single_writer(&stock->stat[domain - 1], bytes);
}

/* Takes a block of `bytes` from a slot that is known to be the right one. */
static inline bool consume_slot(struct stock *stock, enum domain domain, int64_t bytes)
{
	int64_t left = load_relaxed(&stock->bytes) - bytes;

	if (unlikely(left < 0))
		return false;
	store_relaxed(&stock->bytes, left);
	stock_count(stock, domain, bytes, 1);
	return true;
}

/*
 * Takes a block of `bytes` from the stock of the objcg that `reference` names:
 * a task's reference as loaded, with its flag.  No flagged or missing reference
 * equals a slot's key, so one comparison answers "is it valid?" and "is it the
 * one in stock?"; and an objcg that has bytes in stock cannot be recycled, so
 * this needs no section.
 */
static inline bool consume_stock_at(struct stock *stocks, uint32_t reference, enum domain domain,
				    int64_t bytes)
{
	struct stock *stock = &stocks[(reference >> 1) % NR_STOCKS];

	return likely(load_relaxed(&stock->key) == reference) && consume_slot(stock, domain, bytes);
}

static inline bool consume_stock(struct cpu *cpu, uint32_t reference, enum domain domain,
				 int64_t bytes)
{
	return consume_stock_at(cpu->stocks, reference, domain, bytes);
}

/* Puts a freed block's bytes into its objcg's stock; false if there is no room. */
static inline bool refill_slot(struct stock *stock, uint32_t reference, enum domain domain,
			       int64_t bytes)
{
	int64_t sum = load_relaxed(&stock->bytes) + bytes;

	if (unlikely(load_relaxed(&stock->key) != reference) || unlikely(sum > STOCK_MAX))
		return false;
	store_relaxed(&stock->bytes, sum);
	stock_count(stock, domain, -bytes, -1);
	return true;
}

static inline bool refill_stock(struct cpu *cpu, uint32_t id, enum domain domain, int64_t bytes)
{
	return refill_slot(stock_slot(cpu, id), id << 1, domain, bytes);
}

/*
 * While this is not 0 no limit refuses what the thread asks for: it is charged, above
 * the ceiling if need be, and nobody is interrupted for it.  For what frees memory or
 * reports that there is none, as PF_MEMALLOC in the kernel (try_charge_memcg()); who
 * sets it sees to it that it is little.  Of the program's own code only finalisers and
 * signal handlers may happen to run meanwhile; what they take above the limit is held
 * against whoever charges next.  (tests/core/test_stock.c)
 */
extern __thread int charges_forced __attribute__((tls_model("initial-exec")));

/*
 * Charges a block of `bytes` to the task's group, by way of the stock where
 * that is possible.  Returns the objcg's id, or 0 if a limit refuses; what the
 * charge met is in *result.  Below CHARGE_STRICT only the ceiling refuses.
 */
uint32_t charge_task(struct cpu *cpu, struct task *task, enum domain domain, size_t bytes,
		     struct charge_result *result);

/* Charges `bytes` more (a block that grows in place) to the objcg of a living block. */
bool charge_objcg(struct cpu *cpu, uint32_t id, enum domain domain, size_t bytes,
		  struct charge_result *result);

/* Uncharges a block (blocks == 1), or what it shrank by (blocks == 0). */
void uncharge_objcg(struct cpu *cpu, uint32_t id, enum domain domain, size_t bytes, int blocks);

/* Gives back what is in stock. Caller uses the cpu and is not in a section. */
void stock_drain_all(struct cpu *cpu);
void stock_drain_subtree(struct cpu *cpu, const struct mem_cgroup *root);
void stock_drain_dying(struct cpu *cpu);

/*
 * A hook for the binding: other cpus whose lock the caller can take at once
 * get the same chance to give back stocks of a group that is full.
 */
extern void (*stock_drain_others)(const struct mem_cgroup *root);

#endif
