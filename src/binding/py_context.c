/*
 * Which task the running code is.
 *
 * Membership is the value of one private ContextVar, so that everything that
 * copies or switches contexts (asyncio, anyio, trio, greenlets, to_thread)
 * carries it without knowing.  Looking a variable up at each allocation would
 * be slow; a thread caches the answer until its thread state's context_ver,
 * which CPython changes at each switch of contexts, has changed.
 *
 * The value is not the membership itself but a cell that names it, so that
 * going from group to group need not make a new context each time: where a
 * context shares its cell with no other (contextvar_get_unshared) the cell is
 * changed, else the context gets another cell.  A copy of a context, which
 * shares everything, hence never sees what the original does later.
 *
 * What does not work, and what we do about it:
 * - context_ver does not change when a variable is set.  Whoever sets ours
 *   (membership_set) writes the cache too.  Libraries that set all variables of
 *   a context set it behind our back: whatever is not an allocation's fast path
 *   looks anew (thread_cache_now), and a value that is not ours is no group.
 *   They give one cell to two contexts, which is then shared, as above.
 * - PyContextVar_Get while CPython *resets* that variable fills a cache in the
 *   variable that outlives the reset.  We never reset: leaving a group sets the
 *   membership that was current before, at the outermost the root's.
 * - A thread state may be freed and another made at its address with the same
 *   small context_ver; its id differs.
 */
#include "binding.h"
#include "contextvar.h"

#include <errno.h>

__thread struct thread_cache thread_cache __attribute__((tls_model("initial-exec"))) = {
	.watched = &never_current,
	.context_ver = 1, /* never_current has 0 */
	.is_main = -1,
};

const PyThreadState never_current;

Membership *root_membership;
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
	thread_cache_set_row(cache);
	cache->task_gen = load_relaxed(&task->gen);
}

/* Before the cache is told what runs now. */
static __attribute__((noinline)) void take_back_if_changed(const struct thread_cache *cache,
							   PyThreadState *ts)
{
	if (cache->task != membership_task(contextvar_get(ts->context)) ||
	    cache->context_ver != ts->context_ver || !offenders_is_entering(ts))
		offenders_context_changed(ts);
}

/*
 * Called from hooks, in the middle of anything: contextvar_get() neither
 * allocates nor runs code of the program.  The thread state is of the main
 * interpreter: its variable must not be touched under another GIL.
 */
static inline void look_at_context(struct thread_cache *cache, PyThreadState *ts)
{
	if (unlikely(load_relaxed(&offenders_armed)))
		take_back_if_changed(cache, ts);
	cache_task(cache, membership_task(contextvar_get(ts->context)));
	cache->context_ver = ts->context_ver;
}

void thread_cache_refresh(struct thread_cache *cache, PyThreadState *ts)
{
	thread_cache_forget(cache);
	if (!ts || !contextvar.variable) {
		cache->cpu = gil_cpu;
		cache->context_ver = 1;
		cache_task(cache, &region.tasks[TASK_ROOT]);
		return;
	}
	cache->cpu = cpu_of_thread_state(ts);
	if (unlikely(ts->context_ver < CONTEXT_VER_RANGE))
		thread_state_watch(ts);
	if (ts->interp != main_interpreter) {
		cache_task(cache, &region.tasks[TASK_ROOT]);
		cache->is_main = 0;
		cache->context_ver = ts->context_ver;
	} else {
		cache->is_main = PyThread_get_thread_ident() == main_thread;
		look_at_context(cache, ts);
	}
	cache->ts = ts;
	cache->id = ts->id;
	if (cache->is_main || in_slab_range(ts))
		cache->watched = ts;
}

/*
 * Whether only the context can be another one: the thread state is the one that
 * the cache was filled for, and all but the task depends on that alone.
 */
static inline int same_thread_state(const struct thread_cache *cache, const PyThreadState *ts)
{
	return ts && cache->ts == ts && cache->id == ts->id && ts->interp == main_interpreter;
}

