#include "memcg.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "objcg.h"
#include "task.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static uint64_t next_uid = 1;

/* Removed groups, oldest first; a record is taken again when its epoch has passed. */
static uint32_t free_head;
static uint32_t free_tail;

/* Lets memcg_take_flagged() return at once when there is nothing. */
static _Atomic uint32_t nr_flagged;

void tree_lock(void)
{
	pthread_mutex_lock(&lock);
}

void tree_unlock(void)
{
	pthread_mutex_unlock(&lock);
}

void tree_lock_reset_after_fork(void)
{
	pthread_mutex_init(&lock, NULL);
}

void memcg_objcg_link(struct mem_cgroup *memcg, struct obj_cgroup *objcg)
{
	uint32_t id = objcg_id(objcg);

	objcg->prev = 0;
	objcg->next = memcg->objcg_head;
	if (objcg->next)
		objcg_from_id(objcg->next)->prev = id;
	memcg->objcg_head = id;
}

void memcg_objcg_unlink(struct mem_cgroup *memcg, struct obj_cgroup *objcg)
{
	if (objcg->prev)
		objcg_from_id(objcg->prev)->next = objcg->next;
	else
		memcg->objcg_head = objcg->next;
	if (objcg->next)
		objcg_from_id(objcg->next)->prev = objcg->prev;
	objcg->next = 0;
	objcg->prev = 0;
}

static void write_begin(struct mem_cgroup *memcg)
{
	fetch_add_seq_cst(&memcg->seq, 1);
}

static void write_end(struct mem_cgroup *memcg)
{
	fetch_add_seq_cst(&memcg->seq, 1);
}

/* A record that nobody can hold any more, or the next one never used. Under tree_lock. */
static struct mem_cgroup *memcg_record(void)
{
	uint32_t id = free_head;
	uint32_t used;

	if (id && epoch_passed(memcg_from_id(id)->stamp)) {
		free_head = memcg_from_id(id)->next_free;
		if (!free_head)
			free_tail = 0;
		return memcg_from_id(id);
	}
	used = section_used(SECTION_MEMCG);
	if (used == 0)
		used = MEMCG_ROOT; /* index 0 means "none" */
	if (region_reserve(SECTION_MEMCG, used + 1) < 0)
		return NULL;
	return memcg_from_id(used);
}

static void memcg_record_free(struct mem_cgroup *memcg)
{
	uint32_t id = memcg_id(memcg);

	memcg->next_free = 0;
	if (free_tail)
		memcg_from_id(free_tail)->next_free = id;
	else
		free_head = id;
	free_tail = id;
}

static void memcg_reset(struct mem_cgroup *memcg)
{
	struct page_counter *counter = &memcg->memory;

	/* Late uncharges may have left anything here: nobody reads it, see memcg_remove(). */
	store_relaxed(&counter->usage, 0);
	store_relaxed(&counter->max, COUNTER_UNSET);
	store_relaxed(&counter->high, COUNTER_UNSET);
	store_relaxed(&counter->low, 0);
	store_relaxed(&counter->watermark, 0);
	store_relaxed(&memcg->blocks, 0);
	store_relaxed(&memcg->exempt_until, 0);
	store_relaxed(&memcg->granted_until, 0);
	store_relaxed(&memcg->lowered_from, 0);
	store_relaxed(&memcg->bounded_to, 0);
	store_relaxed(&memcg->wanted, 0);
	store_relaxed(&memcg->nr_tasks, 0);
	store_relaxed(&memcg->nr_children, 0);
	store_relaxed(&memcg->nr_dying, 0);
	for (int i = 0; i < NR_DOMAINS; i++)
		store_relaxed(&memcg->stat[i], 0);
	for (int i = 0; i < NR_EVENTS; i++)
		store_relaxed(&memcg->events[i], 0);
	if (xchg_acq_rel(&memcg->flagged, 0))
		fetch_add_relaxed(&nr_flagged, (uint32_t)-1);
	memcg->objcg_head = 0;
	memcg->task_head = 0;
}

static int memcg_setup(struct mem_cgroup *parent, const char *name, size_t name_len,
		       struct mem_cgroup **result)
{
	struct mem_cgroup *memcg = memcg_record();
	struct obj_cgroup *objcg;

	if (!memcg)
		return -ENOSPC;
	objcg = objcg_alloc();
	if (!objcg) {
		/* stamp 0: free for the next one at once */
		memcg->stamp = 0;
		memcg_record_free(memcg);
		return -ENOSPC;
	}
	write_begin(memcg);
	memcg_reset(memcg);
	memcg->uid = next_uid++;
	memcg->depth = parent ? parent->depth + 1 : 0;
	memset(memcg->name, 0, sizeof(memcg->name));
	memcpy(memcg->name, name, name_len);
	memcg->name_len = (uint32_t)name_len;
	store_relaxed(&memcg->parent, parent ? memcg_id(parent) : 0);
	memcg_objcg_link(memcg, objcg);
	store_release(&objcg->memcg, memcg_id(memcg));
	store_release(&memcg->objcg, objcg_id(objcg));
	store_release(&memcg->state, MEMCG_ONLINE);
	write_end(memcg);
	if (parent)
		add_single_writer(&parent->nr_children, 1);
	*result = memcg;
	return 0;
}

