/* Charges, limits, stocks, and what the reclaimer is told. */
#include "core_words.h"

static struct mem_cgroup *a;
static struct mem_cgroup *b;
static struct mem_cgroup *c;
static struct task *tasks[3];
static void *blocks[6];
static int64_t usage_seen;
static int removed;

static void check_usual(void)
{
	check_rest(blocks);
}

static int64_t usage_of(struct mem_cgroup *memcg)
{
	return load_relaxed(&memcg->memory.usage);
}

/* --- a limit is set while somebody charges ------------------------------------- */

static void group_without_limit(void)
{
	make_cpus(1);
	a = make_group(root(), "a");
	tasks[0] = make_task(a);
}

static void large_charger(void)
{
	blocks[0] = try_take(cpus[0], tasks[0], LARGE);
}

static void limiter(void)
{
	usage_seen = page_counter_set_max(a, (int64_t)LARGE / 2);
}

static void check_limit(void)
{
	expect(!blocks[0] || usage_seen >= (int64_t)LARGE,
	       "a charge of %zu was let through, and who set max saw %lld", LARGE,
	       (long long)usage_seen);
	check_rest(blocks);
}

/* --- a limit is set far below the usage while somebody charges -------------------- */

#define MIB ((int64_t)1 << 20)

static int64_t passed[2];

/* It was so before, and the limit has been raised since. */
static void group_above_an_older_limit(void)
{
	struct charge_result result = {0, 0, 0};

	make_cpus(2);
	a = make_group(root(), "a");
	expect(page_counter_try_charge(a, 16 * MIB, BOUND_MAX, &result), "16 MiB were refused");
	page_counter_set_max(a, MIB);
	page_counter_set_max(a, 64 * MIB);
}

static bool charge_16_bytes(struct cpu *cpu)
{
	struct charge_result result = {0, 0, 0};
	bool charged;

	section_enter(cpu);
	charged = page_counter_try_charge(a, 16, BOUND_CEILING, &result);
	if (charged)
		page_counter_uncharge(a, 16);
	section_exit(cpu);
	return charged;
}

static void charger_of_16_bytes(void)
{
	passed[0] = charge_16_bytes(cpus[0]);
	passed[0] &= charge_16_bytes(cpus[0]);
}

static void lowering_limiter(void)
{
	page_counter_set_max(a, MIB);
	passed[1] = charge_16_bytes(cpus[1]);
}

static void check_lowered(void)
{
	expect(passed[0] && passed[1], "a small charge was refused: %d, after max was set: %d",
	       passed[0] == 0, passed[1] == 0);
	page_counter_uncharge(a, 16 * MIB);
	check_rest(blocks);
}

/* --- a charge that fits nowhere beside small ones that do ---------------------------- */

static void group_with_room(void)
{
	make_cpus(2);
	a = make_group(root(), "a");
	b = make_group(a, "b");
	page_counter_set_max(a, MIB);
}

static void hopeless_charger(void)
{
	struct charge_result result = {0, 0, 0};

	section_enter(cpus[1]);
	passed[1] = page_counter_try_charge(b, 16 * MIB, BOUND_MAX, &result);
	section_exit(cpus[1]);
}

static void check_hopeless(void)
{
	expect(!passed[1], "16 MiB were charged within 1 MiB");
	expect(passed[0], "16 bytes were refused within 1 MiB");
	expect(load_relaxed(&a->memory.watermark) < MIB, "the peak is %lld",
	       (long long)load_relaxed(&a->memory.watermark));
	check_rest(blocks);
}

/* --- two charges of which one fits ------------------------------------------------ */

/* a has the limit; the charges come from two and from one levels below. */
static void three_levels(void)
{
	make_cpus(2);
	a = make_group(root(), "a");
	b = make_group(a, "b");
	c = make_group(b, "c");
	tasks[0] = make_task(c);
	tasks[1] = make_task(b);
	page_counter_set_max(a, (int64_t)LARGE + 4096);
}