struct thread_cache *thread_cache_now(void)
{
	struct thread_cache *cache = &thread_cache;
	PyThreadState *ts = current_thread_state();

	if (likely(same_thread_state(cache, ts))) {
		look_at_context(cache, ts);
		return cache;
	}
	/* Swapped on this thread: from now on everyone asks which one is current. */
	if (cache->ts && cache->ts != ts)
		interpreters_are_several();
	thread_cache_refresh(cache, ts);
	return cache;
}

/*
 * Mostly an event loop has switched contexts.  A thread state that may be
 * watched, and was not freed (thread_state_freed), is still the current one, as
 * for thread_cache_fast(); that need not be asked for here either.
 */
void thread_cache_revalidate(struct thread_cache *cache)
{
	PyThreadState *ts = cache->ts;

	if (!ts || cache->watched != ts || ts->context_ver < CONTEXT_VER_RANGE ||
	    load_relaxed(&several_interpreters))
		ts = current_thread_state();
	if (likely(same_thread_state(cache, ts))) {
		if (cache->context_ver != ts->context_ver)
			look_at_context(cache, ts);
	} else if (!thread_cache_valid(cache, ts)) {
		thread_cache_refresh(cache, current_thread_state());
	}
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

static PyTypeObject Membership_Type;

/*
 * Memberships that are used again: not blocks, which would stay charged to
 * whoever made them first, and keep what is left of a removed group alive.
 */
#define NR_SPARE 32

static Membership spare[NR_SPARE];
static Membership *spare_head; /* through ->previous */
static int spare_used;	       /* spare[spare_used..] was never handed out */

static Membership *membership_alloc(void)
{
	Membership *self = spare_head;

	if (self)
		spare_head = self->previous;
	else if (spare_used < NR_SPARE)
		self = &spare[spare_used++];
	else
		return PyObject_New(Membership, &Membership_Type);
	return (Membership *)PyObject_Init((PyObject *)self, &Membership_Type);
}

static void membership_release(Membership *self)
{
	if (self >= spare && self < spare + NR_SPARE) {
		self->previous = spare_head;
		spare_head = self;
	} else {
		PyObject_Free(self);
	}
}

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
	membership_release(self);
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
	.tp_doc = "One entry of a group.",
	.tp_basicsize = sizeof(Membership),
	.tp_flags = Py_TPFLAGS_DEFAULT,
	.tp_dealloc = (destructor)membership_dealloc,
};

/* What the private variable holds. `membership` only changes in a cell that is not shared. */
typedef struct {
	PyObject_HEAD Membership *membership;
} Cell;

static void cell_dealloc(Cell *self)
{
	Py_DECREF(self->membership);
	PyObject_Free(self);
}

static PyTypeObject Cell_Type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "objcg._core.Cell",
	.tp_doc = "What the private context variable holds: it names a membership.",
	.tp_basicsize = sizeof(Cell),
	.tp_flags = Py_TPFLAGS_DEFAULT,
	.tp_dealloc = (destructor)cell_dealloc,
};

static PyObject *cell_new(Membership *membership)
{
	Cell *self = PyObject_New(Cell, &Cell_Type);

	if (!self)
		return NULL;
	Py_INCREF(membership);
	self->membership = membership;
	return (PyObject *)self;
}

/* What a value of the variable stands for: root's, if a program has put something else there. */
static Membership *as_membership(PyObject *value)
{
	if (!value || Py_TYPE(value) != &Cell_Type)
		return root_membership;
	return ((Cell *)value)->membership;
}

struct task *membership_task(PyObject *value)
{
	return as_membership(value)->task;
}

/* The caller says by which group it was entered. */
static Membership *membership_new(struct task *task, Membership *previous)
{
	Membership *self = membership_alloc();

	if (!self)
		return NULL;
	self->task = task;
	self->previous = previous;
	Py_XINCREF(previous);
	self->context = NULL;
	self->over = 0;
	return self;
}

