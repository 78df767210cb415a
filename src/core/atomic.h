/*
 * Atomic operations, each named after its memory order.
 *
 * The core uses no stand-alone fences: orders sit on the operations themselves,
 * so that ThreadSanitizer sees every ordering the code relies on (it does not
 * model atomic_thread_fence).  A caller never writes memory_order_* itself.
 */
#ifndef OBJCG_ATOMIC_H
#define OBJCG_ATOMIC_H

#ifdef OBJCG_EXPLORE
#include "explore_atomic.h" /* of tests/explore: who runs next is decided at each helper */
#else

#include <stdatomic.h>
#include <stdint.h>

#define load_relaxed(p) atomic_load_explicit((p), memory_order_relaxed)
#define load_acquire(p) atomic_load_explicit((p), memory_order_acquire)
#define load_seq_cst(p) atomic_load_explicit((p), memory_order_seq_cst)

#define store_relaxed(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)
#define store_release(p, v) atomic_store_explicit((p), (v), memory_order_release)
#define store_seq_cst(p, v) atomic_store_explicit((p), (v), memory_order_seq_cst)

#define fetch_add_relaxed(p, v) atomic_fetch_add_explicit((p), (v), memory_order_relaxed)
#define fetch_add_seq_cst(p, v) atomic_fetch_add_explicit((p), (v), memory_order_seq_cst)
#define fetch_and_acq_rel(p, v) atomic_fetch_and_explicit((p), (v), memory_order_acq_rel)
#define fetch_or_acq_rel(p, v) atomic_fetch_or_explicit((p), (v), memory_order_acq_rel)

#define xchg_acq_rel(p, v) atomic_exchange_explicit((p), (v), memory_order_acq_rel)
#define xchg_seq_cst(p, v) atomic_exchange_explicit((p), (v), memory_order_seq_cst)

#define cas_acq_rel(p, expected, v)                                                                \
	atomic_compare_exchange_strong_explicit((p), (expected), (v), memory_order_acq_rel,        \
						memory_order_acquire)
#define cas_seq_cst(p, expected, v) atomic_compare_exchange_strong((p), (expected), (v))
#define cas_weak_acq_rel(p, expected, v)                                                           \
	atomic_compare_exchange_weak_explicit((p), (expected), (v), memory_order_acq_rel,          \
					      memory_order_acquire)
#define cas_weak_release(p, expected, v)                                                           \
	atomic_compare_exchange_weak_explicit((p), (expected), (v), memory_order_release,          \
					      memory_order_relaxed)
#define cas_weak_relaxed(p, expected, v)                                                           \
	atomic_compare_exchange_weak_explicit((p), (expected), (v), memory_order_relaxed,          \
					      memory_order_relaxed)

#endif

/*
 * For a counter with one writer at a time and any number of readers: no
 * read-modify-write instruction, but readers (other threads, other processes)
 * never see half a value.
 */
#if defined(__x86_64__) && !defined(OBJCG_EXPLORE) && !defined(__SANITIZE_THREAD__)
/* Compilers do not make one instruction of a relaxed load, an addition and a relaxed store. */
static inline void add_to_8_bytes(void *p, int64_t v)
{
	__asm__("addq %1, %0" : "+m"(*(int64_t *)p) : "er"(v) : "cc");
}

static inline void add_to_4_bytes(void *p, int32_t v)
{
	__asm__("addl %1, %0" : "+m"(*(int32_t *)p) : "ir"(v) : "cc");
}

#define add_single_writer(p, v)                                                                    \
	__builtin_choose_expr(sizeof(*(p)) == 8, add_to_8_bytes((p), (int64_t)(v)),                \
			      add_to_4_bytes((p), (int32_t)(v)))
#else
#define add_single_writer(p, v) store_relaxed((p), load_relaxed(p) + (v))
#endif

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#endif
