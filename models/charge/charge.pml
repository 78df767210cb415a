/*
 * page_counter_try_charge(), page_counter_uncharge() and page_counter_set_max()
 * on a group and its parent.  See models/README.md.
 *
 * name: group 0 = the leaf
 * name: group 1 = the parent
 */
#include "../property.pml"

#define LEAF 0
#define PARENT 1
#define NR_LEVELS 2

#ifdef TWICE
#define NR_CHARGES (2 - me / 2) /* the leaf's two twice, the parent's once */
#else
#define NR_CHARGES 1
#endif

bit never_over, writer_or_charger, conserved, refused_only_when_full;

short usage[NR_LEVELS];
byte max[NR_LEVELS];

/* The bytes of charges that passed a level and were not undone or uncharged since. */
short passed[NR_LEVELS];
short held[NR_LEVELS]; /* of charges that succeeded */
byte highest[NR_LEVELS]; /* max that was in force at any time */

/* The writer changes the limit of one level, once. */
byte written_level;
bit is_written;
bit is_returned; /* and has its usage */
byte included[NR_LEVELS]; /* chargers whose bytes are in the usage: a set */
byte passed_old; /* chargers that passed the written level under the old limit: a set */
byte added[NR_LEVELS];  /* chargers whose bytes are in the counter now: sets */
byte nr_done;

#define BIT(charger) (1 << (charger))

/* One level of a charge, in the two steps of the code: fetch_add, and load of max. */
inline charge_level(level)
{
#ifdef BROKEN_CHECK_THEN_ACT
	atomic {
		now = usage[level] + nr;
		printf("charger %d reads the usage of group %d: %d\n", me, level, usage[level])
	}
#else
#ifdef BROKEN_MAX_FIRST
	atomic {
		limit = max[level];
		old = !is_written;
		printf("charger %d reads the max of group %d: %d\n", me, level, limit)
	}
#endif
	atomic {
		usage[level] = usage[level] + nr;
		now = usage[level];
		added[level] = added[level] | BIT(me);
		printf("charger %d adds %d to group %d: %d\n", me, nr, level, now)
	}
#endif
	atomic {
#ifndef BROKEN_MAX_FIRST
		limit = max[level];
		old = !is_written;
#endif
		if
		:: now > limit ->
			printf("charger %d: %d is above the max of group %d: %d\n", me, now, level, limit);
#ifdef CLAIM_EXACT
			PROPERTY(refused_only_when_full, passed[level] + nr > limit);
#endif
			refused = 1
		:: else ->
			printf("charger %d: %d is within the max of group %d: %d\n", me, now, level, limit);
			passed[level] = passed[level] + nr;
			PROPERTY(never_over, passed[level] <= highest[level]);
			if
			:: old ->
				if
				:: level == written_level ->
					passed_old = passed_old | BIT(me);
					PROPERTY(writer_or_charger,
						 !is_returned || (included[level] & BIT(me)))
				:: else
				fi
			:: else
			fi
		fi
	}
#ifdef BROKEN_CHECK_THEN_ACT
	if
	:: !refused ->
		atomic {
			usage[level] = usage[level] + nr;
			added[level] = added[level] | BIT(me);
			printf("charger %d adds %d to group %d\n", me, nr, level)
		}
	:: else
	fi
#endif
}

inline take_back(level)
{
	atomic {
		usage[level] = usage[level] - nr;
		added[level] = added[level] & ~BIT(me);
		printf("charger %d takes %d back from group %d: %d\n", me, nr, level, usage[level])
	}
}

/* The same for bytes that had passed there. */
inline give_back(level)
{
	atomic {
		usage[level] = usage[level] - nr;
		passed[level] = passed[level] - nr;
		passed_old = (level == written_level -> passed_old & ~BIT(me) : passed_old);
		added[level] = added[level] & ~BIT(me);
		printf("charger %d gives %d back to group %d: %d\n", me, nr, level, usage[level])
	}
}

