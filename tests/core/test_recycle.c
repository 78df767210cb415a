/*
 * Ids of objcgs and records of groups come back when nobody can use them any
 * more, and not a moment earlier.
 */
#define _GNU_SOURCE
#include <signal.h>

#include "check_that.h"

static struct cpu *cpu;

static void settle_now(void)
{
	tree_lock();
	objcg_reap();
	tree_unlock();
}

static int is_free(uint32_t id)
{
	return load_relaxed(&objcg_from_id(id)->state) == OBJCG_FREE;
}

/* A group with a task, and its id. */
struct subject {
	struct mem_cgroup *memcg;
	struct task *task;
	uint32_t id;
};

static struct subject subject_new(void)
{
	struct subject subject;

	subject.memcg = group_new(root_memcg());
	subject.task = task_new(subject.memcg);
	subject.id = load_relaxed(&subject.memcg->objcg);
	return subject;
}

static void subject_remove(struct subject *subject)
{
	task_free(subject->task);
	check_equal(memcg_remove(subject->memcg, false), 0);
}

static void an_id_comes_back_after_its_group_when_nothing_is_charged(void)
{
	struct subject subject = subject_new();

	subject_remove(&subject);
	check_that(is_free(subject.id));
	check_equal(load_relaxed(&root_memcg()->nr_dying), 0);
	/* And is the next one's. */
	check_equal(load_relaxed(&group_new(root_memcg())->objcg), subject.id);
}

static void not_while_a_block_has_it_as_owner(void)
{
	static const size_t sizes[] = {16, 512, 5000, 50000};

	for (size_t s = 0; s < sizeof(sizes) / sizeof(*sizes); s++) {
		struct subject subject = subject_new();
		void *first = alloc(cpu, subject.task, sizes[s]);
		void *second = alloc(cpu, subject.task, sizes[s]);

		stock_drain_all(cpu);
		subject_remove(&subject);
		check_equal(load_relaxed(&objcg_from_id(subject.id)->state), OBJCG_DYING);
		check_equal(load_relaxed(&root_memcg()->nr_dying), 1);
		release(cpu, first);
		stock_drain_all(cpu);
		settle_now();
		check_that(!is_free(subject.id));
		release(cpu, second);
		stock_drain_all(cpu);
		settle_now();
		check_that(is_free(subject.id));
		check_equal(load_relaxed(&root_memcg()->nr_dying), 0);
		check_conserved();
	}
}

static void not_while_a_stock_has_it_as_key(void)
{
	struct subject subject = subject_new();
	struct cpu *other = cpu_get(0);
	void *p = alloc(other, subject.task, 64);

	/* On both cpus: one with bytes, one with statistics only. */
	release(cpu, p);
	stock_drain_all(cpu);
	subject_remove(&subject);
	settle_now();
	check_that(!is_free(subject.id));
	stock_drain_dying(other);
	settle_now();
	check_that(is_free(subject.id));

	subject = subject_new();
	subject_remove(&subject);
	check_that(is_free(subject.id));

	/* A slot without bytes: what it counted would go to the next owner of the id. */
	subject = subject_new();
	stock_slot(other, subject.id)->key = subject.id << 1;
	stock_slot(other, subject.id)->blocks = 5;
	subject_remove(&subject);
	settle_now();
	check_equal(load_relaxed(&objcg_from_id(subject.id)->bytes), 0);
	check_that(!is_free(subject.id));
	stock_drain_dying(other);
	settle_now();
	check_that(is_free(subject.id));
	cpu_put(other);
}

static void not_while_a_section_runs_that_began_before_the_removal(void)
{
	struct subject subject = subject_new();
	struct cpu *other = cpu_get(0);
	uint32_t record = memcg_id(subject.memcg);

	section_enter(other);
	subject_remove(&subject);
	settle_now();
	check_that(!is_free(subject.id));
	/* Nor is the group's record anybody's. */
	for (int i = 0; i < 20; i++)
		check_that(memcg_id(group_new(root_memcg())) != record);
	section_exit(other);
	/* One that began later does not matter. */
	section_enter(other);
	settle_now();
	check_that(is_free(subject.id));
	check_equal(memcg_id(group_new(root_memcg())), record);
	section_exit(other);
	cpu_put(other);
}

