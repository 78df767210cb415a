#include "kmem.h"

#include <errno.h>
#include <string.h>

#include "memcg.h"
#include "slab_pool.h"

int kmem_init(const char *region_path, const char *command, const char *python)
{
	int err = region_create(region_path, command, python);
	struct task *root;

	if (err)
		return err;
	err = slab_pool_init();
	if (err == 0)
		err = large_init();
	if (err == 0)
		err = memcg_init();
	if (err == 0) {
		root = task_alloc(memcg_from_id(MEMCG_ROOT), &err);
		if (root)
			task_set_name(root, "root", 4);
	}
	if (err)
		region_remove_file();
	return err;
}

/* Blocks from this size on take room from what slabs keep. */
#define ROOM_FROM ((size_t)1 << 20)

/*
 * After a block of this size was allocated, or has grown to it.  A charge from
 * CHARGE_STRICT on did not note the peak, since it might have come to nothing.
 */
void kmem_note_peak(struct cpu *cpu, uint32_t id, size_t bytes)
{
	if (bytes < CHARGE_STRICT)
		return;
	if (bytes >= ROOM_FROM)
		slab_pool_make_room();
	section_enter(cpu);
	page_counter_peak(obj_cgroup_memcg(objcg_from_id(id)));
	section_exit(cpu);
}

void *kmem_alloc(struct cpu *cpu, struct task *task, enum domain domain, size_t size, bool zero,
		 struct charge_result *result)
{
	size_t bytes = charged_bytes(size);
	uint32_t id;
	void *p;

	if (bytes > ALLOC_MAX)
		return NULL;
	id = charge_task(cpu, task, domain, bytes, result);
	if (!id)
		return NULL;
	if (bytes <= SLAB_SMALL_MAX)
		p = slab_alloc(cpu, small_class(size), id);
	else if (bytes <= SLAB_BLOCK_MAX)
		p = slab_alloc_medium(cpu, medium_class(bytes), id, bytes, domain);
	else
		p = large_alloc(bytes, zero, id, domain);
	if (unlikely(!p)) {
		uncharge_objcg(cpu, id, domain, bytes, 1);
		return NULL;
	}
	kmem_note_peak(cpu, id, bytes);
	if (zero && bytes <= SLAB_BLOCK_MAX)
		memset(p, 0, size);
	return p;
}

void kmem_free(struct cpu *cpu, enum domain domain, void *p)
{
	uint32_t id;
	size_t bytes;

	if (in_slab_range(p)) {
		struct slab *slab = virt_to_slab(p);

		if (slab_is_small(slab)) {
			id = slab_owner(slab, p);
			bytes = slab->block_size;
		} else {
			struct medium_owner *owner = slab_medium_owner(slab, p);

			id = owner->objcg;
			bytes = (size_t)owner->granules << 4;
			domain = (enum domain)owner->domain;
			owner->objcg = OWNER_NONE;
		}
		slab_free(cpu, slab, p);
	} else {
		struct large_header *header = large_header(p);

		id = header->objcg;
		bytes = header->size;
		domain = (enum domain)header->domain;
		large_free(p);
	}
	/*
	 * After the memory is free: until here the bytes keep the id.  (Before,
	 * and the id could be recycled while the block still names it.)
	 */
	uncharge_objcg(cpu, id, domain, bytes, 1);
}

uint32_t kmem_owner(void *p, size_t *bytes)
{
	struct slab *slab;

	if (!in_slab_range(p)) {
		*bytes = large_header(p)->size;
		return large_header(p)->objcg;
	}
	slab = virt_to_slab(p);
	if (slab_is_small(slab)) {
		*bytes = slab->block_size;
		return slab_owner(slab, p);
	}
	*bytes = (size_t)slab_medium_owner(slab, p)->granules << 4;
	return slab_medium_owner(slab, p)->objcg;
}

/* Changes what a block is charged, to its own objcg. */
static bool recharge(struct cpu *cpu, uint32_t id, enum domain domain, size_t old, size_t bytes,
		     struct charge_result *result)
{
	if (bytes > old)
		return charge_objcg(cpu, id, domain, bytes - old, result);
	if (bytes < old)
		uncharge_objcg(cpu, id, domain, old - bytes, 0);
	return true;
}

/*
 * The block may stay or move, and only the C library knows.  So the task is
 * charged first as for a new block, less what it pays for the old one; and
 * whoever turns out not to pay gets it back.  One that shrinks stays as it is
 * where the C library cannot do it.
 */
