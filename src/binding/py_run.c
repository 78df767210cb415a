/*
 * Running a program as plain `python` would: by the calls that CPython's own
 * main makes, in sys.modules["__main__"], and with the frames of our command
 * out of sight, so that a traceback, sys._getframe() or warnings' stack levels
 * end where the program begins.
 */
#include "binding.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The frames and the recursion depth of the code that called us. */
struct hidden {
	int recursion;
	void *frame;
};

static void hide(struct hidden *hidden)
{
	PyThreadState *ts = PyThreadState_Get();

#if PY_VERSION_HEX >= 0x030D0000
	hidden->frame = ts->current_frame;
	ts->current_frame = NULL;
	hidden->recursion = ts->py_recursion_remaining;
	ts->py_recursion_remaining = ts->py_recursion_limit;
#elif PY_VERSION_HEX >= 0x030C0000
	hidden->frame = ts->cframe->current_frame;
	ts->cframe->current_frame = NULL;
	hidden->recursion = ts->py_recursion_remaining;
	ts->py_recursion_remaining = ts->py_recursion_limit;
#elif PY_VERSION_HEX >= 0x030B0000
	hidden->frame = ts->cframe->current_frame;
	ts->cframe->current_frame = NULL;
	hidden->recursion = ts->recursion_remaining;
	ts->recursion_remaining = ts->recursion_limit;
#else
	hidden->frame = ts->frame;
	ts->frame = NULL;
	hidden->recursion = ts->recursion_depth;
	ts->recursion_depth = 0;
#endif
}

static void unhide(const struct hidden *hidden)
{
	PyThreadState *ts = PyThreadState_Get();

#if PY_VERSION_HEX >= 0x030D0000
	ts->current_frame = hidden->frame;
	ts->py_recursion_remaining = hidden->recursion;
#elif PY_VERSION_HEX >= 0x030C0000
	ts->cframe->current_frame = hidden->frame;
	ts->py_recursion_remaining = hidden->recursion;
#elif PY_VERSION_HEX >= 0x030B0000
	ts->cframe->current_frame = hidden->frame;
	ts->recursion_remaining = hidden->recursion;
#else
	ts->frame = hidden->frame;
	ts->recursion_depth = hidden->recursion;
#endif
}

/* A new module __main__, as at start-up. The old one stays alive: its code is running. */
static int fresh_main(void)
{
	static const char source[] =
		"import sys, types, builtins, importlib.machinery as m\n"
		"main = types.ModuleType('__main__')\n"
		"main.__dict__.update(__loader__=m.BuiltinImporter, __annotations__={},\n"
		"                     __builtins__=builtins)\n"
		"old = sys.modules['__main__']\n"
		"sys.modules['__main__'] = main\n"
		/* multiprocessing's other name for it, where something has imported that */
		"if sys.modules.get('__mp_main__') is old:\n"
		"    sys.modules['__mp_main__'] = main\n";
	static PyObject *kept;
	PyObject *globals = PyDict_New();
	PyObject *result = NULL;

	if (globals && PyDict_SetItemString(globals, "__builtins__", PyEval_GetBuiltins()) == 0)
		result = PyRun_String(source, Py_file_input, globals, globals);
	if (!result) {
		Py_XDECREF(globals);
		return -1;
	}
	Py_DECREF(result);
	Py_XSETREF(kept, globals);
	return 0;
}

/*
 * CPython ends a program that an unhandled KeyboardInterrupt ended by SIGINT,
 * after finalisation; its flag for that is not ours to read from the exit path
 * that we take.
 */
static void die_by_sigint(void)
{
	signal(SIGINT, SIG_DFL);
	raise(SIGINT);
}

static void note_keyboard_interrupt(void)
{
	PyObject *type = PySys_GetObject("last_type");

	if (type && type == PyExc_KeyboardInterrupt)
		Py_AtExit(die_by_sigint);
}

static int run_file(const char *path)
{
	PyCompilerFlags flags = _PyCompilerFlags_INIT;
	FILE *file = fopen(path, "rb");

	if (!file) {
		PyErr_SetFromErrnoWithFilename(PyExc_OSError, path);
		return -1;
	}
	return PyRun_AnyFileExFlags(file, path, 1, &flags) < 0 ? 1 : 0;
}

static int run_command(const char *source)
{
	PyCompilerFlags flags = _PyCompilerFlags_INIT;

#if PY_VERSION_HEX >= 0x030D0000
	/* So that tracebacks show the lines of the command, as since 3.13. */
	PyObject *linecache = PyImport_ImportModule("linecache");
	PyObject *registered = linecache ? PyObject_CallMethod(linecache, "_register_code", "sss",
							       "<string>", source, "<string>")
					 : NULL;

	Py_XDECREF(linecache);
	if (registered)
		Py_DECREF(registered);
	else
		PyErr_Clear();
#endif
	return PyRun_SimpleStringFlags(source, &flags) < 0 ? 1 : 0;
}

