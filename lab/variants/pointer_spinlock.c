/*
 * In place of src/core/reference.c: pointer_reference.c as the first version
 * of the patch had it, with one spinlock around all updates and all moves.
 */
#include "reference.h"
#include "references.h"
#include "variant.h"

static _Atomic uint32_t current_objcg_lock;

static void spin_lock(void)
{
	while (xchg_acq_rel(&current_objcg_lock, 1))
		while (load_relaxed(&current_objcg_lock))
			;
}

static void spin_unlock(void)
{
	store_release(&current_objcg_lock, 0);
}

static uint64_t task_word(uint32_t memcg, uint32_t reference)
{
	return (uint64_t)memcg << 32 | reference;
}

void reference_flag(struct task *task, struct mem_cgroup *memcg)
{
	uint32_t reference;

	spin_lock();
	reference = load_relaxed(&task->objcg);
	store_seq_cst(&task->word, task_word(memcg_id(memcg), reference | OBJCG_UPDATE));
	spin_unlock();
}

/* In a section: the nearest group upwards whose objcg can still be taken. */
static uint32_t get_obj_cgroup_from_memcg(uint32_t group)
{
	struct mem_cgroup *memcg;

	for (memcg = memcg_from_id(group);; memcg = parent_mem_cgroup(memcg)) {
		uint32_t id = load_acquire(&memcg->objcg);

		if (id && obj_cgroup_tryget(lab_cpu, id))
			return id;
	}
}

/* The old reference is given back under no lock, by the one who replaced it under the lock. */
uint32_t current_objcg_update(struct task *task)
{
	uint32_t reference;
	uint32_t group;
	uint32_t found;

	spin_lock();
	reference = load_relaxed(&task->objcg);
	if (!(reference & OBJCG_UPDATE)) {
		spin_unlock();
		return reference >> 1; /* another thread was faster */
	}
	group = load_relaxed(&task->memcg);
	found = get_obj_cgroup_from_memcg(group);
	store_release(&task->word, task_word(group, found << 1));
	spin_unlock();
	if (reference >> 1)
		obj_cgroup_put(lab_cpu, reference >> 1);
	return found;
}

void variant_exit(struct cpu *cpu, struct task *task)
{
	uint32_t reference;

	spin_lock();
	reference = load_relaxed(&task->objcg);
	store_release(&task->word, task_word(load_relaxed(&task->memcg), OBJCG_UPDATE));
	spin_unlock();
	if (reference >> 1)
		obj_cgroup_put(cpu, reference >> 1);
}
