/*
 * The task's pointer as the thread has it: the low bit is set by ->attach(), and
 * the task looks its group up through its css_set.  See models/README.md.
 *
 * name: group 0 = the root
 * name: group 1 = group P
 * name: group 2 = group A
 * name: group 3 = group B
 * name: objcg 0 = NULL
 * name: objcg 1 = P's objcg
 * name: objcg 2 = A's objcg
 * name: objcg 3 = B's objcg
 */
#include "../property.pml"

/* P is the parent of A and of B, and is never removed.  Root has no objcg. */
#define ROOT 0
#define P 1
#define A 2
#define B 3
#define PARENT(group) (group == P -> ROOT : P)

#define NR_ALLOCATIONS 3
#define NR_MOVES 2

bit tryget_never_fails, objcg_never_null, parent_never_kept;
bit charged_alive, not_missed, not_resurrected, references_balance, at_rest_right;

byte css = A;  /* the group of the task's css_set */
byte pointer;  /* task->objcg: an objcg, by the group it was made for; 0 is NULL */
bit flag = 1;  /* ...and its low bit.  A new task begins with NULL and the bit. */

bit online[4];
byte memcg_objcg[4];
byte refs[4]; /* of the objcg: one of its group, one of each pointer to it */

bit cgroup_mutex;
bit objcg_lock; /* the RFC's spinlock */

byte in_group = A; /* since the last move that has returned */
byte allowed;	   /* the groups the task was in since its allocation began: a set */
byte nr_done;

#define BIT(group) (1 << (group))

/* A removed group stands for its parent. */
#define IN_SET(set, group)                                                                     \
	((set & BIT(group)) ||                                                                 \
	 (group == P && ((set & BIT(A) && !online[A]) || (set & BIT(B) && !online[B]))))

inline put(objcg)
{
	atomic {
		if
		:: objcg != 0 ->
			refs[objcg]--;
			printf("the task drops its reference to objcg %d\n", objcg);
			objcg = 0
		:: else
		fi
	}
}

/* mem_cgroup_from_task(), and up to an objcg that can be taken; rcu_read_lock() is held. */
inline walk()
{
	atomic {
		at = css;
		start = at;
		printf("the task reads its group: group %d\n", at)
	}
	do
	:: at == ROOT -> break
	:: else ->
		atomic {
			found = memcg_objcg[at];
			printf("the task reads the objcg of group %d: objcg %d\n", at, found);
#ifdef CLAIM_OBJCG
			PROPERTY(objcg_never_null, found != 0);
#endif
			if
			:: found == 0 ->
				printf("the task walks to the parent of group %d\n", at);
				at = PARENT(at)
			:: else
			fi
		}
		if
		:: found != 0 ->
			atomic {
				if
#ifdef BROKEN_NO_TRYGET
				:: true ->
					PROPERTY(not_resurrected, refs[found] > 0);
#else
				:: refs[found] > 0 ->
#endif
					refs[found]++;
					printf("tryget of objcg %d succeeds\n", found);
					break
				:: else ->
					printf("tryget of objcg %d fails; the task walks to the parent of group %d\n", found, at);
#ifdef CLAIM_TRYGET
					PROPERTY(tryget_never_fails, false);
#endif
					found = 0;
					at = PARENT(at)
				fi
			}
		:: else
		fi
	od
}

proctype task()
{
	byte begun, at, start, found, old;

	do
	:: begun < NR_ALLOCATIONS ->
		atomic {
			begun++;
			allowed = BIT(in_group) | BIT(css);
			old = pointer;
			found = pointer;
			printf("the task begins an allocation\n")
		}
		if
		:: !flag
		:: else ->
#ifdef SPINLOCK
			/* The RFC: the flag is cleared, and the rest is done under a lock. */
			atomic {
				old = pointer;
				flag = 0;
				printf("the task clears the flag\n")
			}
			put(old);
			atomic { objcg_lock == 0; objcg_lock = 1 }
			walk();
			atomic {
				pointer = found;
				flag = 0;
				printf("the task stores objcg %d\n", found)
			}
#ifdef CLAIM_PARENT
			PROPERTY(parent_never_kept, at == start);
#endif
			objcg_lock = 0
#else
			/* The final form. */
			do
			:: true ->
#ifdef CLEAR_LOAD_STORE
				old = pointer;
				atomic {
					pointer = 0;
					flag = 0;
					printf("the task stores NULL\n")
				}
#else
				atomic {
					old = pointer;
					pointer = 0;
					flag = 0;
					printf("the task exchanges its pointer for NULL\n")
				}
#endif
				put(old);
				walk();
#ifdef BROKEN_PLAIN_STORE
				atomic {
					pointer = found;
					flag = 0;
					printf("the task stores objcg %d\n", found);
					break
				}
#else
				atomic {
					if
					:: pointer == 0 && !flag ->
						pointer = found;
						printf("the task exchanges NULL for its reference to objcg %d\n", found);
#ifdef CLAIM_PARENT
						PROPERTY(parent_never_kept, at == start);
#endif
						break
					:: else ->
						printf("the task finds the flag set; again\n")
					fi
				}
				put(found)
#endif
			od
#endif
		fi;
		atomic {
			printf("the task charges objcg %d\n", found);
			PROPERTY(charged_alive, found == 0 || refs[found] > 0);
			PROPERTY(not_missed, IN_SET(allowed, found));
			allowed = 0;
			at = 0;
			start = 0;
			found = 0;
			old = 0
		}
	:: else -> break
	od;
	nr_done++
}