Membership *membership_current(const struct thread_cache *cache)
{
	return as_membership(contextvar_get(cache->ts->context));
}

/*
 * The allocations that are made here stay with the context, so the caller has
 * the cache name the task that should pay for them: the outer one, both on
 * entering and on leaving.
 *
 * Where that one's group has no room it pays all the same, and nothing is refused: a
 * task that could not leave would be charged to a group that it has done with.  And
 * CPython does not survive it: PyContextVar_Set() crashes if there is memory neither
 * for the token nor for what is set, and without a token alone it sets the variable,
 * and says that it did not.  (tests/faults, `entering`)
 */
static int give_context_cell(Membership *membership)
{
	struct thread_cache *cache = &thread_cache;
	PyObject *token = NULL;
	PyObject *cell;
	int failed;

	cache->pinned++;
	charges_forced++;
	cell = cell_new(membership);
	if (cell)
		token = PyContextVar_Set(contextvar.variable, cell);
	failed = !token;
	if (unlikely(cell && failed) && cache->ts->context &&
	    contextvar_get(cache->ts->context) == cell) {
		PyErr_Clear();
		failed = 0;
	}
	charges_forced--;
	cache->pinned--;
	Py_XDECREF(cell);
	Py_XDECREF(token);
	return failed ? -1 : 0;
}

int membership_set(struct thread_cache *cache, Membership *membership)
{
	PyObject *cell = contextvar_get_unshared(cache->ts->context);

	if (likely(cell && Py_TYPE(cell) == &Cell_Type)) {
		Membership *before = ((Cell *)cell)->membership;

		Py_INCREF(membership);
		((Cell *)cell)->membership = membership;
		cache_task(cache, membership->task);
		Py_DECREF(before);
		return 0;
	}
	if (give_context_cell(membership) < 0)
		return -1;
	cache_task(thread_cache_get(), membership->task);
	return 0;
}

int membership_go_back(struct thread_cache *cache, Membership *before)
{
	cache_task(cache, before->task);
	if (unlikely(load_relaxed(&offenders_armed)))
		offenders_context_changed(cache->ts);
	if (likely(membership_set(cache, before) == 0))
		return 0;
	thread_cache_forget(cache); /* the context is as it was, and the cache is not */
	return -1;
}

void charge_root_begin(void)
{
	struct thread_cache *cache = thread_cache_now();

	cache->pinned++;
	cache_task(cache, &region.tasks[TASK_ROOT]);
}

void charge_root_end(void)
{
	thread_cache.pinned--;
	thread_cache_now();
}

/* What is over of an entry: all, or what the context in which it was made, and a copy of it, have. */
enum { EXITED = 1, LEFT_IN_A_COPY = 2 };

/* Whether it is over for whoever runs in this context. */
static inline bool is_over(const Membership *self, const PyObject *context)
{
	return unlikely(self->over) && ((self->over & EXITED) || self->context == context);
}

/* This one, or the first before it, that is not over for the context; root's if all are. */
static __attribute__((noinline)) Membership *first_open(Membership *self, const PyObject *context)
{
	while (self && is_over(self, context))
		self = self->previous;
	return self ? self : root_membership;
}

int group_enter(struct mem_cgroup *memcg, uint32_t gen, PyObject *name)
{
	struct thread_cache *cache = thread_cache_now();
	Membership *current;
	Membership *self;
	struct task *task;
	int err = 0;
	int failed;

	/* What was set for the task that is left here. */
	if (unlikely(load_relaxed(&offenders_armed)))
		offenders_context_changed(cache->ts);
	task = task_alloc(memcg, &err);
	if (!task) {
		raise_no_record(err, "task", SECTION_TASK);
		return -1;
	}
	current = membership_current(cache);
	if (unlikely(current->over))
		current = first_open(current, cache->ts->context);
	self = membership_new(task, current);
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
	failed = membership_set(cache, self);
	self->context = cache->ts->context; /* of a thread that had none it was just made */
	Py_DECREF(self);
	return failed;
}

