#include "race.h"

#include <string.h>

#include "access.h"
#include "report.h"
#include "run.h"
#include "search.h"

/* What each fiber did at `clock` is before what the current one does now; or who it is that not. */
static int unordered(const struct clock *clock)
{
	for (unsigned i = 0; i < run->nr; i++)
		if (clock->at[i] > run->current->clock.at[i])
			return (int)i;
	return -1;
}

static void check(const struct clock *clock, const char *theirs, const volatile void *p,
		  const char *ours, const void *pc)
{
	int other = unordered(clock);
	char where[160];

	if (other < 0)
		return;
	/* What orders the two may be an address that was not known as shared: see search.h. */
	if (search_is_to_begin_again())
		return;
	report_code(where, sizeof(where), pc);
	explore_fail("data race: %s of fiber %d, and %s of fiber %u%s%s; %s", theirs, other, ours,
		     run->current->index, where[0] ? " at " : "", where, report_name(p));
}

static void note(struct clock *clock)
{
	unsigned me = run->current->index;

	clock->at[me] = run->current->clock.at[me];
}

void race_plain(const volatile void *p, size_t size, bool write, const void *pc)
{
	uintptr_t at = (uintptr_t)p & ~(uintptr_t)3;
	uintptr_t end = (uintptr_t)p + size;

	if (!run->current || fiber_has((const void *)p))
		return;
	while (at < end) {
		struct location *location = location_of((void *)at);
		unsigned halves = !(at & 4) && end - at > 4 ? 3 : 1u << (at >> 2 & 1);

		for_each_half(half, location, halves)
		{
			const char *ours = write ? "a plain write" : "a plain read";

			check(&half->plain_writes, "a plain write", (void *)at, ours, pc);
			check(&half->atomic_writes, "an atomic write", (void *)at, ours, pc);
			if (write)
				check(&half->plain_reads, "a plain read", (void *)at, ours, pc);
			note(write ? &half->plain_writes : &half->plain_reads);
		}
		at = (at & ~(uintptr_t)7) + (halves == 1 ? 4 : 8);
	}
}

void race_atomic(struct location *location, unsigned halves, bool write)
{
	void *p = (void *)(location->key << 3);

	for_each_half(half, location, halves)
	{
		const char *ours = write ? "an atomic write" : "an atomic read";

		check(&half->plain_writes, "a plain write", p, ours, NULL);
		if (write) {
			check(&half->plain_reads, "a plain read", p, ours, NULL);
			note(&half->atomic_writes);
		}
	}
}

static void join(struct clock *to, const struct clock *from)
{
	for (unsigned i = 0; i < FIBERS_MAX; i++)
		if (to->at[i] < from->at[i])
			to->at[i] = from->at[i];
}

void race_release(unsigned order)
{
	if (order & RELEASE)
		run->current->clock.at[run->current->index]++;
}

void race_order(struct location *location, unsigned halves, bool read, bool write, unsigned order)
{
	struct clock *clock = &run->current->clock;

	for_each_half(half, location, halves)
	{
		if (read && (order & ACQUIRE))
			join(clock, &half->released);
		if (!write)
			continue;
		/* A read-modify-write goes on with what it read; a plain store begins anew. */
		if (!read)
			memset(&half->released, 0, sizeof(half->released));
		if (order & RELEASE)
			join(&half->released, clock);
	}
	if (write)
		race_release(order);
}

/*
 * The compiler's instrumentation for ThreadSanitizer, in the core and in the
 * scenarios, calls these for each plain access.  There is no runtime library of
 * it in this program.  Atomic accesses that pass the helpers by would call
 * functions that are not here: it would not link.
 */
#define INSTRUMENTED(n)                                                                            \
	void __tsan_read##n(void *p);                                                              \
	void __tsan_write##n(void *p);                                                             \
	void __tsan_unaligned_read##n(void *p);                                                    \
	void __tsan_unaligned_write##n(void *p);                                                   \
	void __tsan_volatile_read##n(void *p);                                                     \
	void __tsan_volatile_write##n(void *p);                                                    \
	void __tsan_read##n(void *p)                                                               \
	{                                                                                          \
		race_plain(p, n, false, __builtin_return_address(0));                              \
	}                                                                                          \
	void __tsan_write##n(void *p)                                                              \
	{                                                                                          \
		race_plain(p, n, true, __builtin_return_address(0));                               \
	}                                                                                          \
	void __tsan_unaligned_read##n(void *p)                                                     \
	{                                                                                          \
		race_plain(p, n, false, __builtin_return_address(0));                              \
	}                                                                                          \
	void __tsan_unaligned_write##n(void *p)                                                    \
	{                                                                                          \
		race_plain(p, n, true, __builtin_return_address(0));                               \
	}                                                                                          \
	void __tsan_volatile_read##n(void *p)                                                      \
	{                                                                                          \
		race_plain(p, n, false, __builtin_return_address(0));                              \
	}                                                                                          \
	void __tsan_volatile_write##n(void *p)                                                     \
	{                                                                                          \
		race_plain(p, n, true, __builtin_return_address(0));                               \
	}

INSTRUMENTED(1)
INSTRUMENTED(2)
INSTRUMENTED(4)
INSTRUMENTED(8)
INSTRUMENTED(16)

void __tsan_init(void);
void __tsan_func_entry(void *pc);
void __tsan_func_exit(void);
void __tsan_read_range(void *p, size_t size);
void __tsan_write_range(void *p, size_t size);

void __tsan_init(void)
{
}

void __tsan_func_entry(void *pc)
{
}

void __tsan_func_exit(void)
{
}

void __tsan_read_range(void *p, size_t size)
{
	race_plain(p, size, false, __builtin_return_address(0));
}

void __tsan_write_range(void *p, size_t size)
{
	race_plain(p, size, true, __builtin_return_address(0));
}
