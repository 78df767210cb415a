#define _GNU_SOURCE
#include "secret.h"

#include <sys/random.h>
#include <time.h>

uint64_t secret_new(void)
{
	uint64_t secret;
	struct timespec ts;

	if (getrandom(&secret, sizeof(secret), GRND_NONBLOCK) == (ssize_t)sizeof(secret))
		return secret;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_nsec * 0x9E3779B97F4A7C15u ^ (uintptr_t)&ts;
}
