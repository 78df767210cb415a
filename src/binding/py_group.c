/* GroupBase: a handle on a group; entering and leaving it, and its knobs. */
#include "binding.h"

#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <structmember.h>
#include <string.h>

PyObject *raise_errno(int negative_errno)
{
	errno = -negative_errno;
	return PyErr_SetFromErrno(PyExc_OSError);
}

static int is_used_up(enum region_section section)
{
	return section_used(section) == region.header->sections[section].capacity;
}

void raise_no_record(int negative_errno, const char *what, enum region_section section)
{
	PyObject *text;
	PyObject *args;

	if (negative_errno != -ENOSPC) {
		raise_errno(negative_errno);
		return;
	}
	if (is_used_up(section) || is_used_up(SECTION_OBJCG))
		text = PyUnicode_FromFormat(
			"no room for another %s: there can be %u at a time, with the groups that "
			"were removed and still have memory charged to them",
			what, region.header->sections[section].capacity - 1);
	else
		text = PyUnicode_FromFormat("no room for another %s: the file system of %s is full",
					    what, region.path);
	args = Py_BuildValue("(iN)", ENOSPC, text);
	if (args)
		PyErr_SetObject(PyExc_OSError, args);
	Py_XDECREF(args);
}

int in_main_interpreter(void)
{
	if (PyThreadState_Get()->interp == PyInterpreterState_Main())
		return 1;
	PyErr_SetString(PyExc_RuntimeError, "objcg can only be used in the main interpreter");
	return 0;
}

struct mem_cgroup *group_memcg(PyObject *object)
{
	GroupBase *self = (GroupBase *)object;
	struct mem_cgroup *memcg = memcg_from_id(self->gid);

	if (load_relaxed(&memcg->gen) == self->gen && load_relaxed(&memcg->state) == MEMCG_ONLINE)
		return memcg;
	raise_errno(-ENODEV);
	return NULL;
}

struct mem_cgroup *memcg_from_object(PyObject *object)
{
	unsigned long gid = PyLong_AsUnsignedLong(object);

	if ((gid == (unsigned long)-1 && PyErr_Occurred()) || !need_enabled())
		return NULL;
	if (gid < MEMCG_ROOT || gid >= section_used(SECTION_MEMCG) ||
	    load_relaxed(&memcg_from_id((uint32_t)gid)->state) != MEMCG_ONLINE) {
		raise_errno(-ENODEV);
		return NULL;
	}
	return memcg_from_id((uint32_t)gid);
}

static PyObject *group_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	(void)type;
	(void)args;
	(void)kwargs;
	PyErr_SetString(PyExc_TypeError,
			"groups are made by objcg.group(path), not by calling Group");
	return NULL;
}

static int group_traverse(GroupBase *self, visitproc visit, void *arg)
{
	Py_VISIT(self->parent);
	Py_VISIT(self->children);
	Py_VISIT(self->callbacks);
	return 0;
}

static int group_clear(GroupBase *self)
{
	Py_CLEAR(self->children);
	Py_CLEAR(self->callbacks);
	return 0;
}

static void group_dealloc(GroupBase *self)
{
	PyObject_GC_UnTrack(self);
	group_clear(self);
	Py_CLEAR(self->name);
	Py_CLEAR(self->path);
	Py_CLEAR(self->parent);
	Py_TYPE(self)->tp_free(self);
}

struct mem_cgroup *group_memcg_or_removed(PyObject *self)
{
	struct mem_cgroup *memcg = group_memcg(self);
	PyObject *errors;
	PyObject *error;

	if (memcg)
		return memcg;
	PyErr_Clear();
	errors = PyImport_ImportModule("objcg.errors");
	error = errors ? PyObject_CallMethod(errors, "removed", "O", self) : NULL;
	Py_XDECREF(errors);
	if (error) {
		PyErr_SetObject((PyObject *)Py_TYPE(error), error);
		Py_DECREF(error);
	}
	return NULL;
}

