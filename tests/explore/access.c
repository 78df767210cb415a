/* The atomic operations of the core and its mutexes, as the explorer does them. */
#include "access.h"

#include <errno.h>
#include <string.h>

#include "race.h"
#include "report.h"
#include "run.h"
#include "search.h"
#include "store_buffer.h"

/* Far more than any scenario needs, or its check: somebody goes round in circles. */
#define STEPS_MAX 20000u

/* What an operation does. One that flushes makes all its fiber's stores visible first. */
enum { READS = 1, WRITES = 2, FLUSHES = 4 };

static uint64_t memory_get(const volatile void *p, unsigned size)
{
	uint64_t value = 0;

	memcpy(&value, (const void *)p, size);
	return value;
}

static void memory_put(volatile void *p, unsigned size, uint64_t value)
{
	memcpy((void *)p, &value, size);
}

/*
 * Who uses an address, over all executions of the search so far.  As long as it
 * is one fiber, or all only read, nobody notices when that happens, and nothing
 * is decided before it.  Should a second fiber come, the search begins again.
 */
static bool note_use(struct location *location, unsigned halves, unsigned how)
{
	uint8_t bit = (uint8_t)(1u << run->current->index);
	bool shared = search_is_replay();

	for_each_half(half, location, halves)
	{
		unsigned users;

		half->readers |= how & READS ? bit : 0;
		half->writers |= how & WRITES ? bit : 0;
		users = half->readers | half->writers;
		if (!half->shared && half->writers && (users & (users - 1))) {
			half->shared = true;
			if (!search_is_replay())
				search_begin_again();
		}
		shared |= half->shared;
	}
	return shared;
}

/* Before an operation: others may go first, and what they stored may be seen now. */
static bool begin(const volatile void *p, unsigned size, unsigned how)
{
	struct fiber *fiber = run->current;
	bool flushes = (how & FLUSHES) && fiber->nr_stores;
	bool shared;

	if (++run->steps > STEPS_MAX)
		explore_fail("no end after %u operations", STEPS_MAX);
	fiber->nr_operations++;
	shared = note_use(location_of(p), halves_of(p, size), how);
	if (shared || flushes || search_is_unreduced())
		run_point();
	if (shared)
		store_buffer_meet(p, size);
	if (flushes)
		store_buffer_flush(fiber);
	return shared;
}

/* After it: who is ordered before whom from here on, and what the fiber's future depends on. */
static void end(const volatile void *p, unsigned size, unsigned how, unsigned order, uint64_t value,
		bool shared)
{
	struct fiber *fiber = run->current;
	struct location *location = location_of(p);
	unsigned halves = halves_of(p, size);

	race_atomic(location, halves, how & WRITES);
	run->trace_hash = mix(run->trace_hash, fiber->index << 2 | how);
	run->trace_hash = mix(run->trace_hash, (uintptr_t)p ^ value);
	if (!shared)
		return;
	for_each_half(half, location, halves)
	{
		if (how & WRITES) {
			fiber->history = mix(mix(fiber->history, half->version), half->reads);
			half->version = fiber->history;
			half->reads = 0;
		} else {
			fiber->history = mix(fiber->history, half->version);
			half->reads += mix(fiber->history, 1);
		}
	}
	race_order(location, halves, how & READS, how & WRITES, order);
}

uint64_t explore_load(const char *site, unsigned order, const volatile void *p, unsigned size)
{
	uint64_t value;
	bool shared;

	if (!run->current)
		return memory_get(p, size);
	shared = begin(p, size, READS);
	if (store_buffer_get(p, size, &value)) {
		/* One's own store, which orders nothing. */
		if (shared)
			run->current->history = mix(run->current->history, value);
		report_step(run->current, site, p, "0x%llx, its own", (unsigned long long)value);
		return value;
	}
	value = memory_get(p, size);
	end(p, size, READS, order, value, shared);
	report_step(run->current, site, p, "0x%llx", (unsigned long long)value);
	return value;
}

void explore_store(const char *site, unsigned order, volatile void *p, unsigned size,
		   uint64_t value)
{
	bool shared;

	if (!run->current) {
		memory_put(p, size, value);
		return;
	}
	shared = begin(p, size, order & SEQ_CST ? WRITES | FLUSHES : WRITES);
	if (!(order & SEQ_CST) && store_buffer_put(site, order, p, size, value, shared)) {
		race_release(order);
		report_step(run->current, site, p, "0x%llx, WAITS", (unsigned long long)value);
		return;
	}
	memory_put(p, size, value);
	end(p, size, WRITES, order, value, shared);
	report_step(run->current, site, p, "0x%llx", (unsigned long long)value);
}

