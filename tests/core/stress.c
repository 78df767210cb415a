/*
 * Everything at once:  stress [SECONDS]
 *
 * Threads, each with a cpu, allocate for tasks of their own and for tasks that
 * all of them share, hand blocks to each other and free them, and make, limit,
 * enter and remove groups, while threads end and others take their place.
 *
 * Beside the core runs a model of it: a tree of nodes, in which removed ones
 * stay, and for every block the node it was charged to.  A block's owner must always be
 * the nearest living ancestor of that node; whenever all stand still, the audit
 * must find nothing, and every counter must be what the model says.
 *
 * Changes of the tree hold the model's lock for writing, so that the model and
 * the core change together; allocations and frees hold no lock.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <time.h>

#include "check_that.h"

enum {
	THREADS = 8,
	HELD = 300,
	MAILBOXES = 64,
	RECORDS = 1 << 16,
	LIVING = 48,
	SHARED_TASKS = 4,
	HISTORY = 1 << 16,
	LIFE = 4000, /* turns until a thread makes place for the next */
};

/* --- the model ----------------------------------------------------------- */

struct node {
	struct node *parent;
	struct node *next;
	struct mem_cgroup *memcg;
	uint64_t uid;
	uint32_t depth;
	uint32_t children;
	bool living;
	/* At a pause: what the model says of its subtree. */
	int64_t bytes;
	int64_t blocks;
	int64_t stat[NR_DOMAINS];
};

static pthread_rwlock_t model_lock;
static struct node *dead; /* removed nodes, through ->next */
static struct node **node_of_record;
static struct node *living[LIVING];
static uint32_t nr_living; /* living[0] is the root */

struct block {
	unsigned char *p;
	size_t size;
	enum domain domain;
	struct node *node;
};

/* A task, and where it has been: node i of the history is where its i-th move brought it. */
struct shared_task {
	struct task *task;
	_Atomic uint32_t moves;
	struct node *history[HISTORY];
};

static struct shared_task shared_tasks[SHARED_TASKS];
static _Atomic(struct block *) mailboxes[MAILBOXES];

static struct node *nearest_living(struct node *node)
{
	while (!node->living)
		node = node->parent;
	return node;
}

static struct node *node_new(struct node *parent, struct mem_cgroup *memcg)
{
	struct node *node = calloc(1, sizeof(*node));

	check_that(node != NULL);
	check_compare(memcg_id(memcg), <, RECORDS);
	node->parent = parent;
	node->memcg = memcg;
	node->uid = memcg->uid;
	node->depth = parent ? parent->depth + 1 : 0;
	node->living = true;
	if (parent)
		parent->children++;
	node_of_record[memcg_id(memcg)] = node;
	living[nr_living++] = node;
	return node;
}

/* Model locked. */
static struct node *actual_node(void *p)
{
	struct node *node = node_of_record[memcg_id(group_of(p))];

	check_that(node != NULL);
	check_that(node->living);
	check_equal(node->uid, node->memcg->uid);
	return node;
}

/* --- threads ------------------------------------------------------------- */

struct worker {
	unsigned index;
	uint64_t random;
	struct cpu *cpu;
	struct task *task;
	struct node *node; /* where this thread put its task; if that is gone, an ancestor has it */
	struct block *held[HELD];
	/* counts */
	uint64_t allocs, frees, remote_frees, reallocs, refused, moves, enters;
	uint64_t creates, removes, forced, busy, lives;
};

static struct worker workers[THREADS];
static _Atomic int stop;
static _Atomic int pausing;
static _Atomic unsigned nr_paused;
static _Atomic unsigned nr_finished;

static struct node *any_living(struct worker *worker)
{
	return living[random_below(&worker->random, nr_living)];
}

static size_t any_size(uint64_t *random)
{
	uint32_t kind = random_below(random, 100);

	if (kind < 70)
		return random_below(random, SLAB_SMALL_MAX + 1);
	if (kind < 90)
		return 1 + random_below(random, SLAB_BLOCK_MAX);
	if (kind < 99)
		return 1 + random_below(random, 40000);
	return 1 + random_below(random, 300000);
}

static void mark(struct block *block)
{
	if (!block->size)
		return;
	block->p[block->size - 1] = (unsigned char)(block->size ^ 0xA5);
	block->p[0] = (unsigned char)(block->size == 1 ? 0xA5 ^ 1 : block->size);
}

