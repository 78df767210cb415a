/* Removal: reparenting under charges, and records and ids that come back. */
#include <errno.h>

#include "core_words.h"

static struct mem_cgroup *a;
static struct mem_cgroup *b;
static struct mem_cgroup *c;
static struct mem_cgroup *fresh;
static struct task *task;
static struct task *other;
static struct cpu *got[2];
static void *blocks[6];
static int removed;
static int made;
static int made_too;

static void check_usual(void)
{
	expect(removed == 0, "removal: %d", removed);
	check_rest(blocks);
}

static void remover_of_a(void)
{
	removed = memcg_remove(a, false);
}

/* --- the last byte goes while the group goes ------------------------------------- */

/* One block of a, nothing in stock, no task. */
static void one_block(size_t size)
{
	make_cpus(1);
	a = make_group(root(), "a");
	b = make_group(root(), "b");
	task = make_task(a);
	blocks[0] = take(cpus[0], task, size);
	task_free(task);
	stock_drain_all(cpus[0]);
}

static void one_small_block(void)
{
	one_block(BLOCK);
}

static void one_large_block(void)
{
	one_block(LARGE);
}

/* The bytes go to the slot, and from there to the counters. */
static void freer_and_drainer(void)
{
	give(cpus[0], blocks[0]);
	blocks[0] = NULL;
	stock_drain_all(cpus[0]);
}

/* So large that the bytes go to the counters at once; the slot keeps statistics, and its key. */
static void freer(void)
{
	give(cpus[0], blocks[0]);
	blocks[0] = NULL;
}

static void reaper(void)
{
	made = memcg_create(b, "fresh", 5, &fresh);
}

static void remover_then_maker(void)
{
	remover_of_a();
	reaper();
}

/* --- a record comes back while somebody holds it ------------------------------------ */

static void task_in_a(void)
{
	make_cpus(2);
	a = make_group(root(), "a");
	b = make_group(root(), "b");
	c = make_group(root(), "c");
	task = make_task(a);
	other = make_task(c);
}

static void charger(void)
{
	blocks[0] = take(cpus[0], task, BLOCK);
}

/* a's record and a's id are free for the next group, if nobody holds them. */
static void replacer(void)
{
	move(task, b);
	remover_of_a();
	made = memcg_create(c, "fresh", 5, &fresh);
}

static void check_replaced(void)
{
	expect(removed == 0 && made == 0, "removal: %d, creation: %d", removed, made);
	if (blocks[0])
		expect(group_of(blocks[0]) == b || group_of(blocks[0]) == root(),
		       "charged to %s, which was not there yet", name_of(group_of(blocks[0])));
	check_rest(blocks);
}

static void flagged_in_a(void)
{
	task_in_a();
	make_flagged(task);
}

static void forced_replacer(void)
{
	removed = memcg_remove(a, true);
	made = memcg_create(c, "fresh", 5, &fresh);
}

/* The last to charge a, and the last to leave it. */
static void charger_and_drainer(void)
{
	give(cpus[0], take(cpus[0], task, BLOCK));
	stock_drain_all(cpus[0]);
}

/* The same, and leaves a block that no stock knows of. */
static void charger_of_a_block(void)
{
	blocks[0] = take(cpus[0], task, BLOCK);
	stock_drain_all(cpus[0]);
}

/* What is freed goes through the objcg to a group that is replaced. */
static void block_of_a(void)
{
	task_in_a();
	blocks[1] = take(cpus[0], task, BLOCK);
	blocks[2] = take(cpus[0], task, BLOCK);
	stock_drain_all(cpus[0]);
	/* Above its limit a group has no stock: the counters are changed at once. */
	page_counter_set_max(a, 0);
}

static void uncharger(void)
{
	give(cpus[0], blocks[1]);
	blocks[1] = NULL;
}

/* --- what is charged goes to the parent ---------------------------------------------- */

/* root > c > a, blocks in a, a task in c. */
static void nested(void)
{
	make_cpus(2);
	c = make_group(root(), "c");
	a = make_group(c, "a");
	task = make_task(a);
	blocks[0] = take(cpus[0], task, BLOCK);
	blocks[1] = take(cpus[0], task, BLOCK);
	task_free(task);
	stock_drain_all(cpus[0]);
	other = make_task(c);
}

static void freer_on_1(void)
{
	give(cpus[1], blocks[0]);
	blocks[0] = NULL;
	stock_drain_dying(cpus[1]);
}

static void charger_in_c(void)
{
	blocks[2] = take(cpus[0], other, BLOCK);
}

static void remover_of_both(void)
{
	remover_of_a();
	expect(removed == 0, "removal: %d", removed);
	removed = memcg_remove(c, true);
}

/* --- children are made in a group that goes ------------------------------------------- */

static void maker_in_a(void)
{
	made = memcg_create(a, "fresh", 5, &fresh);
}

static void second_maker_in_a(void)
{
	made_too = memcg_create(a, "other", 5, &c);
}

static void empty_group(void)
{
	make_cpus(1);
	a = make_group(root(), "a");
}

