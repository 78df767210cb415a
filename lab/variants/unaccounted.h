/* The slabs without any charge: what everything else is compared with. */
#ifndef OBJCG_FAST_H
#define OBJCG_FAST_H

#include "slab.h"
#include "stock.h"

/* Of all blocks, so that no slab ever gets a vector: the id of the root's objcg. */
#define OWNER_EVERYBODY 1u

static inline void *kmem_alloc_fast(struct cpu *cpu, const struct task *task, enum domain domain,
				    size_t size)
{
	(void)task;
	(void)domain;
	return slab_alloc_fast(cpu, small_class(size), OWNER_EVERYBODY);
}

static inline bool kmem_free_fast(struct cpu *cpu, enum domain domain, void *p)
{
	(void)domain;
	slab_free(cpu, virt_to_slab(p), p);
	return true;
}

#define VARIANT_SLOW
static inline void *variant_alloc_slow(struct cpu *cpu, struct task *task, size_t size)
{
	(void)task;
	return slab_alloc(cpu, small_class(size), OWNER_EVERYBODY);
}

static inline void variant_free_slow(struct cpu *cpu, void *p)
{
	kmem_free_fast(cpu, DOMAIN_OBJECT, p);
}

#define VARIANT_FLAGS (LAB_MIGRATES | LAB_TASKS)

#endif
