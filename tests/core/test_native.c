/*
 * Native memory: blocks and maps are charged for what they occupy, to whoever
 * allocates them, by one thread or many; and the audit proves it at any moment.
 *
 * The table of functions is called directly, without a preload library, and so
 * works above the sanitizers' own allocators.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "check_that.h"
#include "native.h"

#define MIB ((int64_t)1 << 20)

static const struct allocator *const native = &native_allocator;
static struct mem_cgroup *a, *b;
static struct task *task_a, *task_b;

static __thread struct task *running;
static __thread struct charge_result noticed;

static struct task *current_task(void)
{
	return running ? running : &region.tasks[TASK_ROOT];
}

static void note(const struct charge_result *result)
{
	noticed = *result;
}

/* At a moment at which nobody is inside. */
static int64_t drift_frozen(void)
{
	int64_t drift;

	native_freeze();
	drift = drift_now();
	native_thaw();
	return drift;
}

static int64_t current_of(struct mem_cgroup *memcg)
{
	return memcg_current(memcg);
}

static struct mem_cgroup *owner_of(void *p)
{
	size_t bytes;
	uint32_t id = native_owner(p, &bytes);

	return id ? memcg_from_id(load_relaxed(&objcg_from_id(id)->memcg)) : NULL;
}

static int64_t bytes_of_native(void *p)
{
	size_t bytes;

	native_owner(p, &bytes);
	return (int64_t)bytes;
}

static void *native_block(size_t size)
{
	void *p = (native->malloc)(size);

	check_that(p != NULL);
	return p;
}

/* --- one block ------------------------------------------------------------ */

static void check_block(void *p, size_t size, size_t alignment)
{
	size_t usable = native->usable_size(p);

	check_that(p != NULL);
	check_equal((uintptr_t)p % alignment, 0);
	check_compare(usable, >=, size);
	memset(p, 0xA5, usable); /* all of it is the program's */
	check_that(owner_of(p) == a);
	check_equal(current_of(a), bytes_of_native(p));
	check_equal(drift_frozen(), 0);
	(native->free)(p);
	check_equal(current_of(a), 0);
}

static void each_function_charges_what_the_block_occupies(void)
{
	static const size_t sizes[] = {0, 1, 7, 8, 24, 25, 100, 1000, 4097, 100000, 3000000};
	void *p;

	running = task_a;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		size_t size = sizes[i];

		p = native_block(size);
		check_compare(bytes_of_native(p), >=, size + TAG_SIZE + BLOCK_OVERHEAD);
		check_compare(bytes_of_native(p), <=, size + size / 4 + 8192);
		check_block(p, size, 8);
		check_block((native->calloc)(size ? size : 1, 1), size, 8);
		check_block((native->realloc)(NULL, size), size, 8);
		check_block(native->memalign(256, size), size, 256);
		check_block((native->aligned_alloc)(64, (size + 63) & ~(size_t)63), size, 64);
		check_equal(native->posix_memalign(&p, 4096, size), 0);
		check_block(p, size, 4096);
	}
	(native->free)(NULL);
	check_that((native->realloc)(native_block(10), 0) == NULL);
	check_equal(current_of(a), 0);
}

static void calloc_gives_zeros_where_a_tag_was(void)
{
	running = task_a;
	for (int i = 0; i < 1000; i++) {
		size_t size = (size_t)(i % 300);
		unsigned char *p = native_block(size);

		memset(p, 0xFF, native->usable_size(p));
		(native->free)(p);
		p = (native->calloc)(1, size);
		for (size_t j = 0; j < size; j++)
			check_equal(p[j], 0);
		(native->free)(p);
	}
	check_equal(current_of(a), 0);
}

static void what_cannot_be_had_is_refused_as_ever(void)
{
	void *p = &p;
	volatile size_t too_much = SIZE_MAX - 4;

	running = task_a;
	errno = 0;
#if !UNDER_ASAN && !UNDER_TSAN /* their allocators end the program */
	check_that((native->malloc)(too_much) == NULL && errno == ENOMEM);
	errno = 0;
	check_that((native->calloc)(too_much / 2, 3) == NULL && errno == ENOMEM);
	check_equal(native->posix_memalign(&p, 3, 10), EINVAL);
	check_that(p == &p);
#endif
	p = native_block(100);
	errno = 0;
	check_that((native->realloc)(p, too_much) == NULL && errno == ENOMEM);
	check_that(owner_of(p) == a);
	(native->free)(p);
	check_equal(current_of(a), 0);
	check_equal(drift_frozen(), 0);
}

static void a_block_without_a_tag_is_nobodys(void)
{
	void *p = malloc(1000);
	void *q;

	running = task_a;
	check_that(owner_of(p) == NULL);
	check_equal(native->usable_size(p), libc_allocator.usable_size(p));
	(native->free)(p);
	check_equal(current_of(a), 0);
	/* One that grows becomes the task's. */
	p = malloc(1000);
	memset(p, 7, 1000);
	q = (native->realloc)(p, 2000);
	check_that(owner_of(q) == a);
	for (int i = 0; i < 1000; i++)
		check_equal(((char *)q)[i], 7);
	(native->free)(q);
	check_equal(current_of(a), 0);
}

