/* A new task has no reference; its first allocation looks for one. As the kernel has it. */
#include "reference.h"

void reference_init(struct task *task, struct mem_cgroup *memcg)
{
	store_release(&task->word, (uint64_t)memcg_id(memcg) << 32 | OBJCG_UPDATE);
}
