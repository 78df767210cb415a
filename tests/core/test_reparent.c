/*
 * A removed group hands what is charged to its parent, and no counter moves.
 */
#include <errno.h>

#include "check_that.h"

static struct cpu *cpu;

enum { NR = 3000 };
static void *blocks[3][NR];

static void allocate_many(int which, struct task *task)
{
	static const size_t sizes[] = {16, 64, 500, 1000, 8000, 20000};

	for (int i = 0; i < NR; i++)
		blocks[which][i] = alloc(cpu, task, sizes[i % 6]);
}

static void release_many(int which)
{
	for (int i = 0; i < NR; i++)
		release(cpu, blocks[which][i]);
}

static void check_all_charged_to(int which, struct mem_cgroup *memcg)
{
	for (int i = 0; i < NR; i++)
		check_that(group_of(blocks[which][i]) == memcg);
}

static void the_parents_usage_is_the_same_to_the_byte(void)
{
	struct mem_cgroup *parent = group_new(root_memcg());
	struct mem_cgroup *child = group_new(parent);
	struct mem_cgroup *sibling = group_new(parent);
	struct task *task = task_new(child);
	struct task *other = task_new(sibling);
	int64_t usage;
	int64_t current;
	int64_t root;

	allocate_many(0, task);
	allocate_many(1, other);
	task_free(task);
	usage = usage_of(parent);
	current = memcg_current(parent);
	root = usage_of(root_memcg());
	check_compare(memcg_current(child), >, NR * 1000);

	check_equal(memcg_remove(child, false), 0);
	check_equal(usage_of(parent), usage);
	check_equal(memcg_current(parent), current);
	check_equal(usage_of(root_memcg()), root);
	check_equal(load_relaxed(&parent->nr_dying), 1);
	check_equal(load_relaxed(&root_memcg()->nr_dying), 1);
	check_equal(load_relaxed(&parent->nr_children), 1);
	check_equal(load_relaxed(&child->state), MEMCG_OFFLINE);
	check_all_charged_to(0, parent);
	check_all_charged_to(1, sibling);
	check_conserved();

	/* What it leaves is given back by the parent, as it would have been by the child. */
	release_many(0);
	check_conserved();
	check_equal(memcg_current(parent), memcg_current(sibling));
	stock_drain_all(cpu);
	tree_lock();
	objcg_reap();
	tree_unlock();
	check_equal(load_relaxed(&parent->nr_dying), 0);
	check_equal(load_relaxed(&root_memcg()->nr_dying), 0);
	release_many(1);
	task_free(other);
	check_equal(memcg_remove(sibling, false), 0);
	check_equal(memcg_remove(parent, false), 0);
	stock_drain_all(cpu);
	check_equal(usage_of(root_memcg()), 0);
	check_conserved();
}

/* Each level has a block of its own and all that the levels below it left. */
static void a_chain_that_is_removed_from_below_ends_at_the_root(void)
{
	enum { DEPTH = 20 };
	struct mem_cgroup *chain[DEPTH + 1];
	void *own[DEPTH + 1];
	struct task *task;

	chain[0] = root_memcg();
	for (int i = 1; i <= DEPTH; i++)
		chain[i] = group_new(chain[i - 1]);
	task = task_new(chain[DEPTH]);
	allocate_many(0, task);
	for (int i = DEPTH; i >= 1; i--) {
		int64_t usage;

		own[i] = alloc(cpu, task, 64);
		check_that(group_of(own[i]) == chain[i]);
		usage = usage_of(chain[i]);
		check_equal(usage_of(root_memcg()), usage);
		check_equal(memcg_remove(chain[i], false), -EBUSY); /* the task is in it */
		check_equal(memcg_remove(chain[i], true), 0);
		for (int j = i - 1; j >= 0; j--) {
			check_equal(usage_of(chain[j]), usage);
			check_equal(load_relaxed(&chain[j]->nr_dying), DEPTH + 1 - i);
		}
		check_equal(load_relaxed(&task->memcg), memcg_id(chain[i - 1]));
		check_equal(load_relaxed(&chain[i - 1]->nr_tasks), i == 1 ? 2 : 1);
		check_all_charged_to(0, chain[i - 1]);
		for (int j = i; j <= DEPTH; j++)
			check_that(group_of(own[j]) == chain[i - 1]);
		check_conserved();
	}
	release_many(0);
	for (int i = 1; i <= DEPTH; i++)
		release(cpu, own[i]);
	task_free(task);
	stock_drain_all(cpu);
	tree_lock();
	objcg_reap();
	tree_unlock();
	check_equal(load_relaxed(&root_memcg()->nr_dying), 0);
	check_equal(usage_of(root_memcg()), 0);
	check_conserved();
}

