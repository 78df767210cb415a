/*
 * The memory of the core and of the scenario: put back before each execution.
 *
 * What that is, is not a list somebody keeps: it is the program's own data
 * (the explorer keeps what it changes in the C library's heap), all that the
 * core mapped, and all that it allocated.  From memory_mark() on it is write
 * protected, so that the first write to a page, by whomever, makes a copy of
 * it; these pages stay writable and are copied back by memory_restore().
 */
#ifndef OBJCG_EXPLORE_MEMORY_H
#define OBJCG_EXPLORE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

/* Before anything of the core runs. */
void memory_init(void);

/* The state to come back to is this one. */
void memory_mark(void);
void memory_restore(void);

/* From the handler of SIGSEGV: whether it was the first write to a page of ours. */
bool memory_first_write(const void *address);

/* Pages that are copied back each time. */
size_t memory_nr_pages(void);

#endif
