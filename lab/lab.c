/* One variant as a module: groups, tasks and threads for the timed loops of scenarios.c. */
#define _GNU_SOURCE
#include "lab.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "variant.h"

#ifndef LAB_VARIANT
#error "the build names the variant"
#endif

#define PAGE 4096u

/* LAB_MOVED: a task is moved once in this many nanoseconds. */
#define MOVE_EVERY 1000

_Thread_local struct cpu *lab_cpu;

void *(*callee_malloc)(size_t size);
void (*callee_free)(void *p);

/* [depth], made when first asked for: a group and a sibling of it. */
static struct mem_cgroup *groups[LAB_DEPTH + 1][2];

static void *blocks[LAB_THREADS];
static size_t nr_blocks[LAB_THREADS];

/* --- steps that are not on the fast path --------------------------------- */

__attribute__((noinline)) void *lab_alloc_slow(const struct lab_cache *cache, size_t size)
{
	return variant_alloc_slow(cache->cpu, cache->task, size);
}

__attribute__((noinline)) void lab_free_slow(struct cpu *cpu, void *p)
{
	variant_free_slow(cpu, p);
}

struct task *lab_fork(struct cpu *cpu, struct task *parent)
{
	int err;
	struct task *child = task_alloc(memcg_from_id(load_relaxed(&parent->memcg)), &err);

	if (child)
		variant_fork(cpu, parent, child);
	return child;
}

void lab_exit(struct cpu *cpu, struct task *task)
{
	variant_exit(cpu, task);
	task_free(task);
}

int lab_move(struct task *task, struct mem_cgroup *memcg)
{
	return task_move(task, load_relaxed(&task->gen), memcg);
}

/* --- groups -------------------------------------------------------------- */

static int lab_init(void)
{
	int err;

	if (!(VARIANT_FLAGS & LAB_TASKS) || groups[0][0])
		return 0;
	variant_init();
	err = kmem_init(NULL, "lab", LAB_VARIANT);
	if (err == 0)
		groups[0][0] = memcg_from_id(MEMCG_ROOT);
	return err;
}

static int group_at(uint32_t depth, unsigned which, struct mem_cgroup **result)
{
	struct mem_cgroup *parent;
	int err;

	if (depth > LAB_DEPTH)
		return -EINVAL;
	/* The root has no sibling: a child of it stands in. */
	if (depth == 0 && which == 1)
		depth = 1;
	if (!groups[depth][which]) {
		err = group_at(depth - 1, 0, &parent);
		if (err == 0)
			err = memcg_create(parent, "group", 5, &groups[depth][which]);
		if (err)
			return err;
	}
	*result = groups[depth][which];
	return 0;
}

/* --- runs ---------------------------------------------------------------- */

/*
 * Brings in the pages of all slabs ever used.  A kernel's slab pages do not
 * fault; ours do, each time after they were given back, and that would be most
 * of what a million allocations cost.
 */
static void make_resident(void)
{
	size_t size = (size_t)load_acquire(&slab_range.top) << SLAB_SHIFT;

	for (size_t at = 0; at < size; at += PAGE) {
		char *volatile *page = (char *volatile *)(slab_range.base + at);

		*page = *page;
	}
}

static int blocks_for(unsigned thread, size_t nr, void ***result)
{
	if (nr > nr_blocks[thread]) {
		void *larger = malloc(nr * sizeof(void *));

		if (!larger)
			return -ENOMEM;
		memset(larger, 0xff, nr * sizeof(void *)); /* its page faults are nobody's cost */
		free(blocks[thread]);
		blocks[thread] = larger;
		nr_blocks[thread] = nr;
	}
	*result = blocks[thread];
	return 0;
}

/* A cpu and a task for one thread. */
static int worker_begin(struct lab_worker *worker, unsigned thread,
			const struct lab_request *request)
{
	struct task *task = NULL;
	int err;

	memset(worker, 0, sizeof(*worker));
	worker->request = request;
	err = blocks_for(thread, lab_blocks_needed(request), &worker->blocks);
	if (err || !(VARIANT_FLAGS & LAB_TASKS))
		return err;
	err = group_at(request->depth, 0, &worker->groups[0]);
	if (err == 0)
		err = group_at(request->depth, 1, &worker->groups[1]);
	if (err)
		return err;
	worker->cache.cpu = cpu_get(0);
	if (!worker->cache.cpu || worker->cache.cpu->index >= LAB_CPUS)
		return -ENOSPC;
	lab_cpu = worker->cache.cpu;
	task = task_alloc(worker->groups[0], &err);
	if (!task)
		return err;
	lab_switch(&worker->cache, task);
	return 0;
}

static void worker_end(struct lab_worker *worker)
{
	struct cpu *cpu = worker->cache.cpu;

	if (worker->cache.task)
		lab_exit(cpu, worker->cache.task);
	if (cpu)
		cpu_put(cpu);
}