static void a_group_with_children_or_tasks_stays(void)
{
	struct mem_cgroup *parent = group_new(root_memcg());
	struct mem_cgroup *child = group_new(parent);
	struct mem_cgroup *late;
	struct task *task = task_new(child);
	int err = 0;

	check_equal(memcg_remove(parent, false), -EBUSY);
	check_equal(memcg_remove(parent, true), -EBUSY);
	check_equal(memcg_remove(child, false), -EBUSY);
	check_equal(memcg_remove(root_memcg(), true), -EPERM);
	check_equal(memcg_remove(child, true), 0);
	check_equal(load_relaxed(&task->memcg), memcg_id(parent));
	check_equal(memcg_remove(child, true), -ENODEV);
	check_equal(memcg_create(child, "x", 1, &late), -ENODEV);
	check_that(task_alloc(child, &err) == NULL);
	check_equal(err, -ENODEV);
	check_equal(task_move(task, load_relaxed(&task->gen), child), -ENODEV);
	task_free(task);
	check_equal(memcg_remove(parent, false), 0);
}

static void the_tree_is_not_deeper_than_its_limit(void)
{
	struct mem_cgroup *chain[MEMCG_DEPTH_MAX + 1];
	struct mem_cgroup *deeper;

	chain[0] = root_memcg();
	for (unsigned i = 1; i <= MEMCG_DEPTH_MAX; i++)
		chain[i] = group_new(chain[i - 1]);
	check_equal(memcg_create(chain[MEMCG_DEPTH_MAX], "x", 1, &deeper), -ELOOP);
	for (unsigned i = MEMCG_DEPTH_MAX; i >= 1; i--)
		check_equal(memcg_remove(chain[i], false), 0);
}

static void names_of_1_to_255_bytes_are_kept_whole(void)
{
	char name[NAME_BYTES_MAX + 1];
	struct mem_cgroup *memcg;

	memset(name, 'n', sizeof(name));
	check_equal(memcg_create(root_memcg(), name, 0, &memcg), -EINVAL);
	check_equal(memcg_create(root_memcg(), name, NAME_BYTES_MAX + 1, &memcg), -EINVAL);
	check_equal(memcg_create(root_memcg(), name, NAME_BYTES_MAX, &memcg), 0);
	check_equal(memcg->name_len, NAME_BYTES_MAX);
	check_equal(memcmp(memcg->name, name, NAME_BYTES_MAX), 0);
	check_equal(memcg->name[NAME_BYTES_MAX], 0);
	check_equal(load_relaxed(&memcg->seq) % 2, 0);
	check_equal(memcg_remove(memcg, false), 0);
	check_equal(load_relaxed(&memcg->seq) % 2, 0);
}

static void a_record_taken_again_has_nothing_of_the_old_group(void)
{
	struct mem_cgroup *memcg = group_new(root_memcg());
	uint64_t uid = memcg->uid;
	uint32_t gen = load_relaxed(&memcg->gen);
	struct mem_cgroup *again;
	struct task *task = task_new(memcg);

	blocks[0][0] = alloc(cpu, task, 20000);
	page_counter_set_max(memcg, 1 << 20);
	store_relaxed(&memcg->memory.high, 5);
	store_relaxed(&memcg->memory.low, 5);
	store_relaxed(&memcg->exempt_until, 5);
	memcg_event(memcg, EVENT_MAX);
	memcg_flag(memcg, FLAG_MAX);
	check_equal(memcg_remove(memcg, true), 0);
	do {
		again = group_new(root_memcg());
	} while (again != memcg);
	check_compare(again->uid, >, uid);
	check_equal(load_relaxed(&again->gen), gen + 1);
	check_equal(usage_of(again), 0);
	check_equal(load_relaxed(&again->memory.watermark), 0);
	check_equal(load_relaxed(&again->memory.max), COUNTER_UNSET);
	check_equal(load_relaxed(&again->memory.high), COUNTER_UNSET);
	check_equal(load_relaxed(&again->memory.low), 0);
	check_equal(load_relaxed(&again->exempt_until), 0);
	check_equal(load_relaxed(&again->events[EVENT_MAX]), 0);
	check_equal(load_relaxed(&again->flagged), 0);
	check_equal(load_relaxed(&again->nr_tasks), 0);
	check_that(group_of(blocks[0][0]) == root_memcg());
	release(cpu, blocks[0][0]);
	task_free(task);
	check_conserved();
}