PyObject *group_enter_method(PyObject *self, PyObject *unused)
{
	struct mem_cgroup *memcg = group_memcg_or_removed(self);

	(void)unused;
	if (!memcg || group_enter(memcg, ((GroupBase *)self)->gen, NULL) < 0)
		return NULL;
	Py_INCREF(self);
	return self;
}

PyObject *group_exit_method(PyObject *object, PyObject *const *args, Py_ssize_t nargs)
{
	GroupBase *self = (GroupBase *)object;

	if (likely(group_exit(self->gid, self->gen) == 0))
		Py_RETURN_NONE;
	/*
	 * A generator or coroutine that nobody will go on with is closed wherever its
	 * last reference goes: there is nothing to leave there, nor anybody to be told.
	 */
	if (nargs > 0 && args[0] == PyExc_GeneratorExit &&
	    PyErr_ExceptionMatches(PyExc_RuntimeError)) {
		PyErr_Clear();
		Py_RETURN_NONE;
	}
	return NULL;
}

static PyObject *run_inside(PyObject *object, PyObject *name, PyObject *function, PyObject *args,
			    PyObject *kwargs)
{
	GroupBase *self = (GroupBase *)object;
	struct mem_cgroup *memcg = group_memcg_or_removed(object);
	PyObject *type, *value, *traceback;
	PyObject *result;

	if (!memcg || group_enter(memcg, self->gen, name) < 0)
		return NULL;
	result = PyObject_Call(function, args, kwargs);
	PyErr_Fetch(&type, &value, &traceback);
	if (group_exit(self->gid, self->gen) < 0) {
		if (type)
			PyErr_Clear(); /* the function's own error matters more */
		else
			Py_CLEAR(result);
	}
	if (type)
		PyErr_Restore(type, value, traceback);
	return result;
}

/* An attribute of what may be anything; NULL without an error where there is none. */
static PyObject *attribute(PyObject *object, const char *name)
{
	PyObject *value = PyObject_GetAttrString(object, name);

	if (!value)
		PyErr_Clear();
	return value;
}

static int is_partial(PyObject *function)
{
	for (PyTypeObject *type = Py_TYPE(function); type; type = type->tp_base)
		if (strcmp(type->tp_name, "functools.partial") == 0)
			return 1;
	return 0;
}

/* Whether inspect.markcoroutinefunction() was called for it; its mark has two names there. */
static int is_marked(PyObject *function)
{
	static const char *const names[] = {"_is_coroutine_mark", "_is_coroutine_marker"};
	PyObject *own = attribute(function, "_is_coroutine_marker");
	PyObject *modules = PyImport_GetModuleDict();
	PyObject *inspect = own && modules ? PyDict_GetItemString(modules, "inspect") : NULL;
	int marked = 0;

	for (size_t i = 0; inspect && i < sizeof(names) / sizeof(names[0]); i++) {
		PyObject *mark = attribute(inspect, names[i]);

		marked |= mark && mark == own;
		Py_XDECREF(mark);
	}
	Py_XDECREF(own);
	return marked;
}

/*
 * The flags of the code that a call runs, as far as inspect.iscoroutinefunction() and
 * the like would find them, without importing it; 0 for what has no such code.
 */
static int code_flags(PyObject *function)
{
	PyObject *inner = NULL;
	int flags = 0;

	while (PyMethod_Check(function))
		function = PyMethod_GET_FUNCTION(function);
	if (PyFunction_Check(function)) {
		flags = ((PyCodeObject *)PyFunction_GET_CODE(function))->co_flags;
		if (((PyFunctionObject *)function)->func_dict && is_marked(function))
			flags |= CO_COROUTINE;
		return flags;
	}
	if (PyCFunction_Check(function) || PyType_Check(function))
		return 0;
	if (Py_EnterRecursiveCall(" in Group.run()")) {
		PyErr_Clear(); /* the call itself will say so */
		return 0;
	}
	if (is_partial(function)) {
		inner = attribute(function, "func");
		flags = inner ? code_flags(inner) : 0;
	} else {
		/* A function of a compiler's, or a proxy of one. */
		PyObject *code = attribute(function, "__code__");
		PyObject *number = code ? attribute(code, "co_flags") : NULL;

		if (number && PyLong_Check(number))
			flags = (int)(PyLong_AsUnsignedLongMask(number) & INT_MAX);
		Py_XDECREF(number);
		Py_XDECREF(code);
		inner = attribute((PyObject *)Py_TYPE(function), "__call__");
		if (inner && PyFunction_Check(inner))
			flags |= code_flags(inner);
		if (is_marked(function))
			flags |= CO_COROUTINE;
	}
	Py_XDECREF(inner);
	Py_LeaveRecursiveCall();
	return flags;
}

