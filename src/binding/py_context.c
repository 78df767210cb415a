/*
 * Which task the running code is.
 *
 * Membership is the value of one private ContextVar, so that everything that
 * copies or switches contexts (asyncio, anyio, trio, greenlets, to_thread)
 * carries it without knowing.  Looking a variable up at each allocation would
 * be slow; a thread caches the answer until its thread state's context_ver,
 * which CPython changes at each switch of contexts, has changed.
 *
 * What does not work, and what we do about it:
 * - context_ver does not change when a variable is set.  Whoever sets ours
 *   (membership_set) writes the cache too.  Libraries that set all variables of
 *   a context set it behind our back: whatever is not an allocation's fast path
 *   looks anew (thread_cache_now), and a value that is not ours is no group.
 * - PyContextVar_Get while CPython *resets* that variable fills a cache in the
 *   variable that outlives the reset.  We never reset: leaving a group sets the
 *   membership that was current before, at the outermost the root's.
 * - A thread state may be freed and another made at its address with the same
 *   small context_ver; its id differs.
 */
#include "binding.h"

#include <errno.h>

__thread struct thread_cache thread_cache __attribute__((tls_model("initial-exec"))) = {
	.watched = &never_current,
	.context_ver = 1, /* never_current has 0 */
	.is_main = -1,
};

const PyThreadState never_current;

static PyObject *variable;
static Membership *root_membership;
static PyInterpreterState *main_interpreter;
static unsigned long main_thread;

/*
 * CPython counts context_ver up from 1 in each thread state, and only ever
 * compares it for equality with what a variable has cached for that state's id.
 * So each state may count in a range of its own, and a value then says both which
 * state it is of and which context is current.  (2^36 switches of contexts to
 * a state, an hour of nothing else; and 2^28 states.)
 */
#define CONTEXT_VER_RANGE ((uint64_t)1 << 36)

static _Atomic uint64_t context_ver_ranges;
/* Charged bytes of a thread state in our memory; 0 while none was seen. */
static _Atomic size_t thread_state_bytes;

static void thread_state_watch(PyThreadState *ts)
{
	ts->context_ver += CONTEXT_VER_RANGE * (fetch_add_relaxed(&context_ver_ranges, 1) + 1);
	if (in_slab_range(ts)) {
		size_t bytes;

		kmem_owner(ts, &bytes);
		store_relaxed(&thread_state_bytes, bytes);
	}
}

/*
 * Whoever has this state cached must not take it for the current one any more,
 * however long its memory stays as it is.  Any block of that size may be written
 * to, since it is about to be freed.
 */
void thread_state_freed(void *p)
{
	size_t bytes;

	if (unlikely(p == thread_cache.ts))
		thread_cache_forget(&thread_cache);
	if (!in_slab_range(p))
		return;
	kmem_owner(p, &bytes);
	if (bytes == load_relaxed(&thread_state_bytes))
		((PyThreadState *)p)->context_ver = 0;
}

static void cache_task(struct thread_cache *cache, struct task *task)
{
	cache->task = task;
	cache->task_gen = load_relaxed(&task->gen);
}

/*
 * Called from hooks, in the middle of anything.  PyContextVar_Get neither
 * allocates nor runs code of the program for a variable that is in the current
 * context or not: contexts are compared by identity and our variable has no
 * default.  The value outlives our reference to it: the context holds another.
 */
void thread_cache_refresh(struct thread_cache *cache, PyThreadState *ts)
{
	PyObject *value = NULL;

	thread_cache_forget(cache);
	if (!ts || !variable) {
		cache->cpu = gil_cpu;
		cache->context_ver = 1;
		cache_task(cache, &region.tasks[TASK_ROOT]);
		return;
	}
	cache->cpu = cpu_of_thread_state(ts);
	if (ts->interp != main_interpreter) {
		/* A variable of the main interpreter must not be touched under another GIL. */
		cache_task(cache, &region.tasks[TASK_ROOT]);
		cache->is_main = 0;
	} else {
		cache->is_main = PyThread_get_thread_ident() == main_thread;
		if (ts->context && PyContextVar_Get(variable, NULL, &value) < 0)
			PyErr_Clear();
		cache_task(cache, membership_task(value));
		Py_XDECREF(value);
		if (unlikely(load_relaxed(&limits_armed)))
			limits_context_changed(ts);
	}
	if (unlikely(ts->context_ver < CONTEXT_VER_RANGE))
		thread_state_watch(ts);
	cache->ts = ts;
	cache->id = ts->id;
	cache->context_ver = ts->context_ver;
	if (cache->is_main || in_slab_range(ts))
		cache->watched = ts;
}

