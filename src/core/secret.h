/* Numbers that nobody can guess who does not read our memory. */
#ifndef OBJCG_SECRET_H
#define OBJCG_SECRET_H

#include <stdint.h>

/*
 * 64 random bits.  At an early start of the system, where the kernel has none yet, the
 * time and an address: against accidents still, since nothing is waited for.
 */
uint64_t secret_new(void);

#endif
