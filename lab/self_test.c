/*
 * That a variant is not fast because it is broken: blocks are distinct and keep
 * what is written to them, each is charged to the group of its task, bytes are
 * conserved, references come back to 0; and all that while groups are made and
 * removed under a task that allocates, and while tasks fork that are moved.
 *
 * Short enough to run before every measurement; a race of few instructions may
 * well not be met in it.  For the shipped protocol there are models/update,
 * tests/explore and tests/core for that.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "variant.h"

#define NR_BLOCKS 3000u
#define NR_REMOVALS 2000u
#define NR_FORKS 20000u

static char message[256];

#define expect(condition)                                                                          \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			snprintf(message, sizeof(message), "%s:%d: not so: %s", __FILE__,          \
				 __LINE__, #condition);                                            \
			return false;                                                              \
		}                                                                                  \
	} while (0)

static const bool charges = VARIANT_FLAGS & LAB_CHARGES;
static const bool counts = VARIANT_FLAGS & LAB_COUNTS;
static const bool migrates = VARIANT_FLAGS & LAB_MIGRATES;
static const bool has_tasks = VARIANT_FLAGS & LAB_TASKS;

struct block {
	unsigned char *p;
	size_t size;
};

static struct block held[NR_BLOCKS];

/* 1 to 512, all classes in turn, in no simple order. */
static size_t size_of_nth(unsigned i)
{
	return 1 + i * 37 % SLAB_SMALL_MAX;
}

static unsigned char mark_of_nth(unsigned i)
{
	return (unsigned char)(i * 131 + 7);
}

static bool take(const struct lab_cache *cache, unsigned from, unsigned to)
{
	for (unsigned i = from; i < to; i++) {
		size_t size = size_of_nth(i);
		unsigned char *p = lab_alloc(cache, size);

		expect(p);
		memset(p, mark_of_nth(i), size);
		held[i] = (struct block){p, size};
	}
	return true;
}

static bool give_back(const struct lab_cache *cache, unsigned from, unsigned to)
{
	for (unsigned i = from; i < to; i++) {
		for (size_t at = 0; at < held[i].size; at++)
			expect(held[i].p[at] == mark_of_nth(i));
		lab_free(cache, held[i].p);
	}
	return true;
}

static bool conserved(void)
{
	struct audit audit;
	int64_t drift;

	if (!charges)
		return true;
	expect(audit_run(&audit) == 0);
	drift = audit.drift;
	audit_free(&audit);
	expect(drift == 0);
	return true;
}

static bool owned(unsigned from, unsigned to, uint32_t objcg)
{
	size_t bytes;

	for (unsigned i = from; charges && i < to; i++) {
		expect(kmem_owner(held[i].p, &bytes) == objcg);
		expect(bytes == charged_bytes(held[i].size));
	}
	return true;
}

static int64_t charged(unsigned from, unsigned to)
{
	int64_t sum = 0;

	for (unsigned i = from; charges && i < to; i++)
		sum += (int64_t)charged_bytes(held[i].size);
	return sum;
}

/* From blocks; a task's own depends on when it looked last. */
static bool referred(uint32_t id, int64_t blocks)
{
	int64_t nr = variant_references(id);

	expect(!counts || (nr >= blocks && nr <= blocks + 2));
	return true;
}

static bool no_references(void)
{
	for (uint32_t id = 1; counts && id < LAB_RECORDS; id++)
		expect(variant_references(id) == 0);
	return true;
}

