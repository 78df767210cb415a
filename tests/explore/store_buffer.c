#include "store_buffer.h"

#include <string.h>

#include "access.h"
#include "report.h"
#include "search.h"

/* Makes the `nr` oldest visible. */
static void commit(struct fiber *fiber, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++) {
		struct delayed_store *store = &fiber->stores[i];
		struct location *location = location_of(store->p);

		memcpy((void *)store->p, &store->value, store->size);
		for_each_half(half, location, halves_of(store->p, store->size))
		{
			if (half->shared) {
				fiber->history =
					mix(mix(fiber->history, half->version), half->reads);
				half->version = fiber->history;
				half->reads = 0;
			}
			if (store->release)
				half->released = store->clock;
			else
				memset(&half->released, 0, sizeof(half->released));
		}
		report_step(fiber, store->site, store->p, "now seen by all: 0x%llx",
			    (unsigned long long)store->value);
	}
	fiber->nr_stores -= nr;
	memmove(fiber->stores, fiber->stores + nr, fiber->nr_stores * sizeof(*fiber->stores));
}

void store_buffer_flush(struct fiber *fiber)
{
	if (fiber->nr_stores)
		commit(fiber, fiber->nr_stores);
}

bool store_buffer_put(const char *site, unsigned order, volatile void *p, unsigned size,
		      uint64_t value, bool shared)
{
	struct fiber *fiber = run->current;

	if (fiber->nr_stores == 0) {
		static const uint8_t options[] = {0, 1};

		if (!shared || !search_may_delay() || !search_choose(CHOICE_DELAY, options, 2))
			return false;
	}
	if (shared)
		fiber->history = mix(fiber->history, CHOICE_DELAY);
	if (fiber->nr_stores == STORES_MAX)
		explore_fail("more than %u stores wait", STORES_MAX);
	fiber->stores[fiber->nr_stores++] = (struct delayed_store){
		.p = p,
		.value = value,
		.site = site,
		.clock = fiber->clock,
		.size = size,
		.release = order & RELEASE,
	};
	return true;
}

static bool overlaps(const struct delayed_store *store, const volatile void *p, unsigned size)
{
	const volatile char *a = store->p;
	const volatile char *b = p;

	return a < b + size && b < a + store->size;
}

bool store_buffer_get(const volatile void *p, unsigned size, uint64_t *value)
{
	struct fiber *fiber = run->current;

	for (unsigned i = fiber->nr_stores; i-- > 0;) {
		const struct delayed_store *store = &fiber->stores[i];
		size_t offset = (size_t)((const volatile char *)p - (volatile char *)store->p);

		if (!overlaps(store, p, size))
			continue;
		if (offset + size > store->size) {
			/* Part of it: a processor waits until it can read it all from the cache. */
			store_buffer_flush(fiber);
			return false;
		}
		*value = 0;
		memcpy(value, (const char *)&store->value + offset, size);
		return true;
	}
	return false;
}

/* The `nr` oldest, and those after them that nobody else can see or miss. */
static unsigned with_private(const struct fiber *fiber, unsigned nr)
{
	for (; nr < fiber->nr_stores; nr++) {
		const struct delayed_store *store = &fiber->stores[nr];

		for_each_half(half, location_of(store->p),
			      halves_of(store->p, store->size)) if (half->shared) return nr;
	}
	return nr;
}

void store_buffer_meet(const volatile void *p, unsigned size)
{
	for (unsigned i = 0; i < run->nr; i++) {
		struct fiber *other = &run->fibers[i];
		uint8_t options[STORES_MAX + 1] = {0};
		unsigned nr = 1;
		unsigned chosen;

		if (other == run->current)
			continue;
		for (unsigned j = 0; j < other->nr_stores; j++)
			if (overlaps(&other->stores[j], p, size))
				options[nr++] = (uint8_t)(i << 6 | with_private(other, j + 1));
		if (nr == 1)
			continue;
		options[0] = (uint8_t)(i << 6);
		chosen = search_choose(CHOICE_COMMIT, options, nr);
		commit(other, chosen & 63);
	}
}
