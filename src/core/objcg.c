#include "objcg.h"

#include "cpu.h"
#include "memcg.h"

static uint32_t free_head; /* of recycled ids, through ->next */

/* Dying objcgs that had no bytes at some moment: a stack, taken whole by objcg_reap(). */
static _Atomic uint32_t candidates;

struct obj_cgroup *objcg_alloc(void)
{
	uint32_t id = free_head;
	struct obj_cgroup *objcg;

	if (id) {
		free_head = objcg_from_id(id)->next;
	} else {
		id = section_used(SECTION_OBJCG);
		if (id == 0)
			id = 1;
		if (region_reserve(SECTION_OBJCG, id + 1) < 0)
			return NULL;
	}
	objcg = objcg_from_id(id);
	store_relaxed(&objcg->bytes, 0);
	objcg->next = 0;
	objcg->prev = 0;
	store_release(&objcg->state, OBJCG_LIVE);
	return objcg;
}

static void candidate_push(struct obj_cgroup *objcg)
{
	uint32_t head;

	if (xchg_acq_rel(&objcg->candidate, 1))
		return; /* on the list already */
	head = load_relaxed(&candidates);
	do {
		store_relaxed(&objcg->next_candidate, head);
	} while (!cas_weak_release(&candidates, &head, objcg_id(objcg)));
}

/*
 * Bytes are the reference: an objcg is alive while anything is charged to it.
 * Here the state is set before the bytes are read; obj_cgroup_uncharge() drops
 * the bytes before it reads the state.  Both are sequentially consistent, so at
 * least one of the two makes it a candidate (both may: candidate_push() is
 * idempotent).  tests/core/test_recycle.c; scenarios last-byte-* of tests/explore.
 */
void objcg_offline(struct obj_cgroup *objcg, uint64_t stamp)
{
	objcg->stamp = stamp;
	store_seq_cst(&objcg->state, OBJCG_DYING);
	if (load_seq_cst(&objcg->bytes) == 0)
		candidate_push(objcg);
}

/*
 * An id is reused only if nobody can still use it:
 * - no section is running that may have found it while its group was alive;
 * - no bytes: so no block has it as owner, and no stock holds bytes of it;
 * - no stock slot has its key: a slot without bytes may still hold statistics;
 * - it was not listed again meanwhile: whoever frees the last block while we
 *   look lists it after the bytes are gone, and with the slot's key in place.
 *   So the bytes are looked at before the keys, and the list last.
 * A task that names it is flagged since before the stamp, and a flagged
 * reference is not used.
 */
static bool objcg_may_recycle(const struct obj_cgroup *objcg)
{
	uint32_t id = objcg_id(objcg);
	uint32_t nr = cpu_count();

	if (!epoch_passed(objcg->stamp) || load_seq_cst(&objcg->bytes) != 0)
		return false;
	for (uint32_t i = 0; i < nr; i++)
		if (load_acquire(&cpu_nth(i)->stocks[id % NR_STOCKS].key) == id << 1)
			return false;
	return load_acquire(&objcg->candidate) == 0;
}

static void objcg_recycle(struct obj_cgroup *objcg)
{
	struct mem_cgroup *memcg = memcg_from_id(load_relaxed(&objcg->memcg));

	memcg_objcg_unlink(memcg, objcg);
	for (; memcg; memcg = parent_mem_cgroup(memcg))
		fetch_add_relaxed(&memcg->nr_dying, (uint32_t)-1);
	store_release(&objcg->state, OBJCG_FREE);
	objcg->next = free_head;
	free_head = objcg_id(objcg);
}

void objcg_reap(void)
{
	uint32_t id;

	if (load_relaxed(&candidates) == 0)
		return;
	id = xchg_acq_rel(&candidates, 0);
	while (id) {
		struct obj_cgroup *objcg = objcg_from_id(id);

		id = load_relaxed(&objcg->next_candidate);
		/*
		 * Cleared before the bytes are looked at: should the last of them
		 * go away after that, whoever uncharges it pushes it again.
		 */
		store_seq_cst(&objcg->candidate, 0);
		if (load_seq_cst(&objcg->state) != OBJCG_DYING)
			continue; /* listed late, and recycled by then */
		if (objcg_may_recycle(objcg))
			objcg_recycle(objcg);
		else if (load_seq_cst(&objcg->bytes) == 0)
			candidate_push(objcg); /* later */
	}
}

bool obj_cgroup_try_charge(struct obj_cgroup *objcg, int64_t nr, enum charge_bound bound,
			   struct charge_result *result)
{
	struct mem_cgroup *memcg = obj_cgroup_memcg(objcg);

	if (!page_counter_try_charge(memcg, nr, bound, result))
		return false;
	fetch_add_relaxed(&objcg->bytes, nr);
	return true;
}

void obj_cgroup_uncharge(struct obj_cgroup *objcg, int64_t nr)
{
	page_counter_uncharge(obj_cgroup_memcg(objcg), nr);
	if (fetch_add_seq_cst(&objcg->bytes, -nr) == nr &&
	    load_seq_cst(&objcg->state) == OBJCG_DYING)
		candidate_push(objcg);
}

void obj_cgroup_stat(struct obj_cgroup *objcg, enum domain domain, int64_t bytes, int64_t blocks)
{
	struct mem_cgroup *memcg = obj_cgroup_memcg(objcg);

	for (; memcg; memcg = parent_mem_cgroup(memcg)) {
		if (blocks)
			fetch_add_relaxed(&memcg->blocks, blocks);
		if (bytes && domain != DOMAIN_OBJECT)
			fetch_add_relaxed(&memcg->stat[domain], bytes);
	}
}
