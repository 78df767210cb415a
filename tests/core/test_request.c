/*
 * Moves that another process asks for: served by the owner of the region, for
 * the task and the group that were meant or not at all.
 *
 * The other process is played by a second mapping of the region's file.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>

#include "check_that.h"

static struct cpu *cpu;
static char *outside; /* the other process's mapping */

static struct region_header *outside_header(void)
{
	return (struct region_header *)outside;
}

static struct task *outside_task(const struct task *task)
{
	struct section_header *section = &outside_header()->sections[SECTION_TASK];

	return (struct task *)(outside + section->offset) + task_index(task);
}

static void request(const struct task *task, const struct mem_cgroup *memcg)
{
	task_request_move(outside_header(), outside_task(task), load_relaxed(&task->gen),
			  memcg_id(memcg), load_relaxed(&memcg->gen));
}

static struct mem_cgroup *group_in(struct task *task)
{
	return memcg_from_id(load_relaxed(&task->memcg));
}

static void the_next_charge_serves_it(void)
{
	struct mem_cgroup *a = group_new(root_memcg());
	struct mem_cgroup *b = group_new(root_memcg());
	struct task *task = task_new(a);

	for (int i = 0; i < 100; i++) {
		struct mem_cgroup *from = i % 2 ? b : a;
		struct mem_cgroup *to = i % 2 ? a : b;

		check_that(group_charged_by(cpu, task) == from);
		request(task, to);
		check_that(group_in(task) == from);
		check_that(group_charged_by(cpu, task) == to);
		check_that(group_in(task) == to);
		check_equal(load_relaxed(&task->request), 0);
	}
	check_equal(load_relaxed(&a->nr_tasks), 1);
	check_equal(load_relaxed(&b->nr_tasks), 0);
	task_free(task);
	check_conserved();
}

static void the_last_request_counts(void)
{
	struct mem_cgroup *a = group_new(root_memcg());
	struct mem_cgroup *b = group_new(root_memcg());
	struct mem_cgroup *c = group_new(root_memcg());
	struct task *task = task_new(a);

	request(task, b);
	request(task, c);
	check_that(group_charged_by(cpu, task) == c);
	/* A move by its own process, later: that one counts. */
	request(task, b);
	check_that(task_serve_request(task));
	check_equal(task_move(task, load_relaxed(&task->gen), a), 0);
	check_that(group_charged_by(cpu, task) == a);
	task_free(task);
}

static void an_idle_task_is_moved_when_somebody_asks(void)
{
	struct mem_cgroup *a = group_new(root_memcg());
	struct mem_cgroup *b = group_new(root_memcg());
	struct task *idle = task_new(a);

	request(idle, b);
	check_that(task_serve_request(idle));
	check_that(!task_serve_request(idle));
	check_that(group_in(idle) == b);
	request(idle, a);
	/* It is on its way out: b is not busy. */
	check_equal(memcg_remove(b, false), 0);
	check_that(group_in(idle) == a);
	check_equal(load_relaxed(&a->nr_tasks), 1);
	check_equal(memcg_remove(a, false), -EBUSY);
	task_free(idle);
	check_equal(memcg_remove(a, false), 0);
}

static void a_task_or_group_that_has_ended_is_not_meant_any_more(void)
{
	struct mem_cgroup *a = group_new(root_memcg());
	struct mem_cgroup *b = group_new(root_memcg());
	struct mem_cgroup *gone = group_new(root_memcg());
	uint32_t id = memcg_id(gone);
	uint32_t gen = load_relaxed(&gone->gen);
	struct task *task = task_new(a);
	uint32_t task_gen = load_relaxed(&task->gen);
	struct task *again;

	request(task, gone);
	check_equal(memcg_remove(gone, true), 0); /* serves, and moves it back out */
	check_that(group_in(task) == root_memcg());
	task_request_move(outside_header(), outside_task(task), task_gen, id, gen);
	check_that(!task_serve_request(task));
	/* The record becomes another group's: still not. */
	while (memcg_id(gone = group_new(root_memcg())) != id)
		;
	check_that(load_relaxed(&gone->gen) != gen);
	task_request_move(outside_header(), outside_task(task), task_gen, id, gen);
	check_that(!task_serve_request(task));
	check_that(group_charged_by(cpu, task) == root_memcg());

	/* The task's record becomes another task's. */
	task_free(task);
	again = task_new(a);
	check_that(again == task);
	task_request_move(outside_header(), outside_task(task), task_gen, memcg_id(b),
			  load_relaxed(&b->gen));
	check_that(group_charged_by(cpu, again) == a);
	task_free(again);
	/* A free record is nobody. */
	request(task, b);
	check_that(!task_serve_request(task));
	check_equal(load_relaxed(&b->nr_tasks), 0);
}

