/*
 * The tree of groups.  Everything that changes its shape holds tree_lock.
 *
 * Whoever names a group by its record knows that it is still that group's, or
 * of no group: in CPython by its gen, which the GIL keeps from changing.
 */
#ifndef OBJCG_MEMCG_H
#define OBJCG_MEMCG_H

#include "cpu.h"
#include "page_counter.h"

/*
 * Serialises creation and removal of groups, and all that a task's membership
 * is changed by (attach, detach, move).  Never taken by a charge that only
 * uses or refills a stock.  A leaf for the caller: nothing under it waits for
 * anything else but the slab pool's lock.
 */
void tree_lock(void);
void tree_unlock(void);
void tree_lock_reset_after_fork(void);

/* Makes the root group. Returns 0 or -errno. */
int memcg_init(void);

/* A new child. Returns 0, -ENODEV if `parent` is removed, -ENOSPC, -ELOOP at MEMCG_DEPTH_MAX. */
int memcg_create(struct mem_cgroup *parent, const char *name, size_t name_len,
		 struct mem_cgroup **result);

/*
 * Removes a group: -EBUSY while it has children or, unless `force`, tasks;
 * -EPERM for the root; -ENODEV if it is removed already.  What is still charged
 * belongs to the parent from here on; forced-out tasks too.  The caller drains
 * what stocks it can (stock.h), before.
 */
int memcg_remove(struct mem_cgroup *memcg, bool force);

/*
 * Whether `memcg` is `root` or below it.  Caller is in a section, holds tree_lock,
 * or knows that no group is removed meanwhile (in CPython, by the GIL).
 */
bool memcg_is_descendant(struct mem_cgroup *memcg, const struct mem_cgroup *root);

/* Counts an event for the group and all above it, and flags it for the reclaimer. */
void memcg_event(struct mem_cgroup *memcg, enum memcg_event event);

/* Flags a group; returns true if it was not flagged for that already. */
bool memcg_flag(struct mem_cgroup *memcg, enum memcg_flag flag);

/* A group with a flag at or after *cursor, with all its flags, which are cleared; 0 when done. */
uint32_t memcg_take_flagged(uint32_t *cursor, uint32_t *flags);

/* Caller holds tree_lock: the group's own and inherited objcgs. */
void memcg_objcg_link(struct mem_cgroup *memcg, struct obj_cgroup *objcg);
void memcg_objcg_unlink(struct mem_cgroup *memcg, struct obj_cgroup *objcg);

#endif
