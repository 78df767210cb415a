/*
 * Where a task that is over its limit may be interrupted: in frames of the program,
 * and not in those of a library that keeps the books of an event loop or of threads,
 * but for the entry of one of its coroutines.
 */
#include "binding.h"

#include <frameobject.h>
#include <opcode.h>

#include <string.h>

/*
 * Top-level packages in whose frames nothing is raised: event loops and thread
 * pools, and what prints an error that is on its way already.  trio keeps
 * KeyboardInterrupt out of its frames for the same reason.  The import system has its
 * first names where nobody has imported importlib.
 */
static const char *const uninterruptible[] = {
	"_colorize",
	"_frozen_importlib",
	"_frozen_importlib_external",
	"anyio",
	"ast",
	"asyncio",
	"atexit",
	"codecs",
	"concurrent",
	"contextlib",
	"encodings",
	"gevent",
	"greenlet",
	"importlib",
	"linecache",
	"logging",
	"multiprocessing",
	"objcg",
	"outcome",
	"queue",
	"selectors",
	"sniffio",
	"threading",
	"tokenize",
	"traceback",
	"trio",
	"uvloop",
	"warnings",
	"weakref",
};

static int is_program_frame(PyFrameObject *frame)
{
	PyObject *globals;
	PyObject *name;
	const char *text;
	int interruptible = 1;

	globals = PyObject_GetAttrString((PyObject *)frame, "f_globals");
	name = globals && PyDict_Check(globals) ? PyDict_GetItemString(globals, "__name__") : NULL;
	text = name && PyUnicode_Check(name) ? PyUnicode_AsUTF8(name) : NULL;
	for (size_t i = 0; text && i < sizeof(uninterruptible) / sizeof(uninterruptible[0]); i++) {
		size_t len = strlen(uninterruptible[i]);

		if (strncmp(text, uninterruptible[i], len) == 0 &&
		    (text[len] == '.' || text[len] == '\0'))
			interruptible = 0;
	}
	PyErr_Clear();
	Py_XDECREF(globals);
	return interruptible;
}

/* Where in its code a frame is, in bytes; -1 before its first instruction, or unknown. */
static Py_ssize_t instruction_of(PyFrameObject *frame)
{
	PyObject *lasti = PyObject_GetAttrString((PyObject *)frame, "f_lasti");
	Py_ssize_t at = lasti ? PyLong_AsSsize_t(lasti) : -1;

	PyErr_Clear();
	Py_XDECREF(lasti);
	return at;
}

/*
 * Whether a coroutine has only just been entered.  Where code of the program
 * awaits it, raising in it is as if the await itself had failed.  (This does
 * not hold for functions: one may have been called by a C function that is in
 * the middle of something, as Future.set_result() calls call_soon().)  Nor for
 * the end of an `async with`: a lock that is left without it stays locked, a
 * timeout goes on, and a nursery of trio's ends everything.
 */
static int is_coroutine_entry(PyFrameObject *frame)
{
	PyCodeObject *code = PyFrame_GetCode(frame);
	int entry = (code->co_flags & CO_COROUTINE) && instruction_of(frame) <= 8 &&
		    PyUnicode_CompareWithASCIIString(code->co_name, "__aexit__") != 0;

	Py_DECREF(code);
	return entry;
}

#if PY_VERSION_HEX < 0x030B0000
#define code_bytes(code) Py_NewRef((code)->co_code)
#define is_not_to_be_left(of) ((void)(of), 1)
#else
#define code_bytes(code) PyCode_GetCode(code)
#define AWAIT_AEXIT 2 /* as the compiler marks it */
#define is_not_to_be_left(of) ((of) == AWAIT_AEXIT)
#endif

/*
 * Whether a coroutine was just made and is awaited next, and that at the end of an
 * `async with`: CPython checks between the two, and an exception there is an end that
 * never comes (see above).  3.10 checks there often, and does not say of which await it is;
 * there it is so for all, which also spares the program a warning about a coroutine
 * that was never awaited.  The entry of that coroutine, or the next one, will do as well.
 */
static int is_about_to_await(PyFrameObject *frame)
{
	PyCodeObject *code = PyFrame_GetCode(frame);
	PyObject *bytes = NULL;
	int about = 0;

	if (code->co_flags & (CO_COROUTINE | CO_ASYNC_GENERATOR))
		bytes = code_bytes(code);
	if (bytes) {
		const unsigned char *text = (const unsigned char *)PyBytes_AS_STRING(bytes);
		Py_ssize_t size = PyBytes_GET_SIZE(bytes);
		Py_ssize_t at = instruction_of(frame);
		Py_ssize_t next = at < 0 ? size : at + 2;

		/* From 3.11 on an instruction is followed by room for what the interpreter learns. */
		while (next + 1 < size && text[next] == 0)
			next += 2;
		about = next + 1 < size && text[next] == GET_AWAITABLE &&
			is_not_to_be_left(text[next + 1]);
	}
	PyErr_Clear();
	Py_DECREF(code);
	Py_XDECREF(bytes);
	return about;
}

/* Whether an exception may be raised in this frame; NULL: no. The GIL is held, no error set. */
int frame_is_interruptible(PyFrameObject *frame)
{
	PyFrameObject *back;
	int interruptible;

	if (!frame)
		return FRAME_IS_NOT;
	if (is_program_frame(frame))
		return is_about_to_await(frame) ? FRAME_IS_NOT : FRAME_OF_PROGRAM;
	if (!is_coroutine_entry(frame))
		return FRAME_IS_NOT;
	back = PyFrame_GetBack(frame);
	PyErr_Clear();
	interruptible = back && is_program_frame(back);
	Py_XDECREF(back);
	return interruptible ? FRAME_ENTERED : FRAME_IS_NOT;
}