/* 0 for what has run when its call returns; else raises TypeError, and returns -1. */
static int check_runs(PyObject *self, PyObject *function)
{
	int flags = code_flags(function);

	if (flags & (CO_GENERATOR | CO_ASYNC_GENERATOR))
		PyErr_Format(
			PyExc_TypeError,
			"%R cannot run the generator function %R: its body runs piece by piece "
			"in the context of whoever iterates over it, after run() has returned; "
			"run the function that iterates, or use 'with group:' around the parts "
			"of the body between two yields",
			self, function);
	else if (flags & CO_COROUTINE)
		PyErr_Format(
			PyExc_TypeError,
			"%R cannot run the coroutine function %R: its body runs when it is "
			"awaited, after run() has returned; decorate it by the group (@group), "
			"or await it inside 'with group:'",
			self, function);
	else
		return 0;
	return -1;
}

static PyObject *group_run(PyObject *self, PyObject *args, PyObject *kwargs)
{
	PyObject *function;
	PyObject *rest;
	PyObject *name;
	PyObject *result;

	if (PyTuple_GET_SIZE(args) < 1) {
		PyErr_SetString(PyExc_TypeError, "run() needs a callable as its first argument");
		return NULL;
	}
	function = PyTuple_GET_ITEM(args, 0);
	if (!PyCallable_Check(function)) {
		PyErr_Format(PyExc_TypeError,
			     "run() needs a callable as its first argument, not %R", function);
		return NULL;
	}
	if (check_runs(self, function) < 0)
		return NULL;
	rest = PyTuple_GetSlice(args, 1, PyTuple_GET_SIZE(args));
	if (!rest)
		return NULL;
	name = PyObject_GetAttrString(function, "__qualname__");
	if (!name || !PyUnicode_Check(name)) {
		PyErr_Clear();
		Py_CLEAR(name);
	}
	result = run_inside(self, name, function, rest, kwargs);
	Py_XDECREF(name);
	Py_DECREF(rest);
	return result;
}

static PyObject *group_run_named(PyObject *self, PyObject *args)
{
	PyObject *name, *function, *arguments, *kwargs;

	if (!PyArg_ParseTuple(args, "UOO!O!", &name, &function, &PyTuple_Type, &arguments,
			      &PyDict_Type, &kwargs))
		return NULL;
	return run_inside(self, name, function, arguments, kwargs);
}

static PyObject *size_or_none(int64_t size)
{
	if (size == COUNTER_UNSET)
		Py_RETURN_NONE;
	return PyLong_FromLongLong(size);
}

