/*
 * The binding: CPython's side of objcg.  The only part that knows Python.h.
 *
 *   py_hooks.c    allocator hooks of the domains that need the GIL; which cpu serves whom
 *   py_raw.c      those of the raw domain, which does not
 *   py_numpy.c    the data memory of NumPy's arrays
 *   py_native.c   whom native memory is charged to; whether it is seen
 *   py_contextvar.c how CPython's contexts are laid out
 *   py_context.c  which task the running code is; entering and leaving groups
 *   py_bound.c    callables that carry a membership
 *   py_group.c    GroupBase            py_task.c  TaskBase
 *   py_with.c     what `with group:` calls
 *   py_tree.c     the tree of Group objects
 *   py_limits.c   interrupting a task whose group is over a limit
 *   py_offenders.c the same on threads other than the main one
 *   py_interruptible.c   where that may be done
 *   py_reclaimer.c the thread that reclaims
 *   py_run.c      running a program as plain `python` would
 *   py_bench.c    timing the allocator beside the one before it
 *   py_fault.c    refusing charges, for tests
 *   py_outside.c  what a tool does to the region of another process
 *   py_module.c   the module
 */
#ifndef OBJCG_BINDING_H
#define OBJCG_BINDING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "check.h"
#include "kmem.h"
#include "memcg.h"
#include "native.h"

/* --- py_context.c: the current task of each thread ----------------------- */

/*
 * What this operating system thread last found out about itself.  Good while
 * the same thread state is current and its context_ver has not changed; `id`
 * tells apart two thread states that lived at one address, where context_ver
 * does not (see thread_cache_fast).
 *
 * Asking CPython for the current thread state costs as much as the rest of an
 * allocation, so the fast path does not ask: see thread_cache_fast().
 */
struct thread_cache {
	const PyThreadState *watched; /* ts, where that may be relied on; else never_current */
	PyThreadState *ts;	      /* NULL: nothing known */
	uint64_t id;
	uint64_t context_ver;
	struct task *task;
	uint64_t row; /* offset in a cpu of the task's current slabs: see charged_alloc() */
	struct cpu *cpu;
	uint32_t task_gen;
	int is_main; /* CPython's main thread: -1 not known yet */
	int pinned;  /* the task was chosen by membership_set()'s caller: do not look anew */
};

extern __thread struct thread_cache thread_cache __attribute__((tls_model("initial-exec")));
extern const PyThreadState never_current;
#if PY_VERSION_HEX >= 0x030D0000
#define current_thread_state() PyThreadState_GetUnchecked()
#else
#define current_thread_state() _PyThreadState_UncheckedGet()
#endif

/* A second interpreter was made, or thread states were seen swapped: nothing is known any more. */
extern _Atomic int several_interpreters;
void interpreters_are_several(void);

static inline int thread_cache_valid(const struct thread_cache *cache, const PyThreadState *ts)
{
	return ts && cache->ts == ts && cache->context_ver == ts->context_ver &&
	       cache->id == ts->id;
}

/*
 * Whether the cache holds for a call in the object or mem domain, without
 * asking which thread state is current.  That is still the one that was current
 * when the cache was filled, unless
 * - it was deleted, by this thread or another: its memory comes back through our
 *   raw hook, which clears its context_ver (thread_state_freed).  Memory of ours
 *   stays readable, so only thread states in it, and the main thread's, are
 *   watched; and no two that are watched ever have the same context_ver, wherever
 *   they lie: see thread_state_watch();
 * - this thread went to another interpreter: from the moment in which a second
 *   one is made, everyone asks (interpreters_are_several).
 */
static inline int thread_cache_fast(const struct thread_cache *cache)
{
	return cache->context_ver == cache->watched->context_ver;
}

/* Where the current slabs are for the objcg that the task has now. */
static inline void thread_cache_set_row(struct thread_cache *cache)
{
	cache->row = offsetof(struct cpu, heap) + offsetof(struct heap, current) +
		     slab_row(load_relaxed(&cache->task->objcg)) *
			     sizeof(((struct heap *)0)->current[0]);
}

static inline void thread_cache_forget(struct thread_cache *cache)
{
	cache->ts = NULL;
	cache->watched = &never_current;
}

/* A block of the raw domain, which may be a thread state, is about to be freed. */
void thread_state_freed(void *p);

/* Looks the current task up again. Allocates nothing, raises nothing. GIL held, or ts NULL. */
void thread_cache_refresh(struct thread_cache *cache, PyThreadState *ts);

/* Asks which thread state is current, and refreshes the cache if it must. */
void thread_cache_revalidate(struct thread_cache *cache);

/*
 * The cache, looked up anew: for whatever is not an allocation's fast path.  Code
 * that sets all variables of a context behind our back (asgiref does), or swaps
 * thread states of one interpreter, is noticed here at the latest; alloc_slow()
 * calls it too, so that what goes astray is one stock.
 */
struct thread_cache *thread_cache_now(void);

