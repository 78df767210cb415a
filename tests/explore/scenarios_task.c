/* Tasks: the tagged reference against moves, removals, and the task's end. */
#include <errno.h>

#include "core_words.h"

static struct mem_cgroup *a;
static struct mem_cgroup *b;
static struct mem_cgroup *c;
static struct task *task;
static struct task *fresh;
static uint32_t gen;
static uint32_t moved;
static int removed;
static int outcome;
static void *blocks[6];

/* Where the task is, its next allocation must be charged. */
static void next_is_charged_where_the_task_is(void)
{
	struct mem_cgroup *there = memcg_from_id(load_relaxed(&task->memcg));

	expect(is_online(there), "the task is in a removed group");
	blocks[5] = take(cpus[0], task, BLOCK);
	expect(group_of(blocks[5]) == there, "the task is in %s, and charges %s", name_of(there),
	       name_of(group_of(blocks[5])));
	check_rest(blocks);
}

static void two_groups(void)
{
	make_cpus(2);
	a = make_group(root(), "a");
	b = make_group(root(), "b");
	task = make_task(a);
	gen = load_relaxed(&task->gen);
}

static void charge_on_0(void)
{
	blocks[0] = take(cpus[0], task, BLOCK);
}

static void charge_on_1(void)
{
	blocks[1] = take(cpus[1], task, BLOCK);
}

/* --- one charger, one mover ---------------------------------------------------- */

/* Whoever begins to allocate after a move returned is charged where it went. */
static void *take_after_telling(struct cpu *cpu)
{
	uint32_t before = told(&moved);
	void *block = take(cpu, task, BLOCK);

	if (before == 1)
		expect(group_of(block) == b, "allocated after the move to b, and charged to %s",
		       name_of(group_of(block)));
	return block;
}

static void charger(void)
{
	blocks[0] = take_after_telling(cpus[0]);
	blocks[1] = take_after_telling(cpus[0]);
}

static void mover(void)
{
	move(task, b);
	tell(&moved, 1);
}

static void flagged_in_a(void)
{
	two_groups();
	make_flagged(task);
}

static void stocked_in_a(void)
{
	two_groups();
	give(cpus[0], take(cpus[0], task, BLOCK));
}

/* --- and a remover ---------------------------------------------------------------- */

static void remover_of_a(void)
{
	removed = memcg_remove(a, false);
}

static void check_removed(void)
{
	expect(removed == 0 || removed == -EBUSY, "removal: %d", removed);
	next_is_charged_where_the_task_is();
}

static void mover_and_remover(void)
{
	move(task, b);
	tell(&moved, 1);
	removed = memcg_remove(a, false);
	expect(removed == 0, "nobody is in a, and its removal: %d", removed);
}

/* --- one task on two cpus --------------------------------------------------------- */

static void charger_on_0(void)
{
	blocks[0] = take_after_telling(cpus[0]);
}

static void charger_on_1(void)
{
	blocks[1] = take_after_telling(cpus[1]);
}

/* 2: on the way back, 3: back. */
static void mover_back(void)
{
	move(task, b);
	tell(&moved, 1);
	tell(&moved, 2);
	move(task, a);
	tell(&moved, 3);
}

static void *take_between_moves(struct cpu *cpu)
{
	uint32_t before = told(&moved);
	void *block = take(cpu, task, BLOCK);
	uint32_t after = told(&moved);

	if (before == 3)
		expect(group_of(block) == a, "the move back is lost: charged to %s",
		       name_of(group_of(block)));
	if (before == 1 && after == 1)
		expect(group_of(block) == b, "the move is lost: charged to %s",
		       name_of(group_of(block)));
	return block;
}

static void between_on_0(void)
{
	blocks[0] = take_between_moves(cpus[0]);
}

static void between_on_1(void)
{
	blocks[1] = take_between_moves(cpus[1]);
}

/* --- a move into a group that is removed by force ----------------------------------- */

static void child_of_a(void)
{
	make_cpus(2);
	a = make_group(root(), "a");
	b = make_group(a, "b");
	c = make_group(root(), "c");
	task = make_task(c);
	gen = load_relaxed(&task->gen);
	make_flagged(task);
}

