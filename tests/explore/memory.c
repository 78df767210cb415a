#define _GNU_SOURCE
#include "memory.h"

#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "access.h"
#include "race.h"
#include "run.h"

#define PAGE ((size_t)4096)
#define RANGES_MAX 16u
#define PAGES_MAX 1024u
/* Of each fiber, and of what runs outside of them. */
#define ARENA_SIZE ((size_t)1 << 20)
#define NR_ARENAS (FIBERS_MAX + 1)
/* Enough of a freed block that whoever still uses it will stumble. */
#define POISON_BYTES ((size_t)1 << 10)
#define POISON 0xDD

struct range {
	char *start;
	size_t size;
};

static struct memory {
	struct range ranges[RANGES_MAX];
	unsigned nr_ranges;
	bool marked;
	char *pages[PAGES_MAX];
	char *copies;
	size_t nr_pages;
	char *arenas;
	size_t used[NR_ARENAS];
	size_t used_at_mark[NR_ARENAS];
} *memory;

static _Noreturn void give_up(const char *what)
{
	perror(what);
	exit(2);
}

static void range_add(void *start, size_t size)
{
	if (memory->nr_ranges == RANGES_MAX) {
		fputs("explore: the core has more mappings than expected\n", stderr);
		exit(2);
	}
	memory->ranges[memory->nr_ranges++] = (struct range){start, size};
}

/* The program itself comes first. What the linker made read-only after relocation stays so. */
static int add_program_data(struct dl_phdr_info *info, size_t size, void *arg)
{
	uintptr_t relro_end = 0;

	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *header = &info->dlpi_phdr[i];

		if (header->p_type == PT_GNU_RELRO)
			relro_end = info->dlpi_addr + header->p_vaddr + header->p_memsz;
	}
	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *header = &info->dlpi_phdr[i];
		uintptr_t start = info->dlpi_addr + header->p_vaddr;
		uintptr_t end = start + header->p_memsz;

		if (header->p_type != PT_LOAD || !(header->p_flags & PF_W))
			continue;
		if (start < relro_end)
			start = relro_end;
		start &= ~(PAGE - 1);
		end = (end + PAGE - 1) & ~(PAGE - 1);
		range_add((void *)start, end - start);
	}
	return 1;
}

void memory_init(void)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

	memory = calloc(1, sizeof(*memory));
	if (!memory)
		give_up("explore: memory");
	memory->copies = mmap(NULL, PAGES_MAX * PAGE, PROT_READ | PROT_WRITE, flags, -1, 0);
	memory->arenas = mmap(NULL, NR_ARENAS * ARENA_SIZE, PROT_READ | PROT_WRITE, flags, -1, 0);
	if (memory->copies == MAP_FAILED || memory->arenas == MAP_FAILED)
		give_up("explore: mmap");
	range_add(memory->arenas, NR_ARENAS * ARENA_SIZE);
	dl_iterate_phdr(add_program_data, NULL);
}

void memory_mark(void)
{
	memcpy(memory->used_at_mark, memory->used, sizeof(memory->used));
	memory->marked = true;
	for (unsigned i = 0; i < memory->nr_ranges; i++)
		if (mprotect(memory->ranges[i].start, memory->ranges[i].size, PROT_READ) < 0)
			give_up("explore: mprotect");
}

void memory_restore(void)
{
	for (size_t i = 0; i < memory->nr_pages; i++)
		memcpy(memory->pages[i], memory->copies + i * PAGE, PAGE);
	memcpy(memory->used, memory->used_at_mark, sizeof(memory->used));
}

bool memory_first_write(const void *address)
{
	char *page = (char *)((uintptr_t)address & ~(PAGE - 1));
	bool ours = false;

	/* Else it is the explorer that keeps something where it would be lost. */
	if (!memory->marked || !run_is_on())
		return false;
	for (unsigned i = 0; i < memory->nr_ranges; i++)
		if ((size_t)(page - memory->ranges[i].start) < memory->ranges[i].size)
			ours = true;
	for (size_t i = 0; i < memory->nr_pages; i++)
		if (memory->pages[i] == page)
			ours = false;
	if (!ours || memory->nr_pages == PAGES_MAX)
		return false;
	memory->pages[memory->nr_pages] = page;
	memcpy(memory->copies + memory->nr_pages * PAGE, page, PAGE);
	memory->nr_pages++;
	return mprotect(page, PAGE, PROT_READ | PROT_WRITE) == 0;
}

size_t memory_nr_pages(void)
{
	return memory->nr_pages;
}

/* --- what the core takes from the system --------------------------------- */

void *explore_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
	void *p = mmap(address, size, protection, flags, fd, offset);

	if (memory->marked)
		explore_fail("a mapping is made, and would not be undone");
	if (p != MAP_FAILED && (protection & PROT_WRITE))
		range_add(p, size);
	return p;
}

int explore_mprotect(void *address, size_t size, int protection)
{
	if (memory->marked)
		explore_fail("a mapping is changed, and would not be changed back");
	if (protection & PROT_WRITE)
		range_add(address, size);
	return mprotect(address, size, protection);
}

/*
 * Each fiber has an arena, so that what address it gets depends on nothing that
 * others do.  Nothing is used again: an address stands for one block.
 */
void *explore_aligned_alloc(size_t alignment, size_t size)
{
	unsigned nr = run_fiber();
	char *arena = memory->arenas + nr * ARENA_SIZE;
	size_t at = memory->used[nr] + 16; /* the size stands before the block */

	at = (at + alignment - 1) & ~(alignment - 1);
	if (size > ARENA_SIZE - at)
		explore_fail("an arena of %zu bytes does not suffice", ARENA_SIZE);
	memory->used[nr] = (at + size + 15) & ~(size_t)15;
	*(size_t *)(arena + at - 16) = size;
	return arena + at;
}

void *explore_malloc(size_t size)
{
	return explore_aligned_alloc(16, size);
}

void *explore_calloc(size_t nr, size_t size)
{
	return memset(explore_malloc(nr * size), 0, nr * size);
}

void explore_free(void *p)
{
	size_t size;

	if (!p)
		return;
	size = *(size_t *)((char *)p - 16);
	if (size > POISON_BYTES)
		size = POISON_BYTES;
	/* Whoever used the block, and did not make sure that this comes after, races. */
	race_plain(p, size, true, __builtin_return_address(0));
	memset(p, POISON, size);
}

void *explore_realloc(void *p, size_t size)
{
	size_t old = p ? *(size_t *)((char *)p - 16) : 0;
	void *q = explore_malloc(size);

	if (old)
		memcpy(q, p, old < size ? old : size);
	explore_free(p);
	return q;
}
