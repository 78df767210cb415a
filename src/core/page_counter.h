/* Hierarchical counters with limits (after the interface of the kernel's mm/page_counter.c). */
#ifndef OBJCG_PAGE_COUNTER_H
#define OBJCG_PAGE_COUNTER_H

#include "region.h"

/*
 * A small allocation is let through above `max`, since CPython does not survive
 * the failure of every small allocation; the task is interrupted instead.  The
 * ceiling bounds how far that can go: an eighth of max, and CEILING_CONSTANT.  A
 * max that is set below what is in use finds the group above that ceiling already;
 * until it has been below its max, the ceiling is CEILING_CONSTANT above what it
 * used then.  A max that follows something has a bound that the ceiling never passes,
 * see page_counter_replace_max().
 *
 * The first refusals come CEILING_GRANTS below it, and each lets the next
 * CEILING_GRANT bytes through: CPython 3.11 loses an exception (and reports a
 * SystemError) if memory for a frame object fails while it unwinds.
 */
#define CEILING_SHIFT 3
#define CEILING_CONSTANT ((int64_t)4 << 20)
#define CEILING_GRANT ((int64_t)64 << 10)
#define CEILING_GRANTS ((int64_t)1 << 20)

/* From this size on a charge that would cross memory.max is refused at once. */
#define CHARGE_STRICT ((size_t)32 << 10)

/* BOUND_NONE: no limit refuses (stock.h, charges_forced). */
enum charge_bound { BOUND_MAX, BOUND_CEILING, BOUND_NONE };

/* What a charge met on its way up; memcg ids, 0 for none. */
struct charge_result {
	uint32_t refused; /* the level that was full: nothing was charged */
	uint32_t over;	  /* charged, above this level's max */
	uint32_t high;	  /* charged, above this level's high */
};

int64_t page_counter_ceiling(int64_t max);

/*
 * lowered_from: whole pages, and in the bits below whether max was stored since, and
 * a number that goes up each time.  See prepare_lowering().
 */
#define LOWERED ((int64_t)1)
#define LOWERED_ONE ((int64_t)2)
#define LOWERED_PAGES (~(int64_t)4095)

/* The same for a group that may have been above `max`, its limit, when that was set. */
static inline int64_t memcg_ceiling(const struct mem_cgroup *memcg, int64_t max)
{
	int64_t from = load_relaxed(&memcg->lowered_from) & LOWERED_PAGES;
	int64_t bound = load_relaxed(&memcg->bounded_to);
	int64_t ceiling = page_counter_ceiling(max);

	if (unlikely(from) && from + CEILING_CONSTANT > ceiling)
		ceiling = from + CEILING_CONSTANT;
	return likely(!bound) || bound > ceiling ? ceiling : bound;
}

/* After a refusal at the ceiling: room for the error that it becomes. */
void page_counter_grant(struct mem_cgroup *memcg);

/*
 * Charges `nr` bytes to `memcg` and all above it, or to none of them.  The
 * caller is in a section (cpu.h), so that no record on the way is recycled.
 */
bool page_counter_try_charge(struct mem_cgroup *memcg, int64_t nr, enum charge_bound bound,
			     struct charge_result *result);

/*
 * Notes the usage as a possible peak.  Charges below CHARGE_STRICT do that
 * themselves; larger ones may come to nothing for want of memory, and the peak
 * would keep what nobody ever had.
 */
void page_counter_peak(struct mem_cgroup *memcg);

/* Gives `nr` bytes back to `memcg` and all above it. Caller is in a section. */
void page_counter_uncharge(struct mem_cgroup *memcg, int64_t nr);

/*
 * Sets memory.max and returns the usage seen after it: whoever charges at the
 * same time either meets the new limit or is in the usage returned.
 */
int64_t page_counter_set_max(struct mem_cgroup *memcg, int64_t max);

/*
 * For a limit that follows something: sets memory.max if it still is `old`, as
 * whoever has set another meanwhile, in this process or from outside, meant it.
 * `bound` is where the ceiling ends in any case, COUNTER_UNSET for nowhere.
 * What a task was granted above the limit stays granted, or each change would
 * interrupt the task anew while it handles its error.  Returns whether it was set.
 */
bool page_counter_replace_max(struct mem_cgroup *memcg, int64_t old, int64_t max, int64_t bound);

/* The ceiling is that of the limit alone again: whoever set it did so by hand. */
void page_counter_unbound(struct mem_cgroup *memcg);

#endif