#ifndef NO_MIGRATION
/* A migration, under cgroup_mutex: css_set_move_task(), and then ->attach(). */
proctype mover()
{
	byte moves, to, seen;
	bit seen_flag;

	do
	:: moves < NR_MOVES ->
		atomic { cgroup_mutex == 0; cgroup_mutex = 1 }
		atomic {
			moves++;
			if
			:: online[A] -> to = A
			:: online[B] -> to = B
			fi;
			css = to;
			if
			:: allowed -> allowed = allowed | BIT(to)
			:: else
			fi;
			printf("the mover moves the task to group %d\n", to)
		}
#ifndef BROKEN_MOVE_FORGETS_FLAG
#if defined(SPINLOCK) && !defined(BROKEN_ATTACH_UNLOCKED)
		atomic { objcg_lock == 0; objcg_lock = 1 }
#endif
#ifdef BROKEN_ATTACH_LOAD_STORE
		seen = pointer;
		atomic {
			pointer = seen;
			flag = 1;
			printf("attach stores what it has read, with the flag\n")
		}
#else
		atomic {
			flag = 1;
			printf("attach sets the flag\n")
		}
#endif
#if defined(SPINLOCK) && !defined(BROKEN_ATTACH_UNLOCKED)
		objcg_lock = 0;
#endif
#endif
		atomic {
			in_group = to;
			to = 0;
			seen = 0;
			cgroup_mutex = 0
		}
	:: else -> break
	od;
	nr_done++
}
#endif

/* Of a group that is removed. */
inline offline(group)
{
	/* Its objcg now belongs to the parent, and loses the group's reference. */
	atomic {
		memcg_objcg[group] = 0;
		printf("group %d has no objcg any more\n", group)
	}
	atomic {
		refs[group]--;
		printf("objcg %d loses the reference of its group\n", group)
	}
}

proctype remover()
{
	byte gone;

	/* Only an empty group can be removed. */
	atomic {
#ifdef NO_MUTEX
		if
		:: css != A -> gone = A
		:: css != B -> gone = B
		fi;
#else
		if
		:: cgroup_mutex == 0 && css != A -> gone = A
		:: cgroup_mutex == 0 && css != B -> gone = B
		fi;
		cgroup_mutex = 1;
#endif
		online[gone] = 0;
		printf("group %d is removed\n", gone)
	}
	offline(gone);
#ifndef NO_MUTEX
	cgroup_mutex = 0;
#endif
	nr_done++
}

#define BALANCED(objcg)                                                                        \
	(refs[objcg] == (memcg_objcg[objcg] == objcg) + (pointer == objcg))

init {
	atomic {
		online[P] = 1;
		online[A] = 1;
		online[B] = 1;
		memcg_objcg[P] = P;
		memcg_objcg[A] = A;
		memcg_objcg[B] = B;
		refs[P] = 1;
		refs[A] = 1;
		refs[B] = 1;
		run task();
#ifdef NO_MIGRATION
		nr_done++;
#else
		run mover();
#endif
		run remover()
	}
	atomic {
		nr_done == 3;
		printf("at rest the task is in group %d and has objcg %d\n", css, pointer);
		PROPERTY(references_balance, BALANCED(P) && BALANCED(A) && BALANCED(B));
		PROPERTY(at_rest_right, flag || pointer == css)
	}
}