static void charger_in_c(void)
{
	blocks[0] = try_take(cpus[0], tasks[0], LARGE);
}

static void charger_in_b(void)
{
	blocks[1] = try_take(cpus[1], tasks[1], LARGE);
}

static void check_one_of_two(void)
{
	int64_t nr = (blocks[0] != NULL) + (blocks[1] != NULL);

	expect(nr < 2, "two charges of %zu within %lld", LARGE,
	       (long long)load_relaxed(&a->memory.max));
	expect(usage_of(a) == nr * (int64_t)LARGE, "%lld of them, and usage is %lld", (long long)nr,
	       (long long)usage_of(a));
	expect(usage_of(c) == (blocks[0] ? (int64_t)LARGE : 0), "c is charged %lld",
	       (long long)usage_of(c));
	check_rest(blocks);
}

/* --- small charges at the limit: stocks given back, no stock above it ---------------- */

static void nearly_full(void)
{
	make_cpus(2);
	a = make_group(root(), "a");
	b = make_group(a, "b");
	tasks[0] = make_task(a);
	tasks[1] = make_task(b);
	blocks[2] = take(cpus[0], tasks[0], BLOCK);
	/* Two blocks more would fit, and no batch. */
	stock_drain_all(cpus[0]);
	page_counter_set_max(a, 3 * (int64_t)BLOCK);
}

static void small_charger_in_a(void)
{
	blocks[0] = take(cpus[0], tasks[0], BLOCK);
	give(cpus[0], blocks[0]);
	blocks[0] = take(cpus[0], tasks[0], BLOCK);
}

static void small_charger_in_b(void)
{
	blocks[1] = take(cpus[1], tasks[1], BLOCK);
}

static void check_peak(void)
{
	expect(load_relaxed(&a->memory.watermark) >= 3 * (int64_t)BLOCK, "the peak is %lld",
	       (long long)load_relaxed(&a->memory.watermark));
	check_rest(blocks);
}

/* --- stocks are drained while others free ---------------------------------------------- */

static void blocks_and_stocks(void)
{
	make_cpus(2);
	a = make_group(root(), "a");
	b = make_group(a, "b");
	tasks[0] = make_task(b);
	for (unsigned i = 0; i < 3; i++)
		blocks[i] = take(cpus[0], tasks[0], BLOCK);
}

static void drainer(void)
{
	stock_drain_subtree(cpus[0], a);
	blocks[3] = take(cpus[0], tasks[0], BLOCK);
}

static void freer_on_1(void)
{
	give(cpus[1], blocks[0]);
	give(cpus[1], blocks[1]);
	blocks[0] = blocks[1] = NULL;
	stock_drain_all(cpus[1]);
}

/* --- two groups that share a slot ------------------------------------------------------- */

static void same_slot(void)
{
	make_cpus(2);
	a = make_group(root(), "a");
	for (unsigned i = 1; i < NR_STOCKS; i++)
		make_group(root(), "unused");
	b = make_group(root(), "b");
	expect(stock_slot(cpus[0], load_relaxed(&a->objcg)) ==
		       stock_slot(cpus[0], load_relaxed(&b->objcg)),
	       "two slots");
	tasks[0] = make_task(a);
	tasks[1] = make_task(b);
	blocks[0] = take(cpus[0], tasks[0], BLOCK);
	task_free(tasks[0]);
}

/* The slot is a's, with a stock and statistics. */
static void evictor(void)
{
	blocks[1] = take(cpus[0], tasks[1], BLOCK);
	give(cpus[0], blocks[0]);
	blocks[0] = NULL;
}

static void remover_of_a(void)
{
	removed = memcg_remove(a, false);
	c = make_group(b, "c");
}

static void check_evicted(void)
{
	struct memcg_view view;

	expect(removed == 0, "removal: %d", removed);
	memcg_view(c, &view);
	expect(view.current == 0 && view.blocks == 0 && view.stat[DOMAIN_MEM] == 0,
	       "a new group has %lld bytes, %lld blocks, %lld bytes of its domain",
	       (long long)view.current, (long long)view.blocks, (long long)view.stat[DOMAIN_MEM]);
	check_rest(blocks);
}

