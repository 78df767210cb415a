/*
 * Which executions there are: a depth-first search over the decisions, within
 * a bound on preemptions (Musuvathi and Qadeer, "Iterative context bounding for
 * systematic testing of multithreaded programs", PLDI 2007) and one on stores
 * that begin to wait.
 *
 * An execution repeats the decisions of the one before up to the last that has
 * an alternative left, takes that, and goes on by default.  Two things make the
 * search shorter, and neither loses anything within the bounds:
 *
 * - Nothing is decided before an operation on an address that one fiber alone
 *   uses, or that all only read: whoever could go first there can go first at
 *   the fiber's next operation that others notice.  Which addresses these are
 *   is learned; when one turns out to be shared the search begins again.
 * - A state is left where the search has been with the same history of each
 *   fiber (what it did, and what it saw of the others, as a hash of 64 bits),
 *   the same fiber running, and no less of the bounds left.
 */
#ifndef OBJCG_EXPLORE_SEARCH_H
#define OBJCG_EXPLORE_SEARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum choice {
	CHOICE_PREEMPT = '>', /* which fiber goes on, while the current one could */
	CHOICE_NEXT = '|',    /* which fiber goes on, while it could not */
	CHOICE_DELAY = '+',   /* whether a store waits */
	CHOICE_COMMIT = '='   /* how many of a fiber's stores that wait are seen now */
};

struct counts {
	uint64_t executions; /* that came to their end */
	uint64_t merged;     /* that were left in a state known already */
	uint64_t points;     /* where it could matter who goes first */
	uint64_t ends;	     /* different ones: by who saw what of whom, in which order */
	bool complete;	     /* no preemption and no delay was left out for the bounds */
};

void search_init(void);

/* Without the two: to show that they lose nothing. */
void search_unreduced(void);
bool search_is_unreduced(void);

/* All executions within the bounds. True if none fails. */
bool search_all(unsigned preemptions, unsigned delays, struct counts *counts);

/* One execution, by a schedule as search_schedule() writes it. True if it does not fail. */
bool search_replay(const char *schedule);
bool search_is_replay(void);

/* The decisions of the last execution that are not the default ones. */
void search_schedule(char *text, size_t size);

/* --- for the execution ---------------------------------------------------- */

/* The value chosen; the first is the default. */
unsigned search_choose(enum choice kind, const uint8_t *options, unsigned nr);

/* Within the bounds; if not, the search is not complete. */
bool search_may_preempt(void);
bool search_may_delay(void);

/* Leaves the execution if this state is known. */
void search_at_point(void);

/* Every fiber has finished. */
void search_at_end(void);

/* An address turned out to be shared. */
void search_begin_again(void);
bool search_is_to_begin_again(void);

#endif