struct thread_cache *thread_cache_now(void)
{
	struct thread_cache *cache = &thread_cache;
	PyThreadState *ts = current_thread_state();

	/* Swapped on this thread: from now on everyone asks which one is current. */
	if (cache->ts && cache->ts != ts)
		interpreters_are_several();
	thread_cache_refresh(cache, ts);
	return cache;
}

void thread_cache_revalidate(struct thread_cache *cache)
{
	PyThreadState *ts = current_thread_state();

	if (!thread_cache_valid(cache, ts))
		thread_cache_refresh(cache, ts);
}

/*
 * The thread's context cannot change while it runs without the GIL, but it may
 * have changed since its last allocation, and the task seen then may be gone
 * and its record another's.  task_free() changes gen before the record can be
 * taken again, so an equal gen means that the reference, which the caller
 * loads after this, was still that task's or became the root's.  What remains
 * is a record that is freed and taken again between this look and the load:
 * one block is then charged to the record's new task.
 */
struct task *thread_cache_task_without_gil(void)
{
	struct thread_cache *cache = &thread_cache;

	if (!cache->task || load_acquire(&cache->task->gen) != cache->task_gen)
		return &region.tasks[TASK_ROOT];
	return cache->task;
}

/* --- memberships --------------------------------------------------------- */

static void membership_dealloc(Membership *self)
{
	struct task *task = self->task;
	Membership *previous = self->previous;

	if (task && task != &region.tasks[TASK_ROOT]) {
		struct mem_cgroup *memcg = memcg_from_id(load_relaxed(&task->memcg));

		task_free(task);
		if (unlikely(reclaimer_watch_empty) && load_relaxed(&memcg->nr_tasks) == 0 &&
		    memcg_flag(memcg, FLAG_EMPTY))
			reclaimer_wake();
	}
	PyObject_Free(self);
	/* One after the other: a long chain must not become deep recursion. */
	while (previous) {
		Membership *next = NULL;

		if (Py_REFCNT(previous) == 1) {
			next = previous->previous;
			previous->previous = NULL;
		}
		Py_DECREF(previous);
		previous = next;
	}
}

static PyTypeObject Membership_Type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "objcg._core.Membership",
	.tp_doc = "What the private context variable holds: one entry of a group.",
	.tp_basicsize = sizeof(Membership),
	.tp_flags = Py_TPFLAGS_DEFAULT,
	.tp_dealloc = (destructor)membership_dealloc,
};

/* What a value of the variable stands for: root's, if a program has put something else there. */
static Membership *as_membership(PyObject *value)
{
	if (!value || Py_TYPE(value) != &Membership_Type)
		return root_membership;
	return (Membership *)value;
}

struct task *membership_task(PyObject *value)
{
	return as_membership(value)->task;
}

static Membership *membership_new(struct task *task, Membership *previous)
{
	Membership *self = PyObject_New(Membership, &Membership_Type);

	if (!self)
		return NULL;
	self->task = task;
	self->previous = previous;
	Py_XINCREF(previous);
	self->gid = 0;
	self->gen = 0;
	self->exited = 0;
	return self;
}

Membership *membership_current(void)
{
	PyObject *value = NULL;

	if (PyContextVar_Get(variable, NULL, &value) < 0)
		PyErr_Clear();
	Py_XDECREF(value); /* the context holds another */
	return as_membership(value);
}

/*
 * The allocations that PyContextVar_Set makes stay with the context, so the
 * caller has the cache name the task that should pay for them: the outer one,
 * both on entering and on leaving.
 */
