/*
 * The task's word: current_objcg_update() on two threads at once, task_move(),
 * memcg_remove(), and memcg_create() in the record and with the id of the group
 * that was removed.  See models/README.md.
 *
 * name: group 1 = the root
 * name: group 2 = group A
 * name: group 3 = group B
 * name: group 4 = group C
 * name: objcg 0 = no objcg
 * name: objcg 1 = the root's objcg
 * name: objcg 2 = A's objcg
 * name: objcg 3 = B's objcg
 * name: objcg 4 = C's objcg
 */
#include "../property.pml"

/* Records of groups: root is above B, B is above A.  C is made later, in A's record. */
#define ROOT 1
#define A 2
#define B 3
#define C 4 /* a uid only */

#define NONE 0
#define FLAGGED 7 /* OBJCG_UPDATE, and no id */

/*
 * Two configurations.  "records": one removal, and a new group in the record.
 * "deep": both groups are removed, one after the other.
 */
#ifdef DEEP
#define NR_ALLOCATIONS(me) 1
#define NR_MOVES 1
#else
#define NR_ALLOCATIONS(me) (3 - me)
#define NR_MOVES 2
#endif

bit not_recycled, not_missed, something_found, at_rest_right, membership_kept;

/* The word, in two halves that are only changed together. */
byte word_group = A;
byte word_ref = 2;

bit online[4];
byte memcg_objcg[4];
byte parent[4];
byte uid[4]; /* which group is in the record */

bit live[5];	    /* OBJCG_LIVE or _DYING, by id; else _FREE */
byte owner_uid[5]; /* what group the id was made for */

byte epoch = 1;
byte section[3];
bit tree_lock;

/*
 * What the properties are stated in.  in_group: the group that the task is in
 * since the last change that has returned.  allowed: the groups that the task
 * was in at any time from the beginning of a thread's allocation, as a set of
 * uids; 0 between two allocations.
 */
byte in_group = A;
byte allowed[3];
bit removed[5]; /* by uid: removal has begun */
byte nr_done;

inline lock()
{
	atomic { tree_lock == 0; tree_lock = 1 }
}

inline unlock()
{
	atomic { in_group = uid[word_group]; tree_lock = 0 }
}

#define BIT(group) (1 << (group))

/* The task's group changes, and the running allocations may go to the new one. */
inline enter_group(group)
{
	if
	:: allowed[1] -> allowed[1] = allowed[1] | BIT(uid[group])
	:: else
	fi;
	if
	:: allowed[2] -> allowed[2] = allowed[2] | BIT(uid[group])
	:: else
	fi
}

/* The nearest group above that removal has not begun of. */
#define ABOVE(group) ((group == A && !removed[B]) -> B : ROOT)

/* Whether the group is in the set, or stands for a removed one that is. */
#define IN_SET(set, group)                                                                     \
	((set & BIT(group)) || ((set & BIT(A)) && removed[A] && group == ABOVE(A)) ||          \
	 ((set & BIT(B)) && removed[B] && group == ROOT))

/* From the group in the word up to one that is online. */
inline walk()
{
	at = group;
	found = 0;
	do
	:: true ->
#ifdef WITHOUT_WALK
		/* Takes what the group itself has, if anything. */
		atomic {
			found = memcg_objcg[at];
			got = owner_uid[found];
			printf("thread %d: group %d has objcg %d\n", me, uid[at], got)
		}
		break
#else
		atomic {
			if
			:: !online[at] ->
#ifdef BROKEN_NO_WALK
				printf("thread %d: group %d is offline, so it has none\n", me, uid[at]);
				break
#else
				printf("thread %d: group %d is offline; it walks to the parent\n",
				       me, uid[at]);
				at = parent[at]
#endif
			:: else ->
				printf("thread %d: group %d is online\n", me, uid[at]);
				goto_objcg = 1
			fi
		}
		if
		:: goto_objcg ->
			atomic {
				goto_objcg = 0;
				found = memcg_objcg[at];
				got = owner_uid[found];
				printf("thread %d: group %d has objcg %d\n", me, uid[at], got);
				if
				:: found == 0 -> at = parent[at]
				:: else
				fi
			}
			if
			:: found != 0 -> break
			:: else
			fi
		:: else
		fi
#endif
	od
}

