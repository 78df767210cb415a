/*
 * The allocator hooks.
 *
 * The object and mem domains are called with the GIL held, so all threads of a
 * GIL share one cpu (types.h), and nothing here needs a lock.  The raw domain
 * may be called without it: py_raw.c.
 *
 * Allocators of libraries (NumPy's: py_numpy.c) may be called with the GIL or without;
 * they look, and go the one way or the other.
 *
 * The hooks are installed once and never removed.  A block that is not ours,
 * because it is older than we are, goes to the allocator that was there before.
 * That allocator may call the raw domain for what it wants itself (pymalloc
 * does, above 512 bytes): such a block is charged once, by the raw hook, and
 * knows its domain.
 */
#include "binding.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

struct cpu *gil_cpu;

/*
 * gil_cpu, while there is one interpreter, and so any caller of the object and
 * mem domains holds that one's GIL.  Else no_cpu, in which the fast path finds
 * neither blocks nor stock, so that everyone looks which cpu is his.
 */
static _Atomic(struct cpu *) fast_cpu;
static struct stock no_stocks[NR_STOCKS];
static struct cpu no_cpu = {.stocks = no_stocks, .index = UINT16_MAX};

static PyMemAllocatorEx saved_mem, saved_object;
static int installed;

/* --- cpus of interpreters ------------------------------------------------ */

_Atomic int several_interpreters;

void interpreters_are_several(void)
{
	store_release(&several_interpreters, 1);
	store_release(&fast_cpu, &no_cpu);
}

/*
 * Since 3.12 an interpreter may have a GIL of its own, and then its threads
 * exclude only each other.  Each interpreter but the main one gets a cpu.  NULL: there
 * are more of them than we have room for; those share the raw cpu, under its mutex.
 */
#if PY_VERSION_HEX >= 0x030C0000
#define MAX_INTERPRETERS 256

static pthread_mutex_t interpreters_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct {
	PyInterpreterState *interpreter; /* an address taken again gets the same cpu */
	struct cpu *cpu;
} interpreters[MAX_INTERPRETERS];

struct cpu *cpu_of_thread_state(PyThreadState *ts)
{
	struct cpu *cpu = NULL;

	if (ts->interp == PyInterpreterState_Main())
		return gil_cpu;
	pthread_mutex_lock(&interpreters_mutex);
	for (int i = 0; i < MAX_INTERPRETERS && !cpu; i++) {
		if (!interpreters[i].interpreter) {
			interpreters[i].cpu = cpu_get(2);
			if (!interpreters[i].cpu)
				break;
			interpreters[i].interpreter = ts->interp;
		}
		if (interpreters[i].interpreter == ts->interp)
			cpu = interpreters[i].cpu;
	}
	pthread_mutex_unlock(&interpreters_mutex);
	return cpu;
}
#else
struct cpu *cpu_of_thread_state(PyThreadState *ts)
{
	(void)ts;
	return gil_cpu;
}
#endif

/*
 * Whoever holds the main interpreter's GIL and audits or forks must keep others out as well: they
 * take the lock of their cpu around all that they do with it.  Nobody else ever wants it.
 */
static pthread_mutex_t cpu_locks[CPU_MAX] = {[0 ... CPU_MAX - 1] = PTHREAD_MUTEX_INITIALIZER};

static inline bool has_lock(const struct cpu *cpu)
{
	return unlikely(cpu != gil_cpu) && cpu != &no_cpu;
}

static inline void cpu_lock(const struct cpu *cpu)
{
	if (has_lock(cpu))
		pthread_mutex_lock(&cpu_locks[cpu->index]);
}

static inline void cpu_unlock(const struct cpu *cpu)
{
	if (has_lock(cpu))
		pthread_mutex_unlock(&cpu_locks[cpu->index]);
}

/* Keeps interpreters with a GIL of their own from allocating and freeing. */
static void interpreters_stop(void)
{
#if PY_VERSION_HEX >= 0x030C0000
	pthread_mutex_lock(&interpreters_mutex);
	for (int i = 0; i < MAX_INTERPRETERS && interpreters[i].interpreter; i++)
		pthread_mutex_lock(&cpu_locks[interpreters[i].cpu->index]);
#endif
}

static void interpreters_start(void)
{
#if PY_VERSION_HEX >= 0x030C0000
	for (int i = 0; i < MAX_INTERPRETERS && interpreters[i].interpreter; i++)
		pthread_mutex_unlock(&cpu_locks[interpreters[i].cpu->index]);
	pthread_mutex_unlock(&interpreters_mutex);
#endif
}

