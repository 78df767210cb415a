/*
 * The tagged reference of a task: a move is seen by the next allocation after
 * it, whoever else looks the group up at the same time.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>

#include "check_that.h"

static struct cpu *cpu;

static void move(struct task *task, struct mem_cgroup *memcg)
{
	check_equal(task_move(task, load_relaxed(&task->gen), memcg), 0);
}

static void a_move_is_seen_by_the_next_allocation(void)
{
	struct mem_cgroup *a = group_new(root_memcg());
	struct mem_cgroup *b = group_new(root_memcg());
	struct task *task = task_new(a);

	for (int i = 0; i < 100; i++) {
		struct mem_cgroup *to = i % 2 ? a : b;
		void *small;
		void *medium;
		void *large;

		check_that(group_charged_by(cpu, task) == (i % 2 ? b : a));
		move(task, to);
		check_equal(load_relaxed(&task->objcg) & OBJCG_UPDATE, OBJCG_UPDATE);
		/* Whatever kind of block is first. */
		small = i % 3 == 0 ? alloc(cpu, task, 16) : NULL;
		medium = i % 3 == 1 ? alloc(cpu, task, 5000) : NULL;
		large = i % 3 == 2 ? alloc(cpu, task, 50000) : NULL;
		check_that(group_of(small ? small : medium ? medium : large) == to);
		check_equal(load_relaxed(&task->objcg), load_relaxed(&to->objcg) << 1);
		release(cpu, small ? small : medium ? medium : large);
	}
	check_equal(load_relaxed(&a->nr_tasks) + load_relaxed(&b->nr_tasks), 1);
	task_free(task);
	check_equal(load_relaxed(&a->nr_tasks) + load_relaxed(&b->nr_tasks), 0);
	check_conserved();
}

static void blocks_stay_with_the_group_that_the_task_leaves(void)
{
	struct mem_cgroup *a = group_new(root_memcg());
	struct mem_cgroup *b = group_new(root_memcg());
	struct task *task = task_new(a);
	void *p = alloc(cpu, task, 1000);

	move(task, b);
	check_that(group_of(p) == a);
	check_equal(memcg_current(a), 1008);
	check_equal(memcg_current(b), 0);
	release(cpu, p);
	task_free(task);
	check_conserved();
}

static void a_forced_removal_moves_tasks_to_the_parent(void)
{
	enum { NR = 50 };
	struct mem_cgroup *parent = group_new(root_memcg());
	struct mem_cgroup *child = group_new(parent);
	struct task *tasks[NR];

	for (int i = 0; i < NR; i++) {
		tasks[i] = task_new(child);
		check_that(group_charged_by(cpu, tasks[i]) == child);
	}
	check_equal(memcg_remove(child, true), 0);
	check_equal(load_relaxed(&parent->nr_tasks), NR);
	for (int i = 0; i < NR; i++) {
		check_equal(load_relaxed(&tasks[i]->memcg), memcg_id(parent));
		check_that(group_charged_by(cpu, tasks[i]) == parent);
	}
	/* From the middle, the end and the start of the list. */
	for (int i = 0; i < NR; i++)
		task_free(tasks[(i * 7 + NR / 2) % NR]);
	check_equal(load_relaxed(&parent->nr_tasks), 0);
	check_equal(parent->task_head, 0);
	check_equal(memcg_remove(parent, false), 0);
	check_conserved();
}

static void a_record_that_is_used_again_is_another_task(void)
{
	struct mem_cgroup *a = group_new(root_memcg());
	struct mem_cgroup *b = group_new(root_memcg());
	struct task *task = task_new(a);
	uint64_t id = task->id;
	uint32_t gen = load_relaxed(&task->gen);
	struct task *again;

	task_set_name(task, "first", 5);
	task_free(task);
	check_equal(load_relaxed(&task->state), TASK_FREE);
	check_equal(task_move(task, gen, b), -ENODEV);
	/* A late allocation by the freed one is the root's. */
	check_that(group_charged_by(cpu, task) == root_memcg());

	again = task_new(b);
	check_that(again == task);
	check_compare(again->id, >, id);
	check_compare(load_relaxed(&again->gen), >, gen);
	check_equal(again->name_len, 0);
	check_equal(task_move(again, gen, a), -ENODEV);
	check_that(group_charged_by(cpu, again) == b);
	check_equal(load_relaxed(&b->nr_tasks), 1);
	check_equal(load_relaxed(&a->nr_tasks), 0);
	task_free(again);
	check_conserved();
}

static void records_of_tasks_are_used_again(void)
{
	struct mem_cgroup *memcg = group_new(root_memcg());
	struct task *tasks[100];
	uint32_t used = 0;

	for (int round = 0; round < 100; round++) {
		for (int i = 0; i < 100; i++)
			tasks[i] = task_new(memcg);
		for (int i = 0; i < 100; i++)
			task_free(tasks[(i + round) % 100]);
		if (round == 0)
			used = section_used(SECTION_TASK);
	}
	check_equal(section_used(SECTION_TASK), used);
	check_equal(memcg_remove(memcg, false), 0);
}