static void a_section_that_charges_late_keeps_the_id(void)
{
	struct subject subject = subject_new();
	struct cpu *other = cpu_get(0);
	struct charge_result result = {0, 0, 0};
	struct obj_cgroup *objcg = objcg_from_id(subject.id);

	/* It found the objcg, then the group went away, and only then it charges. */
	section_enter(other);
	subject_remove(&subject);
	check_that(obj_cgroup_try_charge(objcg, 4096, BOUND_MAX, &result));
	section_exit(other);
	settle_now();
	check_equal(load_relaxed(&objcg->state), OBJCG_DYING);
	check_equal(load_relaxed(&objcg->bytes), 4096);
	section_enter(other);
	obj_cgroup_uncharge(objcg, 4096);
	section_exit(other);
	settle_now();
	check_that(is_free(subject.id));
	cpu_put(other);
	check_conserved();
}

/* --- while the reaper looks ---------------------------------------------- */

static struct cpu *victim_cpu;
static struct task *neighbour;
static void *last_block;
static char *guarded;

/* Plays the other thread: called in the middle of objcg_reap(). */
static void free_the_last_block(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)info;
	(void)context;
	if (mprotect(guarded, 4096, PROT_READ | PROT_WRITE) != 0)
		leave_child(2);
	if (!last_block)
		return;
	/* Takes the slot, and then leaves it to an objcg of another group. */
	kmem_free(victim_cpu, DOMAIN_OBJECT, last_block);
	last_block = NULL;
	kmem_free(victim_cpu, DOMAIN_OBJECT, alloc(victim_cpu, neighbour, 16));
}

/*
 * The reaper looks at cpus one after the other; the page of the last one's slot
 * is made inaccessible, so that it stops there, and what another cpu might do
 * in that moment is done.  Slots from the 61st on are on a page of their own
 * for the third cpu (records of 8,256 bytes, from the start of a page).
 */
static void not_twice_where_the_last_block_is_freed_while_the_reaper_looks(void)
{
	struct sigaction action = {.sa_sigaction = free_the_last_block, .sa_flags = SA_SIGINFO};
	struct sigaction before;
	struct cpu *third;
	struct subject subject;
	struct mem_cgroup *next;
	struct cpu *second = cpu_get(0);
	struct charge_result result = {0, 0, 0};

	third = cpu_get(0);
	victim_cpu = second;
	check_equal(third->index, 2);
	check_equal(cpu_count(), 3);
	do {
		subject = subject_new();
	} while (subject.id % NR_STOCKS != 62);
	do {
		next = group_new(root_memcg());
	} while (load_relaxed(&next->objcg) % NR_STOCKS != 62);
	neighbour = task_new(next);
	guarded = (char *)((uintptr_t)&stock_slot(third, subject.id)->key & ~(uintptr_t)4095);
	check_that(guarded > (char *)&third->record->section);

	/* A dying objcg without bytes, which a running section then charges for one block. */
	section_enter(third);
	subject_remove(&subject);
	section_enter(victim_cpu);
	check_that(obj_cgroup_try_charge(objcg_from_id(subject.id), 64, BOUND_MAX, &result));
	section_exit(victim_cpu);
	last_block = slab_alloc(victim_cpu, small_class(64), subject.id);
	section_exit(third);
	check_conserved();

	check_equal(sigaction(SIGSEGV, &action, &before), 0);
	check_equal(mprotect(guarded, 4096, PROT_NONE), 0);
	settle_now();
	check_equal(mprotect(guarded, 4096, PROT_READ | PROT_WRITE), 0);
	check_equal(sigaction(SIGSEGV, &before, NULL), 0);
	if (last_block) /* the reaper saw the bytes before it looked at slots: nothing to race with */
		free_the_last_block(0, NULL, NULL);
	stock_drain_all(second);

	/* Whoever gets the id now, the next reaping must not take it away. */
	settle_now();
	next = group_new(root_memcg());
	settle_now();
	check_equal(load_relaxed(&objcg_of(next)->state), OBJCG_LIVE);
	check_equal(memcg_from_id(objcg_of(next)->memcg) == next, 1);
	check_that(next->objcg_head == objcg_id(objcg_of(next)));
	check_that(load_relaxed(&group_new(root_memcg())->objcg) != load_relaxed(&next->objcg));
	check_equal(load_relaxed(&root_memcg()->nr_dying), 0);
	cpu_put(second);
	cpu_put(third);
	check_conserved();
}

