/* In place of src/core/reference.c: no pointer, every charge looks its group up. */
#include "walk.h"

#include "reference.h"
#include "variant.h"

struct css_set css_sets[LAB_RECORDS];

void variant_init(void)
{
	for (uint32_t i = 0; i < LAB_RECORDS; i++)
		store_relaxed(&css_sets[i].memcg, i);
}

/* With the flag that charge_task() asks us by, always. */
void reference_init(struct task *task, struct mem_cgroup *memcg)
{
	store_release(&task->word, (uint64_t)memcg_id(memcg) << 32 | OBJCG_UPDATE);
}

void reference_flag(struct task *task, struct mem_cgroup *memcg)
{
	store_seq_cst(&task->word, (uint64_t)memcg_id(memcg) << 32 | OBJCG_UPDATE);
}

/* For charge_task(), whose section keeps the id: no reference. */
uint32_t current_objcg_update(struct task *task)
{
	uint32_t id = get_obj_cgroup_from_task(lab_cpu, task);

	obj_cgroup_put(lab_cpu, id);
	return id;
}
