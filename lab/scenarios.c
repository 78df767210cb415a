/*
 * The timed loops.  Each is compiled once for each variant, so that its fast
 * path is inlined here as it is in the binding.
 *
 * One thread alone is timed by its own processor time: nothing waits, so all
 * that this leaves out is other programs.  Several are timed by the clock on
 * the wall, since to wait for a lock is what there is to be seen.
 */
#define _GNU_SOURCE
#include <time.h>

#include "objcg.h"
#include "variant.h"

/* Of a move scenario: how many blocks there are before the clock is stopped to free them. */
#define BLOCKS_AT_ONCE 100000u

/* The loop must not know it, as a hook does not. */
static inline size_t opaque(size_t size)
{
	__asm__ volatile("" : "+r"(size));
	return size;
}

static double now(const struct lab_request *request)
{
	struct timespec ts;

	clock_gettime(request->threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static int free_blocks(struct lab_worker *worker, uint64_t nr)
{
	int err = 0;

	for (uint64_t i = 0; i < nr; i++) {
		if (worker->blocks[i])
			lab_free(&worker->cache, worker->blocks[i]);
		else
			err = -1;
	}
	return err;
}

static int time_alloc(struct lab_worker *worker)
{
	uint64_t count = worker->request->count;
	size_t size = worker->request->size;
	double start = now(worker->request);

	for (uint64_t i = 0; i < count; i++)
		worker->blocks[i] = lab_alloc(&worker->cache, opaque(size));
	worker->ns = (now(worker->request) - start) / (double)count;
	return free_blocks(worker, count);
}

static int time_pair(struct lab_worker *worker)
{
	uint64_t count = worker->request->count;
	size_t size = worker->request->size;
	double start = now(worker->request);

	for (uint64_t i = 0; i < count; i++) {
		void *p = lab_alloc(&worker->cache, opaque(size));

		if (unlikely(!p))
			return -1;
		/* Written to, as any block is. */
		*(void *volatile *)p = NULL;
		lab_free(&worker->cache, p);
	}
	worker->ns = (now(worker->request) - start) / (double)count;
	return 0;
}

static int time_batches(struct lab_worker *worker)
{
	uint64_t batch = worker->request->allocations;
	uint64_t batches = worker->request->count / batch;
	size_t size = worker->request->size;
	double start = now(worker->request);

	for (uint64_t i = 0; i < batches; i++) {
		for (uint64_t j = 0; j < batch; j++) {
			worker->blocks[j] = lab_alloc(&worker->cache, opaque(size));
			if (unlikely(!worker->blocks[j]))
				return -1;
		}
		for (uint64_t j = batch; j-- > 0;)
			lab_free(&worker->cache, worker->blocks[j]);
	}
	worker->ns = (now(worker->request) - start) / (double)(batches * batch);
	return 0;
}

static int time_fork(struct lab_worker *worker)
{
	struct lab_cache *cache = &worker->cache;
	uint64_t count = worker->request->count;
	uint32_t allocations = worker->request->allocations;
	size_t size = worker->request->size;
	struct task *parent = cache->task;
	double start;

	/* Its first allocation was made: it has a reference to be inherited. */
	worker->blocks[0] = lab_alloc(cache, size);
	start = now(worker->request);
	for (uint64_t i = 0; i < count; i++) {
		struct task *child = lab_fork(cache->cpu, parent);

		if (unlikely(!child))
			return -1;
		lab_switch(cache, child);
		for (uint32_t j = 1; j <= allocations; j++)
			worker->blocks[j] = lab_alloc(cache, opaque(size));
		for (uint32_t j = allocations; j > 0; j--)
			lab_free(cache, worker->blocks[j]);
		lab_switch(cache, parent);
		lab_exit(cache->cpu, child);
	}
	worker->ns = (now(worker->request) - start) / (double)count;
	return free_blocks(worker, 1);
}

static int time_move(struct lab_worker *worker)
{
	uint64_t count = worker->request->count;
	uint32_t allocations = worker->request->allocations;
	size_t size = worker->request->size;
	struct task *task = worker->cache.task;
	double ns = 0;
	uint64_t done = 0;

	while (done < count) {
		uint64_t nr = 0;
		double start = now(worker->request);

		while (done < count && nr + allocations <= BLOCKS_AT_ONCE) {
			if (unlikely(lab_move(task, worker->groups[++done & 1])))
				return -1;
			for (uint32_t i = 0; i < allocations; i++)
				worker->blocks[nr++] = lab_alloc(&worker->cache, opaque(size));
		}
		ns += now(worker->request) - start;
		if (free_blocks(worker, nr))
			return -1;
	}
	worker->ns = ns / (double)count;
	return 0;
}

/* What a stock saves, for each time that it does not. */
static int time_charge(struct lab_worker *worker)
{
	struct cpu *cpu = worker->cache.cpu;
	struct obj_cgroup *objcg = objcg_from_id(load_relaxed(&worker->groups[0]->objcg));
	uint64_t count = worker->request->count;
	struct charge_result result = {0, 0, 0};
	double start = now(worker->request);

	for (uint64_t i = 0; i < count; i++) {
		section_enter(cpu);
		if (unlikely(!obj_cgroup_try_charge(objcg, STOCK_BATCH_MAX, BOUND_MAX, &result)))
			return -1;
		obj_cgroup_uncharge(objcg, STOCK_BATCH_MAX);
		section_exit(cpu);
	}
	worker->ns = (now(worker->request) - start) / (double)count;
	return 0;
}

size_t lab_blocks_needed(const struct lab_request *request)
{
	switch ((enum lab_scenario)request->scenario) {
	case LAB_ALLOC:
		return request->count;
	case LAB_BATCHES:
		return request->allocations;
	case LAB_FORK:
		return (size_t)request->allocations + 1;
	case LAB_MOVE:
		return BLOCKS_AT_ONCE;
	default:
		return 0;
	}
}

int lab_time(struct lab_worker *worker)
{
	switch ((enum lab_scenario)worker->request->scenario) {
	case LAB_ALLOC:
		return time_alloc(worker);
	case LAB_PAIR:
	case LAB_MOVED:
		return time_pair(worker);
	case LAB_BATCHES:
		return time_batches(worker);
	case LAB_FORK:
		return time_fork(worker);
	case LAB_MOVE:
		return time_move(worker);
	case LAB_CHARGE:
		return time_charge(worker);
	default:
		return -1;
	}
}