/* In the order of the locks: those of native memory, raw's, interpreters'; the core's come after. */
void others_stop(void)
{
	native_freeze();
	raw_lock();
	interpreters_stop();
}

void others_start(void)
{
	interpreters_start();
	raw_unlock();
	native_thaw();
}

/* --- object and mem ------------------------------------------------------ */

/*
 * CPython cannot do without every block.  Where it unwinds a `with` or `finally`
 * far into a function it needs an int for the place (ceval.c, exception_unwind, since
 * 3.11), and without memory for that it tries again, for ever and with the GIL held.
 * A thread that has been refused so often in a row is taken to be there, and gets
 * its block, above the ceiling.  Nothing else needs so small ones so often; who hoards
 * those and goes on after each error gets one in REFUSED_IN_A_ROW.
 * (tests/integration/test_ceiling.py)
 */
#define REFUSED_IN_A_ROW 1000
#define INT_BYTES_MAX 32

static __thread int refused_in_a_row __attribute__((tls_model("initial-exec")));

static bool is_stuck(enum domain domain, size_t size)
{
	if (domain != DOMAIN_OBJECT || size > INT_BYTES_MAX ||
	    ++refused_in_a_row < REFUSED_IN_A_ROW)
		return false;
	refused_in_a_row = 0;
	return true;
}

static __attribute__((noinline)) void *alloc_slow(enum domain domain, size_t size, bool zero)
{
	struct thread_cache *cache = &thread_cache;
	struct charge_result result = {0, 0, 0};
	void *p;

	if (!cache->pinned)
		thread_cache_now();
	if (unlikely(!cache->cpu))
		return raw_alloc(domain, size, zero);
	cpu_lock(cache->cpu);
	p = kmem_alloc(cache->cpu, cache->task, domain, size, zero, &result);
	cpu_unlock(cache->cpu);
	if (unlikely(result.over || result.high || result.refused))
		limits_notice(&result, 1);
	if (likely(p)) {
		refused_in_a_row = 0;
	} else if (is_stuck(domain, size)) {
		charges_forced++;
		cpu_lock(cache->cpu);
		p = kmem_alloc(cache->cpu, cache->task, domain, size, zero, &result);
		cpu_unlock(cache->cpu);
		charges_forced--;
	}
	return p;
}

/* Where there are several interpreters: the fast paths of whose memory it is. */
static __attribute__((noinline)) void *alloc_of_several(enum domain domain, size_t size, bool zero)
{
	struct thread_cache *cache = &thread_cache;
	struct cpu *cpu;
	void *p = NULL;

	thread_cache_revalidate(cache);
	cpu = cache->cpu ? cache->cpu : &no_cpu;
	cpu_lock(cpu);
	if (size - 1 < SLAB_SMALL_MAX) {
		p = kmem_alloc_fast(cpu, cache->task, domain, size);
		if (!p)
			p = charged_alloc_next(cpu, load_relaxed(&cache->task->objcg), domain,
					       size);
	} else if (size - 1 < SLAB_BLOCK_MAX) {
		p = kmem_alloc_medium_fast(cpu, cache->task, domain, size);
	}
	cpu_unlock(cpu);
	if (!p)
		return alloc_slow(domain, size, zero);
	return zero ? memset(p, 0, size) : p;
}

/*
 * The ways to a block, from the shortest to the longest, each called last by the
 * one before it and not in its middle: then no register has to be saved for it.
 * So are those of hook_free().
 */
static __attribute__((noinline)) void *alloc_next(enum domain domain, size_t size, bool zero)
{
	struct thread_cache *cache = &thread_cache;
	struct cpu *cpu = load_relaxed(&fast_cpu);
	void *p = NULL;

	thread_cache_set_row(cache); /* in case the task was moved */
	if (unlikely(load_relaxed(&several_interpreters)))
		return alloc_of_several(domain, size, zero);
	if (size - 1 < SLAB_SMALL_MAX)
		p = charged_alloc_next(cpu, load_relaxed(&cache->task->objcg), domain, size);
	else if (size - 1 < SLAB_BLOCK_MAX)
		p = kmem_alloc_medium_fast(cpu, cache->task, domain, size);
	if (unlikely(!p))
		return alloc_slow(domain, size, zero);
	return zero ? memset(p, 0, size) : p;
}

static inline struct slab *const *current_slabs(void)
{
	return (struct slab *const *)((char *)load_relaxed(&fast_cpu) + thread_cache.row);
}

