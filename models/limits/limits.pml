/*
 * memory.max of one group, written from outside while two cpus charge it:
 * charge(), uncharge_objcg(), bound_of(), page_counter_try_charge() and
 * page_counter_grant().  See models/README.md.
 */
#include "../property.pml"

/* In bytes; CHARGE_STRICT is 3. */
#define SMALL 1
#define LARGE 3
#define BATCH 2
#define STOCK_MAX 2
#ifndef SLACK
#define SLACK 2
#endif
/*
 * memcg_ceiling(): at_write stands for lowered_from, which is stored just before max.
 * That it is given up once the group is below max makes the bound tighter, and is left
 * out; scenario charge-lower-max of tests/explore shows that it is not given up before.
 */
#ifdef AUTO
/* The bound of a max that follows something, which the reclaimer has set; it stores no lowered_from. */
#define BOUND 2
byte bounded_to;
/* The bound comes before the max: until then it is below it, and max is what holds. */
#define MOST(max) LARGER(max, CEILING(max))
#define CEILING(max) (bounded_to != 0 && bounded_to < (max) + SLACK -> bounded_to : (max) + SLACK)
#else
#define CEILING(max) (at_write > (max) -> at_write + SLACK : (max) + SLACK)
#define MOST(max) CEILING(max)
#endif
#define GRANTS 1 /* the first refusals come so far below the ceiling */
#define GRANT 1

#if defined(EXEMPT) || defined(AUTO)
#define NR_OPERATIONS(me) (me == 1 -> 2 : 1)
#else
#define NR_OPERATIONS(me) (me == 1 -> 3 : 1)
#endif

#ifndef FIRST_MAX
#define FIRST_MAX 4
#endif
#ifndef LOWER_MAX
#define LOWER_MAX 1
#endif
#define HAND_MAX 3

bit no_further, bounded, no_idle_stock, free_counts, by_hand, conserved;

short usage;
byte max = FIRST_MAX;
byte granted_until;
byte exempt_until;

/* By cpu: one slot, for the group's objcg or nobody's. */
bit key[3];
short stock[3];
bit cpu_lock[3];

/* What the properties are stated in. */
byte writes;	/* of max, so far */
short at_write; /* the usage then: charged, or about to be */
short held;	/* charges that were let through */
bit exact[3];	/* the cpu's last charge was let through above max, and max is the same since */
short blocks;	/* at rest: bytes of the blocks that are left */
byte nr_done;

bit gil;

#define LARGER(a, b) ((a) > (b) -> (a) : (b))

/* page_counter_try_charge() of the one level: adds first, and compares then. */
inline try_charge(nr, by_ceiling)
{
	atomic {
#ifdef BROKEN_MAX_BEFORE_ADD
		limit = max;
	}
	atomic {
#endif
		usage = usage + nr;
		now = usage;
		seen = writes;
		printf("user %d adds %d: usage is %d\n", me, nr, now)
	}
#ifndef BROKEN_MAX_BEFORE_ADD
#ifdef BROKEN_MAX_CACHED
	limit = cached;
#else
	limit = max;
#endif
#endif
	/* bound_of() */
	if
	:: by_ceiling ->
		atomic {
			bound = CEILING(limit) - GRANTS;
#ifdef BROKEN_GRANT_NOT_CLAMPED
			bound = LARGER(granted_until, bound);
#else
			bound = (granted_until > CEILING(limit) -> CEILING(limit) : LARGER(granted_until, bound));
#endif
		}
	:: else ->
#ifdef BROKEN_EXEMPT_NOT_CLAMPED
		bound = LARGER(exempt_until, limit)
#elif defined(EXEMPT)
		bound = (exempt_until > CEILING(limit) -> CEILING(limit) : LARGER(exempt_until, limit))
#else
		bound = limit
#endif
	fi;
	if
	:: now > bound ->
		atomic {
			usage = usage - nr;
			passed = 0;
			printf("user %d: %d is above %d; it takes %d back\n", me, now, bound, nr)
		}
	:: else ->
		atomic {
			held = held + nr;
			passed = 1;
			printf("user %d: %d is within %d; charged\n", me, now, bound);
#ifndef EXEMPT
			/* Whoever adds after the write meets the new limit. */
			PROPERTY(no_further, by_ceiling || seen != writes || now <= max);
#endif
			PROPERTY(bounded, held <= LARGER(at_write, MOST(max)));
			exact[me] = (by_ceiling && seen == writes)
		}
		/* Below its limit again: what was granted is over. */
		if
		:: exempt_until != 0 || granted_until != 0 ->
			limit = max;
			if
			:: now <= limit ->
				exempt_until = 0;
				granted_until = 0
			:: else
			fi
		:: else
		fi
	fi;
	atomic {
		limit = 0;
		bound = 0;
		now = 0;
		seen = 0
	}
}

