/* What the core and the scenarios call in a build for the explorer: see explore_atomic.h. */
#ifndef OBJCG_EXPLORE_ACCESS_H
#define OBJCG_EXPLORE_ACCESS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Orders; SEQ_CST of a store: it does not wait in a store buffer.  No read-modify-write does. */
enum { ACQUIRE = 1, RELEASE = 2, SEQ_CST = 4 };

enum rmw { RMW_ADD, RMW_OR, RMW_XCHG };

/* `site` is a literal, "file:line operation"; values are extended to 64 bits. */
uint64_t explore_load(const char *site, unsigned order, const volatile void *p, unsigned size);
void explore_store(const char *site, unsigned order, volatile void *p, unsigned size,
		   uint64_t value);
uint64_t explore_rmw(const char *site, unsigned order, enum rmw how, volatile void *p,
		     unsigned size, uint64_t operand);
bool explore_cas(const char *site, unsigned order, volatile void *p, unsigned size, void *expected,
		 uint64_t value);

int explore_lock(const char *site, pthread_mutex_t *mutex);
int explore_trylock(const char *site, pthread_mutex_t *mutex);
int explore_unlock(const char *site, pthread_mutex_t *mutex);

void *explore_malloc(size_t size);
void *explore_calloc(size_t nr, size_t size);
void *explore_realloc(void *p, size_t size);
void *explore_aligned_alloc(size_t alignment, size_t size);
void explore_free(void *p);

void *explore_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset);
int explore_mprotect(void *address, size_t size, int protection);

/*
 * What a scenario's fibers tell each other, beside the core: seen at once by
 * all, orders nothing else, and empties no store buffer.  (A plain variable
 * would be a data race, and a helper of atomic.h part of what is tested.)
 */
uint32_t explore_told(const char *site, const uint32_t *p);
void explore_tell(const char *site, uint32_t *p, uint32_t value);

/* Ends the execution as a failure; the text as by printf. */
_Noreturn void explore_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
