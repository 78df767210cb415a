/*
 * What stands in and before a block of the C library's: its size, and the tag of the
 * objcg that it is charged to.  The tag is the last 8 bytes that the block really has,
 * of which the program is told nothing.  A block without a tag that checks is nobody's
 * (it is older than we are, or came by a way we do not see) and is freed as ever.
 */
#ifndef OBJCG_NATIVE_BLOCK_H
#define OBJCG_NATIVE_BLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "allocator.h"
#include "atomic.h"

/* Of the block's real bytes the last are the tag. */
#define TAG_SIZE sizeof(uint64_t)
/* What a block costs besides: the C library's own word before it. */
#define BLOCK_OVERHEAD sizeof(size_t)

/* What each call reads and nobody writes after the start: one cache line. */
struct native_fixed {
	_Alignas(64) uint64_t secret;
	uint64_t objcg_max; /* the largest id there can be */
	/*
	 * Whether the word before a block is as glibc has it: the size of the chunk,
	 * whose last word belongs to the block and first to us or the kernel, and
	 * three flags.  Asking malloc_usable_size() takes as long as the rest of a
	 * charge.
	 */
	bool blocks_are_glibcs;
};

extern struct native_fixed native_fixed;

/* Before the first tag. */
void native_block_init(void);

/* The objcg of a living block, 0: it is not charged; and how many bytes it occupies. */
uint32_t native_owner(void *p, size_t *bytes);

/* --- its size ------------------------------------------------------------------ */

#define GLIBC_IS_MAPPED ((size_t)2)
#define GLIBC_FLAGS ((size_t)7)

static inline size_t glibc_word(const void *p)
{
	return ((const size_t *)p)[-1];
}

static inline size_t glibc_size(const void *p)
{
	size_t word = glibc_word(p);

	return (word & ~GLIBC_FLAGS) - (word & GLIBC_IS_MAPPED ? 2 : 1) * sizeof(size_t);
}

static inline size_t real_size(void *p)
{
	return likely(native_fixed.blocks_are_glibcs) ? glibc_size(p)
						      : libc_allocator.usable_size(p);
}

/*
 * Whether it can be told at once what a block occupies, its overhead included, and that
 * there is nothing beneath the C library's function which calls us in turn: a block of
 * glibc's that is no mapping of its own.  The sanitizers' allocators are asked, so that
 * they see what is done then.
 */
static inline bool occupies_at_once(void *p, size_t *bytes)
{
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
	*bytes = real_size(p) + BLOCK_OVERHEAD;
	return *bytes >= BLOCK_OVERHEAD + TAG_SIZE;
#else
	if (unlikely(!native_fixed.blocks_are_glibcs) || unlikely(glibc_word(p) & GLIBC_IS_MAPPED))
		return false;
	*bytes = glibc_word(p) & ~GLIBC_FLAGS;
	return true;
#endif
}

/* --- its tag --------------------------------------------------------------------- */

/*
 * The id times a constant, and what hides it: the block's address and a secret.  The
 * constant is 2^64 by the golden ratio, of which the multiples lie as far apart as
 * they can: those of two ids by 2^42 at least (ids are below 2^21).  So a tag that
 * somebody has changed by less, or found at another address within 2^42 bytes, is
 * that of no objcg; and what is there by chance is one once in 2^43 blocks.
 */
#define TAG_FACTOR 0x9E3779B97F4A7C15u
#define TAG_INVERSE 0xF1DE83E19937733Du
_Static_assert(TAG_FACTOR *TAG_INVERSE == 1, "modulo 2^64");

static inline uint64_t tag_of(const void *p, uint32_t id)
{
	return ((uintptr_t)p ^ native_fixed.secret) + id * TAG_FACTOR;
}

/* Whether this is a tag at this address, and of which objcg. */
static inline bool tag_is_valid(const void *p, uint64_t tag, uint32_t *id)
{
	uint64_t value = (tag - ((uintptr_t)p ^ native_fixed.secret)) * TAG_INVERSE;

	*id = (uint32_t)value;
	return likely(value - 1 < native_fixed.objcg_max);
}

/* At the end of the block: aligned with glibc, but not with every C library. */
static inline void tag_write(void *p, size_t real, uint64_t tag)
{
	memcpy((char *)p + real - TAG_SIZE, &tag, TAG_SIZE);
}

/*
 * The objcg that a block is charged to, and how many bytes it really has; 0 if it
 * has no tag.  Where chance has made one, the bytes of that objcg are then too low.
 */
static inline uint32_t tag_read(void *p, size_t *real)
{
	size_t usable = real_size(p);
	uint64_t tag;
	uint32_t id;

	*real = usable;
	if (unlikely(usable < TAG_SIZE))
		return 0;
	memcpy(&tag, (char *)p + usable - TAG_SIZE, TAG_SIZE);
	return tag_is_valid(p, tag, &id) ? id : 0;
}

#endif