static void inside_the_core_each_function_is_the_c_librarys(void)
{
	void *blocks[7];
	void *p;

	running = task_a;
	native_bypass_begin();
	blocks[0] = (native->malloc)(100);
	blocks[1] = (native->calloc)(1, 100);
	blocks[2] = (native->realloc)((native->malloc)(100), 2000);
	blocks[3] = native->memalign(64, 100);
	blocks[4] = (native->aligned_alloc)(64, 128);
	check_equal(native->posix_memalign(&blocks[5], 64, 100), 0);
	p = (native->mmap)(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	p = native->mremap(p, 8192, 4096, 0, NULL);
	check_that(p != MAP_FAILED);
	check_equal((native->munmap)(p, 4096), 0);
	blocks[6] = (native->malloc)(0);
	for (int i = 0; i < 7; i++) {
		check_that(blocks[i] != NULL && owner_of(blocks[i]) == NULL);
		(native->free)(blocks[i]);
	}
	native_bypass_end();
	check_equal(current_of(a), 0);
	check_equal(drift_frozen(), 0);
}

static void a_tag_counts_for_one_block_at_one_address(void)
{
	char *p = native_block(100);
	char *q = malloc(libc_allocator.usable_size(p));

	running = task_a;
	/* All of a block copied, with its tag: no tag of the copy. */
	memcpy(q, p, libc_allocator.usable_size(p));
	check_that(owner_of(q) == NULL);
	free(q);
	(native->free)(p);
	check_equal(drift_frozen(), 0);
}

/* A program that writes past the end loses the owner: charged for good, and no crash. */
static void a_tag_that_was_overwritten_is_none(void)
{
	int64_t before;
	int64_t bytes;
	char *p;

	running = task_b;
	before = current_of(b);
	p = native_block(100);
	bytes = bytes_of_native(p);
	memset(p + native->usable_size(p), 0x55, TAG_SIZE);
	check_that(owner_of(p) == NULL);
	(native->free)(p);
	check_equal(current_of(b), before + bytes);
	check_equal(drift_frozen(), 0);
}

static void a_tag_of_which_any_byte_has_changed_is_none(void)
{
	unsigned char *p;
	unsigned char *tag;

	running = task_a;
	p = native_block(100);
	tag = p + native->usable_size(p);
	check_that(owner_of(p) == a);
	for (unsigned at = 0; at < TAG_SIZE; at++) {
		unsigned char was = tag[at];

		for (unsigned change = 1; change < 256; change++) {
			tag[at] = was ^ (unsigned char)change;
			check_that(owner_of(p) == NULL);
		}
		tag[at] = was;
	}
	check_that(owner_of(p) == a);
	(native->free)(p);
	check_equal(current_of(a), 0);
}

/* What glibc maps for one block ends with its page: nothing behind it may be looked at. */
static void blocks_that_are_mappings_of_their_own_have_nothing_behind_them(void)
{
	enum { NR = 16 };
	char *blocks[NR];

	running = task_a;
	for (int order = 0; order < 2; order++) {
		for (int i = 0; i < NR; i++) {
			blocks[i] = native_block((size_t)48 << 20);
			check_that(owner_of(blocks[i]) == a);
		}
		/* Each leaves a hole beside the next, below or above. */
		for (int i = 0; i < NR; i++)
			(native->free)(blocks[order ? NR - 1 - i : i]);
		check_equal(current_of(a), 0);
	}
	check_equal(drift_frozen(), 0);
}

/* --- realloc --------------------------------------------------------------- */

static void realloc_by_the_owner_keeps_the_books(void)
{
	static const size_t sizes[] = {10, 100, 20, 5000, 4990, 200000, 199000, 3000000, 16, 60000};
	char *p = NULL;

	running = task_a;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		p = (native->realloc)(p, sizes[i]);
		check_that(p && owner_of(p) == a);
		if (i)
			check_equal(p[0], 42);
		memset(p, 42, native->usable_size(p));
		check_equal(current_of(a), bytes_of_native(p));
		check_equal(drift_frozen(), 0);
	}
	(native->free)(p);
	check_equal(current_of(a), 0);
}

static void realloc_by_another_is_its_own_where_the_block_moves(void)
{
	int64_t before = current_of(b);
	char *p;
	char *q;

	running = task_a;
	p = native_block(200);
	running = task_b;
	q = (native->realloc)(p, 190);
	check_that(owner_of(q) == (q == p ? a : b));
	q = (native->realloc)(q, 2000000);
	check_that(q && owner_of(q) == b);
	check_equal(current_of(a), 0);
	check_equal(current_of(b), before + bytes_of_native(q));
	running = task_a;
	(native->free)(q);
	check_equal(current_of(b), before);
	check_equal(drift_frozen(), 0);
}

/* --- limits ------------------------------------------------------------------ */

