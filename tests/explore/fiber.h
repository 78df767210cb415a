/* Fibers: stacks of their own in one thread, switched without a system call. */
#ifndef OBJCG_EXPLORE_FIBER_H
#define OBJCG_EXPLORE_FIBER_H

#include <setjmp.h>
#include <stdbool.h>

#define FIBERS_MAX 4u

/* Makes the stacks. A fiber that is entered for the first time calls `body`, which never returns. */
void fibers_init(void (*body)(void));

/* Every fiber begins anew when it is next switched to, wherever it was. */
void fibers_rewind(void);

/* From the main stack. */
_Noreturn void fiber_enter(unsigned to);

/* From fiber `from`; returns when somebody switches back to it. */
void fiber_switch(unsigned from, unsigned to);

/* Whether an address is on one of the stacks. */
bool fiber_has(const void *address);

#endif