static void mover_that_may_fail(void)
{
	outcome = task_move(task, gen, b);
}

static void forced_remover_of_b(void)
{
	removed = memcg_remove(b, true);
}

static void check_forced(void)
{
	struct mem_cgroup *there = memcg_from_id(load_relaxed(&task->memcg));

	expect(removed == 0, "a forced removal: %d", removed);
	expect(outcome == 0 || outcome == -ENODEV, "a move: %d", outcome);
	expect(there == (outcome == 0 ? a : c), "the move returned %d, and the task is in %s",
	       outcome, name_of(there));
	next_is_charged_where_the_task_is();
}

/* --- a task that begins, and one that ends ------------------------------------------ */

static void maker_in_b(void)
{
	fresh = task_alloc(b, &outcome);
	if (fresh)
		blocks[0] = take(cpus[0], fresh, BLOCK);
}

static void remover_of_b(void)
{
	removed = memcg_remove(b, false);
}

static void check_made(void)
{
	if (fresh)
		expect(removed == -EBUSY, "b is removed (%d) with a task in it", removed);
	else
		expect(removed == 0 && outcome == -ENODEV, "no task (%d), no removal (%d)", outcome,
		       removed);
	check_rest(blocks);
}

static void three_groups(void)
{
	two_groups();
	c = make_group(root(), "c");
	make_cpus(3);
	give(cpus[2], take(cpus[2], task, BLOCK));
}

/* The record is the next task's at once. */
static void ender(void)
{
	task_free(task);
	fresh = make_task(c);
	expect(fresh == task, "another record");
	blocks[0] = take(cpus[0], fresh, BLOCK);
	expect(group_of(blocks[0]) == c, "the new task is in c, and charges %s",
	       name_of(group_of(blocks[0])));
}

static void mover_of_an_ended(void)
{
	outcome = task_move(task, gen, b);
}

/* A thread without the GIL may look at the record a moment too long. */
static void late_charger(void)
{
	blocks[2] = take(cpus[2], task, BLOCK);
}

static void check_ended(void)
{
	expect(load_relaxed(&fresh->memcg) == memcg_id(c),
	       "a move of a task that ended moved another");
	next_is_charged_where_the_task_is();
}

/* --- a move that another process asks for -------------------------------------------- */

/* Is not told when it is done: one cpu may be doing it while another still charges a. */
static void requester(void)
{
	task_request_move(region.header, task, gen, memcg_id(b), load_relaxed(&b->gen));
	tell(&moved, 1);
}

static void requester_of_two(void)
{
	task_request_move(region.header, task, gen, memcg_id(a), load_relaxed(&a->gen));
	task_request_move(region.header, task, gen, memcg_id(b), load_relaxed(&b->gen));
}

static void remover_of_a_then_of_b(void)
{
	removed = memcg_remove(a, true);
	outcome = memcg_remove(b, true);
}

static void migration_allowed(void)
{
	store_relaxed(&region.header->flags, REGION_MIGRATION);
}

static void requestable(void)
{
	stocked_in_a();
	migration_allowed();
}

static void requestable_and_flagged(void)
{
	flagged_in_a();
	migration_allowed();
}

static void check_requested(void)
{
	void *block = take(cpus[0], task, BLOCK);

	expect(group_of(block) == b, "the move to b that was asked for is lost: charged to %s",
	       name_of(group_of(block)));
	give(cpus[0], block);
	next_is_charged_where_the_task_is();
}

static void check_requested_and_removed(void)
{
	expect(removed == 0 && outcome == 0, "removals: %d, %d", removed, outcome);
	next_is_charged_where_the_task_is();
	expect(load_relaxed(&task->memcg) == MEMCG_ROOT, "the task is in group %u",
	       load_relaxed(&task->memcg));
}