static struct lab_worker workers[LAB_THREADS];
static int results[LAB_THREADS];
static pthread_barrier_t barrier;

/* The mover of LAB_MOVED. */
static _Atomic int moving;

static void *worker_main(void *arg)
{
	struct lab_worker *worker = arg;

	lab_cpu = worker->cache.cpu;
	pthread_barrier_wait(&barrier);
	results[worker - workers] = lab_time(worker);
	store_release(&moving, 0);
	return NULL;
}

static uint64_t nanoseconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void *mover_main(void *arg)
{
	struct lab_worker *worker = arg;
	uint64_t moves = 0;
	uint64_t next;

	pthread_barrier_wait(&barrier);
	next = nanoseconds();
	while (load_acquire(&moving)) {
		if (nanoseconds() < next)
			continue;
		next += MOVE_EVERY;
		if (lab_move(worker->cache.task, worker->groups[++moves & 1]))
			break;
	}
	return NULL;
}

static int run_threads(unsigned nr_workers, bool with_mover)
{
	unsigned nr = nr_workers + with_mover;
	pthread_t threads[LAB_THREADS + 1];
	unsigned started;
	int err = 0;

	pthread_barrier_init(&barrier, NULL, nr);
	store_release(&moving, 1);
	for (started = 0; started < nr; started++) {
		bool is_worker = started < nr_workers;

		err = pthread_create(&threads[started], NULL, is_worker ? worker_main : mover_main,
				     &workers[is_worker ? started : 0]);
		if (err)
			abort(); /* those that run wait for one that never comes */
	}
	for (unsigned i = 0; i < started; i++)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&barrier);
	return -err;
}

static int lab_run(const struct lab_request *request, struct lab_result *result)
{
	bool with_mover = request->scenario == LAB_MOVED;
	unsigned nr = with_mover ? 1 : request->threads;
	unsigned begun;
	int err = 0;

	if (request->scenario >= NR_LAB_SCENARIOS || nr == 0 || nr > LAB_THREADS ||
	    request->count == 0 || request->size > SLAB_SMALL_MAX ||
	    (request->scenario == LAB_BATCHES && !request->allocations) ||
	    (request->scenario == LAB_MOVE && request->allocations > 1000))
		return -EINVAL;
	if ((request->scenario == LAB_MOVE || with_mover) && !(VARIANT_FLAGS & LAB_MIGRATES))
		return -EPERM;
	if (request->scenario >= LAB_FORK && !(VARIANT_FLAGS & LAB_TASKS))
		return -EPERM;
	for (begun = 0; err == 0 && begun < nr; begun++) {
		err = worker_begin(&workers[begun], begun, request);
		results[begun] = -ENOMEM;
	}
	if (err == 0) {
		if (request->resident && VARIANT_FLAGS & LAB_TASKS)
			make_resident();
		if (nr == 1 && !with_mover) {
			lab_cpu = workers[0].cache.cpu;
			results[0] = lab_time(&workers[0]);
		} else {
			err = run_threads(nr, with_mover);
		}
	}
	result->ns = 0;
	for (unsigned i = 0; i < begun; i++) {
		lab_cpu = workers[i].cache.cpu;
		worker_end(&workers[i]);
		if (err == 0 && results[i])
			err = -ENOMEM;
		result->ns += workers[i].ns / nr;
	}
	lab_cpu = NULL;
	return err;
}

/* --- this variant, called ------------------------------------------------ */

static struct lab_cache call_cache;

static int call_begin(uint32_t depth)
{
	static struct lab_request request = {.size = 16, .count = 1, .threads = 1};
	struct lab_worker worker;
	int err;

	request.depth = depth;
	err = worker_begin(&worker, 0, &request);
	call_cache = worker.cache;
	return err;
}

static void call_end(void)
{
	struct lab_worker worker = {.cache = call_cache};

	lab_cpu = call_cache.cpu;
	worker_end(&worker);
	lab_cpu = NULL;
}

static void *call_malloc(size_t size)
{
	return lab_alloc(&call_cache, size);
}

static void call_free(void *p)
{
	lab_free(&call_cache, p);
}

static void set_callee(void *(*new_malloc)(size_t size), void (*new_free)(void *p))
{
	callee_malloc = new_malloc;
	callee_free = new_free;
}

__attribute__((visibility("default"))) extern const struct lab_ops lab_ops;
const struct lab_ops lab_ops = {
	.version = LAB_VERSION,
	.flags = VARIANT_FLAGS,
	.name = LAB_VARIANT,
#ifdef __clang__
	.compiler = __VERSION__,
#else
	.compiler = "gcc " __VERSION__,
#endif
	.init = lab_init,
	.run = lab_run,
	.self_test = lab_self_test,
	.call_begin = call_begin,
	.call_end = call_end,
	.call_malloc = call_malloc,
	.call_free = call_free,
	.set_callee = set_callee,
};
