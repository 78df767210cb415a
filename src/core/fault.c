#include "fault.h"

_Atomic uint32_t fault_group;

static _Atomic int64_t charges;
static _Atomic int64_t refused;
static _Atomic int64_t first; /* to be refused; 0: none */
static _Atomic bool all_others;

/*
 * Threads with a cpu each come here at once, those with the GIL and those without:
 * each gets a number of its own, so exactly one is the nth.
 */
bool fault_refuses(void)
{
	int64_t number = fetch_add_relaxed(&charges, 1) + 1;
	int64_t nth = load_relaxed(&first);
	bool hit = nth && (number == nth || (number > nth && load_relaxed(&all_others)));

	if (hit)
		fetch_add_relaxed(&refused, 1);
	return hit;
}

void fault_arm(const struct mem_cgroup *memcg, int64_t nth, bool for_good)
{
	store_relaxed(&charges, 0);
	store_relaxed(&refused, 0);
	store_relaxed(&first, nth);
	store_relaxed(&all_others, for_good);
	/* Last: a charge that races with this is one of before, and not counted. */
	store_release(&fault_group, memcg_id(memcg));
}

struct fault_counts fault_disarm(void)
{
	struct fault_counts counts;

	store_release(&fault_group, 0);
	counts.charges = load_relaxed(&charges);
	counts.refused = load_relaxed(&refused);
	return counts;
}
