#include "charged.h"

void *charged_alloc_next(struct cpu *cpu, uint32_t reference, enum domain domain, size_t size)
{
	size_t class = small_class(size);
	int64_t bytes = (int64_t)class_block_size(class);
	void *block;

	if (unlikely(!consume_stock(cpu, reference, domain, bytes)))
		return NULL;
	block = slab_alloc(cpu, class, reference >> 1);
	if (unlikely(!block))
		refill_stock(cpu, reference >> 1, domain, bytes);
	return block;
}

void *charged_alloc_medium(struct cpu *cpu, uint32_t reference, enum domain domain, size_t size)
{
	size_t bytes = (size + 15) & ~(size_t)15;
	struct slab *slab = cpu->heap.current[0][medium_class(bytes)];
	void *block = slab->free;

	if (unlikely(!block) || unlikely(!consume_stock(cpu, reference, domain, (int64_t)bytes)))
		return NULL;
	slab_take(slab, block);
	slab_set_medium_owner(slab, block, reference >> 1, bytes, domain);
	return block;
}

bool charged_free_medium(struct cpu *cpu, struct slab *slab, void *p)
{
	struct medium_owner *owner = slab_medium_owner(slab, p);
	int64_t bytes = (int64_t)owner->granules << 4;

	if (unlikely(!refill_stock(cpu, owner->objcg, (enum domain)owner->domain, bytes)))
		return false;
	owner->objcg = OWNER_NONE;
	slab_free(cpu, slab, p);
	return true;
}
