/*
 * What the tests of the core share: checks that name the place and the values,
 * seeded random numbers, and short words for setting a core up.
 */
#ifndef OBJCG_CHECK_THAT_H
#define OBJCG_CHECK_THAT_H

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "kmem.h"
#include "memcg.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/lsan_interface.h>
#define UNDER_ASAN 1
#else
#define UNDER_ASAN 0
#endif
#if defined(__SANITIZE_THREAD__)
#define UNDER_TSAN 1
#else
#define UNDER_TSAN 0
#endif

#define fail_that(...)                                                                             \
	do {                                                                                       \
		fprintf(stderr, "%s:%d: ", __FILE__, __LINE__);                                    \
		fprintf(stderr, __VA_ARGS__);                                                      \
		fputc('\n', stderr);                                                               \
		abort();                                                                           \
	} while (0)

#define check_that(condition)                                                                      \
	do {                                                                                       \
		if (!(condition))                                                                  \
			fail_that("not so: %s", #condition);                                       \
	} while (0)

/* Texts first, so that a macro in them is shown as it was written. */
#define check_compare_(a, op, b, left_text, right_text)                                            \
	do {                                                                                       \
		long long left_ = (long long)(a);                                                  \
		long long right_ = (long long)(b);                                                 \
		if (!(left_ op right_))                                                            \
			fail_that("not so: %s %s %s: %lld and %lld", left_text, #op, right_text,   \
				  left_, right_);                                                  \
	} while (0)

#define check_compare(a, op, b) check_compare_(a, op, b, #a, #b)
#define check_equal(a, b) check_compare_(a, ==, b, #a, #b)

/* How a forked child ends. gcov writes its counters at exit() only, which writes buffers, too. */
#ifdef OBJCG_COVERAGE
extern void __gcov_dump(void);
#define note_coverage() __gcov_dump()
#else
#define note_coverage() ((void)0)
#endif

#define leave_child(status)                                                                        \
	do {                                                                                       \
		note_coverage();                                                                   \
		_exit(status);                                                                     \
	} while (0)

/* abort() goes on after it. */
static inline void note_abort(int signum)
{
	(void)signum;
	note_coverage();
}

/* Calls it in a child; returns how that ended, as waitpid() has it. */
static inline int status_of_child(void (*body)(void))
{
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	check_that(pid >= 0);
	if (pid == 0) {
		signal(SIGABRT, note_abort);
		body();
		leave_child(0);
	}
	check_equal(waitpid(pid, &status, 0), pid);
	return status;
}

/* The same for what is to abort. */
#define check_aborts(body)                                                                         \
	do {                                                                                       \
		int status_ = status_of_child(body);                                               \
		check_that(WIFSIGNALED(status_) && WTERMSIG(status_) == SIGABRT);                  \
	} while (0)

/* --- random numbers ------------------------------------------------------ */

/* The same in every run, unless OBJCG_SEED says otherwise; printed, to repeat a failure. */
static inline uint64_t test_seed(void)
{
	const char *text = getenv("OBJCG_SEED");
	uint64_t seed = text ? strtoull(text, NULL, 0) : 20240917;

	printf("OBJCG_SEED=%" PRIu64 "\n", seed);
	fflush(stdout);
	return seed;
}

/* splitmix64 (Steele, Lea, Flood 2014). */
static inline uint64_t random_u64(uint64_t *state)
{
	uint64_t z = *state += 0x9E3779B97F4A7C15u;

	z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
	z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
	return z ^ (z >> 31);
}

/* One of 0 .. n-1. */
static inline uint32_t random_below(uint64_t *state, uint32_t n)
{
	return (uint32_t)(((random_u64(state) >> 32) * n) >> 32);
}

/* --- what is in a block --------------------------------------------------- */

static inline void fill(unsigned char *p, size_t from, size_t to)
{
	for (size_t i = from; i < to; i++)
		p[i] = (unsigned char)(i * 131 + (i >> 9));
}

static inline void check_contents(const unsigned char *p, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (p[i] != (unsigned char)(i * 131 + (i >> 9)))
			fail_that("byte %zu of %zu is wrong", i, size);
}

/* --- a core to test ------------------------------------------------------ */

/* A core in anonymous memory, and a cpu for this thread. */
static inline struct cpu *core_start(void)
{
	struct cpu *cpu;

	check_equal(kmem_init(NULL, "test", "none"), 0);
#if UNDER_ASAN
	/* The leak check does not look into mappings; owner vectors are reached from this one. */
	__lsan_register_root_region(slab_range.slabs, (size_t)1 << 21);
#endif
	cpu = cpu_get(0);
	check_that(cpu != NULL);
	return cpu;
}

/* A core in a file, that is mapped once more: what another process sees. */
static inline void *core_start_shared(void)
{
	char folder[] = "/tmp/objcg-test-XXXXXX";
	char path[sizeof(folder) + 8];
	void *outside;
	int fd;

	check_that(mkdtemp(folder) != NULL);
	snprintf(path, sizeof(path), "%s/region", folder);
	check_equal(kmem_init(path, "test", "none"), 0);
	fd = open(path, O_RDWR | O_CLOEXEC);
	check_that(fd >= 0 && unlink(path) == 0 && rmdir(folder) == 0);
	outside = mmap(NULL, region.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	check_that(outside != MAP_FAILED);
	close(fd);
	return outside;
}

static inline struct mem_cgroup *root_memcg(void)
{
	return memcg_from_id(MEMCG_ROOT);
}

static inline struct mem_cgroup *group_new(struct mem_cgroup *parent)
{
	struct mem_cgroup *memcg = NULL;

	check_equal(memcg_create(parent, "g", 1, &memcg), 0);
	return memcg;
}

static inline struct task *task_new(struct mem_cgroup *memcg)
{
	int err = 0;
	struct task *task = task_alloc(memcg, &err);

	if (!task)
		fail_that("task_alloc: %d", err);
	return task;
}

static inline int64_t usage_of(struct mem_cgroup *memcg)
{
	return load_relaxed(&memcg->memory.usage);
}

static inline struct obj_cgroup *objcg_of(struct mem_cgroup *memcg)
{
	return objcg_from_id(load_relaxed(&memcg->objcg));
}

/* As a hook does it: the fast path, then the slow one. NULL only where a limit or memory says so. */
/* A group whose blocks come from the same current slabs as those of `other`. */
static inline struct mem_cgroup *group_new_in_row_of(struct mem_cgroup *parent,
						     struct mem_cgroup *other)
{
	struct mem_cgroup *memcg;

	do {
		memcg = group_new(parent);
	} while (slab_row(load_relaxed(&memcg->objcg) << 1) !=
		 slab_row(load_relaxed(&other->objcg) << 1));
	return memcg;
}

/* As if many slabs had been begun early: such groups that take turns share slabs from here on. */
static inline void slabs_are_shared(struct cpu *cpu, bool shared)
{
	cpu->heap.nr_early += shared ? 1u << 20 : -(1u << 20);
}

static inline void *alloc_for(struct cpu *cpu, struct task *task, enum domain domain, size_t size,
			      struct charge_result *result)
{
	void *p = NULL;

	if (size <= SLAB_SMALL_MAX)
		p = kmem_alloc_fast(cpu, task, domain, size);
	return p ? p : kmem_alloc(cpu, task, domain, size, false, result);
}

static inline void *alloc(struct cpu *cpu, struct task *task, size_t size)
{
	struct charge_result result = {0, 0, 0};
	void *p = alloc_for(cpu, task, DOMAIN_OBJECT, size, &result);

	if (!p)
		fail_that("no block of %zu bytes, refused by %u", size, result.refused);
	return p;
}

static inline void release_in(struct cpu *cpu, enum domain domain, void *p)
{
	if (!in_slab_range(p) || !kmem_free_fast(cpu, domain, p))
		kmem_free(cpu, domain, p);
}

static inline void release(struct cpu *cpu, void *p)
{
	release_in(cpu, DOMAIN_OBJECT, p);
}

/* The group that a living block is charged to. */
static inline struct mem_cgroup *group_of(void *p)
{
	size_t bytes;

	return memcg_from_id(load_relaxed(&objcg_from_id(kmem_owner(p, &bytes))->memcg));
}

/* Whom an allocation by this task is charged to now. */
static inline struct mem_cgroup *group_charged_by(struct cpu *by, struct task *task)
{
	void *p = alloc(by, task, 64);
	struct mem_cgroup *memcg = group_of(p);

	release(by, p);
	return memcg;
}

static inline size_t bytes_of(void *p)
{
	size_t bytes;

	kmem_owner(p, &bytes);
	return bytes;
}

/* The conservation equations of types.h. Nothing else may run. */
static inline int64_t drift_now(void)
{
	struct audit audit;
	int64_t drift;

	check_equal(audit_run(&audit), 0);
	drift = audit.drift;
	audit_free(&audit);
	return drift;
}

#define check_conserved() check_equal(drift_now(), 0)

static inline void pause_us(unsigned us)
{
	usleep(us);
}

#endif
