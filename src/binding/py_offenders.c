/*
 * Stopping threads other than the main one, for which CPython has no pending calls.
 *
 * The hook notes the thread and wakes the reclaimer thread; that takes the GIL, so that
 * the offender stands at an eval-breaker or in a call that released the GIL, and uses
 * PyThreadState_SetAsyncExc if the offender's current context still belongs to the
 * group.  Should the offender switch contexts before the exception is raised, the first
 * allocation in the new context, or our own exit from the group, takes it back.  What
 * remains is a switch of contexts with no allocation and no eval-breaker in between;
 * CPython checks after calls and at loops, so that takes a coroutine that ends right
 * after a call that blocked, or C code that calls Context.run().
 */
#include "binding.h"

#include <errno.h>
#include <time.h>

_Atomic int offenders_armed; /* exceptions set for other threads, not yet raised or taken back */

static PyObject *armed_class; /* what offenders_armed counts: the class last armed */
/* thread ident -> (gid, uid, task id, limit, usage, reserve, number, id of the thread state) */
static PyObject *reports;

/* Whether the thread is in the handler of a MemoryError, for which it needs memory. */
int offenders_is_handling(const PyThreadState *ts)
{
	const _PyErr_StackItem *item = ts->exc_info;

	while (item && (!item->exc_value || item->exc_value == Py_None))
		item = item->previous_item;
	return item && PyErr_GivenExceptionMatches(item->exc_value, PyExc_MemoryError);
}

/* Whether the thread is stopped: it handles its error, or has one to be raised. */
static int is_stopped(const PyThreadState *ts)
{
	return ts->async_exc || offenders_is_handling(ts);
}

/* Threads that crossed a limit since the reclaimer last looked. A lost one crosses it again. */
#define NR_OFFENDERS 64
static struct {
	_Atomic unsigned long thread;
	_Atomic uint32_t gid;
} offenders[NR_OFFENDERS];

static unsigned slot_of(unsigned long thread)
{
	return (unsigned)((thread >> 12) ^ (thread >> 20)) % NR_OFFENDERS;
}

static void offender_note(uint32_t gid)
{
	unsigned long thread = PyThread_get_thread_ident();
	unsigned slot = slot_of(thread);

	store_relaxed(&offenders[slot].thread, thread);
	store_release(&offenders[slot].gid, gid);
}

/*
 * A thread that is far over its limit while nobody has stopped it gets ahead of
 * the reclaimer, which has to wait for the GIL, five milliseconds by default
 * (sys.setswitchinterval), and on a busy machine for a processor, twice: some ten
 * milliseconds each.  It is made to wait too, GIL in hand, as it would hold it anyway:
 * for no longer than that, and once for each time that the reclaimer was asked.  One
 * that serves others, a callback say that takes its time, is waited for less.  The kernel
 * slows an allocating task down over memory.high in the same place.
 */
#define WAIT_NS 500000
#define WAITS 60
#define WAITS_WHILE_IT_SERVES 12
static __thread int waits_left __attribute__((tls_model("initial-exec")));

/* One that is stopped waits for nobody: the reclaimer leaves it alone, and it would crawl. */
static int is_to_be_stopped(void)
{
	const PyThreadState *ts = current_thread_state();

	return ts && !is_stopped(ts);
}

static void wait_in_hook(long nanoseconds)
{
	const struct timespec pause = {0, nanoseconds};
	int saved_errno = errno;

	nanosleep(&pause, NULL);
	errno = saved_errno;
}

static void wait_for_reclaimer(struct mem_cgroup *memcg)
{
	int64_t max = load_relaxed(&memcg->memory.max);
	int64_t far = max + (memcg_ceiling(memcg, max) - CEILING_GRANTS - max) / 4;
	int least = reclaimer_is_serving() ? WAITS - WAITS_WHILE_IT_SERVES : 0;

	if (waits_left > least && reclaimer_is_running() &&
	    load_relaxed(&memcg->memory.usage) > far && is_to_be_stopped()) {
		waits_left--;
		wait_in_hook(WAIT_NS);
	}
}

/*
 * Nor does the reclaimer see much of a thread whose event loop gives up the GIL of
 * itself, as select() does, in each of its rounds: it is always there that the reclaimer
 * gets it.  So where it has looked in vain, an allocation over the limit waits for as
 * long as it takes to ask for the GIL, which is given up then soon after: in the
 * offender's own code, if that is what allocated.  Which of the next allocations waits is
 * another one for each look, as the first one after select() is always the library's.
 */
