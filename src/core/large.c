#define _GNU_SOURCE
#include "large.h"
#include "allocator.h"
#include "region.h"
#include "secret.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Slots; less where the address space is limited. */
static size_t table_max = (size_t)1 << 27;

uint64_t large_cookie;
_Atomic size_t large_total; /* written under the table's lock */

/* A slot holds a header's address, or the next free slot's number (from 1) and a low bit. */
static struct {
	pthread_mutex_t lock;
	_Atomic uintptr_t *slots;
	uint32_t top;
	uint32_t free_head;
} table = {.lock = PTHREAD_MUTEX_INITIALIZER, .top = 1};

int large_init(void)
{
	void *slots;

	while (table_max * sizeof(uintptr_t) > address_space_limit() / 32)
		table_max /= 2;
	slots = mmap(NULL, table_max * sizeof(uintptr_t), PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (slots == MAP_FAILED)
		return -errno;
	table.slots = slots;
	/* Not a size that the C library could have before a block of its own. */
	large_cookie = secret_new() | (uint64_t)1 << 63;
	return 0;
}

void large_lock(void)
{
	pthread_mutex_lock(&table.lock);
}

void large_unlock(void)
{
	pthread_mutex_unlock(&table.lock);
}

void large_lock_reset_after_fork(void)
{
	pthread_mutex_init(&table.lock, NULL);
}

/* For a header that is complete but for its slot. False when the table is full. */
static bool slot_take(struct large_header *header)
{
	uint32_t slot;

	large_lock();
	slot = table.free_head;
	if (slot)
		table.free_head = (uint32_t)(load_relaxed(&table.slots[slot]) >> 1);
	else if (table.top < table_max)
		slot = table.top++;
	header->slot = slot;
	if (slot) {
		store_relaxed(&table.slots[slot], (uintptr_t)header);
		add_single_writer(&large_total, header->size);
	}
	large_unlock();
	return slot != 0;
}

/* The same block, with the size that its header has. */
static void slot_set(uint32_t slot, struct large_header *header)
{
	large_lock();
	store_relaxed(&table.slots[slot], (uintptr_t)header);
	add_single_writer(&large_total, header->size);
	large_unlock();
}

/* While nobody may follow the table to it. */
static void slot_hide(uint32_t slot, size_t size)
{
	large_lock();
	store_relaxed(&table.slots[slot], (uintptr_t)1);
	add_single_writer(&large_total, -size);
	large_unlock();
}

static void slot_give(uint32_t slot, size_t size)
{
	large_lock();
	add_single_writer(&large_total, -size);
	store_relaxed(&table.slots[slot], (uintptr_t)table.free_head << 1 | 1);
	table.free_head = slot;
	large_unlock();
}

void large_for_each(void (*fn)(const struct large_header *header, void *arg), void *arg)
{
	large_lock();
	for (uint32_t i = 1; i < table.top; i++) {
		uintptr_t entry = load_relaxed(&table.slots[i]);

		if (!(entry & 1))
			fn((const struct large_header *)entry, arg);
	}
	large_unlock();
}

/* See large.h; of two places one header apart, at least one will do. */
static bool may_begin_at(const char *p)
{
	return ((uintptr_t)p & 4095) >= LARGE_HEADER;
}

/* Writes the header of the block there, all but its slot. */
static struct large_header *header_at(char *base, uint32_t offset, size_t bytes, uint32_t objcg,
				      uint32_t domain)
{
	char *p = base + offset;
	struct large_header *header = large_header(p);

	header->size = bytes;
	header->objcg = objcg;
	header->offset = offset;
	header->domain = domain;
	header->cookie = large_cookie ^ (uintptr_t)p;
	return header;
}

static char *base_alloc(size_t size, bool zero)
{
	return zero ? base_calloc(1, size) : base_malloc(size);
}

void *large_alloc(size_t bytes, bool zero, uint32_t objcg, enum domain domain)
{
	uint32_t offset = LARGE_HEADER;
	struct large_header *header;
	char *base;

	if (bytes > (size_t)PTRDIFF_MAX - 2 * LARGE_HEADER)
		return NULL;
	base = base_alloc(bytes + LARGE_HEADER, zero);
	if (base && !may_begin_at(base + offset)) {
		/* One address in 128 needs more room. */
		base_free(base);
		base = base_alloc(bytes + 2 * LARGE_HEADER, zero);
		if (base && !may_begin_at(base + offset))
			offset = 2 * LARGE_HEADER;
	}
	if (!base)
		return NULL;
	header = header_at(base, offset, bytes, objcg, domain);
	if (!slot_take(header)) {
		header->cookie = 0; /* see large_free() */
		base_free(base);
		return NULL;
	}
	return header + 1;
}

void large_free(void *p)
{
	struct large_header *header = large_header(p);
	char *base = (char *)p - header->offset;

	slot_give(header->slot, header->size);
	header->cookie = 0; /* what is at this address next must not look like ours */
	base_free(base);
}

void *large_realloc(void *p, size_t bytes)
{
	struct large_header old = *large_header(p);
	size_t kept = old.size < bytes ? old.size : bytes;
	uint32_t offset = old.offset;
	struct large_header *header;
	char *base;

	if (bytes > (size_t)PTRDIFF_MAX - 2 * LARGE_HEADER)
		return NULL;
	/* While the C library has it, the audit must not follow the table to it. */
	slot_hide(old.slot, old.size);
	large_header(p)->cookie = 0;
	/* With room for either offset, since the address may change. */
	base = base_realloc((char *)p - offset, bytes + 2 * LARGE_HEADER);
	if (!base) {
		large_header(p)->cookie = old.cookie;
		slot_set(old.slot, large_header(p));
		return NULL;
	}
	if (!may_begin_at(base + offset)) {
		offset = (uint32_t)(3 * LARGE_HEADER) - offset;
		memmove(base + offset, base + old.offset, kept);
	}
	header = header_at(base, offset, bytes, old.objcg, old.domain);
	header->slot = old.slot;
	slot_set(old.slot, header);
	return header + 1;
}