static void check_mark(const struct block *block, size_t kept)
{
	if (!kept)
		return;
	check_equal(block->p[0], (unsigned char)(block->size == 1 ? 0xA5 ^ 1 : block->size));
	if (kept == block->size && block->size > 1)
		check_equal(block->p[block->size - 1], (unsigned char)(block->size ^ 0xA5));
}

static void may_be_refused(struct worker *worker, const struct charge_result *result)
{
	if (!result->refused)
		fail_that("worker %u: no memory", worker->index);
	worker->refused++;
}

/* One by a task of the thread's own: its group is known, whoever removes it meanwhile. */
static struct block *alloc_own(struct worker *worker)
{
	struct block *block = malloc(sizeof(*block));
	struct charge_result result = {0, 0, 0};

	block->size = any_size(&worker->random);
	block->domain = (enum domain)random_below(&worker->random, NR_DOMAINS);
	block->node = worker->node;
	block->p = alloc_for(worker->cpu, worker->task, block->domain, block->size, &result);
	if (!block->p) {
		may_be_refused(worker, &result);
		free(block);
		return NULL;
	}
	mark(block);
	worker->allocs++;
	return block;
}

/* One by a task that others move meanwhile: charged to one of the groups it was in since we began. */
static struct block *alloc_shared(struct worker *worker)
{
	struct shared_task *shared = &shared_tasks[random_below(&worker->random, SHARED_TASKS)];
	uint32_t from = load_seq_cst(&shared->moves);
	struct block *block = malloc(sizeof(*block));
	struct charge_result result = {0, 0, 0};
	bool found = false;
	uint32_t to;

	block->size = any_size(&worker->random);
	block->domain = (enum domain)random_below(&worker->random, NR_DOMAINS);
	block->p = alloc_for(worker->cpu, shared->task, block->domain, block->size, &result);
	if (!block->p) {
		may_be_refused(worker, &result);
		free(block);
		return NULL;
	}
	mark(block);
	pthread_rwlock_rdlock(&model_lock);
	block->node = actual_node(block->p);
	to = load_relaxed(&shared->moves);
	for (uint32_t i = from; i <= to && !found; i++)
		found = nearest_living(shared->history[i % HISTORY]) == block->node;
	if (!found && to - from < HISTORY)
		fail_that("worker %u: a block of task %" PRIu64 " is charged to group %u, "
			  "but the task is in %u (moves %u to %u)",
			  worker->index, shared->task->id, memcg_id(block->node->memcg),
			  memcg_id(nearest_living(shared->history[to % HISTORY])->memcg), from, to);
	pthread_rwlock_unlock(&model_lock);
	worker->allocs++;
	return block;
}

static void check_owner(struct worker *worker, const struct block *block)
{
	struct node *actual;
	struct node *expected;

	pthread_rwlock_rdlock(&model_lock);
	actual = actual_node(block->p);
	expected = nearest_living(block->node);
	if (actual != expected)
		fail_that("worker %u: a block of %zu bytes is charged to group %u (uid %" PRIu64
			  ") instead of %u (uid %" PRIu64 ")",
			  worker->index, block->size, memcg_id(actual->memcg), actual->uid,
			  memcg_id(expected->memcg), expected->uid);
	pthread_rwlock_unlock(&model_lock);
	check_equal(bytes_of(block->p) % 16, 0);
	check_compare(bytes_of(block->p), >=, block->size);
	check_mark(block, block->size);
}

static void free_block(struct worker *worker, struct block *block)
{
	check_owner(worker, block);
	if (in_slab_range(block->p) && !slab_is_local(worker->cpu, virt_to_slab(block->p)))
		worker->remote_frees++;
	release_in(worker->cpu, block->domain, block->p);
	free(block);
	worker->frees++;
}

