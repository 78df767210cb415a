/*
 * A new task gets its group's objcg at once, and a reference to it: under
 * tree_lock, as the thread would do it in ->fork_locked() under css_set_lock.
 * No group is removed meanwhile and nobody else has the task, so neither can fail.
 */
#include "reference.h"
#include "references.h"
#include "variant.h"

void reference_init(struct task *task, struct mem_cgroup *memcg)
{
	uint32_t id = load_relaxed(&memcg->objcg);

	/* The core's own task, made before there are cpus, stays without. */
	if (!lab_cpu) {
		store_release(&task->word, (uint64_t)memcg_id(memcg) << 32 | OBJCG_UPDATE);
		return;
	}
	obj_cgroup_get(lab_cpu, id);
	store_release(&task->word, (uint64_t)memcg_id(memcg) << 32 | id << 1);
}
