#include "search.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "access.h"
#include "run.h"
#include "states.h"

#define DECISIONS_MAX 4096u
#define OPTIONS_MAX (STORES_MAX + 1)
/* Every so many executions one is done twice, and must be the same. */
#define REPEAT_EVERY 1024u

/* Made by a fiber (or by none, at the start) at one of its operations. */
struct decision {
	uint8_t kind;
	uint8_t fiber;
	uint8_t chosen; /* which option */
	uint8_t nr;
	uint32_t operation;
	uint8_t options[OPTIONS_MAX];
};

static struct search {
	unsigned preemptions; /* of the bound */
	unsigned delays;
	unsigned preemptions_left; /* in this execution */
	unsigned delays_left;
	bool again;
	bool replay;
	bool unreduced;
	struct states *states; /* in which the search has been, with the preemptions left there */
	struct states *ends;
	bool repeat;	 /* the execution before, once more */
	unsigned prefix; /* decisions to repeat */
	unsigned depth;
	struct counts *counts;
	struct decision decisions[DECISIONS_MAX];
} *search;

void search_init(void)
{
	search = calloc(1, sizeof(*search));
	if (!search) {
		perror("explore: search");
		exit(2);
	}
	search->states = states_new();
	search->ends = states_new();
}

void search_unreduced(void)
{
	search->unreduced = true;
}

bool search_is_unreduced(void)
{
	return search->unreduced;
}

bool search_may_preempt(void)
{
	if (search->preemptions_left > 0 || search->replay)
		return true;
	search->counts->complete = false;
	return false;
}

bool search_may_delay(void)
{
	if (search->delays_left > 0 || search->replay)
		return true;
	search->counts->complete = false;
	return false;
}

bool search_is_replay(void)
{
	return search->replay;
}

void search_begin_again(void)
{
	search->again = true;
}

bool search_is_to_begin_again(void)
{
	return search->again;
}

void search_at_point(void)
{
	uint64_t state;

	search->counts->points++;
	if (search->replay || search->repeat || search->unreduced || search->depth < search->prefix)
		return;
	state = mix(mix(run_state(), run->current->index), search->delays_left);
	if (!states_add(search->states, state, search->preemptions_left))
		run_leave(MERGED);
}

void search_at_end(void)
{
	if (!search->replay && !search->repeat && states_add(search->ends, run_state(), 0))
		search->counts->ends++;
}

static unsigned take(enum choice kind, const struct decision *decision)
{
	if (kind == CHOICE_PREEMPT && decision->chosen && search->preemptions_left)
		search->preemptions_left--;
	if (kind == CHOICE_DELAY && decision->chosen && search->delays_left)
		search->delays_left--;
	return decision->options[decision->chosen];
}

/* A schedule names only what is not the default, and every choice among fibers that is free. */
static unsigned choose_for_replay(enum choice kind, const uint8_t *options, unsigned nr)
{
	struct decision *decision = &search->decisions[search->depth];

	if (search->depth == search->prefix || decision->kind != kind ||
	    decision->fiber != run_fiber() ||
	    (run->current && decision->operation != run->current->nr_operations))
		return options[0];
	for (unsigned i = 0; i < nr; i++) {
		/* How many private ones go with a store that is seen is not known here. */
		if (options[i] != decision->options[0] &&
		    !(kind == CHOICE_COMMIT && options[i] >> 6 == decision->options[0] >> 6))
			continue;
		search->depth++;
		return decision->options[0];
	}
	return options[0];
}

unsigned search_choose(enum choice kind, const uint8_t *options, unsigned nr)
{
	struct decision *decision = &search->decisions[search->depth];
	uint32_t operation = run->current ? run->current->nr_operations : 0;

	if (nr == 1)
		return options[0];
	if (search->replay)
		return choose_for_replay(kind, options, nr);
	if (search->depth < search->prefix) {
		if (decision->kind != kind || decision->fiber != run_fiber() ||
		    decision->operation != operation || decision->nr != nr)
			explore_fail("explorer: the same decisions led elsewhere");
	} else {
		if (search->depth == DECISIONS_MAX)
			explore_fail("explorer: more than %u decisions", DECISIONS_MAX);
		decision->kind = (uint8_t)kind;
		decision->fiber = (uint8_t)run_fiber();
		decision->operation = operation;
		decision->chosen = 0;
		decision->nr = (uint8_t)nr;
		memcpy(decision->options, options, nr);
	}
	search->depth++;
	return take(kind, decision);
}

static enum outcome execute(void)
{
	search->depth = 0;
	search->preemptions_left = search->preemptions;
	search->delays_left = search->delays;
	return run_once();
}