static void a_full_group_gets_no_large_block_and_small_ones_up_to_the_ceiling(void)
{
	static void *held[20000];
	struct mem_cgroup *memcg = group_new(root_memcg());
	struct task *task = task_new(memcg);
	size_t nr = 0;
	void *p;

	page_counter_set_max(memcg, MIB);
	running = task;
	memset(&noticed, 0, sizeof(noticed));
	p = native_block(700000);
	errno = 0;
	check_that((native->malloc)(700000) == NULL);
	check_equal(errno, ENOMEM);
	check_equal(noticed.refused, memcg_id(memcg));
	check_that((native->realloc)(p, 2000000) == NULL);
	check_that(owner_of(p) == memcg);
	check_that((native->mmap)(NULL, 700000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
				  -1, 0) == MAP_FAILED);
	check_equal(errno, ENOMEM);
	check_equal(memcg_current(memcg), bytes_of_native(p));
	while (nr < sizeof(held) / sizeof(held[0]) && (held[nr] = (native->malloc)(1000)) != NULL)
		nr++;
	check_compare(noticed.over | noticed.refused, ==, memcg_id(memcg));
	check_compare(memcg_current(memcg), >, MIB);
	check_compare(memcg_current(memcg), <=, page_counter_ceiling(MIB));
	check_compare(nr, <, sizeof(held) / sizeof(held[0]));
	while (nr)
		(native->free)(held[--nr]);
	(native->free)(p);
	running = NULL;
	check_equal(memcg_current(memcg), 0);
	check_equal(drift_frozen(), 0);
	task_free(task);
	native_drain_subtree(memcg);
	check_equal(memcg_remove(memcg, false), 0);
}

/* --- inside -------------------------------------------------------------------- */

static void what_a_signal_handler_does_in_the_middle_is_done_after(void)
{
	void *p;
	void *q;

	running = task_a;
	p = native_block(100);
	q = native_block(3000);
	memset(p, 9, 100);
	check_equal(current_of(a), bytes_of_native(p) + bytes_of_native(q));
	native_bypass_begin();
	{
		void *plain = native_block(50); /* is not charged: nobody could say so now */

		check_that(owner_of(plain) == NULL);
		(native->free)(plain);
		(native->free)(q);
		p = (native->realloc)(p, 5000);
		check_that(owner_of(p) == NULL);
		check_equal(((char *)p)[99], 9);
	}
	native_bypass_end();
	(native->free)(p);
	(native->free)(native_block(1)); /* the next one that comes out */
	check_equal(current_of(a), 0);
	check_equal(drift_frozen(), 0);
}

/* --- maps ---------------------------------------------------------------------- */

#define PAGES(n) ((size_t)(n) * 4096)