/* The cache, valid, for code that holds the GIL. */
static inline struct thread_cache *thread_cache_get(void)
{
	if (unlikely(!thread_cache_fast(&thread_cache)) ||
	    unlikely(load_relaxed(&several_interpreters)))
		thread_cache_revalidate(&thread_cache);
	return &thread_cache;
}

/* For code without the GIL: the task last seen, or the root task if that one is gone. */
struct task *thread_cache_task_without_gil(void);

/*
 * Membership: one entry into a group.  The private context variable names it;
 * every context that inherits it shares it; its core task lives exactly as long.
 */
typedef struct membership {
	PyObject_HEAD struct task *task;
	struct membership *previous; /* what was current at entry */
	const PyObject *context;     /* where; to compare with, it may be gone */
	uint32_t gid;		     /* the group it was entered by */
	uint32_t gen;
	uint32_t over; /* EXITED, LEFT_IN_A_COPY */
} Membership;

/*
 * Between the two root is charged for what this thread allocates. For code that
 * runs nothing of the program's.
 */
void charge_root_begin(void);
void charge_root_end(void);

int group_enter(struct mem_cgroup *memcg, uint32_t gen, PyObject *name);
int group_exit(uint32_t gid, uint32_t gen);

extern Membership *root_membership;

/* The membership current here; a borrowed reference that lasts until the next switch. */
Membership *membership_current(const struct thread_cache *cache);

/*
 * Makes it current in the present context; the cache has been looked up, and names
 * who pays. Returns 0, or -1 with an exception.
 */
int membership_set(struct thread_cache *cache, Membership *membership);

/* The same for one that was current before: it pays, and errors meant for others are taken back. */
int membership_go_back(struct thread_cache *cache, Membership *before);

/* The task of a value of the private variable; the root's if a program has put something else there. */
struct task *membership_task(PyObject *value);

int context_init(void);
int context_add_types(PyObject *module);
void context_after_fork_child(void);
PyObject *context_variable(void);

/* --- py_bound.c ---------------------------------------------------------- */

int bound_add_type(void);
PyObject *context_bind(PyObject *function, const char *how);

/* --- py_hooks.c ---------------------------------------------------------- */

extern struct cpu *gil_cpu; /* of the main interpreter's GIL */

int hooks_prepare(void);
/* Code of this range is refused nothing that it asks of PyMem_Realloc(). The GIL is held. */
void hooks_never_refuse(uintptr_t start, uintptr_t end);
void hooks_install(void);
int hooks_installed(void);
int need_enabled(void);
/* The object allocator that was there before. */
const PyMemAllocatorEx *hooks_saved_object(void);
struct cpu *cpu_of_thread_state(PyThreadState *ts);
/* Keeps all threads that do not need our GIL from allocating and freeing; we hold it. */
void others_stop(void);
void others_start(void);

/* For a block from before enable(): see there. */
#define OLDER_MAX ((size_t)64 << 20) /* both are there for a moment */
void *resize_older(const PyMemAllocatorEx *saved, void *p, void *q, size_t size);

/* Whether this thread holds the GIL. From any thread. */
bool hooks_with_gil(void);

/*
 * Data of NumPy's arrays; for any thread, with the GIL or without.  A block that
 * is passed in is ours (kmem_is_ours), and one of these made it.
 */
void *hooks_numpy_malloc(size_t size);
void *hooks_numpy_calloc(size_t size);
void *hooks_numpy_realloc(void *p, size_t size);
void hooks_numpy_free(void *p);

/* Makes the counters exact for a reader: nothing dying in stock, all remote frees taken in. */
void settle(void);

/* --- py_raw.c ------------------------------------------------------------ */

extern struct cpu *raw_cpu; /* under raw_lock(), for code without the GIL */
void raw_lock(void);
bool raw_trylock(void);
void raw_unlock(void);
void raw_lock_reset_after_fork(void);

/* Before raw_install(): remembers the allocator that is there. */
void raw_prepare(void);
void raw_install(void);

/*
 * The thread state of a thread that may not hold the GIL; NULL if it does not.
 * It holds it if the current thread state is this thread's own; before 3.12 the
 * current thread state is a global that belongs to whichever thread holds the
 * GIL, hence the comparison with the one registered for this thread.
 */
static inline PyThreadState *thread_state_with_gil(void)
{
	PyThreadState *ts = current_thread_state();

#if PY_VERSION_HEX < 0x030C0000
	if (ts && ts != PyGILState_GetThisThreadState())
		ts = NULL;
#endif
	return ts;
}

/* The current task of a thread that may not hold the GIL. */
struct task *raw_task(void);

/* For any domain, with the GIL or without; the blocks are ours. */
void *raw_alloc(enum domain domain, size_t size, bool zero);
void *raw_resize(enum domain domain, void *p, size_t size);
void raw_give_back(enum domain domain, void *p);

/*
 * Between (1) and (0) a block of the raw domain from before enable() stays nobody's
 * on this thread when it is resized: its user would free it as another domain's.
 */
void hooks_keep_older(int keep);

