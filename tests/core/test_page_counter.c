/*
 * The hierarchical counter: what is charged is charged to every level or to
 * none; a limit set at the same time as a charge is met by one of the two.
 */
#include "check_that.h"

#define KIB ((int64_t)1 << 10)

static struct charge_result last;

static bool charge_bytes(struct mem_cgroup *memcg, int64_t nr, enum charge_bound bound)
{
	memset(&last, 0, sizeof(last));
	return page_counter_try_charge(memcg, nr, bound, &last);
}

static void set_max(struct mem_cgroup *memcg, int64_t max)
{
	page_counter_set_max(memcg, max);
}

static void check_usage(struct mem_cgroup *leaf, struct mem_cgroup *middle, int64_t expected_leaf,
			int64_t expected_middle, int64_t expected_root)
{
	check_equal(usage_of(leaf), expected_leaf);
	check_equal(usage_of(middle), expected_middle);
	check_equal(usage_of(root_memcg()), expected_root);
}

static void a_charge_counts_at_every_level_and_an_uncharge_takes_it_back(void)
{
	struct mem_cgroup *middle = group_new(root_memcg());
	struct mem_cgroup *leaf = group_new(middle);

	check_that(charge_bytes(leaf, 100, BOUND_MAX));
	check_that(charge_bytes(middle, 30, BOUND_MAX));
	check_usage(leaf, middle, 100, 130, 130);
	page_counter_uncharge(leaf, 100);
	page_counter_uncharge(middle, 30);
	check_usage(leaf, middle, 0, 0, 0);
}

static void a_refused_charge_leaves_nothing_and_names_the_level(void)
{
	struct mem_cgroup *middle = group_new(root_memcg());
	struct mem_cgroup *leaf = group_new(middle);

	set_max(middle, 100);
	check_that(charge_bytes(leaf, 60, BOUND_MAX));
	check_that(!charge_bytes(leaf, 41, BOUND_MAX));
	check_equal(last.refused, memcg_id(middle));
	check_equal(last.over, 0);
	check_usage(leaf, middle, 60, 60, 60);

	set_max(leaf, 70);
	check_that(!charge_bytes(leaf, 41, BOUND_MAX));
	check_equal(last.refused, memcg_id(leaf));
	check_usage(leaf, middle, 60, 60, 60);

	set_max(leaf, COUNTER_UNSET);
	set_max(root_memcg(), 70);
	check_that(!charge_bytes(leaf, 11, BOUND_MAX));
	check_equal(last.refused, MEMCG_ROOT);
	check_usage(leaf, middle, 60, 60, 60);
	check_that(charge_bytes(leaf, 10, BOUND_MAX));
	set_max(root_memcg(), COUNTER_UNSET);
	page_counter_uncharge(leaf, 70);
	check_usage(leaf, middle, 0, 0, 0);
}

static void max_is_met_exactly(void)
{
	struct mem_cgroup *memcg = group_new(root_memcg());

	set_max(memcg, 0);
	check_that(!charge_bytes(memcg, 1, BOUND_MAX));
	set_max(memcg, 4096);
	check_that(!charge_bytes(memcg, 4097, BOUND_MAX));
	check_that(charge_bytes(memcg, 4096, BOUND_MAX));
	check_that(!charge_bytes(memcg, 1, BOUND_MAX));
	check_equal(usage_of(memcg), 4096);
	page_counter_uncharge(memcg, 4096);
}

static void the_ceiling_is_an_eighth_and_4_mib_above_max(void)
{
	struct mem_cgroup *memcg = group_new(root_memcg());
	int64_t max = 8000 * KIB;
	int64_t ceiling = max + 1000 * KIB + 4096 * KIB;
	int64_t first = ceiling - CEILING_GRANTS;

	check_equal(page_counter_ceiling(max), ceiling);
	check_equal(page_counter_ceiling(0), 4096 * KIB);
	check_equal(page_counter_ceiling(COUNTER_UNSET), COUNTER_UNSET);
	check_equal(page_counter_ceiling(COUNTER_UNSET - 1), COUNTER_UNSET);

	set_max(memcg, max);
	check_that(charge_bytes(memcg, max, BOUND_CEILING));
	check_equal(last.over, 0);
	check_that(charge_bytes(memcg, 16, BOUND_CEILING));
	check_equal(last.over, memcg_id(memcg));
	check_equal(last.refused, 0);
	check_that(charge_bytes(memcg, first - max - 16, BOUND_CEILING));
	check_that(!charge_bytes(memcg, 1, BOUND_CEILING));
	check_equal(last.refused, memcg_id(memcg));
	check_equal(usage_of(memcg), first);
	page_counter_uncharge(memcg, first);
}

