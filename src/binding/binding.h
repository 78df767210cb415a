/*
 * The binding: CPython's side of objcg.  The only part that knows Python.h.
 *
 *   py_hooks.c    allocator hooks of the three domains; which cpu serves whom
 *   py_context.c  which task the running code is; entering and leaving groups
 *   py_group.c    GroupBase            py_task.c  TaskBase
 *   py_limits.c   what happens when a limit is crossed
 *   py_run.c      running a program as plain `python` would
 *   py_module.c   the module
 */
#ifndef OBJCG_BINDING_H
#define OBJCG_BINDING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "check.h"
#include "kmem.h"
#include "memcg.h"

/* --- py_context.c: the current task of each thread ----------------------- */

/*
 * What this operating system thread last found out about itself.  Good while
 * the same thread state is current and its context_ver has not changed; `id`
 * tells apart two thread states that lived at one address.
 */
struct thread_cache {
	PyThreadState *ts; /* NO_THREAD_STATE: nothing known */
	uint64_t id;
	uint64_t context_ver;
	struct task *task;
	uint32_t task_gen;
	struct cpu *cpu;
	int is_main; /* CPython's main thread: -1 not known yet */
};

#define NO_THREAD_STATE ((PyThreadState *)1)

extern __thread struct thread_cache thread_cache __attribute__((tls_model("initial-exec")));

#if PY_VERSION_HEX >= 0x030D0000
#define current_thread_state() PyThreadState_GetUnchecked()
#else
#define current_thread_state() _PyThreadState_UncheckedGet()
#endif

static inline int thread_cache_valid(const struct thread_cache *cache, const PyThreadState *ts)
{
	return cache->ts == ts && cache->context_ver == ts->context_ver && cache->id == ts->id;
}

/* Looks the current task up again. Allocates nothing, raises nothing. GIL held, or ts NULL. */
void thread_cache_refresh(struct thread_cache *cache, PyThreadState *ts);

/* The cache, valid, for code that holds the GIL. */
struct thread_cache *thread_cache_get(void);

/* For code without the GIL: the task last seen, or the root task if that one is gone. */
struct task *thread_cache_task_without_gil(void);

/*
 * Membership: what the private context variable holds.  One per entry; every
 * context that inherits it shares it; its core task lives exactly as long.
 */
typedef struct membership {
	PyObject_HEAD
	struct task *task;
	struct membership *previous; /* what was current at entry */
	uint32_t gid;		     /* the group it was entered by */
	uint32_t gen;
	int exited;
} Membership;

/* The membership current here; a borrowed reference that lasts until the next switch. */
Membership *membership_current(void);

/* Makes it current in the present context. Returns 0, or -1 with an exception. */
int membership_set(Membership *membership);

int group_enter(struct mem_cgroup *memcg, uint32_t gen, PyObject *name);
int group_exit(uint32_t gid, uint32_t gen);

int context_init(void);
int context_add_types(PyObject *module);
void context_after_fork_child(void);
PyObject *context_bind(PyObject *function, const char *how);
PyObject *context_variable(void);

/* --- py_hooks.c ---------------------------------------------------------- */

extern struct cpu *gil_cpu; /* of the main interpreter's GIL */
extern struct cpu *raw_cpu; /* under raw_lock(), for code without the GIL */

void raw_lock(void);
void raw_unlock(void);

int hooks_prepare(void);
void hooks_install(void);
int hooks_installed(void);
struct cpu *cpu_of_thread_state(PyThreadState *ts);

/* Makes the counters exact for a reader: nothing dying in stock, all remote frees taken in. */
void settle(void);

/* --- py_group.c, py_task.c ----------------------------------------------- */

typedef struct {
	PyObject_HEAD
	uint32_t gid;
	uint32_t gen;
	uint64_t uid;
} GroupBase;

extern PyTypeObject GroupBase_Type;
extern PyTypeObject TaskBase_Type;

/* The group's record, or NULL with OSError(ENODEV). */
struct mem_cgroup *group_memcg(PyObject *group);
PyObject *raise_errno(int negative_errno);
PyObject *task_handle(const struct task *task);
PyObject *set_task_type(PyObject *module, PyObject *type);

/* A living group's record for a gid from Python, or NULL with an exception. */
struct mem_cgroup *memcg_from_object(PyObject *gid);

/* --- py_limits.c --------------------------------------------------------- */

/* Acts on what a charge met. From hooks: takes no lock of CPython's but the pending calls'. */
void limits_notice(const struct charge_result *result);
/* A pending MemoryLimitExceeded must not reach code of another context. */
void limits_context_changed(PyThreadState *ts);
extern _Atomic int limits_armed;
void limits_wake(void);
/* Whether somebody waits for a group's last task to end. */
extern int limits_watch_empty;
void limits_after_fork_child(void);
extern PyMethodDef limits_methods[];

/* --- py_run.c ------------------------------------------------------------ */

extern PyMethodDef run_methods[];

#endif