proctype charger(byte me, from)
{
	byte begun, nr, limit;
	short now;
	bit refused, old;

	do
	:: begun < NR_CHARGES ->
		atomic {
			begun++;
			if
			:: nr = 1
			:: nr = 2
			fi
		}
		if
		:: from == LEAF -> charge_level(LEAF)
		:: else
		fi;
		if
		:: refused ->
#ifndef BROKEN_UNDO_NOT_REFUSING
#ifndef BROKEN_CHECK_THEN_ACT
			take_back(LEAF)
#else
			skip
#endif
#else
			skip
#endif
		:: else ->
#ifndef BROKEN_PARENT_NOT_CHARGED
			charge_level(PARENT);
#endif
			if
			:: refused ->
#ifndef BROKEN_UNDO_FORGETS_LOWER
				if
				:: from == LEAF -> give_back(LEAF)
				:: else
				fi;
#endif
#ifndef BROKEN_CHECK_THEN_ACT
				take_back(PARENT);
#endif
#ifdef BROKEN_UNDO_TWICE
				take_back(PARENT);
#endif
				skip
			:: else
			fi
		fi;
		atomic {
			limit = 0;
			now = 0;
			old = 0;
			if
			:: refused ->
				refused = 0;
				nr = 0
			:: else ->
				printf("charger %d has charged %d\n", me, nr);
				held[PARENT] = held[PARENT] + nr;
				if
				:: from == LEAF -> held[LEAF] = held[LEAF] + nr
				:: else
				fi
			fi
		}
		/* It may keep the bytes, or uncharge them. */
		if
		:: nr > 0 ->
			if
			:: from == LEAF ->
				atomic {
					held[LEAF] = held[LEAF] - nr;
					held[PARENT] = held[PARENT] - nr
				}
				give_back(LEAF);
				give_back(PARENT);
				nr = 0
			:: from == PARENT ->
				atomic { held[PARENT] = held[PARENT] - nr }
				give_back(PARENT);
				nr = 0
			:: true -> nr = 0
			fi
		:: else
		fi
	:: else -> break
	od;
	nr_done++
}

#ifndef NO_WRITER
/* page_counter_set_max() */
proctype writer()
{
	byte limit;

	atomic {
		if
		:: limit = 1
		:: limit = 4
		fi
	}
#ifdef BROKEN_USAGE_FIRST
	atomic {
		included[written_level] = added[written_level];
		printf("the writer reads the usage of group %d: %d\n", written_level, usage[written_level])
	}
#endif
	atomic {
		max[written_level] = limit;
		highest[written_level] = (limit > highest[written_level] -> limit : highest[written_level]);
		is_written = 1;
		printf("the writer sets the max of group %d to %d\n", written_level, limit)
	}
	atomic {
#ifndef BROKEN_USAGE_FIRST
		included[written_level] = added[written_level];
		printf("the writer reads the usage of group %d: %d\n", written_level, usage[written_level]);
#endif
		is_returned = 1;
		PROPERTY(writer_or_charger, (passed_old & ~included[written_level]) == 0);
		PROPERTY(writer_or_charger, usage[written_level] >= passed[written_level])
	}
	nr_done++
}
#endif

init {
	atomic {
		max[LEAF] = 2;
		max[PARENT] = 3;
		highest[LEAF] = 2;
		highest[PARENT] = 3;
		if
		:: written_level = LEAF
		:: written_level = PARENT
		fi;
		run charger(0, LEAF);
		run charger(1, LEAF);
		run charger(2, PARENT);
#ifdef NO_WRITER
		nr_done++
#else
		run writer()
#endif
	}
	atomic {
		nr_done == 4;
		printf("at rest: group 0 has %d, group 1 has %d\n", usage[LEAF], usage[PARENT]);
		PROPERTY(conserved, usage[LEAF] == held[LEAF] && usage[PARENT] == held[PARENT])
	}
}