static uint64_t rmw_result(enum rmw how, uint64_t old, uint64_t operand)
{
	switch (how) {
	case RMW_ADD:
		return old + operand;
	case RMW_OR:
		return old | operand;
	default:
		return operand;
	}
}

uint64_t explore_rmw(const char *site, unsigned order, enum rmw how, volatile void *p,
		     unsigned size, uint64_t operand)
{
	uint64_t old;
	uint64_t value;
	bool shared = false;

	if (run->current)
		shared = begin(p, size, READS | WRITES | FLUSHES);
	old = memory_get(p, size);
	value = rmw_result(how, old, operand);
	memory_put(p, size, value);
	if (run->current) {
		end(p, size, READS | WRITES, order, value, shared);
		report_step(run->current, site, p, "0x%llx -> 0x%llx", (unsigned long long)old,
			    (unsigned long long)memory_get(p, size));
	}
	return old;
}

bool explore_cas(const char *site, unsigned order, volatile void *p, unsigned size, void *expected,
		 uint64_t value)
{
	uint64_t old;
	bool done;
	bool shared = false;

	if (run->current)
		shared = begin(p, size, READS | WRITES | FLUSHES);
	old = memory_get(p, size);
	done = memcmp(&old, expected, size) == 0;
	if (done)
		memory_put(p, size, value);
	else
		memcpy(expected, &old, size);
	if (run->current) {
		end(p, size, done ? READS | WRITES : READS, done ? order : order & ACQUIRE, old,
		    shared);
		report_step(run->current, site, p, done ? "0x%llx -> 0x%llx" : "0x%llx: FAILS",
			    (unsigned long long)old, (unsigned long long)value);
	}
	return done;
}

/* --- mutexes: the first four bytes say who has it ------------------------- */

static uint32_t holder(pthread_mutex_t *mutex)
{
	return (uint32_t)memory_get(mutex, 4);
}

int explore_trylock(const char *site, pthread_mutex_t *mutex)
{
	uint32_t me = run_fiber() + 1;
	bool shared = false;
	bool taken;

	if (run->current)
		shared = begin(mutex, 4, READS | WRITES | FLUSHES);
	taken = holder(mutex) == 0;
	if (taken)
		memory_put(mutex, 4, me);
	if (run->current) {
		end(mutex, 4, READS | WRITES, ACQUIRE, me, shared);
		report_step(run->current, site, mutex, taken ? "taken" : "NOT to be had");
	}
	return taken ? 0 : EBUSY;
}

int explore_lock(const char *site, pthread_mutex_t *mutex)
{
	uint32_t me = run_fiber() + 1;
	bool shared;

	if (!run->current) {
		if (holder(mutex))
			explore_fail("%s: fiber %u has kept it", site, holder(mutex) - 1);
		memory_put(mutex, 4, me);
		return 0;
	}
	shared = begin(mutex, 4, READS | WRITES | FLUSHES);
	while (holder(mutex)) {
		if (holder(mutex) == me)
			explore_fail("%s: taken twice", site);
		report_step(run->current, site, mutex, "WAITS for fiber %u", holder(mutex) - 1);
		run_wait(mutex);
	}
	memory_put(mutex, 4, me);
	end(mutex, 4, READS | WRITES, ACQUIRE, me, shared);
	report_step(run->current, site, mutex, "taken");
	return 0;
}

int explore_unlock(const char *site, pthread_mutex_t *mutex)
{
	bool shared;

	if (holder(mutex) != run_fiber() + 1)
		explore_fail("%s: it is not the holder", site);
	if (!run->current) {
		memory_put(mutex, 4, 0);
		return 0;
	}
	shared = begin(mutex, 4, READS | WRITES | FLUSHES);
	memory_put(mutex, 4, 0);
	run_wake(mutex);
	end(mutex, 4, READS | WRITES, RELEASE, 0, shared);
	report_step(run->current, site, mutex, "given back");
	return 0;
}

/* --- what fibers of a scenario tell each other ---------------------------- */

uint32_t explore_told(const char *site, const uint32_t *p)
{
	uint32_t value;
	bool shared;

	if (!run->current)
		return *p;
	shared = begin(p, 4, READS);
	value = *p;
	end(p, 4, READS, 0, value, shared);
	report_step(run->current, site, p, "%u", value);
	return value;
}

void explore_tell(const char *site, uint32_t *p, uint32_t value)
{
	bool shared;

	if (!run->current) {
		*p = value;
		return;
	}
	shared = begin(p, 4, WRITES);
	*p = value;
	end(p, 4, WRITES, 0, value, shared);
	report_step(run->current, site, p, "%u", value);
}
