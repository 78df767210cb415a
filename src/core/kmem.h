/*
 * Charged allocation: what the hooks call.
 *
 * The caller has the exclusive use of `cpu`, and names the task that pays.
 * What is charged for a block is its size class up to SLAB_SMALL_MAX bytes,
 * and its size rounded up to 16 above.
 */
#ifndef OBJCG_KMEM_H
#define OBJCG_KMEM_H

#include "fast.h"
#include "large.h"

/* The core as a whole. Returns 0 or -errno. */
int kmem_init(const char *region_path, const char *command, const char *python);

/* More than any address space has; keeps counters far from overflow. */
#define ALLOC_MAX ((size_t)1 << 56)

/* The bytes charged for a request; more than ALLOC_MAX if it cannot be met. */
static inline size_t charged_bytes(size_t size)
{
	if (unlikely(size > ALLOC_MAX))
		return SIZE_MAX;
	return size ? (size + 15) & ~(size_t)15 : 16;
}

/* Any size. NULL: refused by a limit (result->refused) or no memory (not refused). */
void *kmem_alloc(struct cpu *cpu, struct task *task, enum domain domain, size_t size, bool zero,
		 struct charge_result *result);

/* Whether a block is ours: anything else goes to the allocator that was there before. */
static inline bool kmem_is_ours(void *p)
{
	return in_slab_range(p) || is_large(p);
}

/* A block of ours. `domain` matters for small blocks; others know their own. */
void kmem_free(struct cpu *cpu, enum domain domain, void *p);

/*
 * A block of ours.  In place it keeps its owner, while that has room for what
 * it grows by; one that moves is a new allocation by the task.  NULL: as
 * kmem_alloc(), and the block is as it was.
 */
void *kmem_realloc(struct cpu *cpu, struct task *task, enum domain domain, void *p, size_t size,
		   struct charge_result *result);

/* Once there is memory for a block: a charge of CHARGE_STRICT or more did not note the peak. */
void kmem_note_peak(struct cpu *cpu, uint32_t id, size_t bytes);

/* The objcg that a living block of ours is charged to, and its charged bytes. */
uint32_t kmem_owner(void *p, size_t *bytes);

/* A block in the slab range: whether it can have that size where it is, without a charge. */
static inline bool kmem_fits_in_place(void *p, size_t size)
{
	const struct slab *slab = virt_to_slab(p);
	size_t room = slab->block_size;

	/* Unless a quarter or more of it would be idle. */
	return slab_is_small(slab) && size <= room && 4 * charged_bytes(size) > 3 * room;
}

/*
 * A block in the slab range: how many bytes of it a larger one for `size` begins
 * with; 0 if the block has room for that, or is charged to another domain.
 */
static inline size_t kmem_outgrown(void *p, enum domain domain, size_t size)
{
	struct slab *slab = virt_to_slab(p);
	const struct medium_owner *owner;

	if (size <= slab->block_size)
		return 0;
	if (slab_is_small(slab))
		return slab->block_size;
	owner = slab_medium_owner(slab, p);
	return owner->domain == domain ? (size_t)owner->granules << 4 : 0;
}

/* All locks of the core, in their order; and after fork in the child. */
void kmem_fork_prepare(void);
void kmem_fork_parent(void);
void kmem_fork_child(void);

#endif
