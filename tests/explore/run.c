#include "run.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "access.h"
#include "memory.h"
#include "search.h"
#include "store_buffer.h"

struct run *run;

/* Hands the thread over. Everyone else waits in here, or has not begun. */
static void switch_to(struct fiber *next)
{
	struct fiber *from = run->current;

	if (next == from)
		return;
	run->current = next;
	fiber_switch(from->index, next->index);
}

static unsigned ready_fibers(uint8_t *ready, const struct fiber *but)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < run->nr; i++)
		if (run->fibers[i].state == READY && &run->fibers[i] != but)
			ready[nr++] = (uint8_t)i;
	return nr;
}

uint64_t run_state(void)
{
	uint64_t h = 0;

	for (unsigned i = 0; i < run->nr; i++)
		h = mix(h, run->fibers[i].history + run->fibers[i].state);
	return h;
}

void run_point(void)
{
	uint8_t options[FIBERS_MAX];
	unsigned nr;

	search_at_point();
	options[0] = (uint8_t)run->current->index;
	nr = 1 + ready_fibers(options + 1, run->current);
	if (nr > 1 && search_may_preempt())
		switch_to(&run->fibers[search_choose(CHOICE_PREEMPT, options, nr)]);
}

/* The current fiber cannot go on: somebody else must. Switching here is no preemption. */
static void go_on_elsewhere(void)
{
	uint8_t options[FIBERS_MAX];
	unsigned nr = ready_fibers(options, NULL);

	if (nr == 0) {
		for (unsigned i = 0; i < run->nr; i++)
			if (run->fibers[i].state == WAITING)
				explore_fail("deadlock: every fiber that has not finished waits");
		search_at_end();
		run_leave(ENDED);
	}
	search_at_point();
	switch_to(&run->fibers[search_choose(CHOICE_NEXT, options, nr)]);
}

void run_wait(const void *thing)
{
	run->current->state = WAITING;
	run->current->waits_for = thing;
	go_on_elsewhere();
}

void run_wake(const void *thing)
{
	for (unsigned i = 0; i < run->nr; i++)
		if (run->fibers[i].state == WAITING && run->fibers[i].waits_for == thing)
			run->fibers[i].state = READY;
}

static void fiber_body(void)
{
	run->scenario->fibers[run->current->index].run();
	/* Others may go on before what it stored last is seen: as if by one operation more. */
	if (run->current->nr_stores) {
		run->current->nr_operations++;
		run_point();
		store_buffer_flush(run->current);
	}
	run->current->state = FINISHED;
	run->current->history = mix(run->current->history, FINISHED);
	go_on_elsewhere();
}

void run_init(const struct scenario *scenario)
{
	run = calloc(1, sizeof(*run));
	if (!run) {
		perror("explore: run");
		exit(2);
	}
	run->scenario = scenario;
	while (run->nr < FIBERS_MAX && scenario->fibers[run->nr].run)
		run->nr++;
	fibers_init(fiber_body);
}

static void fibers_reset(void)
{
	for (unsigned i = 0; i < run->nr; i++) {
		struct fiber *fiber = &run->fibers[i];

		fiber->index = i;
		fiber->state = READY;
		fiber->waits_for = NULL;
		fiber->nr_operations = 0;
		fiber->history = mix(i + 1, 0);
		fiber->nr_stores = 0;
		memset(&fiber->clock, 0, sizeof(fiber->clock));
		fiber->clock.at[i] = 1;
	}
	fibers_rewind();
}

static void begin(void)
{
	uint8_t options[FIBERS_MAX];
	unsigned first = search_choose(CHOICE_NEXT, options, ready_fibers(options, NULL));

	run->current = &run->fibers[first];
	fiber_enter(first);
}

enum outcome run_once(void)
{
	memory_restore();
	locations_next_execution();
	fibers_reset();
	run->nr_executions++;
	run->steps = 0;
	run->trace_hash = 0;
	run->on = true;
	if (_setjmp(run->back) == 0)
		begin();
	if (run->outcome == ENDED && _setjmp(run->back) == 0)
		run->scenario->check();
	run->on = false;
	return run->outcome;
}

void run_leave(enum outcome outcome)
{
	run->outcome = outcome;
	run->current = NULL;
	_longjmp(run->back, 1);
}

void explore_fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(run->failure, sizeof(run->failure), format, args);
	va_end(args);
	if (!run->on) {
		fprintf(stderr, "explore: %s: %s\n", run->scenario->name, run->failure);
		_exit(2);
	}
	run_leave(FAILED);
}

bool run_is_on(void)
{
	return run && run->on;
}

unsigned run_fiber(void)
{
	return run && run->current ? run->current->index : FIBERS_MAX;
}