static void names_are_cut_between_characters(void)
{
	struct task *task = task_new(root_memcg());
	char name[100];

	memset(name, 'x', sizeof(name));
	task_set_name(task, name, 63);
	check_equal(task->name_len, 63);
	check_equal(task->name[62], 'x');
	check_equal(task->name[63], 0);
	task_set_name(task, name, 64);
	check_equal(task->name_len, 63);
	/* A character of four bytes that would cross the end goes as a whole. */
	memcpy(name + 61, "\xF0\x9F\x90\x8D", 4);
	task_set_name(task, name, 65);
	check_equal(task->name_len, 61);
	check_equal(task->name[61], 0);
	task_set_name(task, "s", 1);
	check_equal(strcmp(task->name, "s"), 0);
	task_free(task);
}

static void a_task_whose_group_goes_during_the_look_up_finds_a_living_one(void)
{
	struct mem_cgroup *parent = group_new(root_memcg());
	struct mem_cgroup *child = group_new(parent);
	struct task *task = task_new(child);
	uint32_t id;

	/* As if it had read task->memcg just before the removal. */
	check_equal(memcg_remove(child, true), 0);
	section_enter(cpu);
	store_relaxed(&task->memcg, memcg_id(child));
	id = current_objcg_update(task);
	section_exit(cpu);
	check_equal(id, load_relaxed(&parent->objcg));
	store_relaxed(&task->memcg, memcg_id(parent));
	task_free(task);
	check_equal(memcg_remove(parent, false), 0);
}

/* --- one task on two threads --------------------------------------------- */

/*
 * Two threads look up the group of one task while it is moved, in the order
 * that loses most:
 *
 *   first                   mover                    second
 *   takes the reference
 *   reads "group A"
 *                           sets group B, flags
 *                                                    takes the reference, flag and all
 *   stores A's objcg
 *                                                    reads "group B"; must not be content with A's
 *
 * Each thread stops where it reads the group's record, because the record's
 * page is inaccessible: 8 records of 512 bytes to a page, so A and B are on
 * pages of their own.
 */
static _Atomic(char *) closed_page;
static _Atomic int first_stopped;
static _Atomic int first_may_go;
static _Atomic int first_done;
static pthread_t first_thread;
static struct cpu *first_cpu;
static struct task *shared;

static void wait_for(_Atomic int *flag)
{
	while (!load_acquire(flag))
		sched_yield();
}

static char *page_of(void *p)
{
	return (char *)((uintptr_t)p & ~(uintptr_t)4095);
}

static void open_page(void)
{
	if (mprotect(load_acquire(&closed_page), 4096, PROT_READ | PROT_WRITE) != 0)
		leave_child(2);
}

static void close_page(struct mem_cgroup *memcg)
{
	store_release(&closed_page, page_of(memcg));
	check_equal(mprotect(page_of(memcg), 4096, PROT_NONE), 0);
}

static void at_closed_page(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)context;
	if (page_of(info->si_addr) != load_acquire(&closed_page))
		leave_child(3);
	if (pthread_equal(pthread_self(), first_thread)) {
		open_page();
		store_release(&first_stopped, 1);
		wait_for(&first_may_go);
	} else {
		/* The second: let the first store what it found, and go on only then. */
		open_page();
		store_release(&first_may_go, 1);
		wait_for(&first_done);
	}
}

static void *look_up_first(void *arg)
{
	(void)arg;
	first_thread = pthread_self();
	section_enter(first_cpu);
	current_objcg_update(shared);
	section_exit(first_cpu);
	store_release(&first_done, 1);
	return NULL;
}

static struct mem_cgroup *group_on_a_page_of_its_own(void)
{
	struct mem_cgroup *memcg;

	for (int i = 0; i < 8; i++)
		group_new(root_memcg());
	memcg = group_new(root_memcg());
	for (int i = 0; i < 8; i++)
		group_new(root_memcg());
	return memcg;
}

static void a_move_is_not_lost_between_two_threads_that_look_up(void)
{
	struct sigaction action = {.sa_sigaction = at_closed_page, .sa_flags = SA_SIGINFO};
	struct sigaction before;
	struct mem_cgroup *a = group_on_a_page_of_its_own();
	struct mem_cgroup *b = group_on_a_page_of_its_own();
	pthread_t thread;

	shared = task_new(a);
	first_cpu = cpu_get(0);
	fetch_or_acq_rel(&shared->objcg, OBJCG_UPDATE);
	check_equal(sigaction(SIGSEGV, &action, &before), 0);

	close_page(a);
	pthread_create(&thread, NULL, look_up_first, NULL);
	wait_for(&first_stopped);
	move(shared, b);
	close_page(b);
	section_enter(cpu);
	current_objcg_update(shared);
	section_exit(cpu);
	check_that(load_acquire(&first_done)); /* it went as drawn */
	pthread_join(thread, NULL);
	check_equal(sigaction(SIGSEGV, &before, NULL), 0);

	if (group_charged_by(cpu, shared) != b)
		fail_that("the task is in group %u, and charges group %u: the move was lost",
			  load_relaxed(&shared->memcg), memcg_id(group_charged_by(cpu, shared)));
	check_that(group_charged_by(first_cpu, shared) == b);
	task_free(shared);
	cpu_put(first_cpu);
	check_conserved();
}

