/*
 * The system has no memory: what the core asks the C library for fails, at first the
 * first time, then the second, and so on until nothing is left to fail; alone, and from
 * then on.  After each time what was there is there, nobody is charged for what he did
 * not get, and the books balance.  (SQLite's method; tests/faults does it with limits.)
 *
 * Each time is a process of its own, in which the core has only begun.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/wait.h>

#include "check_that.h"
#include "native.h"

#define KIB ((size_t)1 << 10)

/* --- what fails ----------------------------------------------------------- */

static struct allocator system_allocator;
static int nth; /* 0: none fails, and none is counted */
static bool for_good;
static _Atomic int calls;
static _Atomic int failures;

static bool fails(void)
{
	int call;

	if (!nth)
		return false;
	call = fetch_add_relaxed(&calls, 1) + 1;
	if (call < nth || (call > nth && !for_good))
		return false;
	fetch_add_relaxed(&failures, 1);
	errno = ENOMEM;
	return true;
}

static void *failing_malloc(size_t size)
{
	return fails() ? NULL : (system_allocator.malloc)(size);
}

static void *failing_calloc(size_t nr, size_t size)
{
	return fails() ? NULL : (system_allocator.calloc)(nr, size);
}

static void *failing_realloc(void *p, size_t size)
{
	return fails() ? NULL : (system_allocator.realloc)(p, size);
}

static void *failing_memalign(size_t alignment, size_t size)
{
	return fails() ? NULL : (system_allocator.memalign)(alignment, size);
}

static void *failing_aligned_alloc(size_t alignment, size_t size)
{
	return fails() ? NULL : (system_allocator.aligned_alloc)(alignment, size);
}

static int failing_posix_memalign(void **p, size_t alignment, size_t size)
{
	return fails() ? ENOMEM : (system_allocator.posix_memalign)(p, alignment, size);
}

static void *failing_mmap(void *address, size_t len, int protection, int flags, int fd,
			  off_t offset)
{
	return fails() ? MAP_FAILED
		       : (system_allocator.mmap)(address, len, protection, flags, fd, offset);
}

static void *failing_mremap(void *address, size_t old, size_t len, int flags, void *to)
{
	return fails() ? MAP_FAILED : (system_allocator.mremap)(address, old, len, flags, to);
}

static int failing_thread_create(pthread_t *thread, const pthread_attr_t *attr,
				 void *(*start)(void *), void *arg)
{
	return fails() ? EAGAIN : (system_allocator.thread_create)(thread, attr, start, arg);
}

static void fail_from_here_on(void)
{
	system_allocator = libc_allocator;
	libc_allocator.malloc = failing_malloc;
	libc_allocator.calloc = failing_calloc;
	libc_allocator.realloc = failing_realloc;
	libc_allocator.memalign = failing_memalign;
	libc_allocator.aligned_alloc = failing_aligned_alloc;
	libc_allocator.posix_memalign = failing_posix_memalign;
	libc_allocator.mmap = failing_mmap;
	libc_allocator.mremap = failing_mremap;
	libc_allocator.thread_create = failing_thread_create;
}

static void fail_no_more(void)
{
	nth = 0;
}

static int pause_failing(void)
{
	int before = nth;

	nth = 0;
	return before;
}

/* --- a core with two tasks ------------------------------------------------ */

static struct cpu *cpu;
static struct mem_cgroup *ours, *theirs;
static struct task *we, *they;
static __thread struct task *running;

static struct task *current_task(void)
{
	return running ? running : &region.tasks[TASK_ROOT];
}

static void note(const struct charge_result *result)
{
	(void)result;
}

static void begin(void)
{
	cpu = core_start();
	check_equal(native_prepare(), 0);
	ours = group_new(root_memcg());
	theirs = group_new(root_memcg());
	we = task_new(ours);
	they = task_new(theirs);
	fail_from_here_on();
}

static void end(void)
{
	fail_no_more();
	check_equal(memcg_current(ours), 0);
	check_equal(memcg_current(theirs), 0);
	check_conserved();
}

/* --- blocks, of which each must stay as it is until it is freed ------------ */

