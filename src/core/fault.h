/*
 * Refusing charges on purpose, for tests alone: the nth charge of a subtree fails
 * as if there were no memory, once or from then on.
 *
 * The fast path knows nothing of it.  While a subtree is armed its objcgs have no
 * stock, as those of a group over its max have none: so each charge of it is one
 * that needs the slow path, where the charges are counted.
 */
#ifndef OBJCG_FAULT_H
#define OBJCG_FAULT_H

#include "memcg.h"

struct fault_counts {
	int64_t charges; /* of the armed subtree, those refused among them */
	int64_t refused; /* or made all the same (charges_forced) */
};

extern _Atomic uint32_t fault_group; /* memcg id; 0: none, and nothing is looked at */

/* Whether this objcg's charges are counted. In a section. */
static inline bool fault_covers(const struct obj_cgroup *objcg)
{
	uint32_t group = load_relaxed(&fault_group);

	return unlikely(group) &&
	       memcg_is_descendant(obj_cgroup_memcg(objcg), memcg_from_id(group));
}

/* Counts a charge that is covered; true: it is to be refused. */
bool fault_refuses(void);

/*
 * From here on; `nth` counts from 1, 0 refuses none.  Whoever arms drains the
 * stocks of the subtree then: what stays in one, because its cpu is in use, is used
 * up uncounted.  One subtree at a time.  Should the group be removed while armed,
 * its id may become another's, and that one's charges are counted: no more.
 */
void fault_arm(const struct mem_cgroup *memcg, int64_t nth, bool for_good);

/* Stops it. Returns what was counted since fault_arm(). */
struct fault_counts fault_disarm(void);

#endif