/* --- under fire ---------------------------------------------------------- */

enum { THREADS = 3 };
static struct task *moving;
static _Atomic int stop;
static _Atomic int halt;
static _Atomic long allocations;
static pthread_barrier_t halted;
static pthread_barrier_t resumed;

static void *allocate_as_the_same_task(void *arg)
{
	uint64_t random = (uint64_t)(uintptr_t)arg;
	struct cpu *mine = cpu_get(0);
	void *held[8] = {0};

	while (!load_acquire(&stop)) {
		uint32_t at = random_below(&random, 8);

		if (load_acquire(&halt)) {
			pthread_barrier_wait(&halted);
			pthread_barrier_wait(&resumed);
		}
		if (held[at])
			release(mine, held[at]);
		held[at] = alloc(mine, moving, 16 + random_below(&random, 300));
		fetch_add_relaxed(&allocations, 1);
	}
	for (int i = 0; i < 8; i++)
		if (held[i])
			release(mine, held[i]);
	cpu_put(mine);
	return NULL;
}

/*
 * One task is current on several threads while it is moved through groups that
 * are removed behind it.  Whenever all stand still, the next allocation must be
 * charged to the group that the task is in.
 */
static void one_task_on_many_threads_is_charged_to_the_group_it_is_in(uint64_t *random)
{
	pthread_t threads[THREADS];
	struct mem_cgroup *groups[4] = {0};
	const int rounds = UNDER_TSAN ? 6000 : 60000;

	moving = task_new(root_memcg());
	pthread_barrier_init(&halted, NULL, THREADS + 1);
	pthread_barrier_init(&resumed, NULL, THREADS + 1);
	store_release(&stop, 0);
	for (uintptr_t i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, allocate_as_the_same_task, (void *)(i + 1));
	for (int round = 0; round < rounds || load_relaxed(&allocations) < rounds; round++) {
		uint32_t at = random_below(random, 4);

		if (groups[at]) {
			/* The task may be in it: then it moves to the root. */
			check_equal(memcg_remove(groups[at], true), 0);
			groups[at] = NULL;
		} else {
			groups[at] = group_new(root_memcg());
			move(moving, groups[at]);
		}
		if (round % 16 == 0) {
			struct mem_cgroup *expected;

			store_release(&halt, 1);
			pthread_barrier_wait(&halted);
			expected = memcg_from_id(load_relaxed(&moving->memcg));
			check_equal(load_relaxed(&expected->state), MEMCG_ONLINE);
			check_equal(memcg_id(group_charged_by(cpu, moving)), memcg_id(expected));
			if (round % 1024 == 0)
				check_conserved();
			store_release(&halt, 0);
			pthread_barrier_wait(&resumed);
		}
	}
	store_release(&stop, 1);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < 4; i++)
		if (groups[i])
			check_equal(memcg_remove(groups[i], true), 0);
	task_free(moving);
	check_conserved();
	stock_drain_all(cpu);
	check_equal(usage_of(root_memcg()), 0);
	check_equal(load_relaxed(&root_memcg()->blocks), 0);
}

/* --- records under fire --------------------------------------------------- */

static void *enter_and_leave(void *arg)
{
	uint64_t random = (uint64_t)(uintptr_t)arg;
	struct cpu *mine = cpu_get(0);
	struct mem_cgroup *memcg = group_new(root_memcg());

	for (int i = 0; i < (UNDER_TSAN ? 3000 : 30000); i++) {
		struct task *task = task_new(memcg);

		for (uint32_t n = random_below(&random, 4); n; n--)
			check_that(group_charged_by(mine, task) == memcg);
		task_free(task);
	}
	check_equal(load_relaxed(&memcg->nr_tasks), 0);
	cpu_put(mine);
	return NULL;
}

static void tasks_of_many_threads_do_not_meet_in_a_record(void)
{
	pthread_t threads[THREADS];

	for (uintptr_t i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, enter_and_leave, (void *)(i + 1));
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	check_conserved();
}

int main(void)
{
	uint64_t random = test_seed();

	cpu = core_start();
	a_move_is_seen_by_the_next_allocation();
	blocks_stay_with_the_group_that_the_task_leaves();
	a_forced_removal_moves_tasks_to_the_parent();
	a_record_that_is_used_again_is_another_task();
	records_of_tasks_are_used_again();
	names_are_cut_between_characters();
	a_task_whose_group_goes_during_the_look_up_finds_a_living_one();
	tasks_of_many_threads_do_not_meet_in_a_record();
	a_move_is_not_lost_between_two_threads_that_look_up();
	one_task_on_many_threads_is_charged_to_the_group_it_is_in(&random);
	return 0;
}