#define WAIT_FOR_LOOK_NS 100000
#define ALLOCATIONS_PER_LOOK 16
static _Atomic unsigned looks_in_vain; /* wraps; one that is not seen is a wait less */
static __thread unsigned looks_waited_for __attribute__((tls_model("initial-exec")));
static __thread unsigned allocations_left __attribute__((tls_model("initial-exec")));

static void wait_for_look(void)
{
	unsigned looks = load_relaxed(&looks_in_vain);

	if (looks != looks_waited_for) {
		looks_waited_for = looks;
		allocations_left = 1 + looks * 7 % ALLOCATIONS_PER_LOOK;
	}
	if (allocations_left > 0 && --allocations_left == 0 && is_to_be_stopped())
		wait_in_hook(WAIT_FOR_LOOK_NS);
}

/*
 * A thread other than the main one is over the limit of the group: from a hook.  Returns
 * whether the reclaimer is to be woken.
 */
int offenders_notice(struct mem_cgroup *memcg, int has_gil)
{
	int wake = 0;

	offender_note(memcg_id(memcg));
	if (memcg_flag(memcg, FLAG_MAX)) {
		memcg_event(memcg, EVENT_MAX);
		waits_left = WAITS;
		wake = 1;
	} else if (has_gil) {
		wait_for_reclaimer(memcg);
	}
	if (has_gil)
		wait_for_look();
	return wake;
}

/*
 * Reports are numbered.  A thread that takes its own exception back cannot drop the report,
 * in the middle of an allocation as it is: those up to this number are of no exception of
 * its any more.
 */
static long long reports_made;
static __thread long long reports_void __attribute__((tls_model("initial-exec")));

/* A thread's pending exception, if it is one of ours; the GIL is held. */
void offenders_context_changed(PyThreadState *ts)
{
	if (ts->async_exc && ts->async_exc == armed_class) {
		if (ts->thread_id == PyThread_get_thread_ident())
			reports_void = reports_made;
		ts->async_exc = NULL;
		/* armed_class holds another reference: this frees nothing. */
		Py_DECREF(armed_class);
		fetch_add_relaxed(&offenders_armed, -1);
	}
}

/*
 * Threads for which one was set last while they stood at the entry of a coroutine, by
 * the GIL.  Of two in one slot one is forgotten, and has to be stopped again.
 */
static unsigned long entering[NR_OFFENDERS];

/*
 * CPython 3.13 raises not at the eval-breaker at which the thread has given up the GIL,
 * but at the next one.  From a frame of the program that may be at the end of an `async
 * with`, or in call_soon(), so there an allocation in between, as of the coroutine that
 * ends it, takes the exception back.  At the start of a library's coroutine the next one
 * will do as well, and there always is an allocation in between: were it taken back
 * there, too, a thread that meets its eval-breakers only there would never be stopped.
 */
int offenders_is_entering(const PyThreadState *ts)
{
	return entering[slot_of(ts->thread_id)] == ts->thread_id;
}

struct candidate {
	unsigned long thread;
	uint64_t id; /* of the thread state, which no other one ever has */
	PyObject *context;
	PyFrameObject *frame;
};

/* The slot that notes this thread for this group, or -1. */
static int find_offender(unsigned long thread, uint32_t gid)
{
	for (int i = 0; i < NR_OFFENDERS; i++)
		if (load_acquire(&offenders[i].gid) == gid &&
		    load_relaxed(&offenders[i].thread) == thread)
			return i;
	return -1;
}

/*
 * Threads that crossed the limit of `gid` and are to be stopped.  `stopped` is one that is:
 * it handles its error, or has one to be raised, which is not to be lost for ours if it is
 * another's, of a time limit say.  Else 0.  It is noted no more until it crosses the limit
 * again: it may do nothing else than wait in there, for hours.
 */
static Py_ssize_t list_offenders(uint32_t gid, struct candidate *candidates, Py_ssize_t room,
				 unsigned long *stopped)
{
	PyThreadState *ts = PyInterpreterState_ThreadHead(PyInterpreterState_Main());
	Py_ssize_t n = 0;

	for (; ts && n < room; ts = PyThreadState_Next(ts)) {
		int slot = find_offender(ts->thread_id, gid);

		if (slot < 0)
			continue;
		if (is_stopped(ts)) {
			store_relaxed(&offenders[slot].gid, 0);
			*stopped = ts->thread_id;
			continue;
		}
		candidates[n].thread = ts->thread_id;
		candidates[n].id = PyThreadState_GetID(ts);
		Py_XINCREF(ts->context);
		candidates[n].context = ts->context;
		candidates[n++].frame = PyThreadState_GetFrame(ts);
	}
	return n;
}

