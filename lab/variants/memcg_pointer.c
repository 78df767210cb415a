/* In place of src/core/reference.c: the task's word has its group twice, the second one lazy. */
#include "reference.h"

static uint64_t task_word(uint32_t memcg, uint32_t pointer)
{
	return (uint64_t)memcg << 32 | pointer << 1 | OBJCG_UPDATE;
}

void reference_init(struct task *task, struct mem_cgroup *memcg)
{
	store_release(&task->word, task_word(memcg_id(memcg), memcg_id(memcg)));
}

void reference_flag(struct task *task, struct mem_cgroup *memcg)
{
	store_seq_cst(&task->word, task_word(memcg_id(memcg), 0));
}

/* Called for each charge that the stock does not meet; the races are those of the shipped one. */
uint32_t current_objcg_update(struct task *task)
{
	uint64_t word = load_acquire(&task->word);

	for (;;) {
		uint32_t pointer = (uint32_t)word >> 1;
		uint32_t group = (uint32_t)(word >> 32);
		uint32_t found = 0;
		struct mem_cgroup *memcg;

		for (memcg = memcg_from_id(pointer ? pointer : group); memcg;
		     memcg = parent_mem_cgroup(memcg)) {
			if (load_seq_cst(&memcg->state) != MEMCG_ONLINE)
				continue;
			found = load_acquire(&memcg->objcg);
			if (found)
				break;
		}
		/* The root is never removed, so something was found. */
		if (pointer == memcg_id(memcg) ||
		    cas_acq_rel(&task->word, &word, task_word(group, memcg_id(memcg))))
			return found;
	}
}