proctype thread(byte me)
{
	byte begun, seen_epoch, group, reference, at, found, got;
	bit goto_objcg;

	do
	:: begun < NR_ALLOCATIONS(me) ->
		/* section_enter() */
		atomic {
			begun++;
			allowed[me] = BIT(in_group) | BIT(uid[word_group]);
			seen_epoch = epoch;
			printf("thread %d begins an allocation\n", me)
		}
#ifndef BROKEN_NO_SECTION
		section[me] = seen_epoch;
#endif
		/* charge_task() */
		atomic {
			reference = word_ref;
			found = reference;
			if
			:: reference == NONE || reference == FLAGGED -> found = 0
			:: else ->
				got = owner_uid[found];
				printf("thread %d: the reference is valid: objcg %d\n", me, got)
			fi
		}
		if
		:: found != 0
		:: else ->
			/* current_objcg_update() */
#ifdef BROKEN_TWO_WORDS
			do
			:: true ->
				atomic {
					word_ref = NONE;
					printf("thread %d takes the reference out and clears the flag\n", me)
				}
				atomic {
					group = word_group;
					printf("thread %d reads the task's group: group %d\n", me, uid[group])
				}
				walk();
				atomic {
					if
					:: word_ref == NONE ->
						word_ref = found;
						printf("thread %d stores objcg %d\n", me, got);
						break
					:: else ->
						printf("thread %d: the reference changed; again\n", me)
					fi
				}
				/* What it finds may be what the other thread stored. */
				atomic {
					if
					:: word_ref != NONE && word_ref != FLAGGED ->
						found = word_ref;
						got = owner_uid[found];
						printf("thread %d finds objcg %d there\n", me, got);
						break
					:: else
					fi
				}
			od
#else
			atomic {
				group = word_group;
				reference = word_ref;
				printf("thread %d reads the word: group %d\n", me, uid[group])
			}
			do
			:: true ->
				if
				:: reference != NONE && reference != FLAGGED ->
					atomic {
						found = reference;
						got = owner_uid[found];
						printf("thread %d: another thread was faster: objcg %d\n", me, got)
					}
					break
				:: else
				fi;
#ifdef BROKEN_CLEAR_LOAD_STORE
				/* Clears the flag first, by storing what it has loaded without it. */
				atomic {
					word_group = group;
					word_ref = NONE;
					reference = NONE;
					printf("thread %d stores the word without the flag: group %d\n", me, uid[group])
				}
#endif
				walk();
#ifdef BROKEN_PLAIN_STORE
				atomic {
					word_group = group;
					word_ref = found;
					printf("thread %d stores group %d, objcg %d\n", me, uid[group], got)
				}
				break
#else
#ifdef BROKEN_HALF_STORE
				/* Plainly, and only the half that is its own. */
				atomic {
					word_ref = found;
					printf("thread %d stores objcg %d\n", me, got)
				}
				break
#else
				atomic {
					if
					:: word_group == group && word_ref == reference ->
						word_ref = found;
						printf("thread %d exchanges the word: group %d, objcg %d\n", me, uid[group], got);
						break
					:: else ->
#ifndef BROKEN_NO_RELOAD
						group = word_group;
						reference = word_ref;
#endif
						printf("thread %d: the word has changed; it is group %d now\n", me, uid[word_group])
					fi
				}
#endif
#endif
			od
#endif
		fi;
		/* charge() */
		atomic {
			printf("thread %d charges objcg %d\n", me, got);
			PROPERTY(something_found, found != 0);
			PROPERTY(not_recycled, live[found] && owner_uid[found] == got);
			PROPERTY(not_missed, IN_SET(allowed[me], owner_uid[found]));
			allowed[me] = 0
		}
		/* section_exit() */
		atomic {
			section[me] = 0;
			seen_epoch = 0;
			group = 0;
			reference = 0;
			at = 0;
			found = 0;
			got = 0
		}
	:: else -> break
	od;
	nr_done++
}