inline uncharge(nr)
{
	atomic {
		usage = usage - nr;
		held = held - nr;
		printf("user %d uncharges %d: usage is %d\n", me, nr, usage)
	}
}

inline drain(cpu)
{
	if
	:: stock[cpu] > 0 ->
		amount = stock[cpu];
		stock[cpu] = 0;
		uncharge(amount);
		amount = 0
	:: else
	fi;
	key[cpu] = 0
}

/* charge(), with what it does when the group is full */
inline charge(size)
{
	key[me] = 1; /* take_slot() */
	if
	:: size <= stock[me] -> stock[me] = stock[me] - size; passed = 1
	:: else ->
		if
		:: size <= BATCH ->
			try_charge(BATCH, false);
			if
			:: passed -> stock[me] = stock[me] + BATCH - size
			:: else
			fi
		:: else ->
			try_charge(size, false)
		fi;
		if
		:: passed
		:: else ->
#ifndef BROKEN_NOT_DRAINED
			drain(me);
#endif
			/* stock_drain_others() of the one, by trylock of the other's lock */
			if
			:: me == 1 ->
				if
				:: atomic { cpu_lock[2] == 0 -> cpu_lock[2] = 1 }
					drain(2);
					cpu_lock[2] = 0
				:: cpu_lock[2] == 1
				fi
			:: else
			fi;
			key[me] = 1; /* take_slot() */
			try_charge(size, false);
			if
			:: passed
			:: size == LARGE && !passed ->
				atomic {
					printf("user %d is refused %d\n", me, size);
					PROPERTY(no_idle_stock, stock[me] == 0)
				}
			:: size != LARGE && !passed ->
#ifdef BROKEN_KEEPS_SLOT
				skip;
#else
				drain(me);
#endif
				try_charge(size, true);
				if
				:: passed
				:: else ->
					/* page_counter_grant() */
					now = usage + GRANT;
					limit = max;
					atomic {
						granted_until = (now < CEILING(limit) -> now : CEILING(limit));
						printf("user %d is refused %d; granted until %d\n", me, size, granted_until);
						now = 0;
						limit = 0
					}
				fi
			fi
		fi
	fi
}

/* A block of `size` bytes: kmem_free_fast(), or uncharge_objcg(). */
inline free_block(size)
{
	if
	:: key[me] && stock[me] + size <= STOCK_MAX ->
		/* refill_stock() */
		atomic {
			PROPERTY(free_counts, !exact[me]);
			printf("user %d frees %d into its stock\n", me, size);
			stock[me] = stock[me] + size
		}
	:: else ->
		/* is_over_max() */
		now = usage;
		limit = max;
		if
		:: now > limit -> uncharge(size)
		:: else ->
			atomic {
				key[me] = 1;
				exact[me] = 0
			}
			if
			:: stock[me] + size <= STOCK_MAX -> stock[me] = stock[me] + size
			:: else -> uncharge(size)
			fi
		fi;
		atomic {
			now = 0;
			limit = 0
		}
	fi
}

