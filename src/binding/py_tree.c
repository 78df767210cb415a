/*
 * The tree of Group objects beside that of the records: finding a group by its
 * path, making and removing it.
 *
 * What is done here runs no code of the program and does not let go of the GIL
 * between looking and doing: so two threads cannot make the same group, and a
 * task over its limit is not interrupted halfway.  Allocations may run something
 * (up to 3.11 they start the garbage collector, and that finalisers), so what has
 * to be allocated is, before anybody looks.  The objects of the tree are nobody's:
 * root is charged for them.
 */
#include "binding.h"

#include <errno.h>

static PyTypeObject *group_type;
static PyObject *groups; /* the living ones by id; _registry.py has it, too */
static GroupBase *root_group;

/*
 * Whether this can be the path of a group.  _paths.split() says the same, and why
 * not; tests/integration/test_group_paths.py compares them.
 */
static bool is_path(PyObject *path)
{
	Py_ssize_t len = PyUnicode_GET_LENGTH(path);
	int kind = PyUnicode_KIND(path);
	const void *data = PyUnicode_DATA(path);
	Py_ssize_t start = 1;
	unsigned int depth = 0;
	size_t bytes = 0;

	if (len == 0 || PyUnicode_READ(kind, data, 0) != '/')
		return false;
	for (Py_ssize_t i = 1; len > 1 && i <= len; i++) {
		Py_UCS4 c = i < len ? PyUnicode_READ(kind, data, i) : '/';

		if (c == '/') {
			bool dots = i - start <= 2 && PyUnicode_READ(kind, data, start) == '.' &&
				    PyUnicode_READ(kind, data, i - 1) == '.';

			if (bytes == 0 || bytes > NAME_BYTES_MAX || dots ||
			    ++depth > MEMCG_DEPTH_MAX)
				return false;
			start = i + 1;
			bytes = 0;
		} else if (c == 0 || (c >= 0xD800 && c < 0xE000)) {
			return false;
		} else {
			bytes += c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
		}
	}
	return true;
}

/* A copy, also of the whole: what the program has made is charged to the program. */
static PyObject *copy_of(PyObject *text, Py_ssize_t start, Py_ssize_t end)
{
	int kind = PyUnicode_KIND(text);

	return PyUnicode_FromKindAndData(kind, (char *)PyUnicode_DATA(text) + start * kind,
					 end - start);
}

static void bind(GroupBase *self, struct mem_cgroup *memcg)
{
	self->gid = memcg_id(memcg);
	self->gen = load_relaxed(&memcg->gen);
	self->uid = memcg->uid;
}

/* An object for a group that is not made yet. Takes over name and path. */
static GroupBase *object_new(GroupBase *parent, PyObject *name, PyObject *path)
{
	GroupBase *self = NULL;

	if (name && path)
		self = (GroupBase *)group_type->tp_alloc(group_type, 0);
	if (!self) {
		Py_XDECREF(name);
		Py_XDECREF(path);
		return NULL;
	}
	self->name = name;
	self->path = path;
	self->parent = parent ? (PyObject *)parent : Py_None;
	Py_INCREF(self->parent);
	self->children = PyDict_New();
	self->callbacks = PyList_New(0);
	if (!self->children || !self->callbacks)
		Py_CLEAR(self);
	return self;
}

static int register_group(GroupBase *self)
{
	PyObject *id = PyLong_FromUnsignedLong(self->gid);
	int failed = !id || PyDict_SetItem(groups, id, (PyObject *)self) < 0;

	Py_XDECREF(id);
	return failed ? -1 : 0;
}

/* Takes `self` out of a dict, unless what is there under this key is another's by now. */
static void discard(PyObject *dict, PyObject *key, GroupBase *self)
{
	if (!key || PyDict_GetItemWithError(dict, key) != (PyObject *)self ||
	    PyDict_DelItem(dict, key) < 0)
		PyErr_Clear();
}

static void unregister_group(GroupBase *self)
{
	PyObject *id = PyLong_FromUnsignedLong(self->gid);

	discard(groups, id, self);
	Py_XDECREF(id);
	discard(((GroupBase *)self->parent)->children, self->name, self);
}

/* The record, and the object where it belongs. `found`: it was made by somebody else meanwhile. */
static int put_into_tree(GroupBase *self, PyObject **found)
{
	GroupBase *parent = (GroupBase *)self->parent;
	struct mem_cgroup *memcg;
	Py_ssize_t len;
	const char *text = PyUnicode_AsUTF8AndSize(self->name, &len);
	int err;

	*found = PyDict_GetItemWithError(parent->children, self->name);
	if (!text || *found || PyErr_Occurred())
		return *found ? 0 : -1;
	memcg = group_memcg_or_removed((PyObject *)parent);
	if (!memcg)
		return -1;
	/* Ids of removed groups, if any are kept by what can be had back. */
	if (load_relaxed(&memcg_from_id(MEMCG_ROOT)->nr_dying))
		settle();
	err = memcg_create(memcg, text, (size_t)len, &memcg);
	if (err < 0) {
		raise_no_record(err, "group", SECTION_MEMCG);
		return -1;
	}
	bind(self, memcg);
	if (register_group(self) < 0 ||
	    PyDict_SetItem(parent->children, self->name, (PyObject *)self) < 0) {
		PyObject *type, *value, *traceback;

		PyErr_Fetch(&type, &value, &traceback);
		unregister_group(self);
		memcg_remove(memcg, false);
		PyErr_Restore(type, value, traceback);
		return -1;
	}
	return 0;
}

