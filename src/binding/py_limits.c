/*
 * What happens when a limit is crossed.
 *
 * A hook cannot raise, and CPython does not survive the failure of every small
 * allocation.  So a small allocation over memory.max is charged, and its task
 * is interrupted at the next place where that is safe, an eval-breaker:
 *
 * - On the main thread by a pending call, asked for in the hook itself.  It
 *   runs on that thread between two bytecodes, looks which task is current
 *   *there*, reclaims, and raises if that task's group is still over.  If the
 *   code that runs then belongs to another group nothing happens to it; the
 *   offender's next allocation asks again.
 * - On other threads, which have no pending calls, by the reclaimer: py_offenders.c.
 *
 * Neither raises where the innermost frame is of a library that keeps the books
 * of an event loop or of threads (py_interruptible.c): asyncio's call_soon()
 * runs in the context of the task it is to wake, and an exception there loses
 * the wake-up.  The next allocation over the limit asks again.  (Nor does the
 * pending call ask again by itself: CPython runs what is pending until nothing
 * is, at the end even without a bound.)
 *
 * Both are the kernel's "return to user space".  From a hook only what takes
 * no lock of the interpreter's is called: posting a semaphore, and
 * Py_AddPendingCall, whose lock is held for a few instructions and never
 * around an allocation.
 */
#include "binding.h"

static PyObject *over_handler;
static _Atomic int main_pending;
static int main_busy; /* the handler is running: it may itself be over the limit */

/* The nearest group of this task that is over its max, and not exempt; 0 if none. */
static uint32_t group_over_max(const struct task *task, int64_t *limit)
{
	struct mem_cgroup *memcg = memcg_from_id(load_acquire(&task->memcg));
	int64_t usage;

	/* The GIL keeps groups from being removed. */
	for (; memcg; memcg = parent_mem_cgroup(memcg)) {
		*limit = load_relaxed(&memcg->memory.max);
		if (*limit == COUNTER_UNSET)
			continue;
		usage = memcg_current(memcg);
		if (usage > *limit && usage > load_relaxed(&memcg->exempt_until))
			return memcg_id(memcg);
	}
	return 0;
}

/*
 * What a task may use to handle its error.  Once, until the group has been below its
 * limit: or it would creep up to the ceiling.
 */
void limits_grant_reserve(struct mem_cgroup *memcg, int64_t bytes)
{
	int64_t max = load_relaxed(&memcg->memory.max);
	int64_t usage = load_relaxed(&memcg->memory.usage);
	int64_t ceiling = memcg_ceiling(memcg, max);
	int64_t until = usage + bytes;

	/* Others may have made room by now. */
	if (usage > max && load_relaxed(&memcg->exempt_until) == 0)
		store_relaxed(&memcg->exempt_until, until > ceiling ? ceiling : until);
}

static PyObject *exempt(PyObject *module, PyObject *args)
{
	PyObject *gid;
	long long bytes;
	struct mem_cgroup *memcg;

	(void)module;
	if (!PyArg_ParseTuple(args, "OL", &gid, &bytes) || !(memcg = memcg_from_object(gid)))
		return NULL;
	limits_grant_reserve(memcg, bytes);
	Py_RETURN_NONE;
}

/*
 * What the handler does between two bytecodes of the program must not fail because the
 * program is as deep as it may be: reclaim would not be done, and the program get a
 * RecursionError out of the middle of objcg.  (It takes some 15 frames, shrinkers more.)
 */
#define HANDLER_DEPTH 100

static void add_depth(PyThreadState *ts, int frames)
{
#if PY_VERSION_HEX >= 0x030C0000
	ts->py_recursion_remaining += frames;
#elif PY_VERSION_HEX >= 0x030B0000
	ts->recursion_remaining += frames;
#else
	ts->recursion_depth -= frames;
#endif
}