/* --- many ---------------------------------------------------------------- */

static void a_hundred_thousand_groups_need_no_more_records_than_a_few(void)
{
	uint32_t memcgs = 0;
	uint32_t objcgs = 0;
	uint32_t tasks = 0;

	for (int i = 0; i < 100000; i++) {
		struct subject subject = subject_new();
		void *p = alloc(cpu, subject.task, 100);

		release(cpu, p);
		if (i % 2)
			stock_drain_subtree(cpu, subject.memcg);
		subject_remove(&subject);
		if (i == 1000) {
			memcgs = section_used(SECTION_MEMCG);
			objcgs = section_used(SECTION_OBJCG);
			tasks = section_used(SECTION_TASK);
		}
	}
	check_equal(section_used(SECTION_MEMCG), memcgs);
	check_equal(section_used(SECTION_OBJCG), objcgs);
	check_equal(section_used(SECTION_TASK), tasks);
	/* What was not drained holds a slot: at most one id for each. */
	check_compare(load_relaxed(&root_memcg()->nr_dying), <=, NR_STOCKS);
	stock_drain_all(cpu);
	settle_now();
	check_equal(load_relaxed(&root_memcg()->nr_dying), 0);
	check_equal(usage_of(root_memcg()), 0);
	check_conserved();
}

static _Atomic int stop;

static void *charge_and_free(void *arg)
{
	struct cpu *mine = cpu_get(0);
	struct task *task = arg;
	uint64_t random = (uint64_t)(uintptr_t)arg;
	void *blocks[16] = {0};

	while (!load_acquire(&stop)) {
		uint32_t at = random_below(&random, 16);

		if (blocks[at])
			release(mine, blocks[at]);
		blocks[at] = alloc(mine, task, 16 + random_below(&random, 100));
	}
	for (int i = 0; i < 16; i++)
		if (blocks[i])
			release(mine, blocks[i]);
	cpu_put(mine);
	return NULL;
}

/* Their tasks are pushed up to the root at each removal, and moved into the next group. */
static void records_stay_few_while_others_charge_the_groups_that_go(void)
{
	pthread_t threads[2];
	struct task *tasks[2];
	const int rounds = UNDER_TSAN ? 3000 : 20000;
	uint32_t few = section_used(SECTION_OBJCG);

	store_release(&stop, 0);
	for (int i = 0; i < 2; i++) {
		tasks[i] = task_new(root_memcg());
		pthread_create(&threads[i], NULL, charge_and_free, tasks[i]);
	}
	for (int round = 0; round < rounds; round++) {
		struct mem_cgroup *memcg = group_new(root_memcg());

		for (int i = 0; i < 2; i++)
			check_equal(task_move(tasks[i], load_relaxed(&tasks[i]->gen), memcg), 0);
		check_equal(memcg_remove(memcg, true), 0);
	}
	store_release(&stop, 1);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	settle_now();
	/*
	 * Alive at a time: 16 blocks and the slots in each thread, and what one
	 * section of each holds up.  A section may be off its processor for some
	 * hundred rounds (a time slice), hence the factor.
	 */
	check_compare(section_used(SECTION_OBJCG), <=,
		      few + 2 * (16 + NR_STOCKS) + (uint32_t)rounds / 4);
	check_equal(load_relaxed(&root_memcg()->nr_dying), 0);
	for (int i = 0; i < 2; i++)
		task_free(tasks[i]);
	stock_drain_all(cpu);
	check_equal(usage_of(root_memcg()), 0);
	check_conserved();
}

int main(void)
{
	test_seed();
	cpu = core_start();
	an_id_comes_back_after_its_group_when_nothing_is_charged();
	not_while_a_block_has_it_as_owner();
	not_while_a_stock_has_it_as_key();
	not_while_a_section_runs_that_began_before_the_removal();
	a_section_that_charges_late_keeps_the_id();
	not_twice_where_the_last_block_is_freed_while_the_reaper_looks();
	a_hundred_thousand_groups_need_no_more_records_than_a_few();
	records_stay_few_while_others_charge_the_groups_that_go();
	return 0;
}