static __attribute__((noinline)) void *alloc_mixed(enum domain domain, size_t size, bool zero)
{
	void *p = charged_alloc_mixed(load_relaxed(&fast_cpu),
				      load_relaxed(&thread_cache.task->objcg), domain, size);

	if (unlikely(!p))
		return alloc_next(domain, size, zero);
	return zero ? memset(p, 0, size) : p;
}

/* With the cache valid. */
static inline void *alloc_cached(enum domain domain, size_t size, bool zero)
{
	void *p;

	if (unlikely(size - 1 >= SLAB_SMALL_MAX))
		return alloc_next(domain, size, zero);
	p = charged_alloc(current_slabs(), load_relaxed(&thread_cache.task->objcg), domain, size);
	if (unlikely(!p))
		return alloc_mixed(domain, size, zero);
	return zero ? memset(p, 0, size) : p;
}

static __attribute__((noinline)) void *alloc_revalidated(enum domain domain, size_t size, bool zero)
{
	thread_cache_revalidate(&thread_cache);
	return alloc_cached(domain, size, zero);
}

static inline void *hook_alloc(enum domain domain, size_t size, bool zero)
{
	if (unlikely(!thread_cache_fast(&thread_cache)))
		return alloc_revalidated(domain, size, zero);
	return alloc_cached(domain, size, zero);
}

/* A free need not know the task; and its cpu only changes with the interpreter. */
static struct cpu *cpu_for_free(void)
{
	struct thread_cache *cache = &thread_cache;

	if (unlikely(!cache->cpu) || unlikely(load_relaxed(&several_interpreters)))
		thread_cache_revalidate(cache);
	return cache->cpu;
}

static void free_ours(struct cpu *cpu, enum domain domain, void *p)
{
	cpu_lock(cpu);
	if (!in_slab_range(p) || !kmem_free_fast(cpu, domain, p))
		kmem_free(cpu, domain, p);
	cpu_unlock(cpu);
}

static __attribute__((noinline)) void free_slow(enum domain domain, const PyMemAllocatorEx *saved,
						void *p)
{
	struct cpu *cpu;

	if (!p)
		return;
	cpu = cpu_for_free();
	if (!kmem_is_ours(p))
		saved->free(saved->ctx, p);
	else if (unlikely(!cpu))
		raw_give_back(domain, p);
	else
		free_ours(cpu, domain, p);
}

static __attribute__((noinline)) void free_other(enum domain domain, const PyMemAllocatorEx *saved,
						 void *p)
{
	if (unlikely(!charged_free_other(load_relaxed(&fast_cpu), domain, p)))
		free_slow(domain, saved, p);
}

static inline void hook_free(enum domain domain, const PyMemAllocatorEx *saved, void *p)
{
	if (unlikely(!in_slab_range(p)))
		free_slow(domain, saved, p);
	else if (unlikely(!charged_free(load_relaxed(&fast_cpu), domain, p)))
		free_other(domain, saved, p);
}

/*
 * A block from before enable() that is resized becomes one of ours: `q`, which the
 * task has paid for.  Without that a list that is older than we are could grow for
 * ever at nobody's expense.  How large the old block is only its allocator knows,
 * so that resizes it first.  Where there is no `q`, since a limit refused it, the
 * block may be about to shrink, which must not fail: then it stays nobody's.
 */
void *resize_older(const PyMemAllocatorEx *saved, void *p, void *q, size_t size)
{
	native_bypass_begin();
	p = saved->realloc(saved->ctx, p, size);
	if (p && q) {
		memcpy(q, p, size);
		saved->free(saved->ctx, p);
		p = q;
	}
	native_bypass_end();
	return p;
}

static void *realloc_older(enum domain domain, const PyMemAllocatorEx *saved, void *p, size_t size)
{
	void *q = size <= OLDER_MAX ? hook_alloc(domain, size, false) : NULL;

	p = resize_older(saved, p, q, size);
	if (unlikely(q && p != q))
		hook_free(domain, saved, q);
	return p;
}

static void *hook_realloc(enum domain domain, const PyMemAllocatorEx *saved, void *p, size_t size)
{
	struct charge_result result = {0, 0, 0};
	struct thread_cache *cache;
	void *q;

	if (!p)
		return hook_alloc(domain, size, false);
	if (likely(in_slab_range(p))) {
		size_t copied;

		if (kmem_fits_in_place(p, size))
			return p;
		copied = kmem_outgrown(p, domain, size);
		if (likely(copied)) {
			q = hook_alloc(domain, size, false);
			if (likely(q)) {
				memcpy(q, p, copied);
				hook_free(domain, saved, p);
			}
			return q;
		}
	}
	if (!kmem_is_ours(p))
		return realloc_older(domain, saved, p, size);
	cache = thread_cache_get();
	if (unlikely(!cache->cpu))
		return raw_resize(domain, p, size);
	cpu_lock(cache->cpu);
	q = kmem_realloc(cache->cpu, cache->task, domain, p, size, &result);
	cpu_unlock(cache->cpu);
	if (unlikely(result.over || result.high || result.refused))
		limits_notice(&result, 1);
	return q;
}