/* The child that is path[start:end]; made if need be. A new reference. */
static PyObject *child(GroupBase *parent, PyObject *path, Py_ssize_t start, Py_ssize_t end)
{
	PyObject *name = copy_of(path, start, end);
	PyObject *found = name ? PyDict_GetItemWithError(parent->children, name) : NULL;
	GroupBase *self;

	if (found) {
		Py_INCREF(found);
		Py_DECREF(name);
		return found;
	}
	if (!name || PyErr_Occurred()) {
		Py_XDECREF(name);
		return NULL;
	}
	self = object_new(parent, name, copy_of(path, 0, end));
	if (!self || put_into_tree(self, &found) < 0) {
		Py_XDECREF(self);
		return NULL;
	}
	if (found) {
		Py_INCREF(found);
		Py_DECREF(self);
		return found;
	}
	return (PyObject *)self;
}

static PyObject *walk(PyObject *path)
{
	Py_ssize_t len = PyUnicode_GET_LENGTH(path);
	PyObject *at = (PyObject *)root_group;
	Py_ssize_t start = 1;

	Py_INCREF(at);
	while (at && start < len) {
		Py_ssize_t end = PyUnicode_FindChar(path, '/', start, len, 1);
		PyObject *up = at;

		if (end < 0)
			end = len;
		at = child((GroupBase *)up, path, start, end);
		Py_DECREF(up);
		start = end + 1;
	}
	return at;
}

/* group_at(path) -> Group, made if need be; None: that is no path, or objcg is not enabled */
static PyObject *group_at(PyObject *module, PyObject *path)
{
	PyObject *found;

	(void)module;
	if (!root_group || !PyUnicode_Check(path))
		Py_RETURN_NONE;
#if PY_VERSION_HEX < 0x030C0000
	if (PyUnicode_READY(path) < 0)
		return NULL;
#endif
	if (!is_path(path))
		Py_RETURN_NONE;
	if (!in_main_interpreter())
		return NULL;
	charge_root_begin();
	found = walk(path);
	charge_root_end();
	return found;
}

/* bind_root(type, groups): makes the root's object; groups has the living ones by id. */
static PyObject *bind_root(PyObject *module, PyObject *args)
{
	PyTypeObject *type;
	PyObject *dict;

	(void)module;
	if (!PyArg_ParseTuple(args, "O!O!", &PyType_Type, &type, &PyDict_Type, &dict) ||
	    !in_main_interpreter())
		return NULL;
	if (!need_enabled())
		return NULL;
	if (!PyType_IsSubtype(type, &GroupBase_Type)) {
		PyErr_Format(PyExc_TypeError, "a subclass of GroupBase is needed, not %R", type);
		return NULL;
	}
	if (root_group)
		Py_RETURN_NONE;
	Py_INCREF(type);
	group_type = type;
	Py_INCREF(dict);
	groups = dict;
	root_group = object_new(NULL, PyUnicode_FromString(""), PyUnicode_FromString("/"));
	if (!root_group)
		return NULL;
	bind(root_group, memcg_from_id(MEMCG_ROOT));
	if (register_group(root_group) < 0) {
		Py_CLEAR(root_group);
		return NULL;
	}
	Py_RETURN_NONE;
}

PyObject *group_remove(PyObject *object, PyObject *force)
{
	GroupBase *self = (GroupBase *)object;
	struct mem_cgroup *memcg = group_memcg(object);
	int forced = PyObject_IsTrue(force);
	bool movable = load_relaxed(&region.header->flags) & REGION_MIGRATION;
	int err;

	if (!memcg || forced < 0)
		return NULL;
	/* Without blocks its objcg can then go at once. */
	drain_stocks_of(memcg);
	/* Force moves the group's tasks. */
	err = memcg_remove(memcg, forced && movable);
	if (err == -EBUSY && forced && !movable && !load_relaxed(&memcg->nr_children))
		err = -EPERM;
	if (err < 0)
		return raise_errno(err);
	unregister_group(self);
	/* Last: the end of a callback may run code of the program. */
	if (PyList_SetSlice(self->callbacks, 0, PyList_GET_SIZE(self->callbacks), NULL) < 0)
		return NULL;
	Py_RETURN_NONE;
}

PyMethodDef tree_methods[] = {
	{"group_at", group_at, METH_O, NULL},
	{"bind_root", bind_root, METH_VARARGS, NULL},
	{NULL, NULL, 0, NULL},
};
