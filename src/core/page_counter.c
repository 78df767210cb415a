#include "page_counter.h"

int64_t page_counter_ceiling(int64_t max)
{
	int64_t slack = (max >> CEILING_SHIFT) + CEILING_CONSTANT;

	return max > COUNTER_UNSET - slack ? COUNTER_UNSET : max + slack;
}

/* The most that this level may hold after a charge. */
static int64_t bound_of(struct mem_cgroup *memcg, enum charge_bound bound)
{
	/* seq_cst: pairs with page_counter_set_max() */
	int64_t max = load_seq_cst(&memcg->memory.max);
	int64_t ceiling;
	int64_t exempt;

	if (likely(max == COUNTER_UNSET) || unlikely(bound == BOUND_NONE))
		return COUNTER_UNSET;
	if (bound == BOUND_CEILING) {
		int64_t granted = load_relaxed(&memcg->granted_until);

		ceiling = memcg_ceiling(memcg, max);
		if (granted > ceiling)
			return ceiling; /* granted under a higher max */
		return granted > ceiling - CEILING_GRANTS ? granted : ceiling - CEILING_GRANTS;
	}
	/* Above the ceiling it is of a max that another process has lowered since. */
	exempt = load_relaxed(&memcg->exempt_until);
	if (likely(exempt <= max))
		return max;
	ceiling = memcg_ceiling(memcg, max);
	return exempt < ceiling ? exempt : ceiling;
}

/*
 * The peak counts stocks: it is never below the most that was ever in use, and
 * above it by no more than the stocks of the subtree (stock.h).
 */
static void raise_watermark(struct page_counter *counter, int64_t usage)
{
	int64_t seen = load_relaxed(&counter->watermark);

	while (usage > seen && !cas_weak_relaxed(&counter->watermark, &seen, usage))
		;
}

static void forget_grants(struct mem_cgroup *memcg)
{
	store_relaxed(&memcg->exempt_until, 0);
	store_relaxed(&memcg->granted_until, 0);
}

/* See prepare_lowering(). */
static void forget_lowering(struct mem_cgroup *memcg, int64_t from)
{
	if (from & LOWERED)
		cas_acq_rel(&memcg->lowered_from, &from, from & ~LOWERED_PAGES & ~LOWERED);
}

/*
 * The first level that has no room for a large charge.  What is added below only to be
 * taken back again is in the way of whoever charges meanwhile: in a group with room for
 * a GiB every small charge of its other threads would fail, at the ceiling, while one of
 * them asks for a TiB that it does not get.  So a large charge looks first, at all levels,
 * and is added if it would have fitted.  Two of them may both think so: one is then in the
 * way for a moment by no more than what would have fitted alone.
 * (scenario hopeless-charge of tests/explore)
 */
static struct mem_cgroup *full_for_large(struct mem_cgroup *memcg, int64_t nr,
					 enum charge_bound bound)
{
	for (; memcg; memcg = parent_mem_cgroup(memcg))
		if (load_relaxed(&memcg->memory.usage) > bound_of(memcg, bound) - nr)
			break;
	return memcg;
}

/*
 * Adds first and compares then: two chargers can both be refused where one of
 * them would have fitted (each sees the other's bytes), but never both let
 * through where only one fits.
 *
 * Races with page_counter_set_max() in another thread or process: both sides
 * are sequentially consistent, add-then-load-max here and store-max-then-load-
 * usage there, so at least one sees the other.  tests/core/test_page_counter.c
 * runs the two against each other, scenario charge-set-max of tests/explore takes
 * all orders.
 */
bool page_counter_try_charge(struct mem_cgroup *memcg, int64_t nr, enum charge_bound bound,
			     struct charge_result *result)
{
	struct mem_cgroup *level;
	struct mem_cgroup *undo = memcg;

	if (nr >= (int64_t)CHARGE_STRICT) {
		level = full_for_large(memcg, nr, bound);
		if (unlikely(level))
			goto refused;
	}
	for (level = memcg; level; level = parent_mem_cgroup(level)) {
		struct page_counter *counter = &level->memory;
		int64_t usage = fetch_add_seq_cst(&counter->usage, nr) + nr;
		int64_t from;
		int64_t max;

		if (unlikely(usage > bound_of(level, bound)))
			goto undo;
		/* Before max: see prepare_lowering() */
		from = load_acquire(&level->lowered_from);
		max = load_relaxed(&counter->max);
		if (unlikely(usage > max) && !result->over &&
		    usage > load_relaxed(&level->exempt_until))
			result->over = memcg_id(level);
		if (unlikely((from & LOWERED) | load_relaxed(&level->exempt_until) |
			     load_relaxed(&level->granted_until)) &&
		    usage <= max) {
			forget_grants(level);
			forget_lowering(level, from);
		}
		if (unlikely(usage > load_relaxed(&counter->high)) && !result->high)
			result->high = memcg_id(level);
		if (nr < (int64_t)CHARGE_STRICT)
			raise_watermark(counter, usage);
	}
	return true;

undo:
	/* The watermarks below keep the attempt: a peak too high by less than CHARGE_STRICT. */
	for (; undo != level; undo = parent_mem_cgroup(undo))
		fetch_add_relaxed(&undo->memory.usage, -nr);
	fetch_add_relaxed(&level->memory.usage, -nr);
refused:
	result->refused = memcg_id(level);
	result->over = 0;
	result->high = 0;
	return false;
}