static void realloc_block(struct worker *worker, struct block *block)
{
	size_t size = any_size(&worker->random);
	struct charge_result result = {0, 0, 0};
	size_t kept = size < block->size ? size : block->size;
	void *before = block->p;
	unsigned char *p;
	struct node *actual;

	check_owner(worker, block);
	p = kmem_realloc(worker->cpu, worker->task, block->domain, block->p, size, &result);
	if (!p) {
		may_be_refused(worker, &result);
		check_owner(worker, block);
		return;
	}
	block->p = p;
	check_mark(block, kept);
	pthread_rwlock_rdlock(&model_lock);
	actual = actual_node(p);
	if (actual == nearest_living(worker->node) && p != before)
		block->node = worker->node;
	else if (actual != nearest_living(block->node)) {
		/* In place, but the owner had no room: see realloc_large(). */
		check_that(actual == nearest_living(worker->node));
		block->node = worker->node;
	}
	pthread_rwlock_unlock(&model_lock);
	block->size = size;
	mark(block);
	worker->reallocs++;
}

/* --- changes of the tree -------------------------------------------------- */

/* Enters a group with a new task. Others may do so at the same time. */
static void enter(struct worker *worker)
{
	struct task *before = worker->task;

	pthread_rwlock_rdlock(&model_lock);
	worker->node = any_living(worker);
	worker->task = task_new(worker->node->memcg);
	pthread_rwlock_unlock(&model_lock);
	if (before)
		task_free(before);
	worker->enters++;
}

static void move_own(struct worker *worker)
{
	pthread_rwlock_rdlock(&model_lock);
	worker->node = any_living(worker);
	check_equal(task_move(worker->task, load_relaxed(&worker->task->gen), worker->node->memcg),
		    0);
	pthread_rwlock_unlock(&model_lock);
	worker->moves++;
}

static void move_shared(struct worker *worker)
{
	struct shared_task *shared = &shared_tasks[random_below(&worker->random, SHARED_TASKS)];
	struct node *node;
	uint32_t move;

	pthread_rwlock_wrlock(&model_lock);
	node = any_living(worker);
	check_equal(task_move(shared->task, load_relaxed(&shared->task->gen), node->memcg), 0);
	move = load_relaxed(&shared->moves) + 1;
	shared->history[move % HISTORY] = node;
	store_seq_cst(&shared->moves, move);
	pthread_rwlock_unlock(&model_lock);
	worker->moves++;
}

static void create(struct worker *worker)
{
	pthread_rwlock_wrlock(&model_lock);
	if (nr_living < LIVING) {
		struct node *parent = any_living(worker);

		if (parent->depth < 12) {
			struct mem_cgroup *memcg;

			check_equal(memcg_create(parent->memcg, "stress", 6, &memcg), 0);
			node_new(parent, memcg);
			if (random_below(&worker->random, 8) == 0)
				page_counter_set_max(memcg, 100000);
			worker->creates++;
		}
	}
	pthread_rwlock_unlock(&model_lock);
}

static void remove_any(struct worker *worker, bool force)
{
	pthread_rwlock_wrlock(&model_lock);
	if (nr_living > 1) {
		uint32_t at = 1 + random_below(&worker->random, nr_living - 1);
		struct node *node = living[at];
		uint32_t tasks = load_relaxed(&node->memcg->nr_tasks);
		int err = memcg_remove(node->memcg, force);

		if (node->children || (!force && tasks)) {
			check_equal(err, -EBUSY);
			worker->busy++;
		} else {
			check_equal(err, 0);
			node->living = false;
			node->next = dead;
			dead = node;
			node->parent->children--;
			living[at] = living[--nr_living];
			if (force)
				worker->forced++;
			else
				worker->removes++;
		}
	}
	pthread_rwlock_unlock(&model_lock);
}

/* --- a thread's life ------------------------------------------------------ */

static void turn(struct worker *worker)
{
	uint32_t at = random_below(&worker->random, HELD);
	uint32_t what = random_below(&worker->random, 1000);
	struct block *block = worker->held[at];

	if (what < 600) {
		if (block)
			free_block(worker, block);
		worker->held[at] = what < 450 ? alloc_own(worker) : alloc_shared(worker);
	} else if (what < 800) {
		/* Leave it to somebody else, and take what is there. */
		worker->held[at] =
			xchg_acq_rel(&mailboxes[random_below(&worker->random, MAILBOXES)], block);
	} else if (what < 880) {
		if (block)
			realloc_block(worker, block);
	} else if (what < 930) {
		if (block)
			free_block(worker, block);
		worker->held[at] = NULL;
	} else if (what < 950) {
		move_own(worker);
	} else if (what < 960) {
		move_shared(worker);
	} else if (what < 965) {
		enter(worker);
	} else if (what < 975) {
		create(worker);
	} else if (what < 981) {
		remove_any(worker, true);
	} else if (what < 985) {
		remove_any(worker, false);
	} else if (what < 987) {
		stock_drain_all(worker->cpu);
	} else if (what < 988) {
		stock_drain_dying(worker->cpu);
		heap_collect(worker->cpu);
	}
}