/* --- py_numpy.c ---------------------------------------------------------- */

extern PyMethodDef numpy_methods[];

/* --- py_native.c --------------------------------------------------------- */

/* Has native memory charged, if the preload library is there. */
void native_install(void);
/* The interpreter is about to end: thread states go, and ours does not tell us. */
void native_finalizing(void);
extern PyMethodDef native_methods[];

/* --- py_group.c, py_task.c ----------------------------------------------- */

typedef struct {
	PyObject_HEAD uint32_t gid;
	uint32_t gen;
	uint64_t uid;
	PyObject *name;
	PyObject *path;
	PyObject *parent;    /* or None */
	PyObject *children;  /* dict: the living ones by name */
	PyObject *callbacks; /* list, for limits.py */
} GroupBase;

/* Whether this is the main interpreter; else 0 with RuntimeError. */
int in_main_interpreter(void);

extern PyTypeObject GroupBase_Type;
extern PyTypeObject TaskBase_Type;

/* The group's record, or NULL with OSError(ENODEV). */
struct mem_cgroup *group_memcg(PyObject *group);
/* The same with objcg.GroupRemoved, for methods that Python code does not wrap. */
struct mem_cgroup *group_memcg_or_removed(PyObject *group);
/* Nothing of the group stays in stock. */
void drain_stocks_of(const struct mem_cgroup *memcg);
PyObject *raise_errno(int negative_errno);
/* As raise_errno(); -ENOSPC in words: why there is no record left in the region for `what`. */
void raise_no_record(int negative_errno, const char *what, enum region_section section);
/* The id of the group that a living task is in. */
uint32_t task_gid(struct task *task);
PyObject *task_handle(const struct task *task);
PyObject *set_task_type(PyObject *module, PyObject *type);

/* A living group's record for a gid from Python, or NULL with an exception. */
struct mem_cgroup *memcg_from_object(PyObject *gid);

/* --- py_with.c ----------------------------------------------------------- */

PyObject *group_enter_method(PyObject *group, PyObject *unused);
PyObject *group_exit_method(PyObject *group, PyObject *const *args, Py_ssize_t nargs);
int with_prepare(void);

/* --- py_tree.c ----------------------------------------------------------- */

PyObject *group_remove(PyObject *group, PyObject *force);
extern PyMethodDef tree_methods[];

/* --- py_greenlet.c ------------------------------------------------------- */

extern PyMethodDef greenlet_methods[];

/* --- py_limits.c --------------------------------------------------------- */

/*
 * Acts on what a charge met. From hooks: takes no lock of CPython's but the pending calls'.
 * `has_gil`: the caller has the GIL for certain, and may be made to wait a little.
 */
void limits_notice(const struct charge_result *result, int has_gil);
void limits_grant_reserve(struct mem_cgroup *memcg, int64_t bytes);
void limits_after_fork_child(void);
extern PyMethodDef limits_methods[];

/* --- py_offenders.c ------------------------------------------------------ */

int offenders_init(void);
int offenders_notice(struct mem_cgroup *memcg, int has_gil);
int offenders_is_handling(const PyThreadState *ts);
/* A pending MemoryLimitExceeded must not reach code of another context. */
void offenders_context_changed(PyThreadState *ts);
int offenders_is_entering(const PyThreadState *ts);
void offenders_task_moved(void);
extern _Atomic int offenders_armed;
void offenders_after_fork_child(void);
extern PyMethodDef offenders_methods[];

/* --- py_interruptible.c -------------------------------------------------- */

/* What frame_is_interruptible() says: of the program's, or a coroutine that was just entered. */
enum { FRAME_IS_NOT, FRAME_OF_PROGRAM, FRAME_ENTERED };

int frame_is_interruptible(PyFrameObject *frame);

/* --- py_reclaimer.c ------------------------------------------------------- */

/* Wakes the reclaimer, if it runs. From anywhere. */
void reclaimer_wake(void);
/* Starts it, for limits that another process has set. From hooks with the GIL. */
void reclaimer_start_from_hook(void);
int reclaimer_is_running(void);
int reclaimer_is_serving(void);
int reclaimer_is_this_thread(void);
void reclaimer_set_service(PyObject *service);
void reclaimer_after_fork_child(void);
/* Whether somebody waits for a group's last task to end. */
extern int reclaimer_watch_empty;
extern PyMethodDef reclaimer_methods[];

/* --- py_run.c ------------------------------------------------------------ */

extern PyMethodDef run_methods[];

/* --- py_exit.c ----------------------------------------------------------- */

extern PyMethodDef exit_methods[];

/* --- py_bench.c ---------------------------------------------------------- */

extern PyMethodDef bench_methods[];

/* --- py_bench_native.c --------------------------------------------------- */

extern PyMethodDef bench_native_methods[];

/* --- py_fault.c ---------------------------------------------------------- */

extern PyMethodDef fault_methods[];

/* --- py_outside.c -------------------------------------------------------- */

extern PyMethodDef outside_methods[];

#endif