int membership_set(Membership *membership)
{
	struct thread_cache *cache = &thread_cache;
	PyObject *token;

	cache->pinned++;
	token = PyContextVar_Set(variable, (PyObject *)membership);
	cache->pinned--;
	if (!token)
		return -1;
	Py_DECREF(token);
	cache = thread_cache_get();
	cache_task(cache, membership->task);
	return 0;
}

int group_enter(struct mem_cgroup *memcg, uint32_t gen, PyObject *name)
{
	Membership *self;
	struct task *task;
	int err = 0;
	int failed;

	thread_cache_now();
	task = task_alloc(memcg, &err);
	if (!task) {
		raise_errno(err);
		return -1;
	}
	self = membership_new(task, membership_current());
	if (!self) {
		task_free(task);
		return -1;
	}
	self->gid = memcg_id(memcg);
	self->gen = gen;
	if (name) {
		Py_ssize_t len;
		const char *text = PyUnicode_AsUTF8AndSize(name, &len);

		if (text)
			task_set_name(task, text, (size_t)len);
		else
			PyErr_Clear(); /* surrogates: it goes without a name */
	}
	failed = membership_set(self);
	Py_DECREF(self);
	return failed;
}

/*
 * Leaves the innermost open entry of this group.  Usually that is the current
 * membership.  If it is not (`with` blocks of generators need not end in the
 * order in which they began) it is only marked, and skipped when the one that
 * is current ends.
 */
int group_exit(uint32_t gid, uint32_t gen)
{
	Membership *current = membership_current();
	Membership *self = current;
	Membership *target;
	int failed;

	while (self && (self->exited || self->gid != gid || self->gen != gen))
		self = self->previous;
	if (!self) {
		PyErr_SetString(PyExc_RuntimeError,
				"this context has not entered this group, or has left it already; "
				"`with group:` must end in the context in which it began");
		return -1;
	}
	if (self != current) {
		self->exited = 1;
		return 0;
	}
	target = self->previous;
	while (target && target->exited)
		target = target->previous;
	if (!target)
		target = root_membership;
	Py_INCREF(target);
	cache_task(thread_cache_now(), target->task);
	if (unlikely(load_relaxed(&limits_armed)))
		limits_context_changed(PyThreadState_Get());
	Py_INCREF(self);
	failed = membership_set(target);
	if (!failed) {
		/*
		 * This entry is over, here and for whoever has inherited it.  They go on
		 * in the group, but it keeps nothing alive that was current before.
		 */
		self->gid = 0;
		Py_CLEAR(self->previous);
	}
	Py_DECREF(self);
	Py_DECREF(target);
	return failed;
}

/* --- callables that carry a membership ----------------------------------- */

enum binding_kind { BIND_THREAD, BIND_JOB };

typedef struct {
	PyObject_HEAD PyObject *function;
	Membership *membership;
	enum binding_kind kind;
} Bound;

static int bound_traverse(Bound *self, visitproc visit, void *arg)
{
	Py_VISIT(self->function);
	return 0;
}

static int bound_clear(Bound *self)
{
	Py_CLEAR(self->function);
	Py_CLEAR(self->membership);
	return 0;
}

static void bound_dealloc(Bound *self)
{
	PyObject_GC_UnTrack(self);
	bound_clear(self);
	PyObject_GC_Del(self);
}

/* What _thread does with an error of a thread's function; it would name us, not the function. */
static void report_thread_error(PyObject *function)
{
	if (PyErr_ExceptionMatches(PyExc_SystemExit)) {
		PyErr_Clear();
		return;
	}
#if PY_VERSION_HEX >= 0x030D0000
	PyErr_FormatUnraisable("Exception ignored in thread started by %R", function);
#else
	_PyErr_WriteUnraisableMsg("in thread started by", function);
#endif
}