static void *live(void *arg)
{
	struct worker *worker = arg;
	pthread_t next;

	worker->cpu = cpu_get(worker->index);
	check_that(worker->cpu != NULL);
	for (int turns = 0; turns < LIFE && !load_acquire(&stop); turns++) {
		turn(worker);
		if (load_acquire(&pausing)) {
			fetch_add_seq_cst(&nr_paused, 1);
			while (load_acquire(&pausing))
				pause_us(200);
			fetch_add_seq_cst(&nr_paused, (unsigned)-1);
		}
	}
	cpu_put(worker->cpu);
	worker->lives++;
	if (load_acquire(&stop)) {
		fetch_add_seq_cst(&nr_finished, 1);
		return NULL;
	}
	check_equal(pthread_create(&next, NULL, live, worker), 0);
	pthread_detach(next);
	return NULL;
}

/* --- all stand still ------------------------------------------------------ */

static void expect(struct block *block)
{
	int64_t bytes;

	if (!block)
		return;
	bytes = (int64_t)bytes_of(block->p);
	for (struct node *node = nearest_living(block->node); node; node = node->parent) {
		node->bytes += bytes;
		node->blocks++;
		node->stat[block->domain] += bytes;
	}
}

static void check_all(void)
{
	struct audit audit;

	check_equal(audit_run(&audit), 0);
	if (audit.drift)
		for (uint32_t id = MEMCG_ROOT; id < audit.nr; id++)
			if (audit.counted[id] != audit.recomputed[id])
				fprintf(stderr,
					"group %u: counted %" PRId64 ", recomputed %" PRId64 "\n",
					id, audit.counted[id], audit.recomputed[id]);
	check_equal(audit.drift, 0);
	audit_free(&audit);

	for (uint32_t i = 0; i < nr_living; i++) {
		living[i]->bytes = 0;
		living[i]->blocks = 0;
		memset(living[i]->stat, 0, sizeof(living[i]->stat));
	}
	for (int i = 0; i < THREADS; i++)
		for (int j = 0; j < HELD; j++)
			expect(workers[i].held[j]);
	for (int i = 0; i < MAILBOXES; i++)
		expect(load_acquire(&mailboxes[i]));
	for (uint32_t i = 0; i < nr_living; i++) {
		struct node *node = living[i];
		struct memcg_view view;

		memcg_view(node->memcg, &view);
		check_equal(view.current, node->bytes);
		check_equal(view.blocks, node->blocks);
		for (int d = 0; d < NR_DOMAINS; d++)
			check_equal(view.stat[d], node->stat[d]);
		check_compare(usage_of(node->memcg), >=, view.current);
		check_compare(view.peak, >=, view.current);
		check_equal(load_relaxed(&node->memcg->nr_children), node->children);
	}
	for (uint32_t i = 0; i < cpu_count(); i++)
		for (uint32_t j = 0; j < NR_STOCKS; j++) {
			check_compare(load_relaxed(&cpu_nth(i)->stocks[j].bytes), >=, 0);
			check_compare(load_relaxed(&cpu_nth(i)->stocks[j].bytes), <=, STOCK_MAX);
		}
}

