/*
 * What this process does to the region of another one, which it has mapped.
 * Which record is meant, and whether it may be, is decided in Python
 * (objcg/outside.py); here is what takes atomic operations.
 */
#include "binding.h"

#include "knobs.h"

/* `size` bytes at `offset` of a writable buffer, or NULL with an exception. */
static void *record_in(const Py_buffer *view, Py_ssize_t offset, size_t size)
{
	if (offset < 0 || (size_t)offset % 64 || (size_t)view->len < size ||
	    (size_t)offset > (size_t)view->len - size) {
		PyErr_Format(PyExc_ValueError, "no record of %zu bytes is at %zd of %zd", size,
			     offset, view->len);
		return NULL;
	}
	return (char *)view->buf + offset;
}

static PyObject *request_move(PyObject *module, PyObject *args)
{
	unsigned int gen, gid, group_gen;
	Py_ssize_t offset;
	Py_buffer view;
	struct region_header *header;
	struct task *task;

	(void)module;
	if (!PyArg_ParseTuple(args, "w*nIII", &view, &offset, &gen, &gid, &group_gen))
		return NULL;
	header = record_in(&view, 0, sizeof(*header));
	task = header ? record_in(&view, offset, sizeof(*task)) : NULL;
	if (task && gid && gid < MEMCG_MAX)
		task_request_move(header, task, gen, gid, group_gen);
	else if (task)
		PyErr_Format(PyExc_ValueError, "no group has the id %u", gid);
	PyBuffer_Release(&view);
	if (PyErr_Occurred())
		return NULL;
	Py_RETURN_NONE;
}

/* None: leave it as it is. */
static int convert_knob(PyObject *value, void *result)
{
	int64_t *knob = result;

	*knob = KNOB_KEEP;
	if (value == Py_None)
		return 1;
	*knob = PyLong_AsLongLong(value);
	if (*knob < 0 && !PyErr_Occurred())
		PyErr_Format(PyExc_ValueError, "a size cannot be negative: %R", value);
	return !PyErr_Occurred();
}

static PyObject *set_knobs(PyObject *module, PyObject *args)
{
	unsigned long long uid;
	struct mem_cgroup *memcg;
	struct knobs knobs;
	Py_ssize_t offset;
	Py_buffer view;
	int err = 0;

	(void)module;
	if (!PyArg_ParseTuple(args, "w*nKO&O&O&", &view, &offset, &uid, convert_knob, &knobs.max,
			      convert_knob, &knobs.high, convert_knob, &knobs.low))
		return NULL;
	memcg = record_in(&view, offset, sizeof(*memcg));
	if (memcg)
		err = memcg_set_knobs_from_outside(memcg, uid, &knobs);
	PyBuffer_Release(&view);
	if (!memcg)
		return NULL;
	if (err)
		return raise_errno(err);
	Py_RETURN_NONE;
}

PyMethodDef outside_methods[] = {
	{"set_knobs", set_knobs, METH_VARARGS, NULL},
	{"request_move", request_move, METH_VARARGS, NULL},
	{NULL, NULL, 0, NULL},
};
