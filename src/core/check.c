#include "check.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu.h"
#include "large.h"
#include "memcg.h"
#include "native.h"
#include "slab.h"

/* --- views --------------------------------------------------------------- */

/* The group that a stock's bytes are charged to; NULL for an empty slot. */
static struct mem_cgroup *stock_memcg(const struct stock *stock)
{
	uint32_t key = load_acquire(&stock->key);

	return key ? obj_cgroup_memcg(objcg_from_id(key >> 1)) : NULL;
}

typedef void (*stock_fn)(const struct stock *stock, void *arg);

static void for_each_stock_below(const struct mem_cgroup *memcg, stock_fn fn, void *arg)
{
	uint32_t nr = cpu_count();

	for (uint32_t i = 0; i < nr; i++) {
		struct cpu *cpu = cpu_nth(i);

		/* Given back, and drained before: there may be many, of threads that have ended. */
		if (load_acquire(&cpu->record->state) == 0)
			continue;
		for (uint32_t j = 0; j < NR_STOCKS; j++) {
			struct mem_cgroup *owner = stock_memcg(&cpu->stocks[j]);

			if (owner && memcg_is_descendant(owner, memcg))
				fn(&cpu->stocks[j], arg);
		}
	}
}

static void sub_bytes(const struct stock *stock, void *arg)
{
	*(int64_t *)arg -= load_relaxed(&stock->bytes);
}

static void add_stats(const struct stock *stock, void *arg)
{
	struct memcg_view *view = arg;

	view->current -= load_relaxed(&stock->bytes);
	view->blocks += load_relaxed(&stock->blocks);
	for (int i = 0; i < NR_DOMAINS_COUNTED; i++)
		view->stat[i + 1] += load_relaxed(&stock->stat[i]);
}

/* A batch charged after the usage was read is in a stock, but not in that usage. */
static int64_t not_negative(int64_t current)
{
	return current > 0 ? current : 0;
}

int64_t memcg_current(struct mem_cgroup *memcg)
{
	int64_t current = load_relaxed(&memcg->memory.usage);

	for_each_stock_below(memcg, sub_bytes, &current);
	return not_negative(current);
}

void memcg_view(struct mem_cgroup *memcg, struct memcg_view *view)
{
	view->current = load_relaxed(&memcg->memory.usage);
	view->blocks = load_relaxed(&memcg->blocks);
	for (int i = 0; i < NR_DOMAINS; i++)
		view->stat[i] = load_relaxed(&memcg->stat[i]);
	for_each_stock_below(memcg, add_stats, view);
	view->current = not_negative(view->current);
	view->stat[DOMAIN_OBJECT] = view->current;
	for (int i = 1; i < NR_DOMAINS; i++)
		view->stat[DOMAIN_OBJECT] -= view->stat[i];
	view->peak = load_relaxed(&memcg->memory.watermark);
	if (view->peak < view->current)
		view->peak = view->current;
}

/* --- audit --------------------------------------------------------------- */

struct tally {
	int64_t *bytes; /* by objcg id */
	uint32_t nr;
};

static void tally_add(struct tally *tally, uint32_t objcg, int64_t bytes)
{
	/* Anything else would be corruption: shown as drift, not as a crash. */
	tally->bytes[objcg < tally->nr ? objcg : 0] += bytes;
}

static void mark_free(const struct slab *slab, void *list, uint8_t *is_free)
{
	for (void *block = list; block; block = *(void **)block)
		is_free[obj_to_index(slab, block)] = 1;
}

static const char *slab_fault(const struct slab *slab);

static void tally_slab(struct slab *slab, struct tally *tally)
{
	uint8_t is_free[SLAB_SIZE / 16] = {0};
	char *base = slab_address(slab);

	if (!load_relaxed(&slab->heap))
		return;
	if (slab_fault(slab)) {
		/* Its lists cannot be followed: shown as drift, not as a crash. */
		tally->bytes[0] += slab->block_size;
		return;
	}
	mark_free(slab, slab->free, is_free);
	mark_free(slab, load_acquire(&slab->remote), is_free);
	for (uint32_t i = 0; i < slab->bump; i++) {
		char *block = base + (size_t)i * slab->block_size;

		if (is_free[i])
			continue;
		if (slab_is_small(slab)) {
			tally_add(tally, slab_owner(slab, block), slab->block_size);
		} else {
			const struct medium_owner *owner = slab_medium_owner(slab, block);

			tally_add(tally, owner->objcg, (int64_t)owner->granules << 4);
		}
	}
}