/* Explorers are wrong, too: what was restored must be the whole state. */
static bool same_again(void)
{
	uint64_t hash = run->trace_hash;
	uint32_t steps = run->steps;

	search->repeat = true;
	search->prefix = search->depth;
	execute();
	search->repeat = false;
	if (run->trace_hash == hash && run->steps == steps && run->outcome == ENDED)
		return true;
	snprintf(run->failure, sizeof(run->failure),
		 "explorer: the same schedule gave another execution (%" PRIu32 " and %" PRIu32
		 " operations)",
		 steps, run->steps);
	return false;
}

/* Drops what is exhausted and takes the next alternative; false when there is none. */
static bool next_alternative(void)
{
	while (search->depth > 0) {
		struct decision *decision = &search->decisions[search->depth - 1];

		if (decision->chosen + 1u < decision->nr) {
			decision->chosen++;
			search->prefix = search->depth;
			return true;
		}
		search->depth--;
	}
	return false;
}

bool search_all(unsigned preemptions, unsigned delays, struct counts *counts)
{
	search->preemptions = preemptions;
	search->delays = delays;
	search->counts = counts;
	do {
		search->again = false;
		search->prefix = 0;
		states_forget(search->states);
		states_forget(search->ends);
		memset(counts, 0, sizeof(*counts));
		counts->complete = true;
		do {
			enum outcome outcome = execute();

			if (outcome == FAILED)
				return false;
			if (outcome == MERGED)
				counts->merged++;
			else if (counts->executions++ % REPEAT_EVERY == 0 && !search->again &&
				 !same_again())
				return false;
		} while (!search->again && next_alternative());
	} while (search->again);
	return true;
}

/* --- schedules as text ---------------------------------------------------- */

/*
 * "1@12>0": fiber 1, before its 12th operation, makes way for fiber 0; "|" where
 * it had to; "0@7+": this store waits; "1@9=0.2": two of fiber 0's are seen now.
 * "-" is the start.
 */
void search_schedule(char *text, size_t size)
{
	size_t at = 0;

	text[0] = '\0';
	for (unsigned i = 0; i < search->depth; i++) {
		const struct decision *decision = &search->decisions[i];
		unsigned value = decision->options[decision->chosen];
		char fiber = decision->fiber == FIBERS_MAX ? '-' : (char)('0' + decision->fiber);
		int n;

		if (!decision->chosen && decision->kind != CHOICE_NEXT)
			continue;
		n = snprintf(text + at, size - at, "%s%c@%" PRIu32 "%c", at ? "," : "", fiber,
			     decision->operation, decision->kind);
		at += (size_t)n;
		if (decision->kind == CHOICE_COMMIT)
			n = snprintf(text + at, size - at, "%u.%u", value >> 6, value & 63);
		else if (decision->kind == CHOICE_DELAY)
			n = 0;
		else
			n = snprintf(text + at, size - at, "%u", value);
		at += (size_t)n;
		if (at >= size)
			return;
	}
}

static bool parse(const char *text)
{
	search->prefix = 0;
	while (*text) {
		struct decision *decision = &search->decisions[search->prefix];
		unsigned fiber = FIBERS_MAX;
		unsigned value = 1;
		unsigned nr = 0;
		char who;
		char kind;
		int length = 0;

		if (search->prefix == DECISIONS_MAX ||
		    sscanf(text, "%c@%" SCNu32 "%c%n", &who, &decision->operation, &kind,
			   &length) != 3)
			return false;
		text += length;
		if (who != '-')
			fiber = (unsigned)(who - '0');
		if (kind == CHOICE_COMMIT) {
			if (sscanf(text, "%u.%u%n", &value, &nr, &length) != 2)
				return false;
			value = value << 6 | nr;
		} else if (kind == CHOICE_PREEMPT || kind == CHOICE_NEXT) {
			if (sscanf(text, "%u%n", &value, &length) != 1)
				return false;
		} else if (kind == CHOICE_DELAY) {
			length = 0;
		} else {
			return false;
		}
		text += length;
		if (*text == ',')
			text++;
		decision->kind = (uint8_t)kind;
		decision->fiber = (uint8_t)fiber;
		decision->options[0] = (uint8_t)value;
		search->prefix++;
	}
	return true;
}

bool search_replay(const char *schedule)
{
	struct counts counts = {0};
	enum outcome outcome;

	search->counts = &counts;
	search->again = false;
	search->replay = true;
	if (!parse(schedule)) {
		fprintf(stderr, "explore: not a schedule: %s\n", schedule);
		_exit(2);
	}
	outcome = execute();
	if (outcome != FAILED && search->depth < search->prefix)
		printf("%u decisions of the schedule were not met: it is of another program\n",
		       search->prefix - search->depth);
	return outcome != FAILED;
}
