/*
 * When an objcg's id may be used again: objcg_offline(), obj_cgroup_uncharge(),
 * candidate_push(), objcg_reap() and objcg_may_recycle(), with sections, slots
 * and late frees.  See models/README.md.
 *
 * name: objcg 1 = the root's objcg
 */
#include "../property.pml"

#define ROOTS 1 /* the id of the root's objcg, which never dies */
#define NR_IDS 4

/*
 * Two configurations.  "late": one group is removed, while its blocks are freed.
 * "reuse": another one is made then, with the same id if that is free, and is
 * removed as well.
 */
#ifdef REUSE
#define NR_ALLOCATIONS(me) (me == 1)
#define NR_FREES(me) 1
#else
#define NR_ALLOCATIONS(me) 1
#define NR_FREES(me) 1
#endif

#define FREE 0
#define LIVE 1
#define DYING 2

#define FLAGGED 7
#define STOCK_MAX 2

bit no_section_holds_it, no_block_names_it, no_slot_names_it, no_bytes;
bit not_recycled, listed_once, all_recycled;

/* struct obj_cgroup, by id */
byte state[NR_IDS];
byte bytes[NR_IDS];
bit candidate[NR_IDS];
byte next_candidate[NR_IDS];
byte candidates; /* the head */

/* Per cpu, by its user's number: 1 and 2.  One slot each: all ids share it. */
byte section[3];
byte key[3];
byte stock[3];

byte epoch = 1;
byte reference[3]; /* of the task that is current on the cpu */
byte group_objcg;  /* of the group that user 1's task is in; 0 once it is removed */

/* What the properties are stated in. */
byte blocks[NR_IDS]; /* living blocks that name the id */
byte held[3];	     /* what the user of a cpu is about to charge or uncharge */
bit listed[NR_IDS];
byte nr_done;

inline candidate_push(id)
{
	atomic {
		was = candidate[id];
#ifdef BROKEN_PUSH_TWICE
		was = 0;
#endif
		candidate[id] = 1
	}
	if
	:: was -> was = 0
	:: else ->
		/* next_candidate is nobody else's until the compare-and-exchange. */
		head = candidates;
		do
		:: true ->
			atomic {
				next_candidate[id] = head;
				if
				:: candidates == head ->
					candidates = id;
					PROPERTY(listed_once, !listed[id]);
					listed[id] = 1;
					printf("objcg %d is put on the list\n", id);
					head = 0;
					break
				:: else -> head = candidates /* unreached in late: one id has nobody to race with */
				fi
			}
		od
	fi
}

inline uncharge(id, nr)
{
#ifdef BROKEN_STATE_FIRST
	dying = (state[id] == DYING);
#endif
	/* From here on this user holds nothing of the objcg. */
	atomic {
		bytes[id] = bytes[id] - nr;
		amount = 0;
		zero = (bytes[id] == 0);
		held[me] = (held[me] == id -> 0 : held[me]);
		printf("user %d uncharges objcg %d: %d left\n", me, id, bytes[id])
	}
	if
	:: zero ->
		atomic {
			zero = 0;
#ifndef BROKEN_STATE_FIRST
			dying = (state[id] == DYING);
#endif
		}
		if
		:: dying -> candidate_push(id)
		:: else
		fi
	:: else
	fi;
	atomic {
		dying = 0;
		zero = 0
	}
}

/* drain_stock(): the slot first, then the counter. */
inline drain()
{
	if
	:: stock[me] > 0 ->
		/* Nobody else in this model looks at the bytes in stock. */
		atomic {
			amount = stock[me];
			stock[me] = 0
		}
		uncharge(key[me], amount);
	:: else
	fi
}

inline take_slot(id)
{
	if
	:: key[me] != id ->
		if
		:: key[me] != 0 -> drain()
		:: else
		fi;
		atomic {
			key[me] = id;
			printf("user %d: the slot is objcg %d's\n", me, id)
		}
	:: else
	fi
}

inline section_enter()
{
	seen = epoch;
	atomic {
		section[me] = seen;
		seen = 0
	}
}

