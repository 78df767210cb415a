/* What the explorer says: the steps of an execution in words. */
#ifndef OBJCG_EXPLORE_REPORT_H
#define OBJCG_EXPLORE_REPORT_H

#include <stddef.h>

#include "run.h"

/* One line of a trace, if there is to be one. */
void report_step(const struct fiber *fiber, const char *site, const volatile void *p,
		 const char *format, ...) __attribute__((format(printf, 4, 5)));

/* Which record an address is in; valid until the next call. */
const char *report_name(const volatile void *p);

/* Function, file and line of an instruction, or "". */
void report_code(char *text, size_t size, const void *pc);

#endif