/* task_attach_locked() */
inline attach(to)
{
#ifdef BROKEN_TWO_WORDS
	atomic {
		word_group = to;
		enter_group(to);
		printf("the task's group is group %d\n", uid[to])
	}
	atomic {
		word_ref = FLAGGED;
		printf("the task's reference is flagged\n")
	}
#else
	atomic {
		word_group = to;
#ifdef BROKEN_MOVE_FORGETS_FLAG
		skip;
#else
		word_ref = FLAGGED;
#endif
		enter_group(to);
		printf("the word is group %d, flagged\n", uid[to])
	}
#endif
}

/* task_move() */
proctype mover()
{
	byte moves, to;

	do
	:: moves < NR_MOVES ->
		lock();
		atomic {
			moves++;
			if
			:: to = ROOT
			:: online[A] -> to = A
			:: online[B] -> to = B
			fi;
			printf("a move to group %d begins\n", uid[to])
		}
		attach(to);
		unlock()
	:: else -> break
	od;
	nr_done++
}

/* memcg_remove(): of A first, or nothing; under tree_lock until the end. */
inline remove(group)
{
	lock();
	atomic {
		printf("removal of group %d begins: offline\n", uid[group]);
		removed[uid[group]] = 1;
		online[group] = 0
	}
#ifdef BROKEN_EPOCH_FIRST
	epoch++;
#endif
#ifndef BROKEN_REMOVAL_FORGETS_FLAG
	if
	:: word_group == group -> attach(parent[group])
	:: else
	fi;
#endif
	atomic {
		dying = memcg_objcg[group];
		memcg_objcg[group] = 0;
		printf("group %d has no objcg any more\n", uid[group])
	}
#ifndef BROKEN_EPOCH_FIRST
	epoch++;
#endif
	stamp = epoch;
	unlock()
}

proctype remover()
{
	byte dying, id, stamp;
	bit may_reuse;

	remove(A);
#ifdef DEEP
	remove(B);
#else
	/* memcg_create(): objcg_reap(), memcg_record(), objcg_alloc() */
	lock();
	may_reuse = (section[1] == 0 || section[1] >= stamp);
	may_reuse = (may_reuse && (section[2] == 0 || section[2] >= stamp));
	if
	:: may_reuse ->
		atomic {
			if
			:: id = dying;
			   live[id] = 0;
			   owner_uid[id] = 0;
			   printf("the id of A's objcg is recycled\n")
			:: id = 4 /* something is charged to it still */
			fi
		}
		atomic {
			uid[A] = C;
			parent[A] = ROOT;
			owner_uid[id] = C;
			live[id] = 1
		}
		memcg_objcg[A] = id;
		atomic {
			online[A] = 1;
			printf("group 4 is made in the record that was A's\n")
		}
	:: else
	fi;
	unlock();
#endif
	nr_done++
}

init {
	atomic {
		online[ROOT] = 1;
		online[A] = 1;
		online[B] = 1;
		memcg_objcg[ROOT] = 1;
		memcg_objcg[A] = 2;
		memcg_objcg[B] = 3;
		parent[A] = B;
		parent[B] = ROOT;
		uid[ROOT] = ROOT;
		uid[A] = A;
		uid[B] = B;
		live[1] = 1;
		live[2] = 1;
		live[3] = 1;
		owner_uid[1] = ROOT;
		owner_uid[2] = A;
		owner_uid[3] = B;
		run thread(1);
		run thread(2);
		run mover();
		run remover()
	}
	atomic {
		nr_done == 4;
		printf("at rest the word is group %d, objcg %d\n", uid[word_group], owner_uid[word_ref % 5]);
		PROPERTY(membership_kept, uid[word_group] == in_group &&
						  online[word_group]);
		PROPERTY(at_rest_right, word_ref == FLAGGED ||
						(word_ref != NONE && live[word_ref] &&
						 owner_uid[word_ref] == uid[word_group]))
	}
}
