/* What blocks are charged to. */
#ifndef OBJCG_OBJCG_H
#define OBJCG_OBJCG_H

#include "page_counter.h"

/* A new objcg, live, charged nothing; NULL when ids or memory are exhausted. Under tree_lock. */
struct obj_cgroup *objcg_alloc(void);

/* Its group is gone. `stamp`: epoch after which no section has found it there. Under tree_lock. */
void objcg_offline(struct obj_cgroup *objcg, uint64_t stamp);

/* Recycles what can be: see objcg_may_recycle(). Under tree_lock. */
void objcg_reap(void);

/* Caller is in a section. */
bool obj_cgroup_try_charge(struct obj_cgroup *objcg, int64_t nr, enum charge_bound bound,
			   struct charge_result *result);
void obj_cgroup_uncharge(struct obj_cgroup *objcg, int64_t nr);

/* Adds to the statistics of its group and all above. Caller is in a section. */
void obj_cgroup_stat(struct obj_cgroup *objcg, enum domain domain, int64_t bytes, int64_t blocks);

#endif