static int go_back(struct thread_cache *cache, Membership *target)
{
	int failed;

	Py_INCREF(target);
	failed = membership_go_back(cache, target);
	Py_DECREF(target);
	return failed;
}

/*
 * Leaves the innermost open entry of this group.  Usually that is the current
 * membership.  If it is not (`with` blocks of generators need not end in the
 * order in which they began) it is only marked, and skipped when the one that
 * is current ends.
 *
 * Nor need they end in the context in which they began: asyncio ends an
 * asynchronous generator that was dropped in a task of its own, with a copy of
 * the context of who had begun it.  That one is still in the group, and gets out
 * when it leaves what it had entered before.  Whoever else has inherited the entry
 * goes on in the group.
 */
int group_exit(uint32_t gid, uint32_t gen)
{
	struct thread_cache *cache = thread_cache_now();
	Membership *current = membership_current(cache);
	Membership *top = current;
	Membership *self;
	Membership *target;
	int failed;

	if (unlikely(top->over))
		top = first_open(top, cache->ts->context);
	self = top;
	while (self && (self->gid != gid || self->gen != gen || is_over(self, cache->ts->context)))
		self = self->previous;
	if (!self) {
		if (top != current && go_back(cache, top) < 0)
			return -1;
		PyErr_SetString(PyExc_RuntimeError,
				"this context has not entered this group, or has left it already; "
				"`with group:` must end in the context in which it began");
		return -1;
	}
	if (self != top) {
		self->over = EXITED;
		return 0;
	}
	target = self->previous;
	if (unlikely(!target || target->over))
		target = first_open(target, cache->ts->context);
	Py_INCREF(self);
	failed = go_back(cache, target);
	if (unlikely(failed)) {
		/* as it was */
	} else if (unlikely(self->context != cache->ts->context)) {
		self->over |= LEFT_IN_A_COPY;
	} else {
		/*
		 * This entry is over, here and for whoever has inherited it.  They go on
		 * in the group, but it keeps nothing alive that was current before.
		 */
		self->gid = 0;
		Py_CLEAR(self->previous);
	}
	Py_DECREF(self);
	return failed;
}

PyObject *context_variable(void)
{
	return contextvar.variable;
}

int context_add_types(PyObject *module)
{
	(void)module;
	if (PyType_Ready(&Membership_Type) < 0 || PyType_Ready(&Cell_Type) < 0)
		return -1;
	return bound_add_type();
}

/*
 * CPython's main thread: it made the first thread state, and the one that is left
 * in a forked child.  (threading.main_thread() says the same, but a program need
 * not have imported that.)
 */
static unsigned long find_main_thread(void)
{
	PyThreadState *ts = PyInterpreterState_ThreadHead(PyInterpreterState_Main());
	PyThreadState *oldest = ts;

	for (; ts; ts = PyThreadState_Next(ts))
		if (ts->id < oldest->id)
			oldest = ts;
	return oldest->thread_id;
}

int context_init(void)
{
	main_thread = find_main_thread();
	main_interpreter = PyInterpreterState_Main();
	root_membership = membership_new(&region.tasks[TASK_ROOT], NULL);
	if (!root_membership)
		return -1;
	root_membership->gid = 0; /* by none: it cannot be left */
	root_membership->gen = 0;
	return contextvar_prepare();
}

/*
 * CPython 3.13 takes whoever forked for the child's main thread, as others do, but
 * never runs there what Py_AddPendingCall() has added, if it was another thread before.
 * Then the child has no thread that is interrupted that way: see py_limits.c.
 */
void context_after_fork_child(void)
{
	unsigned long self = PyThread_get_thread_ident();

#if PY_VERSION_HEX >= 0x030D0000
	main_thread = self == main_thread ? self : 0;
#else
	main_thread = self;
#endif
	thread_cache_forget(&thread_cache);
	thread_cache_now();
}