static int run_module(const char *name, int alter_argv)
{
	PyObject *runpy = PyImport_ImportModule("runpy");
	PyObject *result;

	if (!runpy)
		return -1;
	result = PyObject_CallMethod(runpy, "_run_module_as_main", "si", name, alter_argv);
	Py_DECREF(runpy);
	if (result) {
		Py_DECREF(result);
		return 0;
	}
	PyErr_Print(); /* a SystemExit exits here */
	return 1;
}

/* run_main(kind, target, *arguments) -> exit status; does not return if the program exits. */
static PyObject *run_main(PyObject *module, PyObject *args)
{
	struct hidden hidden;
	PyObject *encoded = NULL;
	const char *kind;
	PyObject *target;
	int status;

	(void)module;
	if (PyTuple_GET_SIZE(args) < 2) {
		PyErr_SetString(PyExc_TypeError, "run_main() needs a kind and a target");
		return NULL;
	}
	kind = PyUnicode_AsUTF8(PyTuple_GET_ITEM(args, 0));
	target = PyTuple_GET_ITEM(args, 1);
	if (!kind || !PyUnicode_FSConverter(target, &encoded))
		return NULL;
	if (fresh_main() < 0) {
		Py_DECREF(encoded);
		return NULL;
	}
	hide(&hidden);
	if (strcmp(kind, "file") == 0)
		status = run_file(PyBytes_AS_STRING(encoded));
	else if (strcmp(kind, "command") == 0)
		status = run_command(PyBytes_AS_STRING(encoded));
	else if (strcmp(kind, "module") == 0)
		status = run_module(PyBytes_AS_STRING(encoded), 1);
	else
		status = run_module("__main__", 0); /* a folder or zip file that is on sys.path */
	if (status == 1)
		note_keyboard_interrupt();
	unhide(&hidden);
	Py_DECREF(encoded);
	if (status < 0)
		return NULL;
	return PyLong_FromLong(status);
}

/*
 * A descriptor that is kept while the program runs, so that its tree can be printed
 * and written though it has left none: that imports modules and reads /proc.
 */
#define SPARE_NUMBER 255 /* out of the way: the program gets the numbers that it would */

static int spare = -1;
static struct stat spare_info;

/* keep_descriptor(): where there is none to be had, goes without. */
static PyObject *keep_descriptor(PyObject *module, PyObject *unused)
{
#ifdef SYS_memfd_create
	struct rlimit limit;
	/* A file of its own, which no other descriptor is one of; MFD_CLOEXEC. */
	int fd = (int)syscall(SYS_memfd_create, "objcg", 1u);

	if (fd >= 0 && getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur > 0) {
		int number = limit.rlim_cur > SPARE_NUMBER ? SPARE_NUMBER : (int)limit.rlim_cur - 1;

		spare = fcntl(fd, F_DUPFD_CLOEXEC, number);
		if (spare >= 0 && fstat(spare, &spare_info) < 0) {
			close(spare);
			spare = -1;
		}
	}
	if (fd >= 0)
		close(fd);
#endif
	(void)module;
	(void)unused;
	Py_RETURN_NONE;
}

/* release_descriptor(): not the program's, if it has closed ours and got its number. */
static PyObject *release_descriptor(PyObject *module, PyObject *unused)
{
	struct stat info;

	(void)module;
	(void)unused;
	if (spare >= 0 && fstat(spare, &info) == 0 && info.st_ino == spare_info.st_ino &&
	    info.st_dev == spare_info.st_dev)
		close(spare);
	spare = -1;
	Py_RETURN_NONE;
}

static char *last_words;
static size_t last_words_len;

static void write_last_words(void)
{
	ssize_t written = write(STDERR_FILENO, last_words, last_words_len);

	(void)written; /* nobody is left to be told */
	free(last_words);
}

/* write_at_exit(bytes): to standard error, after all that the program and Python still print. */
static PyObject *write_at_exit(PyObject *module, PyObject *bytes)
{
	char *text;
	Py_ssize_t len;

	(void)module;
	if (PyBytes_AsStringAndSize(bytes, &text, &len) < 0)
		return NULL;
	if (last_words) {
		PyErr_SetString(PyExc_RuntimeError, "write_at_exit() can be called once only");
		return NULL;
	}
	last_words = malloc((size_t)len + 1);
	if (!last_words)
		return PyErr_NoMemory();
	memcpy(last_words, text, (size_t)len);
	last_words_len = (size_t)len;
	Py_AtExit(write_last_words);
	Py_RETURN_NONE;
}

PyMethodDef run_methods[] = {
	{"run_main", run_main, METH_VARARGS, NULL},
	{"keep_descriptor", keep_descriptor, METH_NOARGS, NULL},
	{"release_descriptor", release_descriptor, METH_NOARGS, NULL},
	{"write_at_exit", write_at_exit, METH_O, NULL},
	{NULL, NULL, 0, NULL},
};