/*
 * The task of another thread's context.  One that was started before us, or by code
 * that is not Python's, has none, and is root's.
 */
static struct task *task_of_context(PyObject *context)
{
	PyObject *value;
	struct task *task;

	if (!context)
		return &region.tasks[TASK_ROOT];
	value = PyObject_GetItem(context, context_variable());
	task = membership_task(value);
	PyErr_Clear();
	Py_XDECREF(value); /* the context holds another */
	return task;
}

static int arm(const struct candidate *candidate, PyObject *exception, struct mem_cgroup *memcg,
	       const struct task *task, int where, long long reserve)
{
	unsigned long thread = candidate->thread;
	PyObject *key = PyLong_FromUnsignedLong(thread);
	PyObject *report = Py_BuildValue("IKKLLLLK", (unsigned int)memcg_id(memcg),
					 (unsigned long long)memcg->uid,
					 (unsigned long long)task->id,
					 (long long)load_relaxed(&memcg->memory.max),
					 (long long)memcg_current(memcg), reserve, ++reports_made,
					 (unsigned long long)candidate->id);
	int failed = !key || !report || PyDict_SetItem(reports, key, report) < 0;

	Py_XDECREF(key);
	Py_XDECREF(report);
	if (failed)
		return -1;
	Py_INCREF(exception);
	Py_XSETREF(armed_class, exception);
	entering[slot_of(thread)] = where == FRAME_ENTERED ? thread : 0;
	if (PyThreadState_SetAsyncExc(thread, exception) == 1)
		fetch_add_relaxed(&offenders_armed, 1);
	return 0;
}

/*
 * raise_in_group(gid, class, reserve): stops one thread that is over the limit of the
 * group, where it stands; returns which, or one that is stopped already if all are.  0: there
 * is none in the group, or none where it can be interrupted.
 */
static PyObject *raise_in_group(PyObject *module, PyObject *args)
{
	struct candidate candidates[NR_OFFENDERS];
	PyObject *gid_object;
	PyObject *exception;
	struct mem_cgroup *memcg;
	unsigned long raised = 0;
	unsigned long stopped = 0;
	long long reserve;
	Py_ssize_t nr;
	int collecting;
	int failed = 0;

	(void)module;
	if (!PyArg_ParseTuple(args, "OOL", &gid_object, &exception, &reserve))
		return NULL;
	if (!PyExceptionClass_Check(exception)) {
		PyErr_Format(PyExc_TypeError, "an exception class is needed, not %R", exception);
		return NULL;
	}
	memcg = memcg_from_object(gid_object);
	if (!memcg)
		return NULL;
	/*
	 * From the look at the contexts to SetAsyncExc no other thread may run:
	 * nothing here runs bytecode but for a collection's finalizers.
	 */
	collecting = PyGC_Disable();
	nr = list_offenders(memcg_id(memcg), candidates, NR_OFFENDERS, &stopped);
	for (Py_ssize_t i = 0; i < nr; i++) {
		if (!raised && !failed) {
			const struct task *task = task_of_context(candidates[i].context);

			int slot = find_offender(candidates[i].thread, memcg_id(memcg));
			int where = frame_is_interruptible(candidates[i].frame);

			if (slot >= 0)
				store_relaxed(&offenders[slot].gid, 0);
			if (memcg_is_descendant(memcg_from_id(load_acquire(&task->memcg)), memcg) &&
			    where != FRAME_IS_NOT) {
				failed = arm(&candidates[i], exception, memcg, task, where,
					     reserve) < 0;
				raised = candidates[i].thread;
			}
		}
	}
	if (collecting)
		PyGC_Enable();
	for (Py_ssize_t i = 0; i < nr; i++) {
		Py_XDECREF(candidates[i].context);
		Py_XDECREF(candidates[i].frame);
	}
	if (failed)
		return NULL;
	/* Where one is stopped another one may be still to be. */
	if (!raised && nr == 0)
		raised = stopped;
	if (!raised)
		fetch_add_relaxed(&looks_in_vain, 1);
	return PyLong_FromUnsignedLong(raised);
}

/* The group whose limit a report is about; NULL if it was removed in the meantime. */
static struct mem_cgroup *group_of_report(PyObject *report)
{
	unsigned int gid = (unsigned int)PyLong_AsUnsignedLong(PyTuple_GET_ITEM(report, 0));
	unsigned long long uid = PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(report, 1));
	struct mem_cgroup *memcg = memcg_from_id(gid);

	return memcg->uid == uid && load_acquire(&memcg->state) == MEMCG_ONLINE ? memcg : NULL;
}

/*
 * Whether a thread that was stopped is to be stopped still: its group is there, over its
 * max, and the thread's task in it.
 */
