/*
 * The reclaimer: this system's kswapd, a thread of its own that is woken from
 * hooks, by a semaphore, when a group was flagged.  What it then does is policy,
 * and in Python: it takes the GIL and calls one function.
 *
 * A native thread and not a threading.Thread, so that a program that looks at
 * its threads finds those it has started.
 */
#include "binding.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

int reclaimer_watch_empty;

static PyObject *service_handler;
static _Atomic int running;
static _Atomic int starting;
static _Atomic int may_start; /* from the first policy to the process's end */
static sem_t wakeups;
static sem_t ready; /* posted for good once is_ready is set: a turnstile */
static _Atomic int is_ready;
static pthread_t reclaimer;
static _Atomic int reclaimer_stop;
static _Atomic int wake_posted;
static _Atomic int serving;
static __thread int is_reclaimer __attribute__((tls_model("initial-exec")));
static _Atomic int64_t period_ns; /* 0: it sleeps until it is woken */

void reclaimer_wake(void)
{
	if (load_acquire(&running) && !xchg_acq_rel(&wake_posted, 1))
		sem_post(&wakeups);
}

static const int64_t second_ns = 1000000000;

/*
 * A C library without sem_clockwait() (glibc before 2.30, musl) waits by the
 * clock of the day: if that is set back, one sleep is longer by as much.
 */
#ifdef __GLIBC__
#if __GLIBC_PREREQ(2, 30)
#define sleep_until(until) sem_clockwait(&wakeups, CLOCK_MONOTONIC, (until))
#define SLEEP_CLOCK CLOCK_MONOTONIC
#endif
#endif
#ifndef SLEEP_CLOCK
#define sleep_until(until) sem_timedwait(&wakeups, (until))
#define SLEEP_CLOCK CLOCK_REALTIME
#endif

/* How often it looks whether a thread that it has stopped need not be any more. */
#define ARMED_PERIOD_NS 250000000

/* Until somebody wakes it, or for the period that is set when it begins. */
static void reclaimer_sleep(void)
{
	int64_t period = load_relaxed(&period_ns);
	struct timespec until;
	int64_t nsec;

	if (load_relaxed(&offenders_armed) > 0 && (period == 0 || period > ARMED_PERIOD_NS))
		period = ARMED_PERIOD_NS;
	if (period == 0) {
		while (sem_wait(&wakeups) < 0 && errno == EINTR)
			;
		return;
	}
	clock_gettime(SLEEP_CLOCK, &until);
	nsec = until.tv_nsec + period;
	until.tv_sec += (time_t)(nsec / second_ns);
	until.tv_nsec = (long)(nsec % second_ns);
	while (sleep_until(&until) < 0 && errno == EINTR)
		;
}

/*
 * One thread state for the thread's life.  CPython ends the process if memory
 * for one is refused, as it may be once root is over its limit: that is when
 * the reclaimer is needed.  So it is made before start_reclaimer() returns, and
 * with that before there is a limit; and no limit is one for what this thread
 * takes itself: it would have no memory to free some with, or to find out how much
 * the container has left.  The program's own code is called by way of unforced().
 */
static void *reclaimer_main(void *unused)
{
	PyGILState_STATE state;
	PyThreadState *tstate;

	(void)unused;
	/* Started from a hook it begins when the limit is there already. */
	charges_forced = 1;
	is_reclaimer = 1;
	state = PyGILState_Ensure();
	store_release(&is_ready, 1);
	sem_post(&ready);
	for (;;) {
		PyObject *result;

		tstate = PyEval_SaveThread();
		reclaimer_sleep();
		PyEval_RestoreThread(tstate);
		if (load_acquire(&reclaimer_stop)) {
			PyGILState_Release(state);
			return NULL;
		}
		store_release(&wake_posted, 0);
		store_relaxed(&serving, 1);
		if (service_handler) {
			result = PyObject_CallNoArgs(service_handler);
			if (result)
				Py_DECREF(result);
			else
				PyErr_WriteUnraisable(service_handler);
		}
		store_relaxed(&serving, 0);
	}
}

/*
 * Gives up the GIL, which the reclaimer needs to become ready: another thread may
 * come here meanwhile, finds it running, and waits as well.
 * tests/integration/test_limits.py has many come at once.
 */
static void wait_until_ready(void)
{
	PyThreadState *tstate;

	if (load_acquire(&is_ready))
		return;
	tstate = PyEval_SaveThread();
	while (sem_wait(&ready) < 0 && errno == EINTR)
		;
	sem_post(&ready);
	PyEval_RestoreThread(tstate);
}

/* Returns 0 or -errno. The GIL is held, of whichever interpreter. */
static int start(void)
{
	sigset_t all;
	sigset_t before;
	int err;

	/* Interpreters with a GIL of their own: one of them starts it. */
	if (load_acquire(&running) || xchg_acq_rel(&starting, 1))
		return 0;
	store_relaxed(&is_ready, 0);
	if (sem_init(&wakeups, 0, 0) < 0 || sem_init(&ready, 0, 0) < 0) {
		err = errno;
		store_release(&starting, 0);
		return -err;
	}
	store_relaxed(&reclaimer_stop, 0);
	store_relaxed(&wake_posted, 0);
	/* Signals are for the program's own threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	err = pthread_create(&reclaimer, NULL, reclaimer_main, NULL);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	/* After the semaphore is there: code without the GIL posts it, see reclaimer_wake(). */
	store_release(&running, !err);
	store_release(&starting, 0);
	return -err;
}