static void each_grant_lets_a_little_more_through_up_to_the_ceiling(void)
{
	struct mem_cgroup *memcg = group_new(root_memcg());
	int64_t max = 8000 * KIB;
	int64_t ceiling = page_counter_ceiling(max);
	int64_t at = ceiling - CEILING_GRANTS;

	set_max(memcg, max);
	check_that(charge_bytes(memcg, at, BOUND_CEILING));
	for (; at < ceiling; at += CEILING_GRANT) {
		check_that(!charge_bytes(memcg, 1, BOUND_CEILING));
		page_counter_grant(memcg);
		check_that(!charge_bytes(memcg, CEILING_GRANT + 1, BOUND_CEILING));
		check_that(!charge_bytes(memcg, 1, BOUND_MAX)); /* for small blocks only */
		check_that(charge_bytes(memcg, CEILING_GRANT, BOUND_CEILING));
	}
	check_equal(at, ceiling);
	page_counter_grant(memcg);
	check_that(!charge_bytes(memcg, 1, BOUND_CEILING));

	/* Back under max, what was granted is over. */
	page_counter_uncharge(memcg, ceiling);
	check_that(charge_bytes(memcg, max, BOUND_MAX));
	check_that(charge_bytes(memcg, ceiling - CEILING_GRANTS - max, BOUND_CEILING));
	check_that(!charge_bytes(memcg, 1, BOUND_CEILING));
	page_counter_uncharge(memcg, usage_of(memcg));
}

/* What was granted under one max must not lift the ceiling of a lower one. */
static void a_lower_max_has_a_lower_ceiling_also_after_a_grant(void)
{
	struct mem_cgroup *memcg = group_new(root_memcg());
	int64_t max = 800000 * KIB;

	set_max(memcg, max);
	check_that(charge_bytes(memcg, page_counter_ceiling(max) - CEILING_GRANTS, BOUND_CEILING));
	check_that(!charge_bytes(memcg, 1, BOUND_CEILING));
	page_counter_grant(memcg);
	page_counter_uncharge(memcg, usage_of(memcg) - 200 * KIB);
	set_max(memcg, 100 * KIB);
	check_that(!charge_bytes(memcg, page_counter_ceiling(100 * KIB) - usage_of(memcg) + 1,
				 BOUND_CEILING));
	page_counter_uncharge(memcg, usage_of(memcg));
}

/* Small allocations go on, or CPython would not live to see its tasks interrupted. */
static void a_max_set_below_the_usage_has_its_ceiling_above_that(void)
{
	struct mem_cgroup *memcg = group_new(root_memcg());
	int64_t max = 1024 * KIB;
	int64_t usage = 20480 * KIB;
	int64_t ceiling = usage + CEILING_CONSTANT;

	check_that(charge_bytes(memcg, usage, BOUND_MAX));
	set_max(memcg, max);
	check_that(!charge_bytes(memcg, 1, BOUND_MAX));
	check_that(charge_bytes(memcg, CEILING_CONSTANT - CEILING_GRANTS, BOUND_CEILING));
	check_that(!charge_bytes(memcg, 1, BOUND_CEILING));
	page_counter_grant(memcg);
	check_that(charge_bytes(memcg, CEILING_GRANT, BOUND_CEILING));
	/* Set again, and to something else, it does not climb ... */
	set_max(memcg, max);
	set_max(memcg, 2 * max);
	set_max(memcg, max);
	check_that(!charge_bytes(memcg, ceiling - usage_of(memcg) + 1, BOUND_CEILING));
	/* ... but comes down with what is used when it is set. */
	page_counter_uncharge(memcg, usage_of(memcg) - usage / 2);
	set_max(memcg, max);
	check_that(!charge_bytes(memcg, CEILING_CONSTANT + 1, BOUND_CEILING));
	check_that(charge_bytes(memcg, CEILING_CONSTANT - CEILING_GRANTS, BOUND_CEILING));
	/* Once below its max the group has the ceiling of that. */
	page_counter_uncharge(memcg, usage_of(memcg));
	check_that(charge_bytes(memcg, max, BOUND_MAX));
	check_that(!charge_bytes(memcg, page_counter_ceiling(max) - max + 1, BOUND_CEILING));
	page_counter_uncharge(memcg, usage_of(memcg));
}