/* What consume_stock() and charge() do to an objcg must be the one that was meant. */
#define IS_IN_USE(id) (state[id] != FREE)

inline allocate()
{
	/* consume_stock(), which needs no section. */
	found = reference[me];
	if
	:: key[me] == found && stock[me] > 0 ->
		atomic {
			PROPERTY(not_recycled, IS_IN_USE(found));
			stock[me]--;
			blocks[found]++;
			printf("user %d takes a block of objcg %d from its stock\n", me, found);
			found = 0
		}
	:: else ->
		/* charge_task() */
		section_enter();
		atomic {
			found = reference[me];
			if
			:: found != FLAGGED ->
				held[me] = found;
				printf("user %d has a reference to objcg %d\n", me, found)
			:: else
			fi
		}
		if
		:: found == FLAGGED ->
			/* current_objcg_update() in one step: models/update has it in full. */
			atomic {
				found = (group_objcg -> group_objcg : ROOTS);
				reference[me] = found;
				held[me] = found;
				printf("user %d looks its group up: objcg %d\n", me, found)
			}
		:: else
		fi;
		take_slot(found);
		atomic {
			if
			:: amount = 1 /* exactly */
			:: amount = 2 /* one ahead */
			fi;
			PROPERTY(not_recycled, IS_IN_USE(found));
			bytes[found] = bytes[found] + amount;
			blocks[found]++;
			held[me] = 0;
			printf("user %d charges objcg %d: %d\n", me, found, bytes[found]);
			stock[me] = stock[me] + amount - 1;
			amount = 0;
			found = 0
		}
		section[me] = 0
	fi
}

/* A block of whomever.  kmem_free(): the memory first, then the charge. */
inline free_block()
{
	atomic {
		if
		:: blocks[2] > 0 -> found = 2
		:: blocks[3] > 0 -> found = 3
		:: blocks[2] == 0 && blocks[3] == 0 && blocks[ROOTS] > 0 -> found = ROOTS
		:: else
		fi;
		if
		:: found ->
#ifndef BROKEN_UNCHARGE_FIRST
			blocks[found]--;
#endif
			held[me] = found;
			printf("user %d frees a block of objcg %d\n", me, found)
		:: else
		fi
	}
	if
	:: found == 0
	:: else ->
		if
		:: key[me] == found && stock[me] < STOCK_MAX ->
			/* refill_stock() */
			atomic {
				stock[me]++;
				held[me] = 0
			}
		:: else ->
			/* uncharge_objcg() */
			section_enter();
			if
			:: true ->
				/* Over its max. */
				uncharge(found, 1)
			:: true ->
				take_slot(found);
				if
				:: stock[me] < STOCK_MAX ->
					atomic {
						stock[me]++;
						held[me] = 0
					}
				:: true ->
					/* Too large for a slot: the key is in place. */
					uncharge(found, 1)
				fi
			fi;
			section[me] = 0
		fi;
#ifdef BROKEN_UNCHARGE_FIRST
		blocks[found]--;
#endif
		found = 0
	fi
}

/* stock_drain_all() */
inline drain_all()
{
	section_enter();
	if
	:: key[me] != 0 ->
		drain();
		key[me] = 0
	:: else
	fi;
	section[me] = 0
}

proctype user(byte me)
{
	byte allocations, frees, found, amount, seen, head;
	bit was, zero, dying;

	do
	:: allocations < NR_ALLOCATIONS(me) -> allocations++; allocate()
	:: frees < NR_FREES(me) -> frees++; free_block()
	:: true -> break
	od;
	/* cpu_put() */
	drain_all();
	atomic {
		allocations = 0;
		frees = 0;
		nr_done++
	}
}

/* The rest is done under tree_lock, by one process. */

#define EPOCH_PASSED(cpu) (section[cpu] == 0 || section[cpu] >= stamp[id])