/* --- flags for the reclaimer --------------------------------------------------------------- */

static uint32_t taken[3];

static void two_flaggable(void)
{
	a = make_group(root(), "a");
	b = make_group(root(), "b");
	make_cpus(1);
}

static void flagger_high(void)
{
	memcg_flag(a, FLAG_HIGH);
}

static void flagger_max(void)
{
	memcg_flag(b, FLAG_MAX);
	memcg_flag(a, FLAG_MAX);
}

static void take_flags(void)
{
	uint32_t cursor = 0;
	uint32_t flags;
	uint32_t id;

	while ((id = memcg_take_flagged(&cursor, &flags)))
		taken[id == memcg_id(a) ? 0 : id == memcg_id(b) ? 1 : 2] |= flags;
}

static void check_flags(void)
{
	take_flags();
	expect(taken[0] == (FLAG_HIGH | FLAG_MAX), "of a, flags %u were taken", taken[0]);
	expect(taken[1] == FLAG_MAX, "of b, flags %u were taken", taken[1]);
	expect(taken[2] == 0, "flags %u of a group that nobody flagged", taken[2]);
	check_rest(blocks);
}

const struct scenario charge_scenarios[] = {
	{
		.name = "charge-set-max",
		.about = "max is set while a large block is charged",
		.setup = group_without_limit,
		.fibers = {{"charger", large_charger}, {"limiter", limiter}},
		.check = check_limit,
		.preemptions = UNBOUNDED,
		.delays = UNBOUNDED,
	},
	{
		.name = "charge-lower-max",
		.about = "max is set far below the usage, again, while a small block is charged",
		.setup = group_above_an_older_limit,
		.fibers = {{"charger", charger_of_16_bytes}, {"limiter", lowering_limiter}},
		.check = check_lowered,
		.preemptions = 3,
		.delays = 1,
	},
	{
		.name = "hopeless-charge",
		.about = "a charge that is far larger than max beside small ones",
		.setup = group_with_room,
		.fibers = {{"hopeless", hopeless_charger}, {"charger", charger_of_16_bytes}},
		.check = check_hopeless,
		.preemptions = UNBOUNDED,
		.delays = UNBOUNDED,
	},
	{
		.name = "refused-charge",
		.about = "two large charges two levels below a limit that only one of them meets",
		.setup = three_levels,
		.fibers = {{"charger c", charger_in_c}, {"charger b", charger_in_b}},
		.check = check_one_of_two,
		.preemptions = 3,
		.delays = 1,
	},
	{
		.name = "near-the-limit",
		.about = "small charges where no batch fits any more",
		.setup = nearly_full,
		.fibers = {{"charger a", small_charger_in_a}, {"charger b", small_charger_in_b}},
		.check = check_peak,
		.preemptions = UNBOUNDED,
		.delays = UNBOUNDED,
	},
	{
		.name = "drain-uncharge",
		.about = "stocks are drained while another cpu frees and drains",
		.setup = blocks_and_stocks,
		.fibers = {{"drainer", drainer}, {"freer", freer_on_1}},
		.check = check_usual,
		.preemptions = 3,
		.delays = 1,
	},
	{
		.name = "shared-slot",
		.about = "one group's stock makes way for another's while it is removed",
		.setup = same_slot,
		.fibers = {{"evictor", evictor}, {"remover", remover_of_a}},
		.check = check_evicted,
		.preemptions = 3,
		.delays = 1,
	},
	{
		.name = "flags",
		.about = "groups are flagged while flags are taken",
		.setup = two_flaggable,
		.fibers = {{"high", flagger_high}, {"max", flagger_max}, {"taker", take_flags}},
		.check = check_flags,
		.preemptions = UNBOUNDED,
		.delays = UNBOUNDED,
	},
	{.name = NULL},
};