static PyObject *start_reclaimer(PyObject *module, PyObject *unused)
{
	int err;

	(void)module;
	(void)unused;
	/* Not running and no error: another interpreter is just about it. */
	do
		err = start();
	while (!err && !load_acquire(&running));
	if (err)
		return raise_errno(err);
	wait_until_ready();
	Py_RETURN_NONE;
}

/*
 * A limit that another process has set starts no reclaimer there, so whoever
 * first goes over it does, in the middle of an allocation: making a thread needs
 * no lock that an allocating thread with the GIL may hold.  A program whose
 * limits come from within has started it before.  When no thread can be made,
 * the next allocation over the limit tries again.
 */
void reclaimer_start_from_hook(void)
{
	int saved_errno = errno;

	if (load_acquire(&may_start))
		start();
	errno = saved_errno;
}

static PyObject *stop_reclaimer(PyObject *module, PyObject *unused)
{
	(void)module;
	(void)unused;
	/* For good: what is allocated while the interpreter ends must not start it again. */
	store_release(&may_start, 0);
	if (load_acquire(&running)) {
		store_release(&reclaimer_stop, 1);
		sem_post(&wakeups);
		Py_BEGIN_ALLOW_THREADS pthread_join(reclaimer, NULL);
		Py_END_ALLOW_THREADS store_release(&running, 0);
		sem_destroy(&wakeups);
	}
	Py_RETURN_NONE;
}

int reclaimer_is_this_thread(void)
{
	return is_reclaimer;
}

/* Whether it does what it was asked for before, and not only waits for the GIL. */
int reclaimer_is_serving(void)
{
	return load_relaxed(&serving);
}

int reclaimer_is_running(void)
{
	return load_acquire(&running);
}

void reclaimer_set_service(PyObject *service)
{
	Py_INCREF(service);
	Py_XSETREF(service_handler, service);
	store_release(&may_start, 1);
}

/* The child has no reclaimer; the Python side starts one when it has work for it. */
void reclaimer_after_fork_child(void)
{
	store_relaxed(&running, 0);
	store_relaxed(&starting, 0);
	store_relaxed(&serving, 0);
	is_reclaimer = 0; /* a callback may fork */
}

/* --- for the policy, in Python (objcg/limits.py, objcg/reclaim.py) ---------- */

static PyObject *is_reclaimer_thread(PyObject *module, PyObject *unused)
{
	(void)module;
	(void)unused;
	return PyBool_FromLong(is_reclaimer);
}

static PyObject *wake_reclaimer(PyObject *module, PyObject *unused)
{
	(void)module;
	(void)unused;
	reclaimer_wake();
	Py_RETURN_NONE;
}

/* A reclaimer that sleeps already sleeps on: whoever sets a first period wakes it. */
static PyObject *set_reclaimer_period(PyObject *module, PyObject *seconds)
{
	double period = PyFloat_AsDouble(seconds);

	(void)module;
	if (period == -1.0 && PyErr_Occurred())
		return NULL;
	if (!(period >= 0.0 && period <= 3600.0)) {
		PyErr_Format(PyExc_ValueError, "%R is not a period of 0 to 3600 seconds", seconds);
		return NULL;
	}
	store_relaxed(&period_ns, (int64_t)(period * (double)second_ns));
	Py_RETURN_NONE;
}

/*
 * Has the C library give back what it keeps of freed memory.  Without the GIL,
 * as that may take long; where there is no malloc_trim() nothing is kept for long.
 */
static PyObject *trim_native(PyObject *module, PyObject *unused)
{
	(void)module;
	(void)unused;
#ifdef __GLIBC__
	Py_BEGIN_ALLOW_THREADS malloc_trim(0);
	Py_END_ALLOW_THREADS
#endif
		Py_RETURN_NONE;
}

/*
 * read_now(path): the first 16 KiB of a file of /proc, the cgroups, or a region,
 * which are memory of the kernel's.  With the GIL in hand, as Python's own functions
 * give it up at each system call: a thread that computes gives it back only after
 * five milliseconds (sys.setswitchinterval), and a measurement takes thirty calls.
 * Meanwhile that thread would fill the memory that is being measured.
 */
#define READ_MOST 16384

