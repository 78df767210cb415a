/*
 * Tasks cannot be moved: then a task's reference is a constant, which whoever
 * caches the task caches beside it.  No load of the task's record, no flag.
 */
#ifndef OBJCG_FAST_H
#define OBJCG_FAST_H

#include "charged.h"

static inline void *kmem_alloc_fast(struct cpu *cpu, uint32_t reference, enum domain domain,
				    size_t size)
{
	return charged_alloc_small(cpu, reference, domain, size);
}

static inline bool kmem_free_fast(struct cpu *cpu, enum domain domain, void *p)
{
	return charged_free_any(cpu, domain, p);
}

#define VARIANT_CACHE
#define variant_alloc(cache, size)                                                                 \
	kmem_alloc_fast((cache)->cpu, (cache)->reference, DOMAIN_OBJECT, (size))

#define VARIANT_FLAGS (LAB_CHARGES | LAB_TASKS)

#endif