/* Nobody needs to know of the dead any more when all that was theirs is their heirs'. */
static void bury_the_dead(void)
{
	for (int i = 0; i < THREADS; i++) {
		workers[i].node = nearest_living(workers[i].node);
		for (int j = 0; j < HELD; j++)
			if (workers[i].held[j])
				workers[i].held[j]->node = nearest_living(workers[i].held[j]->node);
	}
	for (int i = 0; i < MAILBOXES; i++) {
		struct block *block = load_acquire(&mailboxes[i]);

		if (block)
			block->node = nearest_living(block->node);
	}
	for (int i = 0; i < SHARED_TASKS; i++) {
		struct node **last =
			&shared_tasks[i].history[load_relaxed(&shared_tasks[i].moves) % HISTORY];

		*last = nearest_living(*last);
	}
	while (dead) {
		struct node *node = dead;

		dead = node->next;
		free(node);
	}
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void pause_and_check(void)
{
	store_release(&pausing, 1);
	while (load_acquire(&nr_paused) < THREADS)
		pause_us(100);
	check_all();
	bury_the_dead();
	store_release(&pausing, 0);
	while (load_acquire(&nr_paused) > 0)
		pause_us(100);
}

static void leave_nothing_behind(struct cpu *cpu)
{
	struct worker janitor = {.index = THREADS, .cpu = cpu};

	for (int i = 0; i < THREADS; i++) {
		for (int j = 0; j < HELD; j++)
			if (workers[i].held[j])
				free_block(&janitor, workers[i].held[j]);
		memset(workers[i].held, 0, sizeof(workers[i].held));
		task_free(workers[i].task);
	}
	for (int i = 0; i < MAILBOXES; i++) {
		struct block *block = xchg_acq_rel(&mailboxes[i], NULL);

		if (block)
			free_block(&janitor, block);
	}
	check_all();
	for (int i = 0; i < SHARED_TASKS; i++)
		task_free(shared_tasks[i].task);
	while (nr_living > 1) {
		uint32_t deepest = 1;

		for (uint32_t i = 2; i < nr_living; i++)
			if (living[i]->depth > living[deepest]->depth)
				deepest = i;
		check_equal(memcg_remove(living[deepest]->memcg, false), 0);
		free(living[deepest]);
		living[deepest] = living[--nr_living];
	}
	free(living[0]);
	stock_drain_all(cpu);
	tree_lock();
	objcg_reap();
	tree_unlock();
	check_equal(load_relaxed(&root_memcg()->nr_dying), 0);
	check_equal(load_relaxed(&root_memcg()->nr_children), 0);
	check_equal(load_relaxed(&root_memcg()->nr_tasks), 1);
	check_equal(load_relaxed(&root_memcg()->blocks), 0);
	check_equal(usage_of(root_memcg()), 0);
	check_equal(drift_now(), 0);
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 2;
	double end = now() + seconds;
	uint64_t seed = test_seed();
	struct cpu *cpu = core_start();
	pthread_rwlockattr_t attr;
	struct worker sum = {0};
	uint64_t pauses = 0;
	uint32_t groups;
	uint32_t objcgs;

	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&model_lock, &attr);
	node_of_record = calloc(RECORDS, sizeof(struct node *));
	node_new(NULL, root_memcg());
	for (int i = 0; i < SHARED_TASKS; i++) {
		shared_tasks[i].task = task_new(root_memcg());
		shared_tasks[i].history[0] = living[0];
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_t thread;

		workers[i].index = i;
		workers[i].random = seed * THREADS + i;
		enter(&workers[i]);
		check_equal(pthread_create(&thread, NULL, live, &workers[i]), 0);
		pthread_detach(thread);
	}
	do {
		pause_us(200000);
		pause_and_check();
		pauses++;
	} while (now() < end);
	store_release(&stop, 1);
	while (load_acquire(&nr_finished) < THREADS)
		pause_us(1000);
	check_all();
	bury_the_dead();
	groups = section_used(SECTION_MEMCG);
	objcgs = section_used(SECTION_OBJCG);
	leave_nothing_behind(cpu);

	for (int i = 0; i < THREADS; i++) {
		const uint64_t *from = &workers[i].allocs;
		uint64_t *to = &sum.allocs;

		for (; to <= &sum.lives; to++, from++)
			*to += *from;
	}
	printf("%" PRIu64 " allocs, %" PRIu64 " frees (%" PRIu64 " remote), %" PRIu64
	       " reallocs, %" PRIu64 " refused, %" PRIu64 " moves, %" PRIu64 " enters, %" PRIu64
	       " groups made, %" PRIu64 " removed, %" PRIu64 " by force, %" PRIu64 " busy, %" PRIu64
	       " threads, %" PRIu64 " audits, %u group records, %u objcgs, %u cpus\n",
	       sum.allocs, sum.frees, sum.remote_frees, sum.reallocs, sum.refused, sum.moves,
	       sum.enters, sum.creates, sum.removes, sum.forced, sum.busy, sum.lives, pauses,
	       groups, objcgs, cpu_count());
	free(node_of_record);
	return 0;
}
