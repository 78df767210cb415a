/*
 * os._exit(), by which forked children end: nothing of Python's runs then, and the
 * region file would stay, as that of a process that was killed.
 */
#include "binding.h"

#include <limits.h>
#include <unistd.h>

/* posix._exit as it was, and what it is now: the same but for what is called. */
static PyObject *original;
static PyMethodDef replacement;

/*
 * Nothing in here allocates, takes a lock or fails: it may be the end of a process
 * that has no memory left, and be called by a signal's handler in the middle of
 * anything.  A process that forked without us (a bare clone()) has no file, but the
 * mapping of its parent, who goes on.
 */
static void leave_region(void)
{
	if (!region.header || region.header->pid != (uint32_t)getpid())
		return;
	/* First: where the file cannot be removed (no descriptor is left), it says how it was. */
	fetch_or_acq_rel(&region.header->flags, (uint32_t)REGION_EXITED);
	region_remove_file();
}

/* The one argument, by whichever way it was given; NULL for a call that is wrong. */
static PyObject *status_argument(PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
	if (nargs + (names ? PyTuple_GET_SIZE(names) : 0) != 1)
		return NULL;
	if (nargs == 0 && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "status"))
		return NULL;
	return args[0];
}

static PyObject *exit_now(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
			  PyObject *names)
{
	PyObject *status = status_argument(args, nargs, names);
	PyObject *index;
	PyObject *result;
	int overflow;
	long value;

	(void)module;
	if (!status)
		return PyObject_Vectorcall(original, args, (size_t)nargs, names);
	index = PyNumber_Index(status);
	if (!index)
		return NULL;
	value = PyLong_AsLongAndOverflow(index, &overflow);
	if (!overflow && value >= INT_MIN && value <= INT_MAX) {
		leave_region();
		_exit((int)value);
	}
	/* Its own error. */
	result = PyObject_CallOneArg(original, index);
	Py_DECREF(index);
	return result;
}

/*
 * wrap_exit(posix._exit) -> a function that looks like it in all; None where it is no
 * longer CPython's own, and may not end the process.
 */
static PyObject *wrap_exit(PyObject *module, PyObject *function)
{
	PyCFunctionObject *builtin = (PyCFunctionObject *)function;

	(void)module;
	if (original || !PyCFunction_CheckExact(function) || !builtin->m_module)
		Py_RETURN_NONE;
	replacement = *builtin->m_ml;
	replacement.ml_meth = (PyCFunction)(void (*)(void))exit_now;
	replacement.ml_flags = METH_FASTCALL | METH_KEYWORDS;
	Py_INCREF(function);
	original = function;
	return PyCFunction_NewEx(&replacement, builtin->m_self, builtin->m_module);
}

PyMethodDef exit_methods[] = {
	{"wrap_exit", wrap_exit, METH_O, NULL},
	{NULL, NULL, 0, NULL},
};
