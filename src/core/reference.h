/*
 * A task's tagged reference to an objcg: who stores what in task->word.
 *
 * This is the protocol of the kernel's task_struct->objcg.  docs/thread.md says
 * what was asked about it there and what it costs here; models/update has it
 * for a model checker; lab/ has the other forms of it, to be measured.
 */
#ifndef OBJCG_REFERENCE_H
#define OBJCG_REFERENCE_H

#include "memcg.h"

/* Of a task that nobody has yet. Under tree_lock. */
void reference_init(struct task *task, struct mem_cgroup *memcg);

/* The task's group is another one: it looks the objcg up itself, when it charges. Under tree_lock. */
void reference_flag(struct task *task, struct mem_cgroup *memcg);

/*
 * The slow path of reading task->objcg: looks the task's group up, stores and
 * returns the id of an objcg.  Caller is in a section, and the id is good
 * until the section ends (what is charged in it keeps the id from then on).
 */
uint32_t current_objcg_update(struct task *task);

#endif