static bool charge_move_and_remove(struct cpu *cpu)
{
	struct mem_cgroup *root = memcg_from_id(MEMCG_ROOT);
	struct mem_cgroup *parent;
	struct mem_cgroup *a;
	struct mem_cgroup *b;
	struct lab_cache cache = {.cpu = cpu};
	struct task *task;
	struct task *child;
	uint32_t objcgs[2];
	int err;

	expect(memcg_create(root, "parent", 6, &parent) == 0);
	expect(memcg_create(parent, "a", 1, &a) == 0);
	expect(memcg_create(parent, "b", 1, &b) == 0);
	objcgs[0] = load_relaxed(&a->objcg);
	objcgs[1] = load_relaxed(&b->objcg);
	task = task_alloc(a, &err);
	expect(task);
	lab_switch(&cache, task);

	expect(take(&cache, 0, 1000));
	expect(owned(0, 1000, objcgs[0]) && referred(objcgs[0], 1000));
	expect(memcg_current(a) == charged(0, 1000) && memcg_current(b) == 0);

	/* A fork, then a move of the parent: the child stays where it is. */
	child = lab_fork(cpu, task);
	expect(child);
	if (migrates)
		expect(lab_move(task, b) == 0);
	lab_switch(&cache, child);
	expect(take(&cache, 1000, 1500));
	expect(owned(1000, 1500, objcgs[0]) && referred(objcgs[0], 1500));
	lab_switch(&cache, task);
	expect(take(&cache, 1500, 2500));
	expect(owned(1500, 2500, objcgs[migrates]));
	expect(memcg_current(parent) == charged(0, 2500));
	expect(conserved());

	/* The task's group is removed under it: it charges the parent, as do its blocks. */
	lab_exit(cpu, child);
	expect(memcg_remove(migrates ? b : a, true) == 0);
	if (!migrates)
		lab_switch(&cache, task);
	expect(take(&cache, 2500, NR_BLOCKS));
	expect(memcg_current(parent) == charged(0, NR_BLOCKS));
	expect(conserved());

	expect(give_back(&cache, 0, NR_BLOCKS));
	expect(memcg_current(parent) == 0);
	lab_exit(cpu, task);
	stock_drain_all(cpu);
	if (migrates)
		expect(memcg_remove(a, false) == 0);
	else
		expect(memcg_remove(b, false) == 0);
	expect(memcg_remove(parent, false) == 0);
	expect(conserved() && no_references());
	return true;
}

/* --- groups that come and go while the task allocates -------------------- */

static struct task *volatile hunted;
static _Atomic bool hunting;

static void wait(unsigned turns)
{
	while (turns--)
		__asm__ volatile("");
}

static bool removals(void)
{
	struct mem_cgroup *root = memcg_from_id(MEMCG_ROOT);

	for (unsigned i = 0; i < NR_REMOVALS; i++) {
		struct mem_cgroup *group;
		int err = memcg_create(root, "passing", 7, &group);

		expect(err == 0);
		expect(memcg_id(group) < LAB_RECORDS);
		expect(load_relaxed(&group->objcg) < LAB_RECORDS);
		expect(lab_move(hunted, group) == 0);
		wait(i % 64 * 8);
		/* Forced out of it to the root, half of the time. */
		if (i & 1)
			expect(lab_move(hunted, root) == 0);
		expect(memcg_remove(group, true) == 0);
		/* Likely in the same record. It has no task, so nobody may charge it. */
		expect(memcg_create(root, "stranger", 8, &group) == 0);
		wait(i % 64 * 8);
		expect(load_relaxed(&group->memory.usage) == 0);
		expect(memcg_remove(group, false) == 0);
	}
	return true;
}

static void *hunter(void *arg)
{
	bool *ok = arg;

	*ok = removals();
	store_release(&hunting, false);
	return NULL;
}

static bool groups_come_and_go(struct cpu *cpu)
{
	struct lab_cache cache = {.cpu = cpu};
	struct task *task;
	pthread_t thread;
	bool ok = true;
	unsigned nr = 0;
	int err;

	task = task_alloc(memcg_from_id(MEMCG_ROOT), &err);
	expect(task);
	lab_switch(&cache, task);
	hunted = task;
	store_release(&hunting, true);
	expect(pthread_create(&thread, NULL, hunter, &ok) == 0);
	/* A window of blocks: each lives through some removals. */
	while (ok && load_acquire(&hunting)) {
		if (nr >= NR_BLOCKS)
			ok = give_back(&cache, nr % NR_BLOCKS, nr % NR_BLOCKS + 1);
		ok = ok && take(&cache, nr % NR_BLOCKS, nr % NR_BLOCKS + 1);
		if (++nr == 2 * NR_BLOCKS)
			nr = NR_BLOCKS;
	}
	pthread_join(thread, NULL);
	if (!ok)
		return false;
	/* Blocks that the root has without being charged would be drift. */
	expect((VARIANT_FLAGS & LAB_ROOT_FREE) || conserved());
	expect(give_back(&cache, 0, nr < NR_BLOCKS ? nr : NR_BLOCKS));
	lab_exit(cpu, task);
	stock_drain_all(cpu);
	expect(conserved() && no_references());
	return true;
}

