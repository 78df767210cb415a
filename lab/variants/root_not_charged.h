/*
 * As the kernel: a task in the root group charges nothing.  (objcg charges the
 * root as any group.)  Put around original.h, or, with LAB_ROOT_POINTER,
 * around pointer_reference.h: what they do below the root is not changed.
 */
#ifndef OBJCG_LAB_ROOT_NOT_CHARGED_H
#define OBJCG_LAB_ROOT_NOT_CHARGED_H

#include "reference.h"

#define kmem_alloc_fast charged_alloc_fast
#define kmem_free_fast charged_free_fast
#define variant_alloc_slow charged_alloc_slow
#define variant_free_slow charged_free_slow
#ifdef LAB_ROOT_POINTER
#include "pointer_reference.h"
#else
#include "original.h"
#endif
#undef kmem_alloc_fast
#undef kmem_free_fast
#undef variant_alloc_slow
#undef variant_free_slow
#undef VARIANT_FLAGS
#define VARIANT_FLAGS (LAB_CHARGES | LAB_COUNTS | LAB_MIGRATES | LAB_TASKS | LAB_ROOT_FREE)

/* The root's, which is the first ever made: owner of what is not charged. */
#define OBJCG_ROOT 1u

static inline bool task_in_root(struct cpu *cpu, const struct task *task)
{
#ifdef LAB_ROOT_POINTER
	(void)cpu;
	return load_relaxed(&task->objcg) == OBJCG_ROOT << 1;
#else
	uint32_t memcg;

	walk_enter(cpu);
	memcg = load_acquire(&css_sets[load_acquire(&task->memcg)].memcg);
	walk_exit(cpu);
	return memcg == MEMCG_ROOT;
#endif
}

/* The task came to the root after we looked: who frees the block takes it for one not charged. */
static inline void *without_charge_to_root(struct cpu *cpu, enum domain domain, void *p)
{
	size_t bytes;

	if (p && unlikely(kmem_owner(p, &bytes) == OBJCG_ROOT)) {
		uncharge_objcg(cpu, OBJCG_ROOT, domain, bytes, 1);
		obj_cgroup_put(cpu, OBJCG_ROOT);
	}
	return p;
}

static inline void *kmem_alloc_fast(struct cpu *cpu, const struct task *task, enum domain domain,
				    size_t size)
{
	if (likely(task_in_root(cpu, task)))
		return slab_alloc_fast(cpu, small_class(size), OBJCG_ROOT);
	return without_charge_to_root(cpu, domain, charged_alloc_fast(cpu, task, domain, size));
}

static inline bool kmem_free_fast(struct cpu *cpu, enum domain domain, void *p)
{
	struct slab *slab = virt_to_slab(p);

	if (unlikely(!slab_is_small(slab) || slab_owner(slab, p) != OBJCG_ROOT))
		return charged_free_fast(cpu, domain, p);
	slab_free(cpu, slab, p);
	return true;
}

static inline void *variant_alloc_slow(struct cpu *cpu, struct task *task, size_t size)
{
#ifdef LAB_ROOT_POINTER
	/* A new task has the flag; what charges it would look, and so do we. */
	section_enter(cpu);
	current_objcg_update(task);
	section_exit(cpu);
#endif
	if (task_in_root(cpu, task))
		return slab_alloc(cpu, small_class(size), OBJCG_ROOT);
	return without_charge_to_root(cpu, DOMAIN_OBJECT, charged_alloc_slow(cpu, task, size));
}

static inline void variant_free_slow(struct cpu *cpu, void *p)
{
	charged_free_slow(cpu, p);
}

#endif