static void tally_large(const struct large_header *header, void *arg)
{
	tally_add(arg, header->objcg, (int64_t)header->size);
}

static void tally_native(uint32_t objcg, int64_t bytes, void *arg)
{
	tally_add(arg, objcg, bytes);
}

static int64_t magnitude(int64_t n)
{
	return n < 0 ? -n : n;
}

int audit_run(struct audit *audit)
{
	uint32_t slabs = load_acquire(&slab_range.top);
	struct tally tally;

	audit->nr = section_used(SECTION_MEMCG);
	audit->drift = 0;
	tally.nr = section_used(SECTION_OBJCG);
	tally.bytes = base_calloc(tally.nr, sizeof(int64_t));
	audit->counted = base_calloc(audit->nr, sizeof(int64_t));
	audit->recomputed = base_calloc(audit->nr, sizeof(int64_t));
	if (!tally.bytes || !audit->counted || !audit->recomputed) {
		base_free(tally.bytes);
		audit_free(audit);
		return -ENOMEM;
	}

	for (uint32_t i = 0; i < slabs; i++)
		tally_slab(&slab_range.slabs[i], &tally);
	large_for_each(tally_large, &tally);
	native_tally_for_each(tally_native, &tally, tally.nr);
	native_map_for_each(tally_native, &tally);

	for (uint32_t id = 1; id < tally.nr; id++) {
		struct obj_cgroup *objcg = objcg_from_id(id);
		struct mem_cgroup *memcg = memcg_from_id(load_relaxed(&objcg->memcg));
		int64_t stocked = 0;

		if (load_relaxed(&objcg->state) == OBJCG_FREE) {
			audit->drift += magnitude(tally.bytes[id]);
			continue;
		}
		for (uint32_t i = 0; i < cpu_count(); i++) {
			const struct stock *stock = &cpu_nth(i)->stocks[id % NR_STOCKS];

			if (load_relaxed(&stock->key) == id << 1)
				stocked += load_relaxed(&stock->bytes);
		}
		audit->drift += magnitude(load_relaxed(&objcg->bytes) - tally.bytes[id] - stocked);
		for (; memcg; memcg = parent_mem_cgroup(memcg)) {
			audit->recomputed[memcg_id(memcg)] += tally.bytes[id];
			audit->counted[memcg_id(memcg)] -= stocked;
		}
	}
	audit->drift += magnitude(tally.bytes[0]);
	for (uint32_t id = MEMCG_ROOT; id < audit->nr; id++) {
		struct mem_cgroup *memcg = memcg_from_id(id);

		if (load_relaxed(&memcg->state) != MEMCG_ONLINE)
			continue;
		audit->counted[id] += load_relaxed(&memcg->memory.usage);
		audit->drift += magnitude(audit->counted[id] - audit->recomputed[id]);
	}
	base_free(tally.bytes);
	return 0;
}

void audit_free(struct audit *audit)
{
	base_free(audit->counted);
	base_free(audit->recomputed);
	audit->counted = NULL;
	audit->recomputed = NULL;
}

/* --- invariants ---------------------------------------------------------- */

/* capacity >= bump = used + length of the free list; every free block is in the slab. */
static const char *slab_fault(const struct slab *slab)
{
	const char *base = slab_address(slab);
	uint32_t nr_free = 0;

	if (slab->bump > slab->capacity)
		return "more blocks than its capacity";
	for (void *block = slab->free; block; block = *(void **)block) {
		size_t offset = (size_t)((char *)block - base);

		if (offset >= SLAB_SIZE || offset % slab->block_size)
			return "a free block is not one of its blocks";
		if (++nr_free > slab->bump)
			return "the free list has a cycle";
	}
	if (slab_used(slab) + (int32_t)nr_free != slab->bump)
		return "used and free blocks do not add up";
	return NULL;
}

void slab_check(const struct slab *slab)
{
	const char *fault = slab_fault(slab);

	if (!fault)
		return;
	fprintf(stderr,
		"objcg: slab %p: %s (block size %u, capacity %u, bump %u, used %d, state %u)\n",
		(const void *)slab, fault, slab->block_size, slab->capacity, slab->bump,
		slab_used(slab), slab->state);
	abort();
}