static PyObject *read_now(PyObject *module, PyObject *path_object)
{
	char data[READ_MOST];
	PyObject *path;
	size_t size = 0;
	ssize_t n;
	int err = 0;
	int fd;

	(void)module;
	if (!PyUnicode_FSConverter(path_object, &path))
		return NULL;
	/* A FIFO of that name must not make us wait. */
	fd = open(PyBytes_AS_STRING(path), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
	if (fd < 0)
		err = errno;
	while (!err && size < sizeof(data)) {
		n = read(fd, data + size, sizeof(data) - size);
		if (n == 0)
			break;
		if (n > 0)
			size += (size_t)n;
		else if (errno != EINTR)
			err = errno;
	}
	if (fd >= 0)
		close(fd);
	Py_DECREF(path);
	if (err) {
		errno = err;
		return PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, path_object);
	}
	return PyBytes_FromStringAndSize(data, (Py_ssize_t)size);
}

static PyObject *call_with(int forced, PyObject *const *args, Py_ssize_t nargs)
{
	int before = charges_forced;
	PyObject *result;

	if (nargs < 1) {
		PyErr_SetString(PyExc_TypeError, "a callable is needed");
		return NULL;
	}
	charges_forced = forced;
	result = PyObject_Vectorcall(args[0], args + 1, (size_t)(nargs - 1), NULL);
	charges_forced = before;
	return result;
}

/* forced(fn, *args): calls what must not be refused memory, see charges_forced. */
static PyObject *forced(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
	(void)module;
	return call_with(1, args, nargs);
}

/* unforced(fn, *args): calls the program's code from there; limits hold for it as elsewhere. */
static PyObject *unforced(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
	(void)module;
	return call_with(0, args, nargs);
}

static const struct {
	uint32_t flag;
	const char *name;
} flag_names[] = {
	{FLAG_HIGH, "high"},   {FLAG_MAX, "max"},	  {FLAG_CEILING, "ceiling"},
	{FLAG_EMPTY, "empty"}, {FLAG_REFUSED, "refused"}, {FLAG_RAISED, "raised"},
};

static PyObject *take_flagged(PyObject *module, PyObject *unused)
{
	PyObject *list = need_enabled() ? PyList_New(0) : NULL;
	uint32_t cursor = 0;
	uint32_t flags;
	uint32_t gid;

	(void)module;
	(void)unused;
	while (list && (gid = memcg_take_flagged(&cursor, &flags)) != 0) {
		for (size_t i = 0; list && i < sizeof(flag_names) / sizeof(flag_names[0]); i++) {
			PyObject *item;

			if (!(flags & flag_names[i].flag))
				continue;
			item = Py_BuildValue("IKs", (unsigned int)gid,
					     (unsigned long long)memcg_from_id(gid)->uid,
					     flag_names[i].name);
			if (!item || PyList_Append(list, item) < 0)
				Py_CLEAR(list);
			Py_XDECREF(item);
		}
	}
	return list;
}

static PyObject *take_wanted(PyObject *module, PyObject *gid)
{
	struct mem_cgroup *memcg = memcg_from_object(gid);

	(void)module;
	return memcg ? PyLong_FromLongLong(xchg_acq_rel(&memcg->wanted, 0)) : NULL;
}

static PyObject *count_event(PyObject *module, PyObject *args)
{
	/* in the order of enum memcg_event */
	static const char *const names[NR_EVENTS] = {"low", "high", "max", "ceiling", "raised"};
	PyObject *gid;
	PyObject *name;
	struct mem_cgroup *memcg;

	(void)module;
	if (!PyArg_ParseTuple(args, "OU", &gid, &name) || !(memcg = memcg_from_object(gid)))
		return NULL;
	for (int i = 0; i < NR_EVENTS; i++) {
		if (PyUnicode_CompareWithASCIIString(name, names[i]) == 0) {
			memcg_event(memcg, (enum memcg_event)i);
			Py_RETURN_NONE;
		}
	}
	PyErr_Format(PyExc_ValueError, "unknown event %R: low, high, max, ceiling or raised", name);
	return NULL;
}

static PyObject *watch_empty(PyObject *module, PyObject *on)
{
	int watch = PyObject_IsTrue(on);

	(void)module;
	if (watch < 0)
		return NULL;
	reclaimer_watch_empty = watch;
	Py_RETURN_NONE;
}

PyMethodDef reclaimer_methods[] = {
	{"start_reclaimer", start_reclaimer, METH_NOARGS, NULL},
	{"set_reclaimer_period", set_reclaimer_period, METH_O, NULL},
	{"read_now", read_now, METH_O, NULL},
	{"forced", (PyCFunction)(void (*)(void))forced, METH_FASTCALL, NULL},
	{"unforced", (PyCFunction)(void (*)(void))unforced, METH_FASTCALL, NULL},
	{"trim_native", trim_native, METH_NOARGS, NULL},
	{"stop_reclaimer", stop_reclaimer, METH_NOARGS, NULL},
	{"is_reclaimer", is_reclaimer_thread, METH_NOARGS, NULL},
	{"wake_reclaimer", wake_reclaimer, METH_NOARGS, NULL},
	{"take_flagged", take_flagged, METH_NOARGS, NULL},
	{"take_wanted", take_wanted, METH_O, NULL},
	{"count_event", count_event, METH_VARARGS, NULL},
	{"watch_empty", watch_empty, METH_O, NULL},
	{NULL, NULL, 0, NULL},
};