inline may_recycle(id)
{
	may = 1;
#ifndef BROKEN_NO_EPOCH
	may = EPOCH_PASSED(1);
	may = (may && EPOCH_PASSED(2));
#endif
	may = (may && bytes[id] == 0);
#ifndef BROKEN_NO_KEYS
	may = (may && key[1] != id);
	may = (may && key[2] != id);
#endif
#ifndef NO_LAST_LOOK
	may = (may && !candidate[id]);
#endif
}

inline recycle(id)
{
	atomic {
		printf("objcg %d is recycled\n", id);
		PROPERTY(no_bytes, bytes[id] == 0);
		PROPERTY(no_block_names_it, blocks[id] == 0);
		PROPERTY(no_section_holds_it, held[1] != id && held[2] != id);
		PROPERTY(no_slot_names_it, key[1] != id && key[2] != id);
		state[id] = FREE
	}
}

inline objcg_reap()
{
	atomic {
		item = candidates;
		candidates = 0
	}
	do
	:: item == 0 -> break
	:: else ->
		this = item;
#ifdef BROKEN_NEXT_AFTER_CLEAR
		atomic {
			candidate[this] = 0;
			listed[this] = 0
		}
		item = next_candidate[this];
#else
		item = next_candidate[this];
#ifdef BROKEN_CLEAR_AFTER_LOOK
		none = (bytes[this] == 0);
#endif
		atomic {
			candidate[this] = 0;
			listed[this] = 0
		}
#endif
		if
		:: state[this] != DYING
		:: else ->
			may_recycle(this);
			if
			:: may -> recycle(this)
			:: else ->
#ifndef BROKEN_CLEAR_AFTER_LOOK
				none = (bytes[this] == 0);
#endif
				if
				:: none -> candidate_push(this)
				:: else
				fi
			fi
		fi;
		atomic {
			this = 0;
			may = 0;
			none = 0
		}
	od
}

/* memcg_remove(), of the group whose objcg is `id` */
inline remove(id)
{
	atomic {
		group_objcg = 0;
		printf("the group of objcg %d is removed\n", id)
	}
	reference[1] = FLAGGED;
	atomic {
		epoch++;
		stamp[id] = epoch
	}
#ifdef BROKEN_AT_ONCE
	state[id] = DYING;
	if
	:: bytes[id] == 0 -> recycle(id)
	:: else
	fi;
#else
#ifdef BROKEN_OFFLINE_BYTES_FIRST
	none = (bytes[id] == 0);
	state[id] = DYING;
#else
	state[id] = DYING;
	none = (bytes[id] == 0);
#endif
	if
	:: none -> none = 0; candidate_push(id)
	:: else
	fi;
#endif
	objcg_reap()
}

/* memcg_create(); objcg_alloc() takes a recycled id first. */
inline create()
{
	objcg_reap();
	atomic {
		new = (state[2] == FREE -> 2 : 3);
		printf("a new group has objcg %d\n", new)
	}
	bytes[new] = 0;
	state[new] = LIVE;
	group_objcg = new
}

proctype tree()
{
	byte me, item, this, new, head, amount;
	byte stamp[NR_IDS];
	bit was, zero, dying, may, none;

	remove(2);
#ifdef REUSE
	create();
	/* task_move() */
	reference[1] = FLAGGED;
	remove(new);
#endif
	/* At rest: what is left is freed, and all that is dead is recycled. */
	nr_done == 2;
	do
	:: blocks[2] > 0 -> blocks[2]--; uncharge(2, 1)
	:: blocks[3] > 0 -> blocks[3]--; uncharge(3, 1) /* unreached in late: id 3 is not used */
	:: blocks[2] == 0 && blocks[3] == 0 -> break
	od;
	objcg_reap();
	PROPERTY(all_recycled, state[2] == FREE && state[3] == FREE)
}

init {
	atomic {
		state[ROOTS] = LIVE;
		state[2] = LIVE;
		group_objcg = 2;
		reference[1] = 2;
		reference[2] = ROOTS;
		/* A block of the group that somebody else has. */
		bytes[2] = 1;
		blocks[2] = 1;
		run user(1);
		run user(2);
		run tree()
	}
}