static PyObject *bound_call(Bound *self, PyObject *args, PyObject *kwargs)
{
	Membership *before;
	PyObject *result;

	if (!self->membership || !self->function) {
		PyErr_SetString(PyExc_RuntimeError, "a thread's start can be called once only");
		return NULL;
	}
	if (self->kind == BIND_THREAD) {
		thread_cache_now();
		if (membership_set(self->membership) < 0)
			return NULL;
		Py_CLEAR(self->membership);
		result = PyObject_Call(self->function, args, kwargs);
		if (!result) {
			report_thread_error(self->function);
			Py_RETURN_NONE;
		}
		return result;
	}
	thread_cache_now();
	before = membership_current();
	Py_INCREF(before);
	if (membership_set(self->membership) < 0) {
		Py_DECREF(before);
		return NULL;
	}
	result = PyObject_Call(self->function, args, kwargs);
	{
		PyObject *type, *value, *traceback;
		int failed;

		PyErr_Fetch(&type, &value, &traceback);
		cache_task(thread_cache_get(), before->task);
		if (unlikely(load_relaxed(&limits_armed)))
			limits_context_changed(PyThreadState_Get());
		failed = membership_set(before);
		Py_DECREF(before);
		if (failed) {
			Py_XDECREF(type);
			Py_XDECREF(value);
			Py_XDECREF(traceback);
			Py_CLEAR(result);
			return NULL;
		}
		PyErr_Restore(type, value, traceback);
	}
	return result;
}

/* Looks like the function it carries. */
static PyObject *bound_getattr(Bound *self, PyObject *name)
{
	if (!self->function)
		return PyObject_GenericGetAttr((PyObject *)self, name);
	return PyObject_GetAttr(self->function, name);
}

static PyObject *bound_repr(Bound *self)
{
	return PyObject_Repr(self->function ? self->function : Py_None);
}

static PyTypeObject Bound_Type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "objcg._core.Bound",
	.tp_doc = "A callable that runs in the group of whoever made it.",
	.tp_basicsize = sizeof(Bound),
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
	.tp_dealloc = (destructor)bound_dealloc,
	.tp_traverse = (traverseproc)bound_traverse,
	.tp_clear = (inquiry)bound_clear,
	.tp_call = (ternaryfunc)bound_call,
	.tp_getattro = (getattrofunc)bound_getattr,
	.tp_repr = (reprfunc)bound_repr,
};

PyObject *context_bind(PyObject *function, const char *how)
{
	Bound *self;

	if (!PyCallable_Check(function)) {
		PyErr_Format(PyExc_TypeError, "a callable is needed, not %R", function);
		return NULL;
	}
	self = PyObject_GC_New(Bound, &Bound_Type);
	if (!self)
		return NULL;
	self->kind = how[0] == 't' ? BIND_THREAD : BIND_JOB;
	self->membership = how[0] == 'r' ? root_membership : membership_current();
	Py_INCREF(self->membership);
	Py_INCREF(function);
	self->function = function;
	PyObject_GC_Track(self);
	return (PyObject *)self;
}

PyObject *context_variable(void)
{
	return variable;
}

int context_add_types(PyObject *module)
{
	(void)module;
	return PyType_Ready(&Membership_Type) < 0 || PyType_Ready(&Bound_Type) < 0 ? -1 : 0;
}

/* On the thread that enables objcg; the main thread is asked from `threading` by the caller. */
int context_init(void)
{
	PyObject *threading = PyImport_ImportModule("threading");
	PyObject *thread = threading ? PyObject_CallMethod(threading, "main_thread", NULL) : NULL;
	PyObject *ident = thread ? PyObject_GetAttrString(thread, "ident") : NULL;

	Py_XDECREF(threading);
	Py_XDECREF(thread);
	if (!ident)
		return -1;
	main_thread = PyLong_AsUnsignedLong(ident);
	Py_DECREF(ident);
	if (PyErr_Occurred())
		return -1;
	main_interpreter = PyInterpreterState_Main();
	root_membership = membership_new(&region.tasks[TASK_ROOT], NULL);
	if (!root_membership)
		return -1;
	variable = PyContextVar_New("objcg", NULL);
	return variable ? 0 : -1;
}

void context_after_fork_child(void)
{
	main_thread = PyThread_get_thread_ident();
	thread_cache.is_main = 1;
}