struct block {
	unsigned char *p;
	size_t size;
};

static void got(struct block *block, unsigned char *p, size_t size)
{
	block->p = p;
	block->size = p ? size : 0;
	fill(p, 0, block->size);
}

/* What realloc() has returned: a block with what was in the old one, or nothing has changed. */
static void resized(struct block *block, unsigned char *q, size_t size)
{
	size_t common = size < block->size ? size : block->size;

	check_contents(q ? q : block->p, q ? common : block->size);
	if (q)
		got(block, q, size);
}

static const size_t sizes[] = {100, 600, 3000, 40000, 300000};
enum { NR = sizeof(sizes) / sizeof(sizes[0]) };

/* By the owner and by another, whose group has room or has none, larger and smaller. */
static void resize_all(struct block *blocks, int nr, bool full,
		       void (*resize)(struct task *task, struct block *block, size_t size))
{
	for (int i = 0; i < nr; i++)
		resize(we, &blocks[i], 2 * sizes[i % NR]);
	if (full)
		page_counter_set_max(theirs, 0);
	for (int i = 0; i < nr; i++)
		resize(they, &blocks[i], 3 * sizes[i % NR]);
	for (int i = 0; i < nr; i++)
		resize(they, &blocks[i], sizes[i % NR] / 2);
	for (int i = 0; i < nr; i++)
		resize(we, &blocks[i], sizes[i % NR] / 3);
	for (int i = 0; i < nr; i++)
		check_contents(blocks[i].p, blocks[i].size);
}

static unsigned char *python_alloc(struct task *task, size_t size)
{
	struct charge_result result = {0, 0, 0};

	return alloc_for(cpu, task, DOMAIN_OBJECT, size, &result);
}

static void python_resize(struct task *task, struct block *block, size_t size)
{
	struct charge_result result = {0, 0, 0};
	unsigned char *q;

	if (!block->p)
		return;
	q = kmem_realloc(cpu, task, DOMAIN_OBJECT, block->p, size, &result);
	if (!q) {
		int paused = pause_failing();

		check_conserved();
		nth = paused;
	}
	resized(block, q, size);
}

static void python_blocks_of(bool full)
{
	struct block blocks[2 * NR];

	begin();
	slabs_are_shared(cpu, true);
	for (int i = 0; i < NR; i++) {
		got(&blocks[i], python_alloc(we, sizes[i]), sizes[i]);
		got(&blocks[NR + i], python_alloc(they, sizes[i]), sizes[i]);
	}
	resize_all(blocks, 2 * NR, full, python_resize);
	for (int i = 0; i < 2 * NR; i++)
		if (blocks[i].p)
			release(cpu, blocks[i].p);
	end();
}

static void python_blocks(void)
{
	python_blocks_of(false);
}

static void python_blocks_of_a_full_group(void)
{
	python_blocks_of(true);
}

/* --- native blocks -------------------------------------------------------- */

static const struct allocator *const native = &native_allocator;

static void native_resize(struct task *task, struct block *block, size_t size)
{
	running = task;
	if (block->p)
		resized(block, (native->realloc)(block->p, size), size);
}

static void native_blocks_of(bool full)
{
	struct block blocks[3 * NR];

	begin();
	for (int i = 0; i < NR; i++) {
		void *p = NULL;

		running = we;
		got(&blocks[i], (native->malloc)(sizes[i]), sizes[i]);
		running = they;
		got(&blocks[NR + i], (native->calloc)(1, sizes[i]), sizes[i]);
		running = i & 1 ? we : they;
		if (i == 0)
			p = native->memalign(64, sizes[i]);
		else if (i == 1)
			p = (native->aligned_alloc)(64, sizes[i] & ~(size_t)63);
		else if (native->posix_memalign(&p, 64, sizes[i]) != 0)
			p = NULL;
		got(&blocks[2 * NR + i], p, sizes[i] & ~(size_t)63);
	}
	resize_all(blocks, 3 * NR, full, native_resize);
	for (int i = 0; i < 3 * NR; i++)
		(native->free)(blocks[i].p);
	end();
}

