/* memory.max, high and low of a group of another process, whose region is mapped here. */
#ifndef OBJCG_KNOBS_H
#define OBJCG_KNOBS_H

#include "page_counter.h"

#define KNOB_KEEP ((int64_t)-1)

/* COUNTER_UNSET is no limit; `low` of 0 is no protection. */
struct knobs {
	int64_t max;
	int64_t high;
	int64_t low;
};

/*
 * Sets those knobs that are not KNOB_KEEP: 0; -ENODEV if the group with this uid
 * has ended (and then nothing of it stays); -EAGAIN while its record is being
 * changed.  Takes no lock: those of the other process cannot be taken from here,
 * and it may be stopped while it holds them.
 */
int memcg_set_knobs_from_outside(struct mem_cgroup *memcg, uint64_t uid, const struct knobs *knobs);

#endif