/* --- forks of a task that is moved meanwhile ----------------------------- */

static struct mem_cgroup *homes[2];

/* The task is current here too: it looks its group up on two threads. */
static void *mover(void *arg)
{
	bool *ok = arg;
	struct lab_cache cache = {.cpu = cpu_get(0)};

	*ok = cache.cpu != NULL;
	if (!*ok)
		return NULL;
	lab_cpu = cache.cpu;
	lab_switch(&cache, hunted);
	for (unsigned i = 0; *ok && load_acquire(&hunting); i++) {
		*ok = lab_move(hunted, homes[i & 1]) == 0;
		wait(i % 8);
		lab_free(&cache, lab_alloc(&cache, 64));
		wait(i % 64 * 8);
	}
	cpu_put(cache.cpu);
	return NULL;
}

/* Nobody moves the child: it charges the group that it was made in, whatever its parent does. */
static bool fork_and_charge(struct lab_cache *cache, struct task *parent)
{
	for (unsigned i = 0; i < NR_FORKS; i++) {
		struct task *child = lab_fork(cache->cpu, parent);
		struct mem_cgroup *home;

		expect(child);
		home = memcg_from_id(load_relaxed(&child->memcg));
		expect(home == homes[0] || home == homes[1]);
		lab_switch(cache, child);
		expect(take(cache, 0, 1) && owned(0, 1, load_relaxed(&home->objcg)));
		expect(give_back(cache, 0, 1));
		lab_exit(cache->cpu, child);
		lab_switch(cache, parent);
		expect(take(cache, 0, 1) && give_back(cache, 0, 1));
	}
	return true;
}

static bool forks_while_moved(struct cpu *cpu)
{
	struct mem_cgroup *root = memcg_from_id(MEMCG_ROOT);
	struct lab_cache cache = {.cpu = cpu};
	struct task *task;
	pthread_t thread;
	bool moved = true;
	bool forked;
	int err;

	expect(memcg_create(root, "home", 4, &homes[0]) == 0);
	expect(memcg_create(root, "house", 5, &homes[1]) == 0);
	task = task_alloc(homes[0], &err);
	expect(task);
	lab_switch(&cache, task);
	hunted = task;
	store_release(&hunting, true);
	expect(pthread_create(&thread, NULL, mover, &moved) == 0);
	forked = fork_and_charge(&cache, task);
	store_release(&hunting, false);
	pthread_join(thread, NULL);
	if (!forked)
		return false;
	expect(moved);
	lab_exit(cpu, task);
	stock_drain_all(cpu);
	expect(memcg_remove(homes[0], false) == 0 && memcg_remove(homes[1], false) == 0);
	expect(conserved() && no_references());
	return true;
}

static bool blocks_only(struct cpu *cpu)
{
	struct lab_cache cache = {.cpu = cpu};

	expect(take(&cache, 0, NR_BLOCKS));
	expect(give_back(&cache, 0, NR_BLOCKS));
	return true;
}

const char *lab_self_test(void)
{
	bool ok;

	if (has_tasks) {
		struct cpu *cpu = cpu_get(0);

		lab_cpu = cpu;
		ok = cpu && charge_move_and_remove(cpu);
		if (ok && migrates)
			ok = groups_come_and_go(cpu) && forks_while_moved(cpu);
		if (ok)
			cpu_put(cpu);
		lab_cpu = NULL;
	} else {
		ok = blocks_only(NULL);
	}
	if (!ok && !message[0])
		snprintf(message, sizeof(message), "no cpu");
	return ok ? NULL : message;
}
