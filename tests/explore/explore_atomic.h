/*
 * The helpers of atomic.h in a build with -DOBJCG_EXPLORE: each first lets the
 * explorer decide who runs, then does the operation, under the explorer's model
 * of memory.  So do the mutexes.  What the core takes from the system is taken
 * from the explorer, which puts it back as it was for the next execution.
 *
 * This header stands for atomic.h in the core and in the scenarios, and nowhere
 * else: the explorer itself is ordinary C.
 */
#ifndef OBJCG_EXPLORE_ATOMIC_H
#define OBJCG_EXPLORE_ATOMIC_H

/* Before the macros below, which have the names of functions declared there. */
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "access.h"

/* "task.c:72 load_acquire(&task->word)": what a trace shows for the operation. */
#define EXPLORE_TEXT_(x) #x
#define EXPLORE_TEXT(x) EXPLORE_TEXT_(x)
#define EXPLORE_SITE(text) __FILE__ ":" EXPLORE_TEXT(__LINE__) " " text

/* The type of an atomic object's value, and that value as 64 bits. */
#define EXPLORE_TYPE(p) __typeof__((void)0, *(p))
#define EXPLORE_BITS(p, v) ((uint64_t)(EXPLORE_TYPE(p))(v))

#define EXPLORE_LOAD(text, order, p)                                                               \
	((EXPLORE_TYPE(p))explore_load(EXPLORE_SITE(text), (order), (p), sizeof(*(p))))
#define EXPLORE_STORE(text, order, p, v)                                                           \
	explore_store(EXPLORE_SITE(text), (order), (p), sizeof(*(p)), EXPLORE_BITS(p, v))
/* A statement expression, since its value is often not used. */
#define EXPLORE_RMW(text, order, how, p, v)                                                        \
	({                                                                                         \
		(EXPLORE_TYPE(p)) explore_rmw(EXPLORE_SITE(text), (order), (how), (p),             \
					      sizeof(*(p)), EXPLORE_BITS(p, v));                   \
	})
#define EXPLORE_CAS(text, order, p, expected, v)                                                   \
	explore_cas(EXPLORE_SITE(text), (order), (p), sizeof(*(p)), (expected), EXPLORE_BITS(p, v))

#define load_relaxed(p) EXPLORE_LOAD("load_relaxed(" #p ")", 0, p)
#define load_acquire(p) EXPLORE_LOAD("load_acquire(" #p ")", ACQUIRE, p)
#define load_seq_cst(p) EXPLORE_LOAD("load_seq_cst(" #p ")", ACQUIRE, p)

#define store_relaxed(p, v) EXPLORE_STORE("store_relaxed(" #p ")", 0, p, v)
#define store_release(p, v) EXPLORE_STORE("store_release(" #p ")", RELEASE, p, v)
#define store_seq_cst(p, v) EXPLORE_STORE("store_seq_cst(" #p ")", RELEASE | SEQ_CST, p, v)

#define fetch_add_relaxed(p, v) EXPLORE_RMW("fetch_add_relaxed(" #p ")", 0, RMW_ADD, p, v)
#define fetch_add_seq_cst(p, v)                                                                    \
	EXPLORE_RMW("fetch_add_seq_cst(" #p ")", ACQUIRE | RELEASE, RMW_ADD, p, v)
#define fetch_or_acq_rel(p, v)                                                                     \
	EXPLORE_RMW("fetch_or_acq_rel(" #p ")", ACQUIRE | RELEASE, RMW_OR, p, v)

#define xchg_acq_rel(p, v) EXPLORE_RMW("xchg_acq_rel(" #p ")", ACQUIRE | RELEASE, RMW_XCHG, p, v)
#define xchg_seq_cst(p, v) EXPLORE_RMW("xchg_seq_cst(" #p ")", ACQUIRE | RELEASE, RMW_XCHG, p, v)

/* A weak one fails where a strong one would, and not besides: a loop around it takes care of that. */
#define cas_acq_rel(p, expected, v)                                                                \
	EXPLORE_CAS("cas_acq_rel(" #p ")", ACQUIRE | RELEASE, p, expected, v)
#define cas_seq_cst(p, expected, v)                                                                \
	EXPLORE_CAS("cas_seq_cst(" #p ")", ACQUIRE | RELEASE, p, expected, v)
#define cas_weak_acq_rel(p, expected, v)                                                           \
	EXPLORE_CAS("cas_weak_acq_rel(" #p ")", ACQUIRE | RELEASE, p, expected, v)
#define cas_weak_release(p, expected, v)                                                           \
	EXPLORE_CAS("cas_weak_release(" #p ")", RELEASE, p, expected, v)
#define cas_weak_relaxed(p, expected, v) EXPLORE_CAS("cas_weak_relaxed(" #p ")", 0, p, expected, v)

#define pthread_mutex_lock(m) explore_lock(EXPLORE_SITE("lock(" #m ")"), (m))
#define pthread_mutex_trylock(m) explore_trylock(EXPLORE_SITE("trylock(" #m ")"), (m))
#define pthread_mutex_unlock(m) explore_unlock(EXPLORE_SITE("unlock(" #m ")"), (m))

#define malloc(size) explore_malloc(size)
#define calloc(nr, size) explore_calloc((nr), (size))
#define realloc(p, size) explore_realloc((p), (size))
#define aligned_alloc(alignment, size) explore_aligned_alloc((alignment), (size))
#define free(p) explore_free(p)

#define mmap(address, size, protection, flags, fd, offset)                                         \
	explore_mmap((address), (size), (protection), (flags), (fd), (offset))
#define mprotect(address, size, protection) explore_mprotect((address), (size), (protection))

#endif
