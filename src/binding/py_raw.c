/*
 * The hooks of the raw domain, which may be called without the GIL: they have a
 * cpu of their own, under a mutex.  So do allocators of libraries (py_hooks.c),
 * where they are called like that.
 */
#include "binding.h"

#include <pthread.h>
#include <string.h>

struct cpu *raw_cpu;

static PyMemAllocatorEx saved_raw;
static pthread_mutex_t raw_mutex = PTHREAD_MUTEX_INITIALIZER;

void raw_lock(void)
{
	pthread_mutex_lock(&raw_mutex);
}

bool raw_trylock(void)
{
	return pthread_mutex_trylock(&raw_mutex) == 0;
}

void raw_unlock(void)
{
	pthread_mutex_unlock(&raw_mutex);
}

void raw_lock_reset_after_fork(void)
{
	pthread_mutex_init(&raw_mutex, NULL);
}

/* The current task of such a thread. */
struct task *raw_task(void)
{
	PyThreadState *ts = thread_state_with_gil();

	if (!ts || ts->interp != PyInterpreterState_Main())
		return thread_cache_task_without_gil();
	if (!thread_cache_valid(&thread_cache, ts))
		thread_cache_refresh(&thread_cache, ts);
	return thread_cache.task;
}

void *raw_alloc(enum domain domain, size_t size, bool zero)
{
	struct charge_result result = {0, 0, 0};
	struct task *task = raw_task();
	void *p;

	raw_lock();
	p = size - 1 < SLAB_SMALL_MAX ? kmem_alloc_fast(raw_cpu, task, domain, size) : NULL;
	if (p && zero)
		memset(p, 0, size);
	else if (!p)
		p = kmem_alloc(raw_cpu, task, domain, size, zero, &result);
	raw_unlock();
	if (unlikely(result.over || result.high || result.refused))
		limits_notice(&result, 0);
	return p;
}

/* A block of ours; so is that of raw_give_back(). */
void *raw_resize(enum domain domain, void *p, size_t size)
{
	struct charge_result result = {0, 0, 0};
	struct task *task = raw_task();
	void *q;

	raw_lock();
	q = kmem_realloc(raw_cpu, task, domain, p, size, &result);
	raw_unlock();
	if (unlikely(result.over || result.high || result.refused))
		limits_notice(&result, 0);
	return q;
}

void raw_give_back(enum domain domain, void *p)
{
	raw_lock();
	if (!in_slab_range(p) || !kmem_free_fast(raw_cpu, domain, p))
		kmem_free(raw_cpu, domain, p);
	raw_unlock();
}

static void *raw_malloc(void *ctx, size_t size)
{
	(void)ctx;
	return raw_alloc(DOMAIN_RAW, size, false);
}

/*
 * An interpreter's state is a single zeroed block of the raw domain, of more
 * than 64 KiB in all versions, made before anything runs in that interpreter;
 * whoever goes there later knows it from its maker, and so sees this store.
 * Other blocks of that kind only cost us some speed; pymalloc's arena maps, of
 * a power of two, are told apart.
 */
static inline void notice_interpreter(size_t nelem, size_t elsize)
{
	if (unlikely(nelem == 1 && elsize >= (64 << 10) && (elsize & (elsize - 1)) != 0))
		interpreters_are_several();
}

static void *raw_calloc(void *ctx, size_t nelem, size_t elsize)
{
	size_t size;

	(void)ctx;
	if (__builtin_mul_overflow(nelem, elsize, &size))
		return NULL;
	notice_interpreter(nelem, elsize);
	return raw_alloc(DOMAIN_RAW, size, true);
}

static __thread int keeps_older __attribute__((tls_model("initial-exec")));

void hooks_keep_older(int keep)
{
	keeps_older = keep;
}

static void *raw_realloc(void *ctx, void *p, size_t size)
{
	void *q;

	(void)ctx;
	if (!p)
		return raw_alloc(DOMAIN_RAW, size, false);
	if (kmem_is_ours(p))
		return raw_resize(DOMAIN_RAW, p, size);
	q = size <= OLDER_MAX && !keeps_older ? raw_alloc(DOMAIN_RAW, size, false) : NULL;
	p = resize_older(&saved_raw, p, q, size);
	if (unlikely(q && p != q))
		raw_give_back(DOMAIN_RAW, q);
	return p;
}

static void raw_free(void *ctx, void *p)
{
	(void)ctx;
	if (!p)
		return;
	if (!kmem_is_ours(p)) {
		saved_raw.free(saved_raw.ctx, p);
		return;
	}
	thread_state_freed(p);
	raw_give_back(DOMAIN_RAW, p);
}

void raw_prepare(void)
{
	PyMem_GetAllocator(PYMEM_DOMAIN_RAW, &saved_raw);
}

void raw_install(void)
{
	PyMemAllocatorEx raw = {saved_raw.ctx, raw_malloc, raw_calloc, raw_realloc, raw_free};

	PyMem_SetAllocator(PYMEM_DOMAIN_RAW, &raw);
}
