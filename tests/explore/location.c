#include "location.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "access.h"

#define SHIFT 16
#define SIZE (1u << SHIFT)

/* Open addressing; nothing is ever taken out. */
static struct locations {
	uint32_t execution;
	uint32_t nr;
	struct location table[SIZE];
} *locations;

void locations_init(void)
{
	locations = calloc(1, sizeof(*locations));
	if (!locations) {
		perror("explore: locations");
		exit(2);
	}
}

void locations_next_execution(void)
{
	locations->execution++;
}

static void half_reset(struct half *half)
{
	memset((char *)half + offsetof(struct half, version), 0,
	       sizeof(*half) - offsetof(struct half, version));
}

struct location *location_of(const volatile void *p)
{
	uintptr_t key = (uintptr_t)p >> 3;
	size_t i = (size_t)((key * 0x9E3779B97F4A7C15u) >> (64 - SHIFT));
	struct location *location = &locations->table[i];

	while (location->key != key) {
		if (!location->key) {
			if (++locations->nr > SIZE / 2)
				explore_fail("more than %u addresses are used", SIZE / 2);
			location->key = key;
			break;
		}
		i = (i + 1) % SIZE;
		location = &locations->table[i];
	}
	if (location->execution != locations->execution) {
		location->execution = locations->execution;
		half_reset(&location->halves[0]);
		half_reset(&location->halves[1]);
	}
	return location;
}
