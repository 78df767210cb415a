/*
 * The C library's functions that hand out memory, as a table: what the preload
 * library (src/preload) calls, and what the core itself allocates from.
 *
 * The preload library has no state of the core's.  Until the core registers it
 * calls the C library; then native.c, which calls the C library in its turn.
 */
#ifndef OBJCG_ALLOCATOR_H
#define OBJCG_ALLOCATOR_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/types.h>

#include "atomic.h"

struct allocator {
	void *(*malloc)(size_t size);
	void (*free)(void *p);
	void *(*calloc)(size_t nr, size_t size);
	void *(*realloc)(void *p, size_t size);
	void *(*memalign)(size_t alignment, size_t size);
	void *(*aligned_alloc)(size_t alignment, size_t size);
	int (*posix_memalign)(void **p, size_t alignment, size_t size);
	size_t (*usable_size)(void *p);
	void *(*mmap)(void *address, size_t len, int protection, int flags, int fd, off_t offset);
	int (*munmap)(void *address, size_t len);
	void *(*mremap)(void *address, size_t old, size_t len, int flags, void *to);
	int (*thread_create)(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *),
			     void *arg);
};

/* What there is to do around a fork, as pthread_atfork() takes it. */
struct fork_handlers {
	void (*prepare)(void);
	void (*parent)(void);
	void (*child)(void);
};

#define PRELOAD_VERSION 2u
#define PRELOAD_SYMBOL "objcg_preload"

/* What the core finds by dlsym(PRELOAD_SYMBOL), if the library is loaded. */
struct preload {
	uint32_t version;
	uint32_t size;		      /* of struct allocator */
	const struct allocator *next; /* what would be called if the library were not there */
	_Atomic(const struct allocator *) current;     /* what it calls */
	_Atomic(const struct fork_handlers *) at_fork; /* NULL: none yet */
	bool sees_forks;			       /* it calls those */
};

/*
 * What the core allocates for itself, and for the large blocks of Python's
 * domains, comes from here: never by way of the preload library, which would
 * charge it (again).
 */
extern struct allocator libc_allocator;

#ifdef OBJCG_EXPLORE /* tests/explore has macros in place of these */
#define base_malloc(size) malloc(size)
#define base_calloc(nr, size) calloc((nr), (size))
#define base_realloc(p, size) realloc((p), (size))
#define base_aligned_alloc(alignment, size) aligned_alloc((alignment), (size))
#define base_free(p) free(p)
#else
#define base_malloc(size) (libc_allocator.malloc)(size)
#define base_calloc(nr, size) (libc_allocator.calloc)((nr), (size))
#define base_realloc(p, size) (libc_allocator.realloc)((p), (size))
#define base_aligned_alloc(alignment, size) (libc_allocator.aligned_alloc)((alignment), (size))
#define base_free(p) (libc_allocator.free)(p)
#endif

#endif