/* The exception for the task that is current, None for none, NULL with an error set. */
static PyObject *exception_for_current_task(void)
{
	PyThreadState *ts = PyThreadState_Get();
	int64_t limit = 0;
	PyFrameObject *frame;
	PyObject *exception;
	int interruptible;
	uint32_t gid;

	if (offenders_is_handling(ts))
		Py_RETURN_NONE;
	gid = group_over_max(thread_cache_get()->task, &limit);
	if (!gid)
		Py_RETURN_NONE;
	frame = PyThreadState_GetFrame(ts);
	interruptible = frame_is_interruptible(frame);
	Py_XDECREF(frame);
	if (!interruptible)
		Py_RETURN_NONE;
	charges_forced++;
	add_depth(ts, HANDLER_DEPTH);
	exception = PyObject_CallFunction(over_handler, "IKL", (unsigned int)gid,
					  (unsigned long long)memcg_from_id(gid)->uid,
					  (long long)limit);
	add_depth(ts, -HANDLER_DEPTH);
	charges_forced--;
	return exception;
}

/*
 * Looking takes memory, too, on behalf of a task that is over its limit.  That must not
 * ask for another call: while a tracer is set CPython 3.11 looks for pending calls
 * before it does anything else, and in here it runs none, so it would look for ever.
 */
static int deliver(void *unused)
{
	PyObject *exception;

	(void)unused;
	store_release(&main_pending, 0);
	if (main_busy || !over_handler)
		return 0;
	main_busy = 1;
	exception = exception_for_current_task();
	main_busy = 0;
	if (!exception)
		return -1;
	if (exception == Py_None) {
		Py_DECREF(exception);
		return 0;
	}
	PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
	Py_DECREF(exception);
	return -1;
}

void limits_notice(const struct charge_result *result, int has_gil)
{
	struct mem_cgroup *memcg;
	int wake = 0;

	/*
	 * What the reclaimer takes itself, for a callback or a shrinker, is nothing to
	 * wake it for: it would call them again, for as long as the group is over.
	 */
	if (reclaimer_is_this_thread())
		return;
	/* Before anything is flagged, and also for what was flagged when nobody could look. */
	if (unlikely(!reclaimer_is_running()) && has_gil) {
		reclaimer_start_from_hook();
		wake = 1;
	}
	if (result->refused)
		wake = 1;
	if (result->over) {
		memcg = memcg_from_id(result->over);
		if (thread_cache.is_main > 0) {
			if (!main_busy && !xchg_acq_rel(&main_pending, 1)) {
				memcg_event(memcg, EVENT_MAX);
				if (Py_AddPendingCall(deliver, NULL) < 0)
					store_release(&main_pending, 0); /* full: next time */
			}
		} else {
			wake |= offenders_notice(memcg, has_gil);
		}
	}
	if (result->high) {
		memcg = memcg_from_id(result->high);
		if (memcg_flag(memcg, FLAG_HIGH)) {
			memcg_event(memcg, EVENT_HIGH);
			wake = 1;
		}
	}
	if (wake)
		reclaimer_wake();
}

void limits_after_fork_child(void)
{
	main_busy = 0;
	store_relaxed(&main_pending, 0);
}

static PyObject *set_policy(PyObject *module, PyObject *args)
{
	PyObject *over;
	PyObject *service;

	(void)module;
	if (!in_main_interpreter() || !PyArg_ParseTuple(args, "OO", &over, &service))
		return NULL;
	if (!PyCallable_Check(over) || !PyCallable_Check(service)) {
		PyErr_SetString(PyExc_TypeError, "set_policy() needs two callables");
		return NULL;
	}
	if (offenders_init() < 0)
		return NULL;
	Py_INCREF(over);
	Py_XSETREF(over_handler, over);
	reclaimer_set_service(service);
	Py_RETURN_NONE;
}

PyMethodDef limits_methods[] = {
	{"set_policy", set_policy, METH_VARARGS, NULL},
	{"exempt", exempt, METH_VARARGS, NULL},
	{NULL, NULL, 0, NULL},
};