static void nonsense_is_not_followed(void)
{
	struct mem_cgroup *a = group_new(root_memcg());
	struct task *task = task_new(a);
	uint64_t random = 1;

	for (int i = 0; i < 10000; i++) {
		uint64_t word = random_u64(&random);

		/* An id beyond all groups, of this task and of generation 0. */
		if (i % 2)
			word = (uint64_t)(load_relaxed(&task->gen) & ((1u << 22) - 1)) << 42 |
			       (MEMCG_MAX - 1 - word % 1000);
		store_relaxed(&outside_task(task)->request, word);
		fetch_or_acq_rel(&outside_task(task)->word, (uint64_t)OBJCG_UPDATE);
		check_that(group_charged_by(cpu, task) == a);
	}
	task_free(task);
	check_conserved();
}

static void no_request_is_served_where_moves_are_forbidden(void)
{
	struct mem_cgroup *a = group_new(root_memcg());
	struct task *task = task_new(a);

	store_relaxed(&region.header->flags, 0);
	request(task, root_memcg());
	check_that(group_charged_by(cpu, task) == a);
	check_that(!task_serve_request(task));
	store_relaxed(&region.header->flags, REGION_MIGRATION);
	task_free(task);
}

/* --- under fire ----------------------------------------------------------- */

enum { GROUPS = 3 };

static struct mem_cgroup *targets[GROUPS];
static struct task *fired_at;
static _Atomic int stop;
static _Atomic int charging;

static void *charge_on(void *arg)
{
	struct cpu *mine = cpu_get(0);

	(void)arg;
	fetch_add_seq_cst(&charging, 1);
	while (!load_relaxed(&stop)) {
		void *p = alloc(mine, fired_at, 64);

		release(mine, p);
	}
	cpu_put(mine);
	return NULL;
}

static void *move_inside(void *arg)
{
	uint64_t random = (uintptr_t)arg;

	while (!load_relaxed(&stop))
		check_equal(task_move(fired_at, load_relaxed(&fired_at->gen),
				      targets[random_below(&random, GROUPS)]),
			    0);
	return NULL;
}

/*
 * The protocol's claim: a request made while others clear and set the flag is
 * found by the next charge.  Nobody but us requests; a charge of our own after
 * the request, on a cpu of our own, either serves it or finds it served.
 */
static void no_request_is_missed_while_others_charge(void)
{
	pthread_t chargers[2];
	struct mem_cgroup *from;

	for (int i = 0; i < GROUPS; i++)
		targets[i] = group_new(root_memcg());
	fired_at = task_new(targets[0]);
	from = targets[0];
	for (int i = 0; i < 2; i++)
		pthread_create(&chargers[i], NULL, charge_on, NULL);
	while (load_relaxed(&charging) < 2)
		sched_yield();
	for (int i = 1; i < (UNDER_TSAN ? 20000 : 200000); i++) {
		struct mem_cgroup *to = targets[i % GROUPS];
		struct mem_cgroup *charged;

		request(fired_at, to);
		charged = group_charged_by(cpu, fired_at);
		/* Another charger may have taken the request, and be about to serve it. */
		check_that(charged == to || charged == from);
		while (group_in(fired_at) != to)
			sched_yield();
		check_that(group_charged_by(cpu, fired_at) == to);
		from = to;
	}
	store_relaxed(&stop, 1);
	for (int i = 0; i < 2; i++)
		pthread_join(chargers[i], NULL);
}

static void requests_moves_and_removals_keep_the_lists_whole(void)
{
	pthread_t charger;
	pthread_t mover;
	uint64_t random = 7;
	int64_t members = 0;

	store_relaxed(&stop, 0);
	pthread_create(&charger, NULL, charge_on, NULL);
	pthread_create(&mover, NULL, move_inside, (void *)5);
	while (load_relaxed(&charging) < 3)
		sched_yield();
	for (int i = 0; i < (UNDER_TSAN ? 2000 : 30000); i++) {
		struct mem_cgroup *memcg = group_new(root_memcg());

		request(fired_at, memcg);
		if (random_below(&random, 2))
			check_that(group_charged_by(cpu, fired_at) != NULL);
		check_equal(memcg_remove(memcg, true), 0);
		check_equal(load_relaxed(&memcg->nr_tasks), 0);
	}
	store_relaxed(&stop, 1);
	pthread_join(charger, NULL);
	pthread_join(mover, NULL);
	for (int i = 0; i < GROUPS; i++)
		members += load_relaxed(&targets[i]->nr_tasks);
	/* task 1, which core_start() made, is in the root group */
	members += load_relaxed(&root_memcg()->nr_tasks) - 1;
	check_equal(members, 1);
	task_free(fired_at);
	for (int i = 0; i < GROUPS; i++)
		check_equal(memcg_remove(targets[i], false), 0);
	check_conserved();
}

int main(void)
{
	test_seed();
	outside = core_start_shared();
	cpu = cpu_get(0);
	store_relaxed(&region.header->flags, REGION_MIGRATION);

	the_next_charge_serves_it();
	the_last_request_counts();
	an_idle_task_is_moved_when_somebody_asks();
	a_task_or_group_that_has_ended_is_not_meant_any_more();
	nonsense_is_not_followed();
	no_request_is_served_where_moves_are_forbidden();
	no_request_is_missed_while_others_charge();
	requests_moves_and_removals_keep_the_lists_whole();
	return 0;
}