static inline void *hook_calloc(enum domain domain, size_t nelem, size_t elsize)
{
	size_t size;

	if (__builtin_mul_overflow(nelem, elsize, &size))
		return NULL;
	return hook_alloc(domain, size, true);
}

/* ctx is what the allocator before us had: should a thread read half of the old and half of the
 * new while they are exchanged, either is right. */
#define DEFINE_HOOKS(name, domain)                                                                 \
	static void *name##_malloc(void *ctx, size_t size)                                         \
	{                                                                                          \
		(void)ctx;                                                                         \
		return hook_alloc(domain, size, false);                                            \
	}                                                                                          \
	static void *name##_calloc(void *ctx, size_t nelem, size_t elsize)                         \
	{                                                                                          \
		(void)ctx;                                                                         \
		return hook_calloc(domain, nelem, elsize);                                         \
	}                                                                                          \
	static void *name##_realloc(void *ctx, void *p, size_t size)                               \
	{                                                                                          \
		(void)ctx;                                                                         \
		return hook_realloc(domain, &saved_##name, p, size);                               \
	}                                                                                          \
	static void name##_free(void *ctx, void *p)                                                \
	{                                                                                          \
		(void)ctx;                                                                         \
		hook_free(domain, &saved_##name, p);                                               \
	}

DEFINE_HOOKS(object, DOMAIN_OBJECT)
DEFINE_HOOKS(mem, DOMAIN_MEM)

/*
 * What is asked for by code of [refuse_never, + its size), see py_greenlet.c.  It takes the
 * place of mem_realloc() when there is such code, so that nobody else pays for it.
 */
static uintptr_t refuse_never;
static uintptr_t refuse_never_size;

static void *mem_realloc_by_caller(void *ctx, void *p, size_t size)
{
	uintptr_t caller = (uintptr_t)__builtin_return_address(0);
	void *q = mem_realloc(ctx, p, size);

	if (unlikely(!q) && caller - refuse_never < refuse_never_size) {
		charges_forced++;
		q = mem_realloc(ctx, p, size);
		charges_forced--;
	}
	return q;
}

void hooks_never_refuse(uintptr_t start, uintptr_t end)
{
	PyMemAllocatorEx mem;

	refuse_never = start;
	refuse_never_size = end - start;
	PyMem_GetAllocator(PYMEM_DOMAIN_MEM, &mem);
	if (mem.realloc != mem_realloc)
		return; /* tracemalloc is before us */
	mem.realloc = mem_realloc_by_caller;
	PyMem_SetAllocator(PYMEM_DOMAIN_MEM, &mem);
}

/* --- allocators of libraries --------------------------------------------- */

/*
 * A library's allocator is called as the library likes.  With the GIL it is as
 * quick as an object's; without, it is like the raw domain.  Asking costs ten
 * instructions, and no promise of somebody else's can break our lists.
 */
bool hooks_with_gil(void)
{
	return thread_state_with_gil() != NULL;
}

static inline void *library_alloc(enum domain domain, size_t size, bool zero)
{
	void *p;

	if (unlikely(!thread_state_with_gil()))
		return raw_alloc(domain, size, zero);
	/* Of arrays more are medium blocks than of objects: straight to those. */
	if (size - 1 - SLAB_SMALL_MAX < SLAB_BLOCK_MAX - SLAB_SMALL_MAX &&
	    likely(thread_cache_fast(&thread_cache))) {
		p = kmem_alloc_medium_fast(load_relaxed(&fast_cpu), thread_cache.task, domain,
					   size);
		if (likely(p))
			return zero ? memset(p, 0, size) : p;
	}
	return hook_alloc(domain, size, zero);
}

static inline void *library_realloc(enum domain domain, void *p, size_t size)
{
	if (unlikely(!thread_state_with_gil()))
		return raw_resize(domain, p, size);
	/* Of a block that is ours nothing goes to the object allocator of before. */
	return hook_realloc(domain, &saved_object, p, size);
}

static __attribute__((noinline)) void library_free_slow(enum domain domain, void *p)
{
	struct cpu *cpu = cpu_for_free();

	if (unlikely(!cpu))
		raw_give_back(domain, p);
	else
		free_ours(cpu, domain, p);
}

static __attribute__((noinline)) void library_free_other(enum domain domain, void *p)
{
	if (unlikely(!in_slab_range(p)) ||
	    unlikely(!charged_free_other(load_relaxed(&fast_cpu), domain, p)))
		library_free_slow(domain, p);
}

static inline void library_free(enum domain domain, void *p)
{
	if (unlikely(!thread_state_with_gil()))
		raw_give_back(domain, p);
	else if (unlikely(!in_slab_range(p)) ||
		 unlikely(!charged_free(load_relaxed(&fast_cpu), domain, p)))
		library_free_other(domain, p);
}

void *hooks_numpy_malloc(size_t size)
{
	return library_alloc(DOMAIN_NUMPY, size, false);
}

void *hooks_numpy_calloc(size_t size)
{
	return library_alloc(DOMAIN_NUMPY, size, true);
}

void *hooks_numpy_realloc(void *p, size_t size)
{
	return library_realloc(DOMAIN_NUMPY, p, size);
}

void hooks_numpy_free(void *p)
{
	library_free(DOMAIN_NUMPY, p);
}

/* A charge is near a limit: what the raw cpu and the native ones have in stock may make room. */
static void drain_other_stocks(const struct mem_cgroup *root)
{
	native_drain_full(root);
	if (!raw_trylock())
		return; /* in use; perhaps by us */
	stock_drain_subtree(raw_cpu, root);
	raw_unlock();
}

/* --- installation -------------------------------------------------------- */

void settle(void)
{
	native_drain_dying();
	stock_drain_dying(gil_cpu);
	heap_collect(gil_cpu);
	heap_trim(gil_cpu);
	raw_lock();
	stock_drain_dying(raw_cpu);
	heap_collect(raw_cpu);
	heap_trim(raw_cpu);
	raw_unlock();
	tree_lock();
	task_serve_requests_locked();
	objcg_reap();
	tree_unlock();
}

static void fork_prepare(void)
{
	others_stop();
	kmem_fork_prepare();
}

static void fork_parent(void)
{
	kmem_fork_parent();
	others_start();
}

static void fork_child(void)
{
	kmem_fork_child();
	raw_lock_reset_after_fork();
#if PY_VERSION_HEX >= 0x030C0000
	pthread_mutex_init(&interpreters_mutex, NULL);
	for (int i = 0; i < MAX_INTERPRETERS && interpreters[i].interpreter; i++)
		pthread_mutex_init(&cpu_locks[interpreters[i].cpu->index], NULL);
#endif
	native_fork_child();
	limits_after_fork_child();
	offenders_after_fork_child();
	reclaimer_after_fork_child();
}

static const struct fork_handlers fork_handlers = {fork_prepare, fork_parent, fork_child};

int hooks_prepare(void)
{
	gil_cpu = cpu_get(0);
	raw_cpu = cpu_get(1);
	if (!gil_cpu || !raw_cpu)
		return -ENOMEM;
	heap_init(&no_cpu.heap);
	store_relaxed(&fast_cpu, gil_cpu);
	stock_drain_others = drain_other_stocks;
	return native_at_fork(&fork_handlers);
}

void hooks_install(void)
{
	PyMemAllocatorEx mem = {NULL, mem_malloc, mem_calloc, mem_realloc, mem_free};
	PyMemAllocatorEx object = {NULL, object_malloc, object_calloc, object_realloc, object_free};

	raw_prepare();
	PyMem_GetAllocator(PYMEM_DOMAIN_MEM, &saved_mem);
	PyMem_GetAllocator(PYMEM_DOMAIN_OBJ, &saved_object);
	mem.ctx = saved_mem.ctx;
	object.ctx = saved_object.ctx;
	installed = 1;
	if (PyInterpreterState_Next(PyInterpreterState_Head()))
		interpreters_are_several();
	raw_install();
	PyMem_SetAllocator(PYMEM_DOMAIN_MEM, &mem);
	PyMem_SetAllocator(PYMEM_DOMAIN_OBJ, &object);
}

const PyMemAllocatorEx *hooks_saved_object(void)
{
	return &saved_object;
}

/* Returns 0 with an error set where there is no region to look at. */
int need_enabled(void)
{
	if (hooks_installed())
		return 1;
	PyErr_SetString(PyExc_RuntimeError, "objcg is not enabled: call objcg.enable() first");
	return 0;
}

int hooks_installed(void)
{
	return installed;
}
