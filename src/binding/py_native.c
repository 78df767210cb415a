/*
 * Native memory (native.h): whom it is charged to, and whether it is seen at all.
 *
 * It is allocated with the GIL and without.  The task is the one whose context is
 * current on the thread; while the thread runs without the GIL, the one that was
 * when it gave that up, since nobody else changes a thread's context.  A thread on
 * which no Python runs, and which C code has started, has a task of its own
 * (native_thread.c); any other is root's.
 */
#include "binding.h"

#include <dlfcn.h>
#include <errno.h>

static _Atomic int finalizing;
static int forbidden;
static int state = -EAGAIN; /* of native_start() */

/*
 * Whether the cache holds may be asked without the GIL: what it looks at is the
 * thread's own state, or memory that stays readable (thread_cache_fast).  At the
 * interpreter's end that does not hold for the main thread's.
 */
static struct task *native_task(void)
{
	const struct thread_cache *cache = &thread_cache;

	if (likely(thread_cache_fast(cache)) && likely(!load_relaxed(&several_interpreters)) &&
	    likely(!load_relaxed(&finalizing)))
		return cache->task;
	if (native_thread.task && !cache->ts && !current_thread_state())
		return native_thread.task;
	return raw_task();
}

static void notice(const struct charge_result *result)
{
	limits_notice(result, 0);
}

void native_install(void)
{
	if (forbidden)
		return;
	native_current_task = native_task;
	native_notice = notice;
	state = native_start();
	if (state == 0)
		fetch_or_acq_rel(&region.header->flags, (uint32_t)REGION_NATIVE);
}

void native_finalizing(void)
{
	store_relaxed(&finalizing, 1);
}

/* native_loaded() -> whether the preload library is in this process */
static PyObject *native_loaded(PyObject *module, PyObject *unused)
{
	(void)module;
	(void)unused;
	return PyBool_FromLong(dlsym(RTLD_DEFAULT, PRELOAD_SYMBOL) != NULL);
}

/* forbid_native(): before install(), so that native memory is not charged. */
static PyObject *forbid_native(PyObject *module, PyObject *unused)
{
	(void)module;
	(void)unused;
	forbidden = 1;
	Py_RETURN_NONE;
}

/* native_state() -> None: native memory is charged; or why it is not */
static PyObject *native_state(PyObject *module, PyObject *unused)
{
	(void)module;
	(void)unused;
	if (state == 0)
		Py_RETURN_NONE;
	if (forbidden)
		return PyUnicode_FromString("turned off");
	if (state == -EAGAIN)
		return PyUnicode_FromString("objcg is not enabled");
	if (state == -ENOENT)
		return PyUnicode_FromString("libobjcg_preload.so is not loaded");
	if (state == -EPROTO)
		return PyUnicode_FromString("libobjcg_preload.so is of another version of objcg");
	return PyUnicode_FromFormat("it could not be set up: errno %d", -state);
}

PyMethodDef native_methods[] = {
	{"native_loaded", native_loaded, METH_NOARGS, NULL},
	{"forbid_native", forbid_native, METH_NOARGS, NULL},
	{"native_state", native_state, METH_NOARGS, NULL},
	{NULL, NULL, 0, NULL},
};