static void over_names_the_lowest_level_that_is_over(void)
{
	struct mem_cgroup *middle = group_new(root_memcg());
	struct mem_cgroup *leaf = group_new(middle);

	set_max(middle, 100);
	set_max(leaf, 200);
	check_that(charge_bytes(leaf, 150, BOUND_CEILING));
	check_equal(last.over, memcg_id(middle));
	check_that(charge_bytes(leaf, 100, BOUND_CEILING));
	check_equal(last.over, memcg_id(leaf));
	page_counter_uncharge(leaf, 250);
}

static void an_exempt_group_is_not_over_until_it_leaves_the_exemption(void)
{
	struct mem_cgroup *memcg = group_new(root_memcg());

	set_max(memcg, 100);
	store_relaxed(&memcg->exempt_until, 150);
	check_that(charge_bytes(memcg, 150, BOUND_MAX));
	check_equal(last.over, 0);
	check_that(!charge_bytes(memcg, 1, BOUND_MAX));
	check_that(charge_bytes(memcg, 1, BOUND_CEILING));
	check_equal(last.over, memcg_id(memcg));
	check_equal(load_relaxed(&memcg->exempt_until), 150);

	/* Back under max, the exemption is over. */
	page_counter_uncharge(memcg, 151);
	check_that(charge_bytes(memcg, 50, BOUND_MAX));
	check_equal(load_relaxed(&memcg->exempt_until), 0);
	check_that(!charge_bytes(memcg, 51, BOUND_MAX));
	page_counter_uncharge(memcg, 50);
}

static void high_is_reported_and_refuses_nothing(void)
{
	struct mem_cgroup *middle = group_new(root_memcg());
	struct mem_cgroup *leaf = group_new(middle);

	store_relaxed(&middle->memory.high, 100);
	check_that(charge_bytes(leaf, 100, BOUND_MAX));
	check_equal(last.high, 0);
	check_that(charge_bytes(leaf, 1, BOUND_MAX));
	check_equal(last.high, memcg_id(middle));
	check_equal(last.over, 0);
	page_counter_uncharge(leaf, 101);
}

static void the_peak_is_the_most_that_was_used_at_each_level(void)
{
	struct mem_cgroup *middle = group_new(root_memcg());
	struct mem_cgroup *leaf = group_new(middle);
	struct mem_cgroup *other = group_new(middle);

	check_that(charge_bytes(leaf, 300, BOUND_MAX));
	page_counter_uncharge(leaf, 200);
	check_that(charge_bytes(other, 150, BOUND_MAX));
	check_equal(load_relaxed(&leaf->memory.watermark), 300);
	check_equal(load_relaxed(&other->memory.watermark), 150);
	check_equal(load_relaxed(&middle->memory.watermark), 300);
	check_that(charge_bytes(other, 60, BOUND_MAX));
	check_equal(load_relaxed(&middle->memory.watermark), 310);
	page_counter_uncharge(leaf, 100);
	page_counter_uncharge(other, 210);
}

/* --- threads ------------------------------------------------------------- */

/*
 * One charge and one set_max race, over and over.  If the charger was let
 * through by the old limit, the writer must have seen its bytes.
 */
#define ROUNDS (UNDER_TSAN ? 20000 : 200000)
#define LIMIT 1000

static struct mem_cgroup *contended;
static pthread_barrier_t round_begins;
static pthread_barrier_t round_ends;
static _Atomic int arrived;
static bool charged;
static uint64_t nr_refused;

/* A barrier lets one thread go long before the other; this, within a few cycles. */
static void meet(int round)
{
	fetch_add_seq_cst(&arrived, 1);
	for (unsigned spins = 0; load_acquire(&arrived) < 2 * (round + 1); spins++)
		if (spins > 10000)
			sched_yield();
}

