#include "charged.h"

void *charged_alloc_mixed(struct cpu *cpu, uint32_t reference, enum domain domain, size_t size)
{
	struct slab *slab = cpu->heap.current[small_class(size)];
	void *block = slab->free;
	uint32_t *vector;

	if (unlikely(!block) || load_relaxed(&slab->owner) != OWNER_MIXED ||
	    unlikely(!consume_stock(cpu, reference, domain, slab->block_size)))
		return NULL;
	vector = load_relaxed(&slab->vector);
	vector[obj_to_index(slab, block)] = reference >> 1;
	slab_take(slab, block);
	return block;
}

void *charged_alloc_medium(struct cpu *cpu, uint32_t reference, enum domain domain, size_t size)
{
	size_t bytes = (size + 15) & ~(size_t)15;
	struct slab *slab = cpu->heap.current[medium_class(bytes)];
	void *block = slab->free;

	if (unlikely(!block) || unlikely(!consume_stock(cpu, reference, domain, (int64_t)bytes)))
		return NULL;
	slab_take(slab, block);
	slab_set_medium_owner(slab, block, reference >> 1, bytes, domain);
	return block;
}

static bool free_medium(struct cpu *cpu, struct slab *slab, void *p)
{
	struct medium_owner *owner = slab_medium_owner(slab, p);
	int64_t bytes = (int64_t)owner->granules << 4;

	if (unlikely(!refill_stock(cpu, owner->objcg, (enum domain)owner->domain, bytes)))
		return false;
	owner->objcg = OWNER_NONE;
	slab_free(cpu, slab, p);
	return true;
}

bool charged_free_other(struct cpu *cpu, enum domain domain, void *p)
{
	struct slab *slab = virt_to_slab(p);

	if (!slab_is_small(slab))
		return free_medium(cpu, slab, p);
	if (unlikely(!refill_stock(cpu, slab_owner(slab, p), domain, slab->block_size)))
		return false;
	slab_free(cpu, slab, p);
	return true;
}