static char *map_pages(size_t nr, int flags)
{
	char *p = (native->mmap)(NULL, PAGES(nr), PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	check_that(p != MAP_FAILED);
	return p;
}

#define check_maps(nr)                                                                             \
	do {                                                                                       \
		check_equal(current_of(a), PAGES(nr));                                             \
		check_equal(drift_frozen(), 0);                                                    \
	} while (0)

static int64_t blocks_of(struct mem_cgroup *memcg)
{
	struct memcg_view view;

	memcg_view(memcg, &view);
	return view.blocks;
}

static void maps_are_charged_by_the_page_whatever_is_done_to_them(void)
{
	int64_t blocks;
	char *p;
	char *q;

	running = task_a;
	blocks = blocks_of(a);
	q = map_pages(3, 0); /* first, so that it is in no hole of the other */
	p = map_pages(10, 0);
	check_maps(13);
	check_equal((native->munmap)(p + PAGES(4), PAGES(2)), 0); /* in the middle */
	check_maps(11);
	check_equal(blocks_of(a), blocks + 3);
	check_equal((native->munmap)(p, PAGES(1)), 0);
	check_equal((native->munmap)(p + PAGES(9), PAGES(1)), 0);
	check_maps(9);
	/* Over what is there already: once. */
	check_that((native->mmap)(p + PAGES(2), PAGES(6), PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p + PAGES(2));
	check_maps(3 + 8);
	/* A reservation takes the place of memory. */
	check_that((native->mmap)(p + PAGES(2), PAGES(1), PROT_NONE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p + PAGES(2));
	check_maps(3 + 7);
	/* Several ranges and holes at once. */
	check_equal((native->munmap)(p, PAGES(10)), 0);
	check_maps(3);
	check_equal((native->munmap)(q, PAGES(3) - 100), 0); /* a part of a page is a page */
	check_maps(0);
	check_equal(blocks_of(a), blocks);
	check_equal((native->munmap)(p + 1, PAGES(1)), -1);
}

static void a_map_keeps_its_owner_when_it_grows_or_moves(void)
{
	int64_t before_b;
	int64_t blocks;
	char *wall;
	char *p;
	char *q;

	running = task_a;
	blocks = blocks_of(a);
	before_b = current_of(b);
	p = map_pages(8, 0);
	strcpy(p, "moved");
	running = task_b;
	p = native->mremap(p, PAGES(8), PAGES(5), 0, NULL);
	check_maps(5);
	p = native->mremap(p, PAGES(5), PAGES(300), MREMAP_MAYMOVE, NULL);
	check_that(p != MAP_FAILED && strcmp(p, "moved") == 0);
	check_maps(300);
	/* To a place where another map is. */
	wall = map_pages(400, 0);
	check_equal(current_of(b), before_b + (int64_t)PAGES(400));
	q = native->mremap(p, PAGES(300), PAGES(350), MREMAP_MAYMOVE | MREMAP_FIXED,
			   wall + PAGES(10));
	check_that(q == wall + PAGES(10) && strcmp(q, "moved") == 0);
	check_maps(350);
	check_equal(current_of(b), before_b + (int64_t)PAGES(50));
	/* A part of one. */
	p = native->mremap(q + PAGES(100), PAGES(10), PAGES(20), MREMAP_MAYMOVE, NULL);
	check_that(p != MAP_FAILED);
	check_maps(360);
	check_equal(blocks_of(a), blocks + 3); /* before it, after it, and itself */
	check_equal((native->munmap)(p, PAGES(20)), 0);
	check_equal((native->munmap)(wall, PAGES(400)), 0);
	check_maps(0);
	check_equal(blocks_of(a), blocks);
	check_equal(current_of(b), before_b);
	check_that(native->mremap(wall, PAGES(1), PAGES(2), MREMAP_MAYMOVE, NULL) == MAP_FAILED);
}

static void a_map_that_is_cut_or_moved_past_its_end_leaves_nothing(void)
{
	char *p;
	char *q;

	running = task_a;
	/* The last old page is nobody's. */
	p = map_pages(101, 0);
	check_equal((native->munmap)(p + PAGES(100), PAGES(1)), 0);
	check_that(native->mremap(p, PAGES(101), PAGES(10), MREMAP_MAYMOVE, NULL) == p);
	check_maps(10);
	check_equal((native->munmap)(p, PAGES(10)), 0);
	check_maps(0);

	/* The old pages stay beside the new ones. */
	p = map_pages(20, 0);
	q = native->mremap(p, PAGES(20), PAGES(20), MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
	if (q == MAP_FAILED) {
		check_equal(errno, EINVAL); /* before Linux 5.7 */
		check_maps(20);
	} else {
		check_that(q != p);
		memset(p, 1, PAGES(20));
		check_maps(40);
		check_equal((native->munmap)(q, PAGES(20)), 0);
		check_maps(20);
	}
	check_equal((native->munmap)(p, PAGES(20)), 0);
	check_maps(0);
	check_equal(drift_frozen(), 0);
}

static void a_full_group_gets_no_map_and_no_larger_one(void)
{
	struct mem_cgroup *memcg = group_new(root_memcg());
	struct task *task = task_new(memcg);
	char *p;
	void *q;

	running = task;
	p = map_pages(8, 0);
	page_counter_set_max(memcg, (int64_t)PAGES(12));
	running = task_a; /* whoever grows it, its owner has to have room */
	memset(&noticed, 0, sizeof(noticed));
	errno = 0;
	check_that(native->mremap(p, PAGES(8), PAGES(100), MREMAP_MAYMOVE, NULL) == MAP_FAILED);
	check_equal(errno, ENOMEM);
	check_equal(noticed.refused, memcg_id(memcg));
	check_equal(current_of(memcg), PAGES(8));
	strcpy(p, "still there");
	p = native->mremap(p, PAGES(8), PAGES(12), MREMAP_MAYMOVE, NULL);
	check_that(p != MAP_FAILED && strcmp(p, "still there") == 0);
	check_equal(current_of(memcg), PAGES(12));
	/* What is nobody's can be moved there: then these pages are nobody's, too. */
	running = task;
	q = (native->mmap)(NULL, PAGES(4), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check_that(q != MAP_FAILED);
	q = native->mremap(q, PAGES(4), PAGES(4), MREMAP_MAYMOVE | MREMAP_FIXED, p + PAGES(2));
	check_that(q == p + PAGES(2));
	check_equal(current_of(memcg), PAGES(8));
	check_equal((native->munmap)(p, PAGES(12)), 0);
	check_equal(current_of(memcg), 0);
	check_equal(drift_frozen(), 0);
	running = NULL;
	task_free(task);
}

static void reservations_and_files_are_not_charged(void)
{
	void *p;

	running = task_a;
	p = map_pages(100, MAP_NORESERVE);
	check_maps(0);
	(native->munmap)(p, PAGES(100));
	p = (native->mmap)(NULL, PAGES(100), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check_maps(0);
	(native->munmap)(p, PAGES(100));
}

/* Another way to the system call, or a library loaded before us. */
static void a_map_that_went_behind_our_back_is_forgotten_when_its_place_is_taken(void)
{
	char *p;

	running = task_a;
	p = map_pages(6, 0);
	check_equal((libc_allocator.munmap)(p, PAGES(6)), 0);
	check_maps(6);
	running = task_b;
	check_that((native->mmap)(p, PAGES(6), PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p);
	check_maps(0);
	check_equal((native->munmap)(p, PAGES(6)), 0);
}

/* Against a table of pages. */
static void random_maps_agree_with_a_model(void)
{
	enum { NR = 64 };
	static struct mem_cgroup *owners[NR];
	uint64_t seed = test_seed();
	int64_t before_b;
	char *base;

	running = task_b;
	before_b = current_of(b);
	base = (libc_allocator.mmap)(NULL, PAGES(NR), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
				     0);
	for (int i = 0; i < 20000; i++) {
		uint32_t first = random_below(&seed, NR);
		uint32_t nr = 1 + random_below(&seed, NR - first);
		bool by_a = random_below(&seed, 2);
		bool maps = random_below(&seed, 2);
		int64_t pages[2] = {0, 0};

		running = by_a ? task_a : task_b;
		check_that((native->mmap)(base + PAGES(first), PAGES(nr),
					  maps ? PROT_READ | PROT_WRITE : PROT_NONE,
					  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
					  0) != MAP_FAILED);
		for (uint32_t j = first; j < first + nr; j++)
			owners[j] = !maps ? NULL : by_a ? a : b;
		for (int j = 0; j < NR; j++)
			pages[owners[j] == a] += owners[j] != NULL;
		check_equal(current_of(a), PAGES(pages[1]));
		check_equal(current_of(b), before_b + (int64_t)PAGES(pages[0]));
		if (i % 500 == 0)
			check_equal(drift_frozen(), 0);
	}
	check_equal((native->munmap)(base, PAGES(NR)), 0);
	check_maps(0);
}

/* --- many blocks beside a model -------------------------------------------------- */

static void random_blocks_agree_with_a_model(void)
{
	enum { NR = 500 };
	static struct {
		void *p;
		struct mem_cgroup *owner;
		int64_t bytes;
		unsigned char fill;
	} model[NR];
	uint64_t seed = test_seed();
	int64_t sum_a = 0;
	int64_t sum_b;

	running = task_b;
	sum_b = current_of(b);
	for (int i = 0; i < 100000; i++) {
		uint32_t k = random_below(&seed, NR);
		size_t size = 1 + random_below(&seed, random_below(&seed, 20) ? 2000 : 200000);
		bool by_a = random_below(&seed, 2);
		struct mem_cgroup *by = by_a ? a : b;
		void *p = model[k].p;

		running = by_a ? task_a : task_b;
		if (p) {
			check_that(owner_of(p) == model[k].owner);
			check_equal(bytes_of_native(p), model[k].bytes);
			check_equal(*(unsigned char *)p, model[k].fill);
			*(model[k].owner == a ? &sum_a : &sum_b) -= model[k].bytes;
		}
		if (p && random_below(&seed, 2)) {
			(native->free)(p);
			model[k].p = NULL;
		} else if (p) {
			model[k].p = (native->realloc)(p, size);
			if (model[k].p != p)
				model[k].owner = by;
			check_equal(*(unsigned char *)model[k].p, model[k].fill);
		} else {
			model[k].p = native_block(size);
			model[k].owner = by;
		}
		if (model[k].p) {
			model[k].fill = (unsigned char)i;
			memset(model[k].p, i, native->usable_size(model[k].p));
			model[k].bytes = bytes_of_native(model[k].p);
			*(model[k].owner == a ? &sum_a : &sum_b) += model[k].bytes;
		}
		check_equal(current_of(a), sum_a);
		check_equal(current_of(b), sum_b);
		if (i % 5000 == 0)
			check_equal(drift_frozen(), 0);
	}
	for (int k = 0; k < NR; k++)
		(native->free)(model[k].p);
	check_equal(current_of(a), 0);
	check_equal(drift_frozen(), 0);
}

/* --- threads ----------------------------------------------------------------------- */

#define NR_THREADS 4
#define NR_SLOTS 256

static _Atomic(void *) slots[NR_SLOTS];
static _Atomic int stop_threads;

/* Blocks change hands: allocated by one thread and task, freed by another. */
static void *exchange_blocks(void *arg)
{
	uint64_t seed = (uintptr_t)arg;

	running = (uintptr_t)arg % 2 ? task_a : task_b;
	for (int i = 0; i < 30000 / (UNDER_TSAN ? 10 : 1) || !load_acquire(&stop_threads); i++) {
		void *p = native_block(8 + random_below(&seed, 3000));

		memset(p, 1, 8);
		(native->free)(xchg_acq_rel(&slots[random_below(&seed, NR_SLOTS)], p));
		if (i % 64 == 0) {
			char *map = map_pages(3, 0);

			/* Each page once: the hole may be another thread's by then. */
			(native->munmap)(map + PAGES(1), PAGES(1));
			(native->munmap)(map, PAGES(1));
			(native->munmap)(map + PAGES(2), PAGES(1));
		}
	}
	return NULL;
}

static void the_books_balance_while_threads_run(void)
{
	pthread_t threads[NR_THREADS];
	int64_t before_b;

	running = task_b;
	before_b = current_of(b);
	store_relaxed(&stop_threads, 0);
	for (uintptr_t i = 0; i < NR_THREADS; i++)
		pthread_create(&threads[i], NULL, exchange_blocks, (void *)(i + 1));
	for (int i = 0; i < 300 / (UNDER_TSAN ? 5 : 1); i++) {
		check_equal(drift_frozen(), 0);
		native_drain_subtree(a);
		native_drain_full(b);
	}
	store_release(&stop_threads, 1);
	for (int i = 0; i < NR_THREADS; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < NR_SLOTS; i++)
		(native->free)(xchg_acq_rel(&slots[i], NULL));
	check_equal(current_of(a), 0);
	check_equal(current_of(b), before_b);
	check_equal(drift_frozen(), 0);
}

/* --- stopping the others, step by step ---------------------------------------------- */

static _Atomic int step;

static void wait_for_step(int n)
{
	while (load_acquire(&step) < n)
		pause_us(100);
}

static void *stay_inside(void *arg)
{
	struct native_thread *self = &native_thread;
	struct native_cpu *cpu;

	running = task_a;
	(native->free)(native_block(100));
	self->inside++;
	cpu = native_enter(self);
	store_release(&step, 1);
	pause_us(50000); /* the other one wants to stop us meanwhile */
	store_release(&step, 2);
	native_exit(cpu);
	self->inside--;
	wait_for_step(3);
	(native->free)(native_block(100)); /* waits at the gate */
	store_release(&step, 4);
	return arg;
}

static void others_are_out_when_they_are_stopped_and_stay_out(void)
{
	pthread_t thread;

	store_release(&step, 0);
	pthread_create(&thread, NULL, stay_inside, NULL);
	wait_for_step(1);
	check_that(native_stop_others(true));
	check_equal(load_acquire(&step), 2);
	check_that(!native_stop_others(false)); /* is done already */
	store_release(&step, 3);
	pause_us(50000);
	check_equal(load_acquire(&step), 3);
	native_start_others();
	pthread_join(thread, NULL);
	check_equal(load_acquire(&step), 4);
	check_equal(drift_frozen(), 0);
}

/* As a thread whose destructor has run, and those for which there is no cpu. */
static void *stay_in_the_shared_one(void *arg)
{
	native_thread.ended = true;
	return stay_inside(arg);
}

static void *stop_while_another_is_in_the_shared_one(void *arg)
{
	native_thread.ended = true;
	wait_for_step(1);
	native_map_lock(); /* as an audit does: it counts as inside */
	check_that(native_stop_others(true));
	check_equal(load_acquire(&step), 2);
	store_release(&step, 3);
	native_start_others();
	native_map_unlock();
	return arg;
}

static void who_is_in_the_shared_cpu_is_waited_for_by_who_has_none(void)
{
	pthread_t threads[2];

	store_release(&step, 0);
	pthread_create(&threads[0], NULL, stay_in_the_shared_one, NULL);
	pthread_create(&threads[1], NULL, stop_while_another_is_in_the_shared_one, NULL);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	check_equal(drift_frozen(), 0);
}

/* No atomic word: each change is lost that is not alone. Without the barrier some are. */
static struct {
	_Alignas(64) long n;
} counts[2];

#define NR_COUNTS (UNDER_TSAN || UNDER_ASAN ? 20000 : 2000000)

static void *count_inside(void *arg)
{
	struct native_thread *self = &native_thread;
	volatile long *n = arg;

	self->inside++;
	for (long i = 0; i < NR_COUNTS; i++) {
		struct native_cpu *cpu = native_enter(self);

		*n = *n + 1;
		native_exit(cpu);
	}
	self->inside--;
	fetch_add_seq_cst(&step, 1);
	return NULL;
}

static void who_stops_the_others_is_alone(void)
{
	pthread_t threads[2];
	long stops = 0;

	store_release(&step, 0);
	for (int i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, count_inside, &counts[i].n);
	while (load_acquire(&step) < 2) {
		check_that(native_stop_others(true));
		for (int i = 0; i < 2; i++)
			*(volatile long *)&counts[i].n = counts[i].n + 1;
		native_start_others();
		stops++;
	}
	for (int i = 0; i < 2; i++) {
		pthread_join(threads[i], NULL);
		check_equal(counts[i].n, NR_COUNTS + stops);
	}
}

static void *one_block(void *arg)
{
	running = task_a;
	return (native->realloc)(native_block(1000), 2000 + (size_t)(uintptr_t)arg % 100);
}

static void threads_that_end_leave_nothing_in_stock(void)
{
	uint32_t nr = 0;

	for (uintptr_t i = 0; i < (UNDER_TSAN ? 200 : 2000); i++) {
		pthread_t thread;
		void *p;

		pthread_create(&thread, NULL, one_block, (void *)i);
		pthread_join(thread, &p);
		check_that(owner_of(p) == a);
		(native->free)(p);
		nr = nr > cpu_count() ? nr : cpu_count();
	}
	/* This thread's, the shared one, root's; those of the threads above, and of one before. */
	check_compare(nr, <=, 4 + NR_THREADS);
	native_drain_subtree(a);
	check_equal(usage_of(a), 0);
	check_equal(drift_frozen(), 0);
}

static pthread_barrier_t barrier;

static void *wait_with_a_block(void *arg)
{
	void *p;

	running = task_a;
	p = native_block(100);
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	(native->free)(p);
	return arg;
}

static void there_may_be_more_threads_than_cpus(void)
{
	enum { NR = CPU_MAX + 50 };
	static pthread_t threads[NR];
	pthread_attr_t attr;

	if (UNDER_TSAN)
		return; /* it has room for fewer threads than that */
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 128 << 10);
	pthread_barrier_init(&barrier, NULL, NR + 1);
	for (int i = 0; i < NR; i++)
		check_equal(pthread_create(&threads[i], &attr, wait_with_a_block, NULL), 0);
	pthread_barrier_wait(&barrier);
	check_equal(cpu_count(), CPU_MAX);
	check_compare(current_of(a), >=, NR * 100);
	check_equal(drift_frozen(), 0);
	pthread_barrier_wait(&barrier);
	for (int i = 0; i < NR; i++)
		pthread_join(threads[i], NULL);
	check_equal(current_of(a), 0);
	native_drain_subtree(a);
	check_equal(usage_of(a), 0);
	check_equal(drift_frozen(), 0);
}

/* --- threads that C code starts ------------------------------------------------------- */

static struct task *seen_task;

static void *see_task(void *arg)
{
	seen_task = native_thread.task;
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	return arg;
}

static void a_thread_has_a_task_in_the_group_of_whoever_started_it(void)
{
	struct mem_cgroup *memcg = group_new(a);
	struct task *task = task_new(memcg);
	pthread_t thread;
	uint32_t gen;

	pthread_barrier_init(&barrier, NULL, 2);
	running = task;
	check_equal(native->thread_create(&thread, NULL, see_task, &thread), 0);
	pthread_barrier_wait(&barrier);
	check_that(seen_task != NULL && seen_task != task);
	check_equal(load_relaxed(&seen_task->memcg), memcg_id(memcg));
	check_equal(strncmp(seen_task->name, "native thread ", 14), 0);
	gen = load_relaxed(&seen_task->gen);
	/* It keeps the group from nothing, and moves up. */
	running = NULL;
	task_free(task);
	check_equal(load_relaxed(&memcg->nr_tasks), 0);
	check_equal(memcg_remove(memcg, false), 0);
	check_equal(load_relaxed(&seen_task->memcg), memcg_id(a));
	pthread_barrier_wait(&barrier);
	pthread_join(thread, NULL);
	check_equal(load_relaxed(&seen_task->state), TASK_FREE);
	check_compare(load_relaxed(&seen_task->gen), ==, gen + 1);
	/* Root's have none. */
	check_equal(native->thread_create(&thread, NULL, see_task, NULL), 0);
	pthread_barrier_wait(&barrier);
	check_that(seen_task == NULL);
	pthread_barrier_wait(&barrier);
	pthread_join(thread, NULL);
	check_equal(drift_frozen(), 0);
}

/* --- fork -------------------------------------------------------------------------------- */

static void a_forked_child_gives_back_what_threads_it_lacks_had_in_stock(void)
{
	pthread_t threads[NR_THREADS];
	int64_t before_b;

	if (UNDER_TSAN)
		return; /* it does not follow a fork of a process with threads */
	running = task_b;
	before_b = current_of(b);
	store_relaxed(&stop_threads, 0);
	for (uintptr_t i = 0; i < NR_THREADS; i++)
		pthread_create(&threads[i], NULL, exchange_blocks, (void *)(i + 1));
	for (int i = 0; i < 30; i++) {
		int status;
		pid_t pid;

		native_freeze();
		kmem_fork_prepare();
		pid = fork();
		if (pid == 0) {
			int64_t held = 0;
			void *p;

			alarm(20);
			kmem_fork_child();
			native_fork_child();
			check_equal(drift_frozen(), 0);
			running = task_a;
			p = native_block(5000);
			check_that(owner_of(p) == a);
			(native->free)(p);
			native_drain_subtree(root_memcg());
			for (uint32_t id = 1; id < section_used(SECTION_OBJCG); id++)
				held += load_relaxed(&objcg_from_id(id)->bytes);
			/* Nothing is in stock: all is in blocks, of which the audit knows. */
			check_equal(held, memcg_current(root_memcg()));
			check_equal(usage_of(root_memcg()), memcg_current(root_memcg()));
			check_equal(drift_frozen(), 0);
			leave_child(0);
		}
		kmem_fork_parent();
		native_thaw();
		check_equal(waitpid(pid, &status, 0), pid);
		check_equal(status, 0);
	}
	store_release(&stop_threads, 1);
	for (int i = 0; i < NR_THREADS; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < NR_SLOTS; i++)
		(native->free)(xchg_acq_rel(&slots[i], NULL));
	check_equal(current_of(b), before_b);
	check_equal(drift_frozen(), 0);
}

static void *tell_whose_cpu(void *arg)
{
	running = task_a;
	(native->free)(native_block(100));
	store_release((_Atomic(struct native_cpu *) *)arg, native_thread.cpu);
	wait_for_step(1);
	return NULL;
}

/* It says that it comes, sees that the gate is closed, and takes it back: the fork is in between. */
static void a_forked_child_waits_for_no_thread_that_was_just_coming(void)
{
	static _Atomic(struct native_cpu *) other;
	pthread_t thread;
	int status;
	pid_t pid;

	if (UNDER_TSAN)
		return; /* it does not follow a fork of a process with threads */
	store_release(&step, 0);
	pthread_create(&thread, NULL, tell_whose_cpu, (void *)&other);
	while (!load_acquire(&other))
		pause_us(100);
	native_freeze();
	kmem_fork_prepare();
	store_relaxed(&load_acquire(&other)->busy, 1);
	pid = fork();
	if (pid == 0) {
		alarm(20);
		kmem_fork_child();
		native_fork_child();
		check_equal(drift_frozen(), 0);
		leave_child(0);
	}
	store_relaxed(&load_acquire(&other)->busy, 0);
	kmem_fork_parent();
	native_thaw();
	check_equal(waitpid(pid, &status, 0), pid);
	check_equal(status, 0);
	store_release(&step, 1);
	pthread_join(thread, NULL);
}

/* --- the audit can fail --------------------------------------------------------------------- */

static void what_is_charged_and_has_no_block_is_found(void)
{
	struct native_cpu *own = native_thread.cpu;
	uint32_t id = objcg_id(objcg_of(a));

	native_tally_add(own, id, 64);
	check_equal(drift_frozen(), 3 * 64); /* objcg, group, root */
	native_tally_add(own, id, -64);
	check_equal(drift_frozen(), 0);
}

/* --- signals ---------------------------------------------------------------------------------- */

static volatile sig_atomic_t nr_signals;
static _Atomic(void *) for_handler;

/*
 * What no handler may do by the book, and some do.  In the middle of one of ours it
 * only puts the block on a list, so the C library is not entered twice.
 */
static void free_in_handler(int signal_number)
{
	(void)signal_number;
	nr_signals++;
	if (UNDER_TSAN && !native_thread.inside)
		return; /* it reports that by itself */
	(native->free)(xchg_acq_rel(&for_handler, NULL));
}

static void signals_in_the_middle_do_no_harm(void)
{
	const struct itimerval often = {{0, 200}, {0, 200}};
	const struct itimerval never = {{0, 0}, {0, 0}};
	struct sigaction action = {.sa_handler = free_in_handler, .sa_flags = SA_RESTART};
	uint64_t seed = test_seed();
	void *held[100] = {NULL};

	running = task_a;
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	while (nr_signals < (UNDER_TSAN || UNDER_ASAN ? 50 : 500)) {
		uint32_t k = random_below(&seed, 100);

		(native->free)(held[k]);
		held[k] = native_block(random_below(&seed, 2000));
		store_release(&for_handler, native_block(64));
		(native->free)(native_block(500));
		/* The handler has it, or we have. */
		(native->free)(xchg_acq_rel(&for_handler, NULL));
	}
	setitimer(ITIMER_REAL, &never, NULL);
	for (int k = 0; k < 100; k++)
		(native->free)(held[k]);
	(native->free)(native_block(1));
	check_equal(current_of(a), 0);
	check_equal(drift_frozen(), 0);
}

#define RUN(test)                                                                                  \
	do {                                                                                       \
		printf("%s\n", #test);                                                             \
		fflush(stdout);                                                                    \
		test();                                                                            \
		running = NULL;                                                                    \
	} while (0)

int main(void)
{
	check_equal(kmem_init(NULL, "test", "none"), 0);
	native_current_task = current_task;
	native_notice = note;
	check_equal(native_prepare(), 0);
	a = group_new(root_memcg());
	b = group_new(root_memcg());
	task_a = task_new(a);
	task_b = task_new(b);

	RUN(each_function_charges_what_the_block_occupies);
	RUN(calloc_gives_zeros_where_a_tag_was);
	RUN(what_cannot_be_had_is_refused_as_ever);
	RUN(a_block_without_a_tag_is_nobodys);
	RUN(inside_the_core_each_function_is_the_c_librarys);
	RUN(a_tag_counts_for_one_block_at_one_address);
	RUN(a_tag_that_was_overwritten_is_none);
	RUN(a_tag_of_which_any_byte_has_changed_is_none);
	RUN(blocks_that_are_mappings_of_their_own_have_nothing_behind_them);
	RUN(realloc_by_the_owner_keeps_the_books);
	RUN(realloc_by_another_is_its_own_where_the_block_moves);
	RUN(a_full_group_gets_no_large_block_and_small_ones_up_to_the_ceiling);
	RUN(what_a_signal_handler_does_in_the_middle_is_done_after);
	RUN(maps_are_charged_by_the_page_whatever_is_done_to_them);
	RUN(a_map_keeps_its_owner_when_it_grows_or_moves);
	RUN(a_map_that_is_cut_or_moved_past_its_end_leaves_nothing);
	RUN(a_full_group_gets_no_map_and_no_larger_one);
	RUN(reservations_and_files_are_not_charged);
	RUN(a_map_that_went_behind_our_back_is_forgotten_when_its_place_is_taken);
	RUN(random_maps_agree_with_a_model);
	RUN(random_blocks_agree_with_a_model);
	RUN(others_are_out_when_they_are_stopped_and_stay_out);
	RUN(who_is_in_the_shared_cpu_is_waited_for_by_who_has_none);
	RUN(who_stops_the_others_is_alone);
	RUN(the_books_balance_while_threads_run);
	RUN(threads_that_end_leave_nothing_in_stock);
	RUN(a_thread_has_a_task_in_the_group_of_whoever_started_it);
	RUN(a_forked_child_gives_back_what_threads_it_lacks_had_in_stock);
	RUN(a_forked_child_waits_for_no_thread_that_was_just_coming);
	RUN(what_is_charged_and_has_no_block_is_found);
	RUN(signals_in_the_middle_do_no_harm);
	RUN(there_may_be_more_threads_than_cpus);
	return 0;
}
