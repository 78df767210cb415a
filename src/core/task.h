/* What allocates: records, their lists, moves. */
#ifndef OBJCG_TASK_H
#define OBJCG_TASK_H

#include "reference.h"

/* The task of whoever entered no group: index 1, in the root group, never freed. */
#define TASK_ROOT 1u

/* A new task in a group, or NULL: *err is -ENODEV (group removed) or -ENOSPC. Takes tree_lock. */
struct task *task_alloc(struct mem_cgroup *memcg, int *err);

/*
 * The same for a thread that C code starts, in the group of the task that starts
 * it; NULL where there is no room.  It is not counted in nr_tasks, so it does not
 * keep its group from being removed; then it moves to the parent.
 */
struct task *task_alloc_native(const struct task *creator);

/* Nothing allocates as this task any more. Takes tree_lock. */
void task_free(struct task *task);

/*
 * Moves a task: 0, or -ENODEV if the group is removed or the task of this
 * generation is gone.  The task notices at its next allocation.  Takes tree_lock.
 */
int task_move(struct task *task, uint32_t gen, struct mem_cgroup *memcg);

/*
 * Asks for a move from outside: `header` and `task` are of a region that this
 * process has mapped, and which is another one's.  The task is moved by its own
 * process, when it charges next or somebody asks where it is; not at all, if by
 * then the task or the group has ended.  A later request replaces one that was
 * not served yet.  (If the task is current on two threads, one of them may be
 * serving the request while the other charges the old group once more.)
 */
void task_request_move(struct region_header *header, struct task *task, uint32_t gen,
		       uint32_t memcg, uint32_t memcg_gen);

/* Serves the request for this task, if there is one. Whether it was moved. Takes tree_lock. */
bool task_serve_request(struct task *task);

/* Serves all there are. Under tree_lock. */
void task_serve_requests_locked(void);

void task_set_name(struct task *task, const char *name, size_t len);

/* Under tree_lock. */
void task_attach_locked(struct task *task, struct mem_cgroup *memcg);

#endif