static void native_blocks(void)
{
	native_blocks_of(false);
}

static void native_blocks_of_a_full_group(void)
{
	native_blocks_of(true);
}

/* --- maps ------------------------------------------------------------------ */

static void *map(size_t len)
{
	return (native->mmap)(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			      0);
}

/* With owners by turns, so that each is one in the table; at one it has to grow (170 at first). */
static void maps(void)
{
	enum { NR_MAPS = 200, NR_BEFORE = 160 };
	static char *at[NR_MAPS];
	int paused;

	begin();
	paused = pause_failing();
	for (int i = 0; i < NR_MAPS; i++) {
		if (i == NR_BEFORE)
			nth = paused;
		running = i & 1 ? we : they;
		at[i] = map(8 * KIB);
		if (at[i] == MAP_FAILED)
			check_equal(errno, ENOMEM);
	}
	for (int i = 0; i < 8; i++) {
		char *moved;

		if (at[i] == MAP_FAILED)
			continue;
		running = we;
		moved = native->mremap(at[i], 8 * KIB, 32 * KIB, MREMAP_MAYMOVE, NULL);
		if (moved == MAP_FAILED)
			continue;
		check_equal((native->munmap)(moved + 4 * KIB, 4 * KIB), 0); /* it is two now */
		check_equal((native->munmap)(moved, 32 * KIB), 0);
		at[i] = MAP_FAILED;
	}
	for (int i = 0; i < NR_MAPS; i++)
		if (at[i] != MAP_FAILED)
			check_equal((native->munmap)(at[i], 8 * KIB), 0);
	end();
}

/* --- threads --------------------------------------------------------------- */

static void *allocates(void *arg)
{
	struct block block;

	running = native_thread.task; /* as the binding's current task is */
	got(&block, (native->malloc)(5000), 5000);
	check_contents(block.p, block.size);
	(native->free)(block.p);
	return arg;
}

static void threads(void)
{
	begin();
	for (int i = 0; i < 3; i++) {
		pthread_t thread;

		running = we;
		if (native->thread_create(&thread, NULL, allocates, NULL) == 0)
			check_equal(pthread_join(thread, NULL), 0);
	}
	end();
}

/* --- the beginning itself --------------------------------------------------- */

static void start(void)
{
	fail_from_here_on();
	if (kmem_init(NULL, "test", "none") == 0) {
		cpu = cpu_get(0);
		if (native_prepare() == 0)
			(native->free)((native->malloc)(100));
		fail_no_more();
		check_conserved();
	}
}

/* In a child; returns whether anything was left to fail. */
static bool attempt(const char *name, void (*scenario)(void), int number, bool all)
{
	pid_t pid = fork();
	int status;

	check_that(pid >= 0);
	if (!pid) {
		nth = number;
		for_good = all;
		scenario();
		exit(load_relaxed(&failures) ? 0 : 3);
	}
	check_equal(waitpid(pid, &status, 0), pid);
	if (!WIFEXITED(status) || (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != 3))
		fail_that("%s: call %d%s: status %d", name, number, all ? " and all after it" : "",
			  status);
	return WEXITSTATUS(status) == 0;
}

static void sweep(const char *name, void (*scenario)(void))
{
	for (int all = 0; all < 2; all++) {
		int number = 1;

		while (attempt(name, scenario, number, all))
			number++;
		printf("%s: %d calls%s\n", name, number - 1, all ? ", and all after" : "");
		fflush(stdout);
		check_compare(number, >, 1);
	}
}

#define SWEEP(scenario) sweep(#scenario, scenario)

int main(void)
{
	native_current_task = current_task;
	native_notice = note;
	SWEEP(threads);
	/* The others are of one thread, and each process of the thread sanitizer takes long. */
	if (UNDER_TSAN)
		return 0;
	SWEEP(start);
	SWEEP(python_blocks);
	SWEEP(python_blocks_of_a_full_group);
	SWEEP(native_blocks);
	SWEEP(native_blocks_of_a_full_group);
	SWEEP(maps);
	return 0;
}
