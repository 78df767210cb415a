/*
 * Slabs: blocks up to SLAB_BLOCK_MAX bytes, whose owner is found from their
 * address alone.
 *
 * One range of addresses is reserved for all of them; "is it ours?" is a
 * subtraction and a comparison.  What is known of a slab stands in a table
 * beside the range, not in the slab: the whole slab can go back to the system,
 * and an overrun in a block does not reach it.
 *
 * A slab whose blocks all belong to one objcg says so in one word.  The first
 * block for another objcg gives it a vector, one owner for each block (the
 * kernel's obj_cgroups vector).  The vector stays until the slab is empty, and
 * an owner, once written for a block, stays until the block is freed: so the
 * owner of a block one holds may be read without a lock, from any thread.
 */
#ifndef OBJCG_SLAB_H
#define OBJCG_SLAB_H

#include "cpu.h"

/* The reserved range, and its table of slabs. */
struct slab_range {
	char *base;
	size_t size;
	struct slab *slabs;
	_Atomic uint32_t top; /* slabs [0, top) were used */
};

extern struct slab_range slab_range;

void heap_init(struct heap *heap);

/* The class of a size up to SLAB_SMALL_MAX; classes are 16 bytes apart. */
static inline size_t small_class(size_t size)
{
	return (size - (size != 0)) >> 4;
}

/*
 * The class of a size above that, up to SLAB_BLOCK_MAX; eight to each doubling:
 * 576, 640, ... 1024; 1152, ... 2048; 2304, ... 4096; 4608, ... 8192
 */
static inline size_t medium_class(size_t size)
{
	unsigned doubling = 54 - (unsigned)__builtin_clzll((unsigned long long)(size - 1));
	size_t step = ((size - 1) >> (6 + doubling)) & 7;

	return NR_SMALL_CLASSES + 8 * doubling + step;
}

size_t class_block_size(size_t class);

/* The row of current slabs for the objcg of this reference. */
static inline uint32_t slab_row(uint32_t reference)
{
	return (reference >> 1) % NR_ROWS;
}

static inline bool in_slab_range(const void *p)
{
	return (size_t)((const char *)p - slab_range.base) < slab_range.size;
}

static inline struct slab *virt_to_slab(const void *p)
{
	return &slab_range.slabs[(size_t)((const char *)p - slab_range.base) >> SLAB_SHIFT];
}

static inline char *slab_address(const struct slab *slab)
{
	return slab_range.base + ((size_t)(slab - slab_range.slabs) << SLAB_SHIFT);
}

static inline uint32_t obj_to_index(const struct slab *slab, const void *p)
{
	size_t granule = ((size_t)((const char *)p - slab_range.base) & (SLAB_SIZE - 1)) >> 4;

	return (uint32_t)((granule * slab->reciprocal) >> 24);
}

/*
 * slab->stock is where the stock of a slab's one owner is, if it has some; of
 * other slabs it is an empty slot.  Of a current slab that slot is never another
 * objcg's, so that an allocation need not compare keys: whoever is about to give
 * a slot to `reference` calls this first.  Who had the slot has the same row: a
 * current slab of another row's owner has the empty slot (current_set).
 */
void slab_stock_is_lost(struct cpu *cpu, const struct stock *stock, uint32_t reference);

/* Hands out the first free block of a slab, which has one. */
static inline void slab_take(struct slab *slab, void *block)
{
	slab->free = *(void **)block;
	slab->above++;
}

/*
 * A block of a small class for `owner`, if that takes no more than a look at
 * the current slab; else NULL, and nothing was changed.
 */
static inline void *slab_alloc_fast(struct cpu *cpu, size_t class, uint32_t owner)
{
	struct slab *slab = cpu->heap.current[slab_row(owner << 1)][class];
	void *block = slab->free;

	if (unlikely(!block))
		return NULL;
	if (unlikely(load_relaxed(&slab->owner) != owner << 1)) {
		uint32_t *vector;

		if (load_relaxed(&slab->owner) != OWNER_MIXED)
			return NULL;
		vector = load_relaxed(&slab->vector);
		vector[obj_to_index(slab, block)] = owner;
	}
	slab_take(slab, block);
	return block;
}

/* A block of a small class for `owner`, or NULL when there is no memory. */
void *slab_alloc(struct cpu *cpu, size_t class, uint32_t owner);

/* A block of a medium class, with its exact charge. */
void *slab_alloc_medium(struct cpu *cpu, size_t class, uint32_t owner, size_t bytes,
			enum domain domain);

static inline bool slab_is_local(const struct cpu *cpu, const struct slab *slab)
{
	return slab->cpu == (uint16_t)cpu->index;
}

/*
 * The owner of a living block of a small class.  Races with slab_mix_owners()
 * in the cpu's user: we read the one owner, which is this block's too, or
 * OWNER_MIXED, and then the vector was filled before.  While the block lives
 * the slab is not empty, so nothing else changes its owner.
 */
static inline uint32_t slab_owner(struct slab *slab, const void *p)
{
	uint32_t owner = load_acquire(&slab->owner);
	uint32_t *vector;

	if (likely(owner != OWNER_MIXED))
		return owner >> 1;
	vector = load_relaxed(&slab->vector);
	return vector[obj_to_index(slab, p)];
}

static inline struct medium_owner *slab_medium_owner(struct slab *slab, const void *p)
{
	struct medium_owner *vector = load_acquire(&slab->vector);

	return &vector[obj_to_index(slab, p)];
}

static inline void slab_set_medium_owner(struct slab *slab, const void *p, uint32_t objcg,
					 size_t bytes, enum domain domain)
{
	struct medium_owner *vector = load_relaxed(&slab->vector);

	vector[obj_to_index(slab, p)] = (struct medium_owner){
		.objcg = objcg, .granules = (uint16_t)(bytes >> 4), .domain = (uint16_t)domain};
}

static inline bool slab_is_small(const struct slab *slab)
{
	return slab->block_size <= SLAB_SMALL_MAX;
}

void slab_changes_lists(struct cpu *cpu, struct slab *slab);
void slab_free_remote(struct slab *slab, void *p);

/* Takes a block back into a slab of this cpu. */
static inline void slab_give(struct cpu *cpu, struct slab *slab, void *p)
{
	*(void **)p = slab->free;
	slab->free = p;
	if (unlikely(--slab->above == 0))
		slab_changes_lists(cpu, slab);
}

/* Frees a block: charges and owners are the caller's business. */
static inline void slab_free(struct cpu *cpu, struct slab *slab, void *p)
{
	if (unlikely(!slab_is_local(cpu, slab))) {
		slab_free_remote(slab, p);
		return;
	}
	slab_give(cpu, slab, p);
}

/* Takes in what other cpus have freed. */
void heap_collect(struct cpu *cpu);

/* Gives up current slabs that are empty, but for those that have a page at most. */
void heap_trim(struct cpu *cpu);

#endif
