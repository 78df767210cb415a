/* A set of states, each with a number of preemptions. */
#ifndef OBJCG_EXPLORE_STATES_H
#define OBJCG_EXPLORE_STATES_H

#include <stdbool.h>
#include <stdint.h>

struct states;

struct states *states_new(void);
void states_forget(struct states *states);

/* Adds a state with so many preemptions left; false if it is there, with as many or more. */
bool states_add(struct states *states, uint64_t state, unsigned preemptions_left);

#endif