static void *realloc_large(struct cpu *cpu, struct task *task, void *p, size_t bytes,
			   struct charge_result *result)
{
	struct large_header *header = large_header(p);
	enum domain domain = (enum domain)header->domain;
	uint32_t owner = header->objcg;
	size_t old = header->size;
	uint32_t payer;
	void *moved;
	struct charge_result ignored = {0, 0, 0}; /* of a charge that is not the task's */

	if (load_relaxed(&task->objcg) == owner << 1) {
		if (bytes > old && !charge_objcg(cpu, owner, domain, bytes - old, result))
			return NULL;
		moved = large_realloc(p, bytes);
		if (!moved) {
			if (bytes <= old)
				return p;
			uncharge_objcg(cpu, owner, domain, bytes - old, 0);
			return NULL;
		}
		if (bytes < old)
			uncharge_objcg(cpu, owner, domain, old - bytes, 0);
		kmem_note_peak(cpu, owner, bytes);
		return moved;
	}

	payer = charge_task(cpu, task, domain, bytes, result);
	if (!payer) {
		if (bytes > old)
			return NULL;
		/* It shrinks, and stays the owner's wherever it is. */
		result->refused = 0;
		moved = large_realloc(p, bytes);
		if (!moved)
			return p;
		return recharge(cpu, owner, domain, old, bytes, result) ? moved : NULL;
	}
	moved = large_realloc(p, bytes);
	if (!moved) {
		uncharge_objcg(cpu, payer, domain, bytes, 1);
		return bytes > old ? NULL : p;
	}
	if (moved == p && recharge(cpu, owner, domain, old, bytes, &ignored)) {
		uncharge_objcg(cpu, payer, domain, bytes, 1);
		kmem_note_peak(cpu, owner, bytes);
		return moved;
	}
	/* It moved; or it grew in place, and its owner has no room for that. */
	large_header(moved)->objcg = payer;
	uncharge_objcg(cpu, owner, domain, old, 1);
	kmem_note_peak(cpu, payer, bytes);
	return moved;
}

/* A block that shrinks can always stay as it is: CPython does not expect that to fail. */
static void *realloc_by_copy(struct cpu *cpu, struct task *task, enum domain domain, void *p,
			     size_t old, size_t size, struct charge_result *result)
{
	void *q = kmem_alloc(cpu, task, domain, size, false, result);

	if (!q) {
		if (size > old)
			return NULL;
		result->refused = 0;
		return p;
	}
	memcpy(q, p, old < size ? old : size);
	kmem_free(cpu, domain, p);
	return q;
}

void *kmem_realloc(struct cpu *cpu, struct task *task, enum domain domain, void *p, size_t size,
		   struct charge_result *result)
{
	size_t bytes = charged_bytes(size);
	struct medium_owner *owner;
	struct slab *slab;
	size_t room;
	size_t old;

	if (bytes > ALLOC_MAX)
		return NULL;
	if (!in_slab_range(p)) {
		if (bytes > SLAB_BLOCK_MAX)
			return realloc_large(cpu, task, p, bytes, result);
		return realloc_by_copy(cpu, task, domain, p, large_header(p)->size, size, result);
	}
	slab = virt_to_slab(p);
	room = slab->block_size;
	if (slab_is_small(slab)) {
		if (kmem_fits_in_place(p, size))
			return p;
		return realloc_by_copy(cpu, task, domain, p, room, size, result);
	}
	owner = slab_medium_owner(slab, p);
	old = (size_t)owner->granules << 4;
	/* In place, unless a quarter or more of the block would be idle. */
	if (bytes <= room && bytes > SLAB_SMALL_MAX && 4 * bytes > 3 * room) {
		struct charge_result here = {0, 0, 0};

		/* If its owner has no room for that, it moves, and the task pays. */
		if (recharge(cpu, owner->objcg, (enum domain)owner->domain, old, bytes, &here)) {
			owner->granules = (uint16_t)(bytes >> 4);
			*result = here;
			return p;
		}
	}
	return realloc_by_copy(cpu, task, (enum domain)owner->domain, p, old, size, result);
}

void kmem_fork_prepare(void)
{
	cpus_lock();
	tree_lock();
	large_lock();
	slab_pool_lock();
	region_fork_prepare();
}

void kmem_fork_parent(void)
{
	region_fork_parent();
	slab_pool_unlock();
	large_unlock();
	tree_unlock();
	cpus_unlock();
}

void kmem_fork_child(void)
{
	slab_pool_lock_reset_after_fork();
	large_lock_reset_after_fork();
	tree_lock_reset_after_fork();
	region_fork_child();
	cpus_reset_after_fork();
}
