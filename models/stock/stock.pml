/*
 * Stocks of two cpus, and a group that is removed meanwhile: consume_stock(),
 * refill_stock(), charge(), uncharge_objcg(), take_slot(), drain_stock() and
 * the hook stock_drain_others().  See models/README.md.
 *
 * name: group 0 = the root
 * name: group 1 = group A
 * name: objcg 1 = the root's objcg
 * name: objcg 2 = A's objcg
 */
#include "../property.pml"

#define ROOT 0
#define A 1
#define ROOTS 1
#define AS 2

#define STOCK_MAX 2

#ifndef NR_ALLOCATIONS
#define NR_ALLOCATIONS 1
#endif
#ifndef NR_FREES
#define NR_FREES 2
#endif

bit never_understated, conserved, reader_never_negative;

short usage[2];
short bytes[3];	   /* by objcg */
byte memcg_of[3];  /* objcg->memcg */
bit removed;

/* By cpu, 1 and 2: one slot each, which both objcgs share. */
byte key[3];
short stock[3];
bit cpu_lock[3];

short blocks[3]; /* bytes of the blocks that name an objcg */
byte nr_done;

#define IN_STOCK(id) ((key[1] == id -> stock[1] : 0) + (key[2] == id -> stock[2] : 0))

inline charge_counter(id, nr)
{
	memcg = memcg_of[id];
	if
	:: memcg == A ->
		atomic {
			usage[A] = usage[A] + nr;
			printf("user %d adds %d to group 1: %d\n", me, nr, usage[A])
		}
#ifdef BROKEN_READS_GROUP_TWICE
		memcg = memcg_of[id];
		if
		:: memcg == A -> usage[ROOT] = usage[ROOT] + nr
		:: else
		fi
#else
		usage[ROOT] = usage[ROOT] + nr
#endif
	:: else ->
		usage[ROOT] = usage[ROOT] + nr
	fi;
	atomic {
		bytes[id] = bytes[id] + nr;
		printf("user %d has charged %d to objcg %d\n", me, nr, id);
		memcg = 0
	}
}

inline uncharge(id, nr)
{
	memcg = memcg_of[id];
	if
	:: memcg == A ->
		usage[A] = usage[A] - nr
	:: else
	fi;
	usage[ROOT] = usage[ROOT] - nr;
	atomic {
		bytes[id] = bytes[id] - nr;
		printf("user %d has uncharged %d from objcg %d\n", me, nr, id);
		memcg = 0
	}
}

/* drain_stock(), of the cpu that the caller may use */
inline drain(cpu)
{
	if
	:: stock[cpu] > 0 ->
		amount = stock[cpu];
#ifdef BROKEN_COUNTER_FIRST
		uncharge(key[cpu], amount);
		stock[cpu] = 0;
#else
		atomic {
			stock[cpu] = 0;
			printf("user %d empties the slot of cpu %d: %d\n", me, cpu, amount)
		}
#ifdef BROKEN_READS_STOCK_TWICE
		amount = stock[cpu];
#endif
		uncharge(key[cpu], amount);
#endif
		amount = 0
	:: else
	fi
}

inline take_slot(id)
{
	if
	:: key[me] != id ->
		if
		:: key[me] != 0 ->
#ifdef BROKEN_NO_DRAIN
			stock[me] = 0
#else
			drain(me)
#endif
		:: else
		fi;
		atomic {
			key[me] = id;
			printf("user %d: the slot is objcg %d's\n", me, id)
		}
	:: else
	fi
}

inline drain_slot(cpu)
{
	if
	:: key[cpu] != 0 ->
		drain(cpu);
		key[cpu] = 0
	:: else
	fi
}

/* One byte. */
inline allocate()
{
	atomic {
		found = (me == 1 && !removed -> AS : ROOTS);
		printf("user %d allocates for objcg %d\n", me, found)
	}
	take_slot(found);
	if
	:: stock[me] > 0
	:: else ->
		/* A batch of two; or it is refused, as the group is full. */
		if
		:: true ->
			charge_counter(found, 2);
			stock[me] = stock[me] + 2
		:: me == 1 ->
			drain_slot(me);
			/* stock_drain_others(): a trylock */
#ifdef BROKEN_DRAINS_OTHERS_UNLOCKED
			drain_slot(2);
#else
			if
			:: atomic { cpu_lock[2] == 0 -> cpu_lock[2] = 1 }
				drain_slot(2);
				cpu_lock[2] = 0
			:: cpu_lock[2] == 1
			fi;
#endif
			take_slot(found);
			charge_counter(found, 1);
			stock[me] = stock[me] + 1
		fi
	fi;
	/* The block, and in stock one byte less. */
	atomic {
		stock[me] = stock[me] - 1;
		blocks[found] = blocks[found] + 1;
		found = 0
	}
}

