/* Short words for scenarios, over the public functions of the core. */
#ifndef OBJCG_EXPLORE_CORE_WORDS_H
#define OBJCG_EXPLORE_CORE_WORDS_H

#include "check.h"
#include "kmem.h"
#include "memcg.h"
#include "scenario.h"

#define tell(p, value) explore_tell(EXPLORE_SITE("tell(" #p ")"), (p), (value))
#define told(p) explore_told(EXPLORE_SITE("told(" #p ")"), (p))

#define expect(condition, ...)                                                                     \
	do {                                                                                       \
		if (!(condition))                                                                  \
			explore_fail(__VA_ARGS__);                                                 \
	} while (0)

/* One page holds eight of these: what a slab touches at once is little. */
#define BLOCK ((size_t)512)
/* Above SLAB_BLOCK_MAX; refused at once where max does not let it. */
#define LARGE ((size_t)40000)

/* As many as a scenario may use; each fiber uses the one of its number. */
extern struct cpu *cpus[3];

static inline struct mem_cgroup *root(void)
{
	return memcg_from_id(MEMCG_ROOT);
}

/* For setups. */
void make_cpus(unsigned nr);
struct mem_cgroup *make_group(struct mem_cgroup *parent, const char *name);
struct task *make_task(struct mem_cgroup *memcg);
/* So that its next charge looks its group up. */
void make_flagged(struct task *task);

/* As a hook does it: the fast path, then the slow one. NULL if it is refused. */
void *try_take(struct cpu *cpu, struct task *task, size_t size);
/* One that nothing may refuse. Writes to all of the block, as its user would. */
void *take(struct cpu *cpu, struct task *task, size_t size);
void give(struct cpu *cpu, void *block);

void move(struct task *task, struct mem_cgroup *to);

/* The group a living block is charged to, which must be online. */
struct mem_cgroup *group_of(void *block);
const char *name_of(const struct mem_cgroup *memcg);
bool is_online(const struct mem_cgroup *memcg);

/*
 * What must hold after every execution.  First as it is: the audit, the slabs,
 * the lists of tasks.  Then `blocks` (NULL entries are skipped) are freed, the
 * stocks drained, what can be is recycled; and then nothing may be left.
 */
void check_all(void *const blocks[], unsigned nr);
#define check_rest(blocks) check_all((blocks), sizeof(blocks) / sizeof(*(blocks)))

#endif