static PyObject *group_read(PyObject *self, PyObject *unused)
{
	struct mem_cgroup *memcg = group_memcg(self);
	struct memcg_view view;
	int64_t low;

	(void)unused;
	if (!memcg)
		return NULL;
	settle();
	memcg_view(memcg, &view);
	low = load_relaxed(&memcg->memory.low);
	return Py_BuildValue(
		"{sLsLsNsNsNs{sKsKsKsKsK}s{sLsLsLsLsLsLsLsI}sIsI}", "current",
		(long long)view.current, "peak", (long long)view.peak, "max",
		size_or_none(load_relaxed(&memcg->memory.max)), "high",
		size_or_none(load_relaxed(&memcg->memory.high)), "low",
		size_or_none(low ? low : COUNTER_UNSET), "events", "low",
		(unsigned long long)load_relaxed(&memcg->events[EVENT_LOW]), "high",
		(unsigned long long)load_relaxed(&memcg->events[EVENT_HIGH]), "max",
		(unsigned long long)load_relaxed(&memcg->events[EVENT_MAX]), "ceiling",
		(unsigned long long)load_relaxed(&memcg->events[EVENT_CEILING]), "raised",
		(unsigned long long)load_relaxed(&memcg->events[EVENT_RAISED]), "stat", "object",
		(long long)view.stat[DOMAIN_OBJECT], "mem", (long long)view.stat[DOMAIN_MEM], "raw",
		(long long)view.stat[DOMAIN_RAW], "numpy", (long long)view.stat[DOMAIN_NUMPY],
		"native", (long long)view.stat[DOMAIN_NATIVE], "mmap",
		(long long)view.stat[DOMAIN_MMAP], "blocks", (long long)view.blocks,
		"dying_descendants", (unsigned int)load_relaxed(&memcg->nr_dying), "tasks",
		(unsigned int)load_relaxed(&memcg->nr_tasks), "children",
		(unsigned int)load_relaxed(&memcg->nr_children));
}

static PyObject *group_current(PyObject *self, PyObject *unused)
{
	struct mem_cgroup *memcg = group_memcg(self);

	(void)unused;
	if (!memcg)
		return NULL;
	return PyLong_FromLongLong(memcg_current(memcg));
}

void drain_stocks_of(const struct mem_cgroup *memcg)
{
	native_drain_subtree(memcg);
	stock_drain_subtree(gil_cpu, memcg);
	raw_lock();
	stock_drain_subtree(raw_cpu, memcg);
	raw_unlock();
}

static PyObject *group_set(PyObject *self, PyObject *args)
{
	struct mem_cgroup *memcg = group_memcg(self);
	struct charge_result result = {0, 0, 0};
	const char *knob;
	PyObject *value;
	int64_t size = COUNTER_UNSET;

	if (!memcg || !PyArg_ParseTuple(args, "sO", &knob, &value))
		return NULL;
	if (value != Py_None) {
		size = PyLong_AsLongLong(value);
		if (size == -1 && PyErr_Occurred())
			return NULL;
		if (size < 0) {
			PyErr_Format(PyExc_ValueError, "a size cannot be negative: %R", value);
			return NULL;
		}
	}
	if (strcmp(knob, "max") == 0) {
		/* As for the kernel's memory.max: lowering it below the usage has it reclaimed. */
		drain_stocks_of(memcg);
		if (page_counter_set_max(memcg, size) > size && memcg_current(memcg) > size)
			result.over = memcg_id(memcg);
	} else if (strcmp(knob, "high") == 0) {
		store_seq_cst(&memcg->memory.high, size);
		if (memcg_current(memcg) > size)
			result.high = memcg_id(memcg);
	} else if (strcmp(knob, "low") == 0) {
		store_seq_cst(&memcg->memory.low, size == COUNTER_UNSET ? 0 : size);
	} else {
		PyErr_Format(PyExc_ValueError, "unknown knob '%s': max, high or low", knob);
		return NULL;
	}
	if (result.over || result.high)
		limits_notice(&result, 0);
	Py_RETURN_NONE;
}

/* _replace_max(old, new, bound): see page_counter_replace_max(). */
static PyObject *group_replace_max(PyObject *self, PyObject *args)
{
	struct mem_cgroup *memcg = group_memcg(self);
	struct charge_result result = {0, 0, 0};
	PyObject *values[3];
	int64_t sizes[3] = {COUNTER_UNSET, COUNTER_UNSET, COUNTER_UNSET};

	if (!memcg || !PyArg_ParseTuple(args, "OOO", &values[0], &values[1], &values[2]))
		return NULL;
	for (int i = 0; i < 3; i++) {
		if (values[i] == Py_None)
			continue;
		sizes[i] = PyLong_AsLongLong(values[i]);
		if (sizes[i] == -1 && PyErr_Occurred())
			return NULL;
		if (sizes[i] < 0) {
			PyErr_Format(PyExc_ValueError, "a size cannot be negative: %R", values[i]);
			return NULL;
		}
	}
	if (!page_counter_replace_max(memcg, sizes[0], sizes[1], sizes[2]))
		Py_RETURN_FALSE;
	if (memcg_current(memcg) > sizes[1]) {
		drain_stocks_of(memcg);
		result.over = memcg_id(memcg);
		limits_notice(&result, 0);
	}
	Py_RETURN_TRUE;
}

