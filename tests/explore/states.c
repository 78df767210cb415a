#include "states.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SHIFT_MIN 12
#define SHIFT_MAX 24

/* Open addressing. Beyond the largest size nothing more is kept: slower, and as right. */
struct states {
	unsigned shift;
	uint64_t nr;
	uint64_t *keys; /* 0: none */
	uint8_t *left;
};

static void table_make(struct states *states, unsigned shift)
{
	states->shift = shift;
	states->keys = calloc((size_t)1 << shift, sizeof(*states->keys));
	states->left = calloc((size_t)1 << shift, sizeof(*states->left));
	if (!states->keys || !states->left) {
		perror("explore: states");
		_exit(2);
	}
}

struct states *states_new(void)
{
	struct states *states = calloc(1, sizeof(*states));

	if (!states) {
		perror("explore: states");
		_exit(2);
	}
	table_make(states, SHIFT_MIN);
	return states;
}

void states_forget(struct states *states)
{
	states->nr = 0;
	memset(states->keys, 0, sizeof(*states->keys) << states->shift);
}

static uint64_t slot_of(const struct states *states, uint64_t key)
{
	uint64_t mask = ((uint64_t)1 << states->shift) - 1;
	uint64_t i = key & mask;

	while (states->keys[i] && states->keys[i] != key)
		i = (i + 1) & mask;
	return i;
}

static void grow(struct states *states)
{
	uint64_t size = (uint64_t)1 << states->shift;
	uint64_t *keys = states->keys;
	uint8_t *left = states->left;

	table_make(states, states->shift + 2);
	for (uint64_t i = 0; i < size; i++) {
		uint64_t slot;

		if (!keys[i])
			continue;
		slot = slot_of(states, keys[i]);
		states->keys[slot] = keys[i];
		states->left[slot] = left[i];
	}
	free(keys);
	free(left);
}

bool states_add(struct states *states, uint64_t state, unsigned preemptions_left)
{
	uint64_t key = state ? state : 1;
	uint64_t slot = slot_of(states, key);

	if (states->keys[slot]) {
		if (states->left[slot] >= preemptions_left)
			return false;
		states->left[slot] = (uint8_t)preemptions_left;
		return true;
	}
	if (states->nr > ((uint64_t)3 << states->shift) / 4) {
		if (states->shift >= SHIFT_MAX)
			return true;
		grow(states);
		slot = slot_of(states, key);
	}
	states->keys[slot] = key;
	states->left[slot] = (uint8_t)preemptions_left;
	states->nr++;
	return true;
}
