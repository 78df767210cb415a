/*
 * A variant as the lab's loops see it: the core's fast path, or what the
 * variant's header (-include) has put in its place, and the few other steps
 * that a variant may replace.  Each default is what the shipped core does.
 */
#ifndef OBJCG_LAB_VARIANT_H
#define OBJCG_LAB_VARIANT_H

#include "kmem.h"
#include "lab.h"
#include "memcg.h"
#include "task.h"

/*
 * What the caller of the fast path has at hand, as the hooks of the binding
 * have: read anew for each allocation.
 */
struct lab_cache {
	struct cpu *volatile cpu;
	struct task *volatile task;
	volatile uint32_t reference; /* of the task, for the variant that has it constant */
};

/* Where an implementation needs "this cpu" and is not told: the kernel's this_cpu. */
extern _Thread_local struct cpu *lab_cpu;

#ifndef VARIANT_FLAGS
#define VARIANT_FLAGS (LAB_CHARGES | LAB_MIGRATES | LAB_TASKS)
#endif

#ifndef VARIANT_INIT
static inline void variant_init(void)
{
}
#endif

/* From the cache to a block of a small class, or NULL: as the hook does it. */
#ifndef VARIANT_CACHE
static inline void *variant_alloc(const struct lab_cache *cache, size_t size)
{
	return kmem_alloc_fast(cache->cpu, cache->task, DOMAIN_OBJECT, size);
}
#endif

#ifndef VARIANT_SLOW
static inline void *variant_alloc_slow(struct cpu *cpu, struct task *task, size_t size)
{
	struct charge_result result = {0, 0, 0};

	return kmem_alloc(cpu, task, DOMAIN_OBJECT, size, false, &result);
}

static inline void variant_free_slow(struct cpu *cpu, void *p)
{
	kmem_free(cpu, DOMAIN_OBJECT, p);
}
#endif

#ifndef VARIANT_FREE
static inline bool variant_free(struct cpu *cpu, void *p)
{
	return in_slab_range(p) && kmem_free_fast(cpu, DOMAIN_OBJECT, p);
}
#endif

/* After task_alloc(), with no lock held. */
#ifndef VARIANT_FORK
static inline void variant_fork(struct cpu *cpu, struct task *parent, struct task *child)
{
	(void)cpu;
	(void)parent;
	(void)child;
}
#endif

/* Before task_free(), by the only one who still has the task. */
#ifndef VARIANT_EXIT
static inline void variant_exit(struct cpu *cpu, struct task *task)
{
	(void)cpu;
	(void)task;
}
#endif

/* References to an objcg, from blocks and tasks together. At a quiet moment. */
#ifndef VARIANT_REFERENCES
static inline int64_t variant_references(uint32_t id)
{
	(void)id;
	return 0;
}
#endif

void *lab_alloc_slow(const struct lab_cache *cache, size_t size);
void lab_free_slow(struct cpu *cpu, void *p);

static inline void *lab_alloc(const struct lab_cache *cache, size_t size)
{
	void *p = variant_alloc(cache, size);

	return likely(p) ? p : lab_alloc_slow(cache, size);
}

static inline void lab_free(const struct lab_cache *cache, void *p)
{
	struct cpu *cpu = cache->cpu;

	if (unlikely(!variant_free(cpu, p)))
		lab_free_slow(cpu, p);
}

/* The task that allocates from here on. */
static inline void lab_switch(struct lab_cache *cache, struct task *task)
{
	cache->task = task;
#ifdef VARIANT_CACHE
	cache->reference = load_relaxed(&task->objcg);
#endif
}

/* A task as a child of `parent`, and its end. NULL: no room. */
struct task *lab_fork(struct cpu *cpu, struct task *parent);
void lab_exit(struct cpu *cpu, struct task *task);

/* Makes `task` one of the group's. Returns 0 or -errno. */
int lab_move(struct task *task, struct mem_cgroup *memcg);

/* The timed part of a scenario: nanoseconds per operation, below 0 if there is no memory. */
struct lab_worker {
	struct lab_cache cache;
	struct mem_cgroup *groups[2]; /* the second is a sibling, for moves */
	const struct lab_request *request;
	void **blocks;
	double ns;
};
int lab_time(struct lab_worker *worker);
size_t lab_blocks_needed(const struct lab_request *request);

const char *lab_self_test(void);

#endif