static PyObject *group_reset_peak(PyObject *self, PyObject *unused)
{
	struct mem_cgroup *memcg = group_memcg(self);

	(void)unused;
	if (!memcg)
		return NULL;
	drain_stocks_of(memcg);
	store_relaxed(&memcg->memory.watermark, load_relaxed(&memcg->memory.usage));
	Py_RETURN_NONE;
}

static PyObject *group_get_id(PyObject *self, void *closure)
{
	(void)closure;
	return PyLong_FromUnsignedLong(((GroupBase *)self)->gid);
}

static PyObject *group_get_uid(PyObject *self, void *closure)
{
	(void)closure;
	return PyLong_FromUnsignedLongLong(((GroupBase *)self)->uid);
}

static PyObject *group_get_online(PyObject *self, void *closure)
{
	int online = group_memcg(self) != NULL;

	(void)closure;
	PyErr_Clear();
	return PyBool_FromLong(online);
}

static PyMethodDef group_methods[] = {
	{"__enter__", group_enter_method, METH_NOARGS, "Charge what this context allocates here."},
	{"__exit__", (PyCFunction)(void (*)(void))group_exit_method, METH_FASTCALL,
	 "Back to the group that was current at entry."},
	{"run", (PyCFunction)(void (*)(void))group_run, METH_VARARGS | METH_KEYWORDS,
	 "run($self, fn, /, *args, **kwargs)\n--\n\nCall fn(*args, **kwargs) in this group; return what "
	 "it returns.\n\nRaises TypeError for coroutine and generator functions, whose bodies run later, and "
	 "GroupRemoved\n(OSError, ENODEV) if the group was removed."},
	{"_run_named", group_run_named, METH_VARARGS, NULL},
	{"_read", group_read, METH_NOARGS, NULL},
	{"_current", group_current, METH_NOARGS, NULL},
	{"_set", group_set, METH_VARARGS, NULL},
	{"_replace_max", group_replace_max, METH_VARARGS, NULL},
	{"_reset_peak", group_reset_peak, METH_NOARGS, NULL},
	{"_remove", group_remove, METH_O, NULL},
	{NULL, NULL, 0, NULL},
};

static PyGetSetDef group_getset[] = {
	{"id", group_get_id, NULL, "Index of the group's record in the region.", NULL},
	{"uid", group_get_uid, NULL, "A number that no other group of this process ever has.",
	 NULL},
	{"online", group_get_online, NULL, "Whether the group has not been removed.", NULL},
	{NULL, NULL, NULL, NULL, NULL},
};

#define MEMBER(name) {"_" #name, T_OBJECT_EX, offsetof(GroupBase, name), READONLY, NULL}

static PyMemberDef group_members[] = {
	MEMBER(name),	  MEMBER(path),	     MEMBER(parent),
	MEMBER(children), MEMBER(callbacks), {NULL, 0, 0, 0, NULL},
};

PyTypeObject GroupBase_Type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "objcg._core.GroupBase",
	.tp_doc = "A handle on a group.",
	.tp_basicsize = sizeof(GroupBase),
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
	.tp_new = group_new,
	.tp_dealloc = (destructor)group_dealloc,
	.tp_traverse = (traverseproc)group_traverse,
	.tp_clear = (inquiry)group_clear,
	.tp_members = group_members,
	.tp_methods = group_methods,
	.tp_getset = group_getset,
};
