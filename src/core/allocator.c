#define _GNU_SOURCE
#include <malloc.h>

#include "allocator.h"

static void *mremap_5(void *address, size_t old, size_t len, int flags, void *to)
{
	return mremap(address, old, len, flags, to);
}

/* As linked; native_start() puts the preload library's `next` here. */
struct allocator libc_allocator = {
	.malloc = malloc,
	.free = free,
	.calloc = calloc,
	.realloc = realloc,
	.memalign = memalign,
	.aligned_alloc = aligned_alloc,
	.posix_memalign = posix_memalign,
	.usable_size = malloc_usable_size,
	.mmap = mmap,
	.munmap = munmap,
	.mremap = mremap_5,
	.thread_create = pthread_create,
};
