/*
 * In place of src/core/reference.c: the same protocol, but the task holds a
 * reference to what its pointer names.  So the flag is set beside the old
 * pointer, not in place of it, and whoever replaces a pointer gives its
 * reference back.
 */
#include "reference.h"
#include "references.h"
#include "variant.h"

static uint64_t task_word(uint32_t memcg, uint32_t reference)
{
	return (uint64_t)memcg << 32 | reference;
}

void reference_flag(struct task *task, struct mem_cgroup *memcg)
{
	uint64_t word = load_relaxed(&task->word);

	while (!cas_acq_rel(&task->word, &word,
			    task_word(memcg_id(memcg), (uint32_t)word | OBJCG_UPDATE)))
		;
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

uint32_t current_objcg_update(struct task *task)
{
	uint64_t word = load_acquire(&task->word);

	for (;;) {
		uint32_t reference = (uint32_t)word;
		uint32_t group = (uint32_t)(word >> 32);
		uint32_t found;

		if (!(reference & OBJCG_UPDATE))
			return reference >> 1; /* another thread was faster */
		found = get_obj_cgroup_from_memcg(group);
		if (cas_acq_rel(&task->word, &word, task_word(group, found << 1))) {
			if (reference >> 1)
				obj_cgroup_put(lab_cpu, reference >> 1);
			return found;
		}
		obj_cgroup_put(lab_cpu, found);
	}
}

void variant_exit(struct cpu *cpu, struct task *task)
{
	uint64_t word = load_relaxed(&task->word);

	while (!cas_acq_rel(&task->word, &word, word >> 32 << 32 | OBJCG_UPDATE))
		;
	if ((uint32_t)word >> 1)
		obj_cgroup_put(cpu, (uint32_t)word >> 1);
}
