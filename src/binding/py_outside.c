/*
 * What this process does to the region of another one, which it has mapped.
 * Which record is meant, and whether it may be, is decided in Python
 * (objcg/outside.py); here is what takes atomic operations.
 */
#include "binding.h"

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

PyMethodDef outside_methods[] = {
	{"request_move", request_move, METH_VARARGS, NULL},
	{NULL, NULL, 0, NULL},
};