static void *charger(void *arg)
{
	uint64_t state = *(uint64_t *)arg;

	for (int round = 0; round < ROUNDS; round++) {
		struct charge_result result = {0, 0, 0};

		meet(round);
		for (uint32_t i = random_below(&state, 32); i; i--)
			__asm__ volatile("");
		charged = page_counter_try_charge(contended, LIMIT + 1, BOUND_MAX, &result);
		pthread_barrier_wait(&round_ends);
		pthread_barrier_wait(&round_begins);
	}
	return NULL;
}

static void a_charge_meets_the_new_max_or_the_writer_sees_the_charge(uint64_t seed)
{
	pthread_t thread;
	uint64_t state = seed;
	uint64_t charger_state = seed + 1;

	contended = group_new(root_memcg());
	pthread_barrier_init(&round_begins, NULL, 2);
	pthread_barrier_init(&round_ends, NULL, 2);
	pthread_create(&thread, NULL, charger, &charger_state);
	for (int round = 0; round < ROUNDS; round++) {
		int64_t seen;

		meet(round);
		for (uint32_t i = random_below(&state, 32); i; i--)
			__asm__ volatile("");
		seen = page_counter_set_max(contended, LIMIT);
		pthread_barrier_wait(&round_ends);
		if (charged)
			check_equal(seen, LIMIT + 1);
		else
			nr_refused++;
		check_equal(usage_of(contended), charged ? LIMIT + 1 : 0);
		if (charged)
			page_counter_uncharge(contended, LIMIT + 1);
		set_max(contended, COUNTER_UNSET);
		pthread_barrier_wait(&round_begins);
	}
	pthread_join(thread, NULL);
	/* The two outcomes must both have happened, or nothing raced. */
	check_compare(nr_refused, >, 0);
	check_compare(nr_refused, <, ROUNDS);
}

#define NR_CHARGERS 4
#define CHARGES (UNDER_TSAN ? 30000 : 300000)

static struct mem_cgroup *top;
static struct mem_cgroup *leaves[NR_CHARGERS];
static int64_t held[NR_CHARGERS];

static void *charge_and_uncharge(void *arg)
{
	uint64_t *state = arg;
	unsigned me = (unsigned)*state % NR_CHARGERS;
	/* Two threads share each of the leaves. */
	struct mem_cgroup *leaf = leaves[me / 2];
	int64_t mine = 0;

	for (int i = 0; i < CHARGES; i++) {
		struct charge_result result = {0, 0, 0};
		int64_t nr = 16 * (1 + (int64_t)random_below(state, 64));

		if (random_below(state, 2) &&
		    page_counter_try_charge(leaf, nr, BOUND_MAX, &result)) {
			mine += nr;
		} else if (mine >= nr) {
			page_counter_uncharge(leaf, nr);
			mine -= nr;
		}
		/* Refused ones pass through usage, but what was let in is never above max. */
		check_compare(load_relaxed(&top->memory.watermark), <=, 16 * KIB);
	}
	held[me] = mine;
	return NULL;
}

static void concurrent_charges_add_up_at_every_level(uint64_t seed)
{
	pthread_t threads[NR_CHARGERS];
	uint64_t states[NR_CHARGERS];
	int64_t sum = 0;
	int64_t before = usage_of(root_memcg());

	top = group_new(root_memcg());
	set_max(top, 16 * KIB);
	for (unsigned i = 0; i < 2; i++)
		leaves[i] = group_new(top);
	for (unsigned i = 0; i < NR_CHARGERS; i++) {
		states[i] = seed * NR_CHARGERS + i;
		pthread_create(&threads[i], NULL, charge_and_uncharge, &states[i]);
	}
	for (unsigned i = 0; i < NR_CHARGERS; i++)
		pthread_join(threads[i], NULL);
	check_equal(usage_of(leaves[0]), held[0] + held[1]);
	check_equal(usage_of(leaves[1]), held[2] + held[3]);
	for (unsigned i = 0; i < NR_CHARGERS; i++)
		sum += held[i];
	check_equal(usage_of(top), sum);
	check_equal(usage_of(root_memcg()) - before, sum);
	check_compare(sum, <=, 16 * KIB);
}

