/* One execution of a scenario: its fibers, who of them runs, how it ends. */
#ifndef OBJCG_EXPLORE_RUN_H
#define OBJCG_EXPLORE_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "fiber.h"
#include "location.h"
#include "scenario.h"

#define STORES_MAX 62u

/* A store that the others do not see yet. */
struct delayed_store {
	volatile void *p;
	uint64_t value;
	const char *site;
	struct clock clock; /* of a release store */
	unsigned size;
	bool release;
};

struct fiber {
	unsigned index;
	enum { READY, WAITING, FINISHED } state;
	const void *waits_for;
	uint32_t nr_operations; /* begun; an operation's number counts from 1 */
	uint64_t history;	/* hash of all that could have influenced it */
	struct clock clock;
	struct delayed_store stores[STORES_MAX]; /* oldest first */
	unsigned nr_stores;
};

enum outcome { ENDED, MERGED, FAILED };

struct run {
	const struct scenario *scenario;
	unsigned nr;	       /* fibers of the scenario */
	struct fiber *current; /* NULL outside of fibers */
	bool on;
	bool trace;
	enum outcome outcome;
	char failure[512];
	char name[80]; /* of an address: report_name() */
	uint32_t steps;
	uint64_t nr_executions;
	uint64_t nr_at_timer;
	uint64_t trace_hash; /* of all operations with their values, to compare executions */
	jmp_buf back;
	struct fiber fibers[FIBERS_MAX];
};

extern struct run *run;

void run_init(const struct scenario *scenario);

/* One execution from the marked state, with the scenario's check if it comes to its end. */
enum outcome run_once(void);

/* The current fiber is about to do what others may notice: perhaps another one goes first. */
void run_point(void);

/* The current fiber waits until somebody calls run_wake() for the same thing. */
void run_wait(const void *thing);
void run_wake(const void *thing);

/* Leaves the execution at once. */
_Noreturn void run_leave(enum outcome outcome);

bool run_is_on(void);

/* The number of the current fiber; FIBERS_MAX outside of them. */
unsigned run_fiber(void);

/* What each fiber did and saw, as a hash: all that the rest of the execution depends on. */
uint64_t run_state(void);

/* Not symmetric: a fiber's history and the version of what it wrote last are equal. */
static inline uint64_t mix(uint64_t h, uint64_t v)
{
	h = h * 0x9E3779B97F4A7C15u + v * 0xC2B2AE3D27D4EB4Fu + 0x165667B19E3779F9u;
	h ^= h >> 32;
	h *= 0xD6E8FEB86659FD93u;
	return h ^ (h >> 29);
}

#endif
