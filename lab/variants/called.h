/*
 * No allocator of its own: calls through two pointers, to measure others in
 * the same loop.  CPython's, the C library's, or another variant's.
 */
#ifndef OBJCG_FAST_H
#define OBJCG_FAST_H

#include "slab.h"
#include "stock.h"

extern void *(*callee_malloc)(size_t size);
extern void (*callee_free)(void *p);

static inline void *kmem_alloc_fast(struct cpu *cpu, const struct task *task, enum domain domain,
				    size_t size)
{
	(void)cpu;
	(void)task;
	(void)domain;
	return callee_malloc(size);
}

#define VARIANT_FREE
static inline bool variant_free(struct cpu *cpu, void *p)
{
	(void)cpu;
	callee_free(p);
	return true;
}

#define VARIANT_SLOW
static inline void *variant_alloc_slow(struct cpu *cpu, struct task *task, size_t size)
{
	(void)cpu;
	(void)task;
	(void)size;
	return NULL;
}

static inline void variant_free_slow(struct cpu *cpu, void *p)
{
	(void)cpu;
	(void)p;
}

#define VARIANT_FLAGS 0

#endif
