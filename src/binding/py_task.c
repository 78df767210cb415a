/* TaskBase: a handle on a task. It does not keep the task alive. */
#include "binding.h"

#include <errno.h>

typedef struct {
	PyObject_HEAD struct task *task;
	uint32_t gen;
	uint64_t id;
} TaskBase;

static PyObject *handle_type;

/* The record, or NULL without an exception when the task has ended. */
static struct task *living_task(const TaskBase *self)
{
	if (load_relaxed(&self->task->state) == TASK_LIVE &&
	    load_relaxed(&self->task->gen) == self->gen)
		return self->task;
	return NULL;
}

/* Where it is: if another process has asked for a move that no charge has met yet, there. */
uint32_t task_gid(struct task *task)
{
	if (unlikely(load_relaxed(&task->request)))
		task_serve_request(task);
	return load_acquire(&task->memcg);
}

PyObject *task_handle(const struct task *task)
{
	PyTypeObject *type =
		(PyTypeObject *)(handle_type ? handle_type : (PyObject *)&TaskBase_Type);
	TaskBase *self = (TaskBase *)type->tp_alloc(type, 0);

	if (!self)
		return NULL;
	self->task = &region.tasks[task_index(task)];
	self->gen = load_relaxed(&task->gen);
	self->id = task->id;
	return (PyObject *)self;
}

PyObject *set_task_type(PyObject *module, PyObject *type)
{
	(void)module;
	if (!in_main_interpreter())
		return NULL;
	if (!PyType_Check(type) || !PyType_IsSubtype((PyTypeObject *)type, &TaskBase_Type)) {
		PyErr_Format(PyExc_TypeError, "a subclass of TaskBase is needed, not %R", type);
		return NULL;
	}
	Py_INCREF(type);
	Py_XSETREF(handle_type, type);
	Py_RETURN_NONE;
}

static PyObject *task_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	(void)args;
	(void)kwargs;
	PyErr_Format(
		PyExc_TypeError,
		"a %s is made by entering a group (`with group:`); objcg.current_task() returns it",
		type->tp_name);
	return NULL;
}

static PyObject *task_get_id(PyObject *self, void *closure)
{
	(void)closure;
	return PyLong_FromUnsignedLongLong(((TaskBase *)self)->id);
}

static PyObject *task_get_name(PyObject *object, void *closure)
{
	TaskBase *self = (TaskBase *)object;
	const struct task *task = living_task(self);

	(void)closure;
	if (task && task->name_len)
		return PyUnicode_DecodeUTF8(task->name, task->name_len, "replace");
	return PyUnicode_FromFormat("task-%llu", (unsigned long long)self->id);
}

static int task_set_name_attr(PyObject *object, PyObject *value, void *closure)
{
	struct task *task = living_task((TaskBase *)object);
	const char *text;
	Py_ssize_t len;

	(void)closure;
	if (!value || !PyUnicode_Check(value)) {
		PyErr_Format(PyExc_TypeError, "a task's name must be a str, not %R",
			     value ? value : Py_None);
		return -1;
	}
	text = PyUnicode_AsUTF8AndSize(value, &len);
	if (!text)
		return -1;
	if (task)
		task_set_name(task, text, (size_t)len);
	return 0;
}

static PyObject *task_get_online(PyObject *self, void *closure)
{
	(void)closure;
	return PyBool_FromLong(living_task((TaskBase *)self) != NULL);
}

static PyObject *task_get_gid(PyObject *self, void *closure)
{
	struct task *task = living_task((TaskBase *)self);

	(void)closure;
	return PyLong_FromUnsignedLong(task ? task_gid(task) : 0);
}

static PyObject *task_move_method(PyObject *object, PyObject *group)
{
	TaskBase *self = (TaskBase *)object;
	struct mem_cgroup *memcg;
	int err;

	if (!(load_relaxed(&region.header->flags) & REGION_MIGRATION))
		return raise_errno(-EPERM);
	if (!PyObject_TypeCheck(group, &GroupBase_Type)) {
		PyErr_Format(PyExc_TypeError,
			     "a task can be moved to a Group, not to %R; get one by "
			     "objcg.group(path)",
			     group);
		return NULL;
	}
	memcg = group_memcg(group);
	if (!memcg)
		return NULL;
	err = task_move(self->task, self->gen, memcg);
	if (err < 0)
		return raise_errno(err);
	offenders_task_moved();
	Py_RETURN_NONE;
}

static PyObject *task_richcompare(PyObject *a, PyObject *b, int op)
{
	int equal;

	if ((op != Py_EQ && op != Py_NE) || !PyObject_TypeCheck(b, &TaskBase_Type))
		Py_RETURN_NOTIMPLEMENTED;
	equal = ((TaskBase *)a)->id == ((TaskBase *)b)->id;
	return PyBool_FromLong(op == Py_EQ ? equal : !equal);
}

static Py_hash_t task_hash(PyObject *self)
{
	return (Py_hash_t)(((TaskBase *)self)->id & PY_SSIZE_T_MAX);
}

static PyMethodDef task_methods[] = {
	{"_move", task_move_method, METH_O, NULL},
	{NULL, NULL, 0, NULL},
};

static PyGetSetDef task_getset[] = {
	{"id", task_get_id, NULL, "A number that no other task of this process ever has.", NULL},
	{"name", task_get_name, task_set_name_attr, "Up to 63 bytes of UTF-8; longer ones are cut.",
	 NULL},
	{"online", task_get_online, NULL, "Whether any context still carries the task.", NULL},
	{"gid", task_get_gid, NULL, NULL, NULL},
	{NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject TaskBase_Type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "objcg._core.TaskBase",
	.tp_doc = "A handle on a task.",
	.tp_basicsize = sizeof(TaskBase),
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
	.tp_new = task_new,
	.tp_richcompare = task_richcompare,
	.tp_hash = task_hash,
	.tp_methods = task_methods,
	.tp_getset = task_getset,
};
