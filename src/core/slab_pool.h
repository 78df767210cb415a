/*
 * The pool of empty slabs, which all heaps share, and when their memory goes back to
 * the system.
 */
#ifndef OBJCG_SLAB_POOL_H
#define OBJCG_SLAB_POOL_H

#include "slab.h"

/* Reserves the range. Returns 0 or -errno. */
int slab_pool_init(void);

/* An empty slab, with the memory that it had or with none; NULL: there is no room. */
struct slab *slab_pool_get(void);
/* A slab that has become empty, on no list. */
void slab_pool_put(struct slab *slab);

/*
 * To be called when large blocks have grown: what is kept for the next is kept as
 * long as the process would not need less memory at its peak without, and given
 * back where large blocks are about to set a new peak.
 */
void slab_pool_make_room(void);

/* Bytes of slabs in use, of empty ones kept, and of ones given back to the system. */
struct slab_pool_stat {
	size_t active;
	size_t kept;
	size_t returned;
};
struct slab_pool_stat slab_pool_stat(void);

void slab_pool_lock(void);
void slab_pool_unlock(void);
void slab_pool_lock_reset_after_fork(void);

#endif
