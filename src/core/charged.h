/*
 * A block and its charge, taken and given back together: from the current slab
 * of its class, and from the stock of its owner.  What is inline here is the case
 * of a slab with one owner; charged.c has those that are nearly as frequent.
 *
 * Each returns NULL or false where it would take more than that, and has then
 * changed nothing.
 */
#ifndef OBJCG_CHARGED_H
#define OBJCG_CHARGED_H

#include "slab.h"
#include "stock.h"

/*
 * A block of a small class, of `size` bytes, for the objcg that `reference`
 * names: a task's reference as loaded, with its flag.  `row` is of the current
 * slabs of the caller's cpu; in another than the reference's there is nothing.
 *
 * No flagged reference equals a slab's owner (of OWNER_MIXED see there), so the
 * flag needs no test of its own; nor does 0, since a slab without an owner has no
 * stock.  An objcg that has bytes in stock cannot be recycled: hence no section.
 */
static inline void *charged_alloc(struct slab *const *row, uint32_t reference, enum domain domain,
				  size_t size)
{
	struct slab *slab = row[small_class(size)];
	void *block = slab->free;

	if (unlikely(!block) || unlikely(load_relaxed(&slab->owner) != reference) ||
	    unlikely(!consume_slot(slab->stock, domain, slab->block_size)))
		return NULL;
	slab_take(slab, block);
	return block;
}

/* The same where the current slab has blocks of several owners. */
static inline void *charged_alloc_mixed(struct cpu *cpu, uint32_t reference, enum domain domain,
					size_t size)
{
	struct slab *slab = cpu->heap.current[slab_row(reference)][small_class(size)];
	void *block = slab->free;
	uint32_t *vector;

	if (unlikely(!block) || unlikely(load_relaxed(&slab->owner) != OWNER_MIXED) ||
	    unlikely(!consume_stock(cpu, reference, domain, slab->block_size)))
		return NULL;
	vector = load_relaxed(&slab->vector);
	vector[obj_to_index(slab, block)] = reference >> 1;
	slab_take(slab, block);
	return block;
}

/* Where another slab has to become the current one; and a block of a medium class. */
void *charged_alloc_next(struct cpu *cpu, uint32_t reference, enum domain domain, size_t size);
void *charged_alloc_medium(struct cpu *cpu, uint32_t reference, enum domain domain, size_t size);

/* A block in the slab range, of a small class and of a slab of this cpu that has one owner. */
static inline bool charged_free(struct cpu *cpu, enum domain domain, void *p)
{
	struct slab *slab = virt_to_slab(p);

	/* The stock of a slab without one owner is an empty slot, whose key no owner equals. */
	if (unlikely(!slab_is_local(cpu, slab)) ||
	    unlikely(!refill_slot(slab->stock, load_relaxed(&slab->owner), domain,
				  slab->block_size)))
		return false;
	slab_give(cpu, slab, p);
	return true;
}

/* One of a slab whose blocks have several owners, of any cpu. */
static inline bool charged_free_mixed(struct cpu *cpu, enum domain domain, struct slab *slab,
				      void *p)
{
	if (unlikely(!refill_stock(cpu, slab_owner(slab, p), domain, slab->block_size)))
		return false;
	slab_free(cpu, slab, p);
	return true;
}

/* One of a medium class. */
bool charged_free_medium(struct cpu *cpu, struct slab *slab, void *p);

static inline bool charged_free_other(struct cpu *cpu, enum domain domain, void *p)
{
	struct slab *slab = virt_to_slab(p);

	if (likely(slab_is_small(slab)))
		return charged_free_mixed(cpu, domain, slab, p);
	return charged_free_medium(cpu, slab, p);
}

/* Both of a small class, whoever the slab's blocks belong to. */
static inline void *charged_alloc_small(struct cpu *cpu, uint32_t reference, enum domain domain,
					size_t size)
{
	void *block =
		charged_alloc(cpu->heap.current[slab_row(reference)], reference, domain, size);

	return likely(block) ? block : charged_alloc_mixed(cpu, reference, domain, size);
}

static inline bool charged_free_any(struct cpu *cpu, enum domain domain, void *p)
{
	return likely(charged_free(cpu, domain, p)) || charged_free_other(cpu, domain, p);
}

#endif