const struct scenario task_scenarios[] = {
	{
		.name = "update-move",
		.about = "a flagged task looks its group up while it is moved",
		.setup = flagged_in_a,
		.fibers = {{"charger", charger}, {"mover", mover}},
		.check = next_is_charged_where_the_task_is,
		.preemptions = UNBOUNDED,
		.delays = UNBOUNDED,
	},
	{
		.name = "stock-move",
		.about = "a task with stock is moved",
		.setup = stocked_in_a,
		.fibers = {{"charger", charger}, {"mover", mover}},
		.check = next_is_charged_where_the_task_is,
		.preemptions = UNBOUNDED,
		.delays = UNBOUNDED,
	},
	{
		.name = "update-move-remove",
		.about = "and the group it leaves is removed by a third",
		.setup = flagged_in_a,
		.fibers = {{"charger", charge_on_0}, {"mover", mover}, {"remover", remover_of_a}},
		.check = check_removed,
		.preemptions = UNBOUNDED,
		.delays = UNBOUNDED,
	},
	{
		.name = "update-leave",
		.about = "and the group it leaves is removed by the mover, at once",
		.setup = flagged_in_a,
		.fibers = {{"charger", charger}, {"mover", mover_and_remover}},
		.check = next_is_charged_where_the_task_is,
		.preemptions = 3,
		.delays = 1,
	},
	{
		.name = "two-cpus-move",
		.about = "one task charges on two cpus while it is moved",
		.setup = flagged_in_a,
		.fibers = {{"charger 0", charger_on_0},
			   {"charger 1", charger_on_1},
			   {"mover", mover}},
		.check = next_is_charged_where_the_task_is,
		.preemptions = 2,
		.delays = 1,
	},
	{
		.name = "two-cpus-move-back",
		.about = "and moved back",
		.setup = flagged_in_a,
		.fibers = {{"charger 0", between_on_0},
			   {"charger 1", between_on_1},
			   {"mover", mover_back}},
		.check = next_is_charged_where_the_task_is,
		.preemptions = 2,
		.delays = 1,
	},
	{
		.name = "move-remove-force",
		.about = "a task is moved into a group that is removed by force",
		.setup = child_of_a,
		.fibers = {{"charger", charge_on_0},
			   {"mover", mover_that_may_fail},
			   {"remover", forced_remover_of_b}},
		.check = check_forced,
		.preemptions = 3,
		.delays = 1,
	},
	{
		.name = "alloc-remove",
		.about = "a task is made in a group that is removed",
		.setup = two_groups,
		.fibers = {{"maker", maker_in_b}, {"remover", remover_of_b}},
		.check = check_made,
		.preemptions = UNBOUNDED,
		.delays = UNBOUNDED,
	},
	{
		.name = "end-move-charge",
		.about = "a task ends while it is moved and charges; its record is used again",
		.setup = three_groups,
		.fibers = {{"ender", ender},
			   {"mover", mover_of_an_ended},
			   {"charger", late_charger}},
		.check = check_ended,
		.preemptions = 2,
		.delays = 1,
	},
	{
		.name = "request-charge",
		.about = "another process asks for a move while the task charges",
		.setup = requestable,
		.fibers = {{"charger", charger}, {"requester", requester}},
		.check = check_requested,
		.preemptions = UNBOUNDED,
		.delays = UNBOUNDED,
	},
	{
		.name = "request-two-cpus",
		.about = "the same, and the task charges on two cpus",
		.setup = requestable_and_flagged,
		.fibers = {{"charger 0", charge_on_0},
			   {"charger 1", charge_on_1},
			   {"requester", requester}},
		.check = check_requested,
		.preemptions = 2,
		.delays = 1,
	},
	{
		.name = "request-twice",
		.about = "two moves are asked for, one after the other, while the task charges",
		.setup = requestable,
		.fibers = {{"charger", charger}, {"requester", requester_of_two}},
		.check = check_requested,
		.preemptions = UNBOUNDED,
		.delays = UNBOUNDED,
	},
	{
		.name = "request-remove",
		.about = "the same, and both groups are removed",
		.setup = requestable,
		.fibers = {{"charger", charge_on_0},
			   {"requester", requester},
			   {"remover", remover_of_a_then_of_b}},
		.check = check_requested_and_removed,
		.preemptions = 2,
		.delays = 1,
	},
	{.name = NULL},
};
