/*
 * Callables that carry a membership: what a thread or a pool's job begins with, and
 * what runs at root though it is called from a group.
 */
#include "binding.h"

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
	struct thread_cache *cache = thread_cache_now();
	Membership *before;
	PyObject *result;

	if (!self->membership || !self->function) {
		PyErr_SetString(PyExc_RuntimeError, "a thread's start can be called once only");
		return NULL;
	}
	if (self->kind == BIND_THREAD) {
		native_thread_is_python();
		if (membership_set(cache, self->membership) < 0)
			return NULL;
		Py_CLEAR(self->membership);
		result = PyObject_Call(self->function, args, kwargs);
		if (!result) {
			report_thread_error(self->function);
			Py_RETURN_NONE;
		}
		return result;
	}
	before = membership_current(cache);
	Py_INCREF(before);
	if (membership_set(cache, self->membership) < 0) {
		Py_DECREF(before);
		return NULL;
	}
	result = PyObject_Call(self->function, args, kwargs);
	{
		PyObject *type, *value, *traceback;
		int failed;

		PyErr_Fetch(&type, &value, &traceback);
		failed = membership_go_back(thread_cache_now(), before);
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
	self->membership = how[0] == 'r' ? root_membership : membership_current(thread_cache_now());
	Py_INCREF(self->membership);
	Py_INCREF(function);
	self->function = function;
	PyObject_GC_Track(self);
	return (PyObject *)self;
}

int bound_add_type(void)
{
	return PyType_Ready(&Bound_Type);
}