/* A block of whomever, as both sides free what the other has allocated. */
inline free_block()
{
	atomic {
		if
		:: blocks[AS] > 0 -> found = AS
		:: blocks[ROOTS] > 0 -> found = ROOTS
		:: else
		fi;
		if
		:: found != 0 ->
			blocks[found] = blocks[found] - 1;
			printf("user %d frees a block of objcg %d\n", me, found)
		:: else
		fi
	}
	if
	:: found == 0
	:: else ->
#ifdef BROKEN_REMOTE_REFILL
		/* Into the slot that has this objcg, whose ever cpu that is. */
		if
		:: key[3 - me] == found ->
			amount = stock[3 - me];
			stock[3 - me] = amount + 1;
			amount = 0
		:: else ->
#endif
		if
		:: true ->
			/* Over its max: at once. */
			uncharge(found, 1)
		:: true ->
			/* refill_stock(), where the slot is this objcg's already */
			take_slot(found);
			if
			:: stock[me] < STOCK_MAX -> stock[me] = stock[me] + 1
			:: else -> uncharge(found, 1)
			fi
		fi;
#ifdef BROKEN_REMOTE_REFILL
		fi;
#endif
		found = 0
	fi
}

proctype user(byte me)
{
	byte allocations, frees, found, memcg;
	short amount;

	do
	:: allocations < NR_ALLOCATIONS ->
		atomic { cpu_lock[me] == 0; cpu_lock[me] = 1; allocations++ }
		allocate();
		cpu_lock[me] = 0
	:: frees < NR_FREES ->
		atomic { cpu_lock[me] == 0; cpu_lock[me] = 1; frees++ }
		free_block();
		cpu_lock[me] = 0
	:: true -> break
	od;
	if
	:: true -> skip
	:: true ->
		/* stock_drain_all() */
		atomic { cpu_lock[me] == 0; cpu_lock[me] = 1 }
		drain_slot(me);
		cpu_lock[me] = 0
	fi;
	nr_done++
}

/* memcg_remove() */
proctype remover()
{
	atomic {
		removed = 1;
		printf("group 1 is offline\n")
	}
#ifdef BROKEN_REMOVAL_MOVES_COUNTER
	usage[ROOT] = usage[ROOT] + usage[A];
#endif
	atomic {
		memcg_of[AS] = ROOT;
		printf("objcg 2 belongs to group 0\n")
	}
	nr_done++
}

#ifdef READER
/* memcg_current(), of the root: the counter, then one slot after the other. */
proctype reader()
{
	short current;

	current = usage[ROOT];
	current = current - stock[1];
	current = current - stock[2];
	atomic {
		printf("the reader has %d\n", current);
		PROPERTY(reader_never_negative, current >= 0)
	}
}
#else
/* All at one moment, whenever that is. */
proctype observer()
{
	atomic {
		printf("at this moment: usage of root %d, stocks %d and %d, blocks %d and %d\n",
		       usage[ROOT], stock[1], stock[2], blocks[ROOTS], blocks[AS]);
		PROPERTY(never_understated,
			 usage[ROOT] - stock[1] - stock[2] >= blocks[ROOTS] + blocks[AS]);
		PROPERTY(never_understated, removed || usage[A] - IN_STOCK(AS) >= blocks[AS]);
		PROPERTY(never_understated, bytes[ROOTS] - IN_STOCK(ROOTS) >= blocks[ROOTS]);
		PROPERTY(never_understated, bytes[AS] - IN_STOCK(AS) >= blocks[AS])
	}
}
#endif

init {
	atomic {
		memcg_of[ROOTS] = ROOT;
		memcg_of[AS] = A;
		/* One block, and one byte in stock, of A's. */
		usage[ROOT] = 2;
		usage[A] = 2;
		bytes[AS] = 2;
		blocks[AS] = 1;
		key[1] = AS;
		stock[1] = 1;
		run user(1);
		run user(2);
#ifdef NO_REMOVAL
		nr_done++;
#else
		run remover();
#endif
#ifdef READER
		run reader()
#else
		run observer()
#endif
	}
	atomic {
		nr_done == 3;
		printf("at rest: usage of root %d, bytes %d and %d, stocks %d and %d, blocks %d and %d\n",
		       usage[ROOT], bytes[ROOTS], bytes[AS], stock[1], stock[2], blocks[ROOTS], blocks[AS]);
		PROPERTY(conserved, bytes[ROOTS] == blocks[ROOTS] + IN_STOCK(ROOTS));
		PROPERTY(conserved, bytes[AS] == blocks[AS] + IN_STOCK(AS));
		PROPERTY(conserved, usage[ROOT] == bytes[ROOTS] + bytes[AS])
	}
}