int memcg_init(void)
{
	struct mem_cgroup *root;

	return memcg_setup(NULL, "", 0, &root);
}

int memcg_create(struct mem_cgroup *parent, const char *name, size_t name_len,
		 struct mem_cgroup **result)
{
	int err;

	if (name_len == 0 || name_len > NAME_BYTES_MAX)
		return -EINVAL;
	region_touch();
	tree_lock();
	objcg_reap();
	if (load_relaxed(&parent->state) != MEMCG_ONLINE)
		err = -ENODEV;
	else if (parent->depth + 1 > MEMCG_DEPTH_MAX)
		err = -ELOOP;
	else
		err = memcg_setup(parent, name, name_len, result);
	tree_unlock();
	return err;
}

/*
 * No counter moves: the parent's usage contains the group's already, and from
 * here on whoever finds the objcg charges and uncharges from the parent up.
 * One who read objcg->memcg just before goes through this record instead: it
 * changes a counter that nobody reads again, and the parent's by the same
 * amount.  The record keeps its parent and is reused only when all such
 * sections are over.  tests/core/test_reparent.c removes groups under fire.
 */
int memcg_remove(struct mem_cgroup *memcg, bool force)
{
	struct mem_cgroup *parent;
	struct obj_cgroup *objcg;
	int err = 0;

	region_touch();
	tree_lock();
	/* A task that was asked to leave, and did not charge since, does not keep it busy. */
	task_serve_requests_locked();
	parent = parent_mem_cgroup(memcg);
	if (load_relaxed(&memcg->state) != MEMCG_ONLINE)
		err = -ENODEV;
	else if (!parent)
		err = -EPERM;
	else if (load_relaxed(&memcg->nr_children) || (!force && load_relaxed(&memcg->nr_tasks)))
		err = -EBUSY;
	if (err) {
		tree_unlock();
		return err;
	}

	objcg = objcg_from_id(load_relaxed(&memcg->objcg));
	write_begin(memcg);
	store_seq_cst(&memcg->state, MEMCG_OFFLINE);
	/* After the state: a task that looks its group up from here on walks to the parent. */
	while (memcg->task_head)
		task_attach_locked(&region.tasks[memcg->task_head], parent);
	store_release(&memcg->objcg, 0);

	for (struct mem_cgroup *up = parent; up; up = parent_mem_cgroup(up))
		fetch_add_relaxed(&up->nr_dying, 1);
	while (memcg->objcg_head) {
		struct obj_cgroup *inherited = objcg_from_id(memcg->objcg_head);

		memcg_objcg_unlink(memcg, inherited);
		store_release(&inherited->memcg, memcg_id(parent));
		memcg_objcg_link(parent, inherited);
	}
	add_single_writer(&parent->nr_children, (uint32_t)-1);
	add_single_writer(&memcg->gen, 1);
	write_end(memcg);

	memcg->stamp = epoch_advance();
	objcg_offline(objcg, memcg->stamp);
	memcg_record_free(memcg);
	objcg_reap();
	tree_unlock();
	return 0;
}

bool memcg_is_descendant(struct mem_cgroup *memcg, const struct mem_cgroup *root)
{
	for (; memcg; memcg = parent_mem_cgroup(memcg))
		if (memcg == root)
			return true;
	return false;
}

bool memcg_flag(struct mem_cgroup *memcg, enum memcg_flag flag)
{
	uint32_t old = fetch_or_acq_rel(&memcg->flagged, (uint32_t)flag);

	if (!old)
		fetch_add_relaxed(&nr_flagged, 1);
	return !(old & (uint32_t)flag);
}

void memcg_event(struct mem_cgroup *memcg, enum memcg_event event)
{
	for (; memcg; memcg = parent_mem_cgroup(memcg))
		fetch_add_relaxed(&memcg->events[event], 1);
}

uint32_t memcg_take_flagged(uint32_t *cursor, uint32_t *flags)
{
	uint32_t used = section_used(SECTION_MEMCG);

	if (load_acquire(&nr_flagged) == 0)
		return 0;
	for (uint32_t id = *cursor ? *cursor : MEMCG_ROOT; id < used; id++) {
		struct mem_cgroup *memcg = memcg_from_id(id);

		if (load_relaxed(&memcg->flagged) == 0)
			continue;
		*flags = xchg_acq_rel(&memcg->flagged, 0);
		if (*flags == 0)
			continue;
		fetch_add_relaxed(&nr_flagged, (uint32_t)-1);
		*cursor = id + 1;
		if (load_acquire(&memcg->state) == MEMCG_ONLINE)
			return id;
	}
	*cursor = used;
	return 0;
}