static void a_max_is_replaced_if_it_is_what_it_was_thought_to_be(void)
{
	struct mem_cgroup *memcg = group_new(root_memcg());

	check_that(page_counter_replace_max(memcg, COUNTER_UNSET, 4096, COUNTER_UNSET));
	check_equal(load_relaxed(&memcg->memory.max), 4096);
	check_that(!page_counter_replace_max(memcg, COUNTER_UNSET, 100, COUNTER_UNSET));
	check_equal(load_relaxed(&memcg->memory.max), 4096);
	check_that(!charge_bytes(memcg, 4097, BOUND_MAX));
	check_that(page_counter_replace_max(memcg, 4096, 8192, COUNTER_UNSET));
	check_that(charge_bytes(memcg, 4097, BOUND_MAX));
	page_counter_uncharge(memcg, 4097);
	/* What a task may use to handle its error is still its. */
	store_relaxed(&memcg->exempt_until, 9000);
	check_that(page_counter_replace_max(memcg, 8192, 8000, COUNTER_UNSET));
	check_that(charge_bytes(memcg, 9000, BOUND_CEILING));
	check_equal(last.over, 0);
	page_counter_uncharge(memcg, 9000);
	check_that(page_counter_replace_max(memcg, 8000, COUNTER_UNSET, COUNTER_UNSET));
}

static void a_max_that_follows_something_has_a_bound_that_the_ceiling_never_passes(void)
{
	struct mem_cgroup *memcg = group_new(root_memcg());
	int64_t max = 8000 * KIB;
	int64_t bound = 10000 * KIB;
	int64_t first = bound - CEILING_GRANTS;

	check_that(page_counter_replace_max(memcg, COUNTER_UNSET, max, bound));
	check_equal(memcg_ceiling(memcg, max), bound);
	check_that(charge_bytes(memcg, first, BOUND_CEILING));
	check_that(!charge_bytes(memcg, 1, BOUND_CEILING));
	for (int64_t usage = first; usage < bound; usage += CEILING_GRANT) {
		page_counter_grant(memcg);
		check_that(charge_bytes(memcg, CEILING_GRANT, BOUND_CEILING));
		check_that(!charge_bytes(memcg, 1, BOUND_CEILING));
	}
	page_counter_grant(memcg);
	check_that(!charge_bytes(memcg, 1, BOUND_CEILING));
	check_equal(usage_of(memcg), bound);
	page_counter_uncharge(memcg, bound);
	/* One beyond the ceiling lifts nothing. */
	check_that(page_counter_replace_max(memcg, max, max, COUNTER_UNSET - 1));
	check_equal(memcg_ceiling(memcg, max), page_counter_ceiling(max));
	/* A max that somebody else has set in between has no bound, nor has one that is set. */
	set_max(memcg, max + 16);
	check_that(!page_counter_replace_max(memcg, max, max, bound));
	check_equal(memcg_ceiling(memcg, max), page_counter_ceiling(max));
	check_that(page_counter_replace_max(memcg, max + 16, max, bound));
	set_max(memcg, max);
	check_compare(memcg_ceiling(memcg, max), >, bound);
	check_that(page_counter_replace_max(memcg, max, max, bound));
	page_counter_unbound(memcg);
	check_compare(memcg_ceiling(memcg, max), >, bound);
}

int main(void)
{
	uint64_t seed = test_seed();

	core_start();
	a_charge_counts_at_every_level_and_an_uncharge_takes_it_back();
	a_refused_charge_leaves_nothing_and_names_the_level();
	max_is_met_exactly();
	the_ceiling_is_an_eighth_and_4_mib_above_max();
	each_grant_lets_a_little_more_through_up_to_the_ceiling();
	a_lower_max_has_a_lower_ceiling_also_after_a_grant();
	a_max_set_below_the_usage_has_its_ceiling_above_that();
	over_names_the_lowest_level_that_is_over();
	an_exempt_group_is_not_over_until_it_leaves_the_exemption();
	high_is_reported_and_refuses_nothing();
	a_max_is_replaced_if_it_is_what_it_was_thought_to_be();
	a_max_that_follows_something_has_a_bound_that_the_ceiling_never_passes();
	the_peak_is_the_most_that_was_used_at_each_level();
	a_charge_meets_the_new_max_or_the_writer_sees_the_charge(seed);
	concurrent_charges_add_up_at_every_level(seed);
	return 0;
}