static int is_over_still(const PyThreadState *ts, PyObject *report)
{
	struct mem_cgroup *memcg;

	if (!report)
		return 1; /* not ours to judge */
	memcg = group_of_report(report);
	return memcg && memcg_current(memcg) > load_relaxed(&memcg->memory.max) &&
	       memcg_is_descendant(memcg_from_id(task_gid(task_of_context(ts->context))), memcg);
}

/*
 * A thread that blocks gets its exception when it goes on, hours later perhaps, and
 * what it has just received is lost by it.  So it is taken back when there is room
 * again, or the thread's task was moved to another group.  Returns how many are left.
 * The GIL is held, and nothing here runs bytecode.
 */
static PyObject *take_back_exceptions(PyObject *module, PyObject *unused)
{
	PyThreadState *ts;
	int armed = 0;

	(void)module;
	(void)unused;
	if (load_relaxed(&offenders_armed) == 0)
		return PyLong_FromLong(0);
	ts = PyInterpreterState_ThreadHead(PyInterpreterState_Main());
	for (; ts; ts = PyThreadState_Next(ts)) {
		PyObject *key;

		if (!ts->async_exc || ts->async_exc != armed_class)
			continue;
		armed++;
		key = PyLong_FromUnsignedLong(ts->thread_id);
		if (!key)
			return NULL;
		if (!is_over_still(ts, PyDict_GetItemWithError(reports, key))) {
			if (PyDict_DelItem(reports, key) < 0)
				PyErr_Clear();
			offenders_context_changed(ts);
			armed--;
		}
		Py_DECREF(key);
	}
	/* Those of threads that have ended are counted no more. */
	store_relaxed(&offenders_armed, armed);
	return PyLong_FromLong(armed);
}

/* A task is in another group: what was set for it, and not raised yet, is not its any more. */
void offenders_task_moved(void)
{
	PyObject *left = take_back_exceptions(NULL, NULL);

	if (!left)
		PyErr_Clear(); /* the reclaimer does it, soon */
	Py_XDECREF(left);
}

/*
 * What was set for a thread is raised now, so it is here that it is counted and has its
 * reserve, and not where it was set: it may have been taken back.  The GIL keeps the
 * group from being removed.
 */
static void note_raised(PyObject *report)
{
	struct mem_cgroup *memcg = group_of_report(report);

	if (memcg) {
		limits_grant_reserve(memcg, PyLong_AsLongLong(PyTuple_GET_ITEM(report, 5)));
		memcg_event(memcg, EVENT_RAISED);
		if (memcg_flag(memcg, FLAG_RAISED))
			reclaimer_wake();
	}
}

/* Called in the thread that is stopped, where its exception is made. */
static PyObject *pending_report(PyObject *module, PyObject *unused)
{
	PyObject *key;
	PyObject *report;

	(void)module;
	(void)unused;
	if (!reports)
		Py_RETURN_NONE; /* not enabled: the program makes such an exception by itself */
	key = PyLong_FromUnsignedLong(PyThread_get_thread_ident());
	if (!key)
		return NULL;
	report = PyDict_GetItemWithError(reports, key);
	if (!report) {
		Py_DECREF(key);
		if (PyErr_Occurred())
			return NULL;
		Py_RETURN_NONE;
	}
	Py_INCREF(report);
	if (PyDict_DelItem(reports, key) < 0)
		PyErr_Clear();
	Py_DECREF(key);
	if (PyLong_AsLongLong(PyTuple_GET_ITEM(report, 6)) <= reports_void ||
	    PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(report, 7)) !=
		    PyThreadState_GetID(PyThreadState_Get())) {
		/*
		 * Of one that was taken back, or was set for a thread that has ended and had
		 * the same ident: the program makes this one by itself.
		 */
		Py_DECREF(report);
		Py_RETURN_NONE;
	}
	if (load_relaxed(&offenders_armed) > 0)
		fetch_add_relaxed(&offenders_armed, -1);
	note_raised(report);
	return report;
}

/* Returns 0, or -1 with an error set. The GIL is held. */
int offenders_init(void)
{
	if (!reports)
		reports = PyDict_New();
	return reports ? 0 : -1;
}

void offenders_after_fork_child(void)
{
	store_relaxed(&offenders_armed, 0);
}

PyMethodDef offenders_methods[] = {
	{"raise_in_group", raise_in_group, METH_VARARGS, NULL},
	{"take_back_exceptions", take_back_exceptions, METH_NOARGS, NULL},
	{"pending_report", pending_report, METH_NOARGS, NULL},
	{NULL, NULL, 0, NULL},
};
