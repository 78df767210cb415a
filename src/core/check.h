/* The audit: recomputes every counter from the blocks themselves. */
#ifndef OBJCG_CHECK_H
#define OBJCG_CHECK_H

#include "types.h"

/* Indexed by memcg id, [0, nr). Bytes of the subtree, stocks not included. */
struct audit {
	uint32_t nr;
	int64_t *counted;    /* what the counters say */
	int64_t *recomputed; /* what the owners of the blocks say */
	int64_t drift;	     /* sum of all differences, of groups and of objcgs; 0 or it is a bug */
};

/*
 * Walks every block. No cpu may be in use meanwhile but by the caller.
 * Returns 0 or -ENOMEM.
 */
int audit_run(struct audit *audit);
void audit_free(struct audit *audit);

/*
 * What a group shows to its users: counters less (or plus) what the stocks of
 * its subtree hold.  Exact at a quiet moment; else off by what is in flight.
 */
struct memcg_view {
	int64_t current;
	int64_t peak;
	int64_t blocks;
	int64_t stat[NR_DOMAINS];
};
void memcg_view(struct mem_cgroup *memcg, struct memcg_view *view);
int64_t memcg_current(struct mem_cgroup *memcg);

/* Aborts with a message where a slab's state contradicts itself: for tests. */
void slab_check(const struct slab *slab);

#endif
