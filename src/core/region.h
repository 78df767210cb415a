/* The shared file that counters, stocks and names live in. */
#ifndef OBJCG_REGION_H
#define OBJCG_REGION_H

#include <sys/types.h>

#include "types.h"

struct region {
	struct region_header *header;
	struct mem_cgroup *memcgs;
	struct obj_cgroup *objcgs;
	struct task *tasks;
	struct cpu_record *cpus;
	size_t size;
	char path[4096]; /* "" while it is anonymous memory */
};

extern struct region region;

/*
 * Creates and maps the region: the file `path`, which must not exist, in a folder
 * that is this user's alone; or anonymous memory that no other process can see
 * where `path` is NULL.  Returns 0 or -errno (place_open(), place_create()).
 */
int region_create(const char *path, const char *command, const char *python);

/*
 * Makes sure that records [0, nr) of a section can be written, and says so to
 * readers.  Returns 0, -ENOSPC at the section's capacity or where the file
 * system is full.  Growing here, and not by a fault, is what keeps a full
 * tmpfs from killing the process by SIGBUS.  Caller holds the lock that
 * serialises growth of that section.
 */
int region_reserve(enum region_section section, uint32_t nr);

/*
 * A forked child leaves the parent's file for a private copy.  The copy is made
 * before the fork, since the parent goes on writing after it.
 */
void region_fork_prepare(void);
void region_fork_parent(void);
void region_fork_child(void);

/*
 * Notes the time, for readers of a process that hangs or is dead.  On slow paths
 * only: it costs a call of the vDSO, and a store once in a tick of the clock.
 */
void region_touch(void);

/* RLIMIT_AS in bytes; SIZE_MAX without one. */
size_t address_space_limit(void);

/* In that child: moves the private copy into a file of its own. */
int region_attach_file(const char *path);

/* Takes the file away, if there is one; what is mapped stays. */
void region_remove_file(void);

static inline uint32_t section_used(enum region_section section)
{
	return load_acquire(&region.header->sections[section].used);
}

static inline struct mem_cgroup *memcg_from_id(uint32_t id)
{
	return &region.memcgs[id];
}

static inline uint32_t memcg_id(const struct mem_cgroup *memcg)
{
	return (uint32_t)(memcg - region.memcgs);
}

static inline struct obj_cgroup *objcg_from_id(uint32_t id)
{
	return &region.objcgs[id];
}

/*
 * The group that an objcg's charges are, now.  In a section, see cpu.h, or with the
 * tree's lock.  seq_cst, as section_enter()'s store is: no processor may find here what
 * was there before its section began.  (arm64's acquiring load may pass that store where
 * the compiler takes that of RCPC; on x86-64 and else on arm64 it is the same instruction.)
 */
static inline struct mem_cgroup *obj_cgroup_memcg(const struct obj_cgroup *objcg)
{
	return memcg_from_id(load_seq_cst(&objcg->memcg));
}

static inline uint32_t objcg_id(const struct obj_cgroup *objcg)
{
	return (uint32_t)(objcg - region.objcgs);
}

static inline uint32_t task_index(const struct task *task)
{
	return (uint32_t)(task - region.tasks);
}

/* The parent, or NULL above the root. */
static inline struct mem_cgroup *parent_mem_cgroup(const struct mem_cgroup *memcg)
{
	uint32_t parent = load_acquire(&memcg->parent);

	return parent ? memcg_from_id(parent) : NULL;
}

#endif
