#include "knobs.h"

#include <errno.h>

static void write_knobs(struct mem_cgroup *memcg, const struct knobs *knobs)
{
	if (knobs->low != KNOB_KEEP)
		store_seq_cst(&memcg->memory.low, knobs->low);
	if (knobs->high != KNOB_KEEP)
		store_seq_cst(&memcg->memory.high, knobs->high);
	/* Whoever charges at the same time meets it, or was there before: page_counter_try_charge() */
	if (knobs->max != KNOB_KEEP)
		page_counter_set_max(memcg, knobs->max);
}

static void take_back(_Atomic int64_t *knob, int64_t ours, int64_t unset)
{
	if (ours != KNOB_KEEP)
		cas_acq_rel(knob, &ours, unset);
}

/*
 * Races with memcg_remove() and memcg_create() in the process whose region it
 * is: between the look at the uid and the store, the record may have become
 * another group's.  The removal of the first one has changed seq long before the
 * record was prepared for the next (tree_lock was released in between), so who
 * stores into the new group finds seq changed, and takes the store back.
 *
 * The harm is bounded by the time between two of our instructions, or for how
 * long we are descheduled there: so long the new group may be refused a charge
 * by a limit that is not its own.  One that itself sets the very same number
 * in that time loses it.  tests/core/test_knobs.c makes it happen.
 */
int memcg_set_knobs_from_outside(struct mem_cgroup *memcg, uint64_t uid, const struct knobs *knobs)
{
	uint32_t seq = load_acquire(&memcg->seq);

	if (seq & 1)
		return -EAGAIN;
	if (load_acquire(&memcg->state) != MEMCG_ONLINE || memcg->uid != uid)
		return -ENODEV;
	write_knobs(memcg, knobs);
	if (load_seq_cst(&memcg->seq) == seq)
		return 0;
	take_back(&memcg->memory.max, knobs->max, COUNTER_UNSET);
	take_back(&memcg->memory.high, knobs->high, COUNTER_UNSET);
	take_back(&memcg->memory.low, knobs->low, 0);
	return -ENODEV;
}