void page_counter_grant(struct mem_cgroup *memcg)
{
	int64_t until = load_relaxed(&memcg->memory.usage) + CEILING_GRANT;
	int64_t ceiling = memcg_ceiling(memcg, load_relaxed(&memcg->memory.max));

	store_relaxed(&memcg->granted_until, until < ceiling ? until : ceiling);
}

void page_counter_peak(struct mem_cgroup *memcg)
{
	for (; memcg; memcg = parent_mem_cgroup(memcg))
		raise_watermark(&memcg->memory, load_relaxed(&memcg->memory.usage));
}

void page_counter_uncharge(struct mem_cgroup *memcg, int64_t nr)
{
	for (; memcg; memcg = parent_mem_cgroup(memcg))
		fetch_add_relaxed(&memcg->memory.usage, -nr);
}

/*
 * Before max is stored, so that who meets the new one has the ceiling for it: else
 * every small allocation would fail at once, and CPython with it.  What is charged
 * in between, and not seen here, is a batch for each cpu at most, less than the
 * CEILING_CONSTANT above.
 *
 * A charge that finds the group below its max takes it back.  It may have read the
 * max from before.  So it takes back only what is marked LOWERED, which it is after
 * max was stored: who reads the mark first and max then has the new one.  And only what
 * it has read: each setting has another number (of 2048, and who stood still for so
 * many may have one small charge refused).  Of two who set max at the same time the one
 * may have its mark taken back by the max of the other, until it sets it a moment later.
 * One who is killed in between leaves a ceiling that is too high until max is set again.
 * (tests/core/test_page_counter.c, scenario charge-lower-max of tests/explore)
 */
static int64_t prepare_lowering(struct mem_cgroup *memcg, int64_t max)
{
	int64_t usage = load_relaxed(&memcg->memory.usage);
	int64_t before = load_relaxed(&memcg->lowered_from);
	int64_t from = before & LOWERED_PAGES;

	if (usage <= max)
		return 0;
	/* Not again from higher up, or the group would climb with each setting of max. */
	if (!from || usage < from)
		from = (usage + ~LOWERED_PAGES) & LOWERED_PAGES;
	from |= (before + LOWERED_ONE) & ~LOWERED_PAGES & ~LOWERED;
	store_relaxed(&memcg->lowered_from, from);
	return from | LOWERED;
}

int64_t page_counter_set_max(struct mem_cgroup *memcg, int64_t max)
{
	int64_t from;

	/* What was granted above the old limit is no grant above the new one. */
	forget_grants(memcg);
	from = prepare_lowering(memcg, max);
	xchg_seq_cst(&memcg->memory.max, max);
	if (from)
		store_release(&memcg->lowered_from, from);
	page_counter_unbound(memcg); /* after max: see page_counter_replace_max() */
	return load_seq_cst(&memcg->memory.usage);
}

void page_counter_unbound(struct mem_cgroup *memcg)
{
	store_relaxed(&memcg->bounded_to, 0);
}

/*
 * seq_cst, as in page_counter_set_max(): the caller reads the usage next.  A
 * grant above the ceiling of a lower limit is cut by bound_of().  The caller sees
 * to it that neither ceiling nor bound is below what is in use (_budget.py): the
 * container has no room for more.
 *
 * The bound first, so that nobody meets a higher max with the ordinary ceiling.  Who
 * meets it with the old max is bound too early or too late by one measurement.  Two
 * never do this at once (_measuring in _budget.py), but page_counter_set_max() may
 * be called meanwhile: it takes the bound away after it has stored max.  If it stores
 * before our exchange, that fails, and we take the bound away as well; if after, it
 * takes away what we have stored.  From another process a max is stored alone: the
 * bound stays until the next measurement, which fails.  (tests/core/test_page_counter.c,
 * models/limits)
 */
bool page_counter_replace_max(struct mem_cgroup *memcg, int64_t old, int64_t max, int64_t bound)
{
	store_relaxed(&memcg->bounded_to, bound == COUNTER_UNSET ? 0 : bound);
	if (cas_seq_cst(&memcg->memory.max, &old, max))
		return true;
	page_counter_unbound(memcg);
	return false;
}
