/*
 * A new task copies its parent's pointer and takes a reference, under no lock.
 *
 * Who may race: a move of the parent, of the child (which is on its group's
 * list by now), or the removal of their group, which moves both.  The child's
 * word was made with its group and OBJCG_UPDATE; we exchange exactly that for
 * the parent's word, and only if the parent's names the same group.  If the
 * child was moved, that fails, and it keeps the flag.  If only the parent was
 * moved after we read its word, what we read is still right for the child.
 * The section keeps the id from being recycled until the child's reference is
 * stored or given back.
 */
#include "pointer_reference.h"

#ifndef OBJCG_LAB_FORK_REFERENCE_H
#define OBJCG_LAB_FORK_REFERENCE_H

#define VARIANT_FORK
static inline void variant_fork(struct cpu *cpu, struct task *parent, struct task *child)
{
	uint64_t inherited;
	uint64_t expected;
	uint32_t id;

	section_enter(cpu);
	inherited = load_seq_cst(&parent->word);
	expected = inherited >> 32 << 32 | OBJCG_UPDATE;
	id = (uint32_t)inherited >> 1;
	if (!(inherited & OBJCG_UPDATE)) {
		obj_cgroup_get(cpu, id);
		if (!cas_acq_rel(&child->word, &expected, inherited))
			obj_cgroup_put(cpu, id);
	}
	section_exit(cpu);
}

#endif