proctype user(byte me)
{
	byte operations, small, large, limit, bound, seen;
	short now, amount;
	bit passed;
#ifdef BROKEN_MAX_CACHED
	byte cached = FIRST_MAX;
#endif

	do
	:: operations < NR_OPERATIONS(me) ->
#ifdef EXEMPT
		/* User 1's cpu is the one that the GIL locks. */
		if
		:: me == 1 -> atomic { gil == 0; gil = 1 }
		:: else
		fi;
#endif
		atomic { cpu_lock[me] == 0; cpu_lock[me] = 1; operations++ }
		if
		:: true ->
			charge(SMALL);
			if
			:: passed -> small++
			:: else
			fi
		:: true ->
			charge(LARGE);
			if
			:: passed -> large++
			:: else
			fi
		:: small > 0 -> small--; free_block(SMALL)
		:: large > 0 -> large--; free_block(LARGE)
		fi;
		passed = 0;
#ifdef EXEMPT
		if
		:: me == 1 -> gil = 0
		:: else
		fi;
#endif
		cpu_lock[me] = 0
	:: else -> break
	od;
	blocks = blocks + SMALL * small + LARGE * large;
	nr_done++
}

#ifdef EXEMPT

/* The reclaimer's exempt(): a reserve for a group that is over its max. */
proctype reclaimer()
{
	byte ceiling;
	short until;

	atomic { gil == 0; gil = 1 }
	ceiling = CEILING(max);
	until = usage + 1;
	if
	:: exempt_until == 0 ->
		atomic {
			exempt_until = (until > ceiling -> ceiling : until);
			printf("the reclaimer exempts the group until %d\n", exempt_until)
		}
	:: else
	fi;
	gil = 0;
	nr_done++
}
#endif

#ifdef AUTO

/* page_counter_replace_max(), while page_counter_set_max() may come from elsewhere. */
proctype follower()
{
#ifndef BROKEN_BOUND_AFTER_MAX
	atomic {
		bounded_to = BOUND;
		at_write = usage;
		printf("the ceiling is bounded to %d\n", bounded_to)
	}
#endif
	if
	:: atomic {
		max == FIRST_MAX ->
		max = LOWER_MAX;
		writes++;
		at_write = usage;
		exact[1] = 0;
		exact[2] = 0;
		printf("max follows to %d; usage is %d\n", max, usage)
	   }
#ifdef BROKEN_BOUND_AFTER_MAX
		atomic {
			bounded_to = BOUND;
			at_write = usage
		}
#endif
	:: atomic { max != FIRST_MAX -> bounded_to = 0 }
	fi;
	nr_done++
}

/* By hand, page_counter_set_max(); or not at all. */
proctype writer()
{
	if
	:: true
	:: true ->
#ifdef BROKEN_UNBOUND_BEFORE_MAX
		atomic {
			bounded_to = 0;
			at_write = usage
		}
#endif
		atomic {
			max = HAND_MAX;
			writes++;
			at_write = usage;
			exact[1] = 0;
			exact[2] = 0;
			printf("max is set to %d; usage is %d\n", max, usage)
		}
#ifndef BROKEN_UNBOUND_BEFORE_MAX
		atomic {
			bounded_to = 0;
			at_write = usage
		}
#endif
	fi;
	nr_done++
}
#else
/* Another process stores memory.max; or page_counter_set_max(), with the GIL. */
proctype writer()
{
#ifdef INSIDE
	atomic { gil == 0; gil = 1 }
	exempt_until = 0;
	granted_until = 0;
#endif
	atomic {
		max = LOWER_MAX;
		writes++;
		at_write = usage;
		exact[1] = 0;
		exact[2] = 0;
		printf("max is set to %d; usage is %d\n", max, usage)
	}
#ifdef INSIDE
	gil = 0;
#endif
	nr_done++
}
#endif

init {
	atomic {
		/* A byte in stock of each cpu. */
		usage = 2;
		held = 2;
		key[1] = 1;
		key[2] = 1;
		stock[1] = 1;
		stock[2] = 1;
		run user(1);
		run user(2);
#ifdef EXEMPT
		run reclaimer();
#elif defined(AUTO)
		run follower();
#else
		nr_done++;
#endif
		run writer()
	}
	atomic {
		nr_done == 4;
		printf("at rest: usage %d, blocks %d, stocks %d and %d\n", usage, blocks, stock[1], stock[2]);
#ifdef AUTO
		PROPERTY(by_hand, max != HAND_MAX || bounded_to == 0);
#endif
		PROPERTY(conserved, usage == blocks + stock[1] + stock[2]);
		PROPERTY(conserved, usage == held)
	}
}