static void check_made_or_removed(void)
{
	if (removed == 0) {
		expect(made == -ENODEV && made_too == -ENODEV, "a is removed with a child (%d, %d)",
		       made, made_too);
	} else {
		expect(removed == -EBUSY && (made == 0 || made_too == 0),
		       "removal: %d, creation: %d, %d", removed, made, made_too);
		expect(made == made_too, "one child (%d), and no other (%d)", made, made_too);
		expect(c != fresh, "two groups have one record");
		expect(load_relaxed(&c->objcg) != load_relaxed(&fresh->objcg),
		       "two groups have one objcg");
	}
	check_rest(blocks);
}

/* --- cpus come and go while a group goes ------------------------------------------------- */

static void one_cpu_to_spare(void)
{
	make_cpus(2);
	a = make_group(root(), "a");
	b = make_group(root(), "b");
	task = make_task(b);
	cpu_put(cpus[1]);
}

static void thread(unsigned nr)
{
	got[nr] = cpu_get(nr);
	blocks[nr] = take(got[nr], task, BLOCK);
	if (nr == 0)
		cpu_put(got[nr]);
}

static void thread_0(void)
{
	thread(0);
}

static void thread_1(void)
{
	thread(1);
}

const struct scenario removal_scenarios[] = {
	{
		.name = "last-byte-remove",
		.about = "the last byte of a group is uncharged while it is removed",
		.setup = one_small_block,
		.fibers = {{"freer", freer_and_drainer}, {"remover", remover_of_a}},
		.check = check_usual,
		.preemptions = 4,
		.delays = 2,
	},
	{
		.name = "last-byte-reap",
		.about = "and its id is recycled and given to a new group",
		.setup = one_small_block,
		.fibers = {{"freer", freer_and_drainer}, {"remover", remover_then_maker}},
		.check = check_usual,
		.preemptions = 3,
		.delays = 1,
	},
	{
		.name = "last-byte-reapers",
		.about = "the same, with a third who recycles at any time",
		.setup = one_small_block,
		.fibers = {{"freer", freer_and_drainer},
			   {"remover", remover_of_a},
			   {"reaper", reaper}},
		.check = check_usual,
		.preemptions = 2,
		.delays = 1,
	},
	{
		.name = "key-without-bytes",
		.about = "the last byte goes, and a stock slot keeps statistics under its key",
		.setup = one_large_block,
		.fibers = {{"freer", freer}, {"remover", remover_then_maker}},
		.check = check_usual,
		.preemptions = 3,
		.delays = 1,
	},
	{
		.name = "charge-replace",
		.about = "a group is replaced by a new one under a charge",
		.setup = task_in_a,
		.fibers = {{"charger", charger}, {"replacer", replacer}},
		.check = check_replaced,
		.preemptions = UNBOUNDED,
		.delays = UNBOUNDED,
	},
	{
		.name = "update-replace",
		.about = "the same, and the task has to look its group up",
		.setup = flagged_in_a,
		.fibers = {{"charger", charger}, {"replacer", replacer}},
		.check = check_replaced,
		.preemptions = 3,
		.delays = 1,
	},
	{
		.name = "forced-replace",
		.about = "the same, and the task is in the group until it is removed by force",
		.setup = task_in_a,
		.fibers = {{"charger", charger}, {"replacer", forced_replacer}},
		.check = check_replaced,
		.preemptions = 3,
		.delays = 1,
	},
	{
		.name = "drain-replace",
		.about =
			"a group is replaced under somebody who charges it late, and leaves nothing",
		.setup = task_in_a,
		.fibers = {{"charger", charger_and_drainer}, {"replacer", replacer}},
		.check = check_replaced,
		.preemptions = 4,
		.delays = 1,
	},
	{
		.name = "block-replace",
		.about = "the same, and leaves a block",
		.setup = task_in_a,
		.fibers = {{"charger", charger_of_a_block}, {"replacer", replacer}},
		.check = check_replaced,
		.preemptions = 3,
		.delays = 1,
	},
	{
		.name = "uncharge-replace",
		.about = "a group is replaced by a new one under an uncharge",
		.setup = block_of_a,
		.fibers = {{"freer", uncharger}, {"replacer", replacer}},
		.check = check_replaced,
		.preemptions = UNBOUNDED,
		.delays = UNBOUNDED,
	},
	{
		.name = "reparent",
		.about =
			"a group with blocks is removed while they are freed, and the parent charges",
		.setup = nested,
		.fibers = {{"freer", freer_on_1},
			   {"charger", charger_in_c},
			   {"remover", remover_of_a}},
		.check = check_usual,
		.preemptions = 2,
		.delays = 1,
	},
	{
		.name = "reparent-twice",
		.about = "and then the parent, by force",
		.setup = nested,
		.fibers = {{"freer", freer_on_1},
			   {"charger", charger_in_c},
			   {"remover", remover_of_both}},
		.check = check_usual,
		.preemptions = 2,
		.delays = 1,
	},
	{
		.name = "create-remove",
		.about = "two children are made in a group that is removed",
		.setup = empty_group,
		.fibers = {{"maker", maker_in_a},
			   {"remover", remover_of_a},
			   {"second", second_maker_in_a}},
		.check = check_made_or_removed,
		.preemptions = 3,
		.delays = 1,
	},
	{
		.name = "cpu-get",
		.about = "cpus are taken and given back while a group is removed",
		.setup = one_cpu_to_spare,
		.fibers = {{"thread 0", thread_0},
			   {"thread 1", thread_1},
			   {"remover", remover_of_a}},
		.check = check_usual,
		.preemptions = 2,
		.delays = 0,
	},
	{.name = NULL},
};