/* --- under fire ---------------------------------------------------------- */

enum { FIRES = 4, HELD = 64 };
static _Atomic int stop;
static _Atomic long shots;
static _Atomic(struct task *) targets[FIRES];
static struct mem_cgroup *limited;

static void *fire(void *arg)
{
	uint64_t random = *(uint64_t *)arg;
	struct cpu *mine = cpu_get(0);
	void *held[HELD] = {0};

	while (!load_acquire(&stop)) {
		struct task *task = load_acquire(&targets[random_below(&random, FIRES)]);
		uint32_t at = random_below(&random, HELD);

		if (held[at])
			release(mine, held[at]);
		held[at] = alloc(mine, task, 16 + random_below(&random, at < 8 ? 20000 : 700));
		if (random_below(&random, 16) == 0)
			stock_drain_all(mine); /* so that counters are written often */
		fetch_add_relaxed(&shots, 1);
	}
	for (int i = 0; i < HELD; i++)
		if (held[i])
			release(mine, held[i]);
	cpu_put(mine);
	return NULL;
}

/*
 * Each round: two levels of groups under `limited`, the tasks that the threads
 * allocate for are moved into them, then both levels are removed under them.
 * At the end all is freed, and every counter must be 0: nothing was lost or
 * counted twice on its way up.
 */
static void removal_under_fire_loses_nothing(uint64_t seed)
{
	pthread_t threads[FIRES];
	uint64_t states[FIRES];
	/* At least; and until the threads have had some turns. */
	const int rounds = UNDER_TSAN ? 6000 : 40000;
	const long enough = UNDER_TSAN ? 60000 : 6000000;

	stock_drain_all(cpu);
	check_equal(usage_of(root_memcg()), 0);
	limited = group_new(root_memcg());
	store_release(&stop, 0);
	for (int i = 0; i < FIRES; i++)
		store_release(&targets[i], task_new(limited));
	for (unsigned i = 0; i < FIRES; i++) {
		states[i] = seed + i;
		pthread_create(&threads[i], NULL, fire, &states[i]);
	}
	for (int round = 0; round < rounds || load_relaxed(&shots) < enough; round++) {
		struct mem_cgroup *upper = group_new(limited);
		struct mem_cgroup *lower = group_new(upper);

		for (int i = 0; i < FIRES; i++) {
			struct task *task = load_acquire(&targets[i]);

			check_equal(task_move(task, load_relaxed(&task->gen),
					      i % 2 ? upper : lower),
				    0);
		}
		check_equal(memcg_remove(lower, true), 0);
		check_equal(memcg_remove(upper, true), 0);
		check_compare(usage_of(limited), >=, 0);
		check_compare(usage_of(root_memcg()), >=, 0);
	}
	store_release(&stop, 1);
	for (int i = 0; i < FIRES; i++)
		pthread_join(threads[i], NULL);
	check_conserved();
	check_equal(load_relaxed(&limited->nr_tasks), FIRES);
	check_equal(load_relaxed(&limited->nr_children), 0);
	check_equal(usage_of(limited), 0);
	check_equal(usage_of(root_memcg()), 0);
	check_equal(load_relaxed(&limited->blocks), 0);
	check_equal(load_relaxed(&root_memcg()->blocks), 0);
	tree_lock();
	objcg_reap();
	tree_unlock();
	check_equal(load_relaxed(&limited->nr_dying), 0);
	check_equal(load_relaxed(&root_memcg()->nr_dying), 0);
	for (int i = 0; i < FIRES; i++)
		task_free(load_acquire(&targets[i]));
	check_equal(memcg_remove(limited, false), 0);
}

int main(void)
{
	uint64_t seed = test_seed();

	cpu = core_start();
	the_parents_usage_is_the_same_to_the_byte();
	a_chain_that_is_removed_from_below_ends_at_the_root();
	a_group_with_children_or_tasks_stays();
	the_tree_is_not_deeper_than_its_limit();
	names_of_1_to_255_bytes_are_kept_whole();
	a_record_taken_again_has_nothing_of_the_old_group();
	removal_under_fire_loses_nothing(seed);
	return 0;
}
