/* Whether contexts are laid out as contextvar.h has it, and what to do where they are not. */
#include "contextvar.h"

#include <stddef.h>

struct contextvar contextvar;

struct visited {
	PyObject *const *objects;
	size_t nr;
	size_t found;
};

static int visit(PyObject *object, void *arg)
{
	struct visited *visited = arg;

	for (size_t i = 0; i < visited->nr; i++)
		visited->found += visited->objects[i] == object;
	return 0;
}

/* Whether the garbage collector finds all of these in `object`, and how many times in all. */
static bool refers_to(PyObject *object, PyObject *const *objects, size_t nr)
{
	struct visited visited = {objects, nr, 0};
	traverseproc traverse = Py_TYPE(object)->tp_traverse;

	return traverse && traverse(object, visit, &visited) == 0 && visited.found == nr;
}

static bool has_room_for(PyObject *object, size_t bytes)
{
	return (size_t)Py_TYPE(object)->tp_basicsize >= bytes;
}

/*
 * The type of a bitmap node, and our bit in it, from a context in which nothing
 * but our variable is set.  Nothing is followed that has not been seen to be
 * what it is taken for.  NULL: it looks different.
 */
static PyTypeObject *look_at(PyObject *object, PyObject *value, uint32_t *bit)
{
	const struct context *context = (const struct context *)object;
	struct hamt_bitmap_node *node;
	PyObject *entries[2] = {contextvar.variable, value};

	if (!has_room_for(object, sizeof(*context)) || !context->vars ||
	    !refers_to(object, (PyObject *const *)&context->vars, 1))
		return NULL;
	if (!has_room_for((PyObject *)context->vars, sizeof(*context->vars)) ||
	    !context->vars->root || !refers_to((PyObject *)context->vars, &context->vars->root, 1))
		return NULL;
	node = (struct hamt_bitmap_node *)context->vars->root;
	if (Py_TYPE(node)->tp_itemsize != sizeof(PyObject *) ||
	    Py_TYPE(node)->tp_basicsize != offsetof(struct hamt_bitmap_node, array) ||
	    Py_SIZE(node) != 2 || !refers_to((PyObject *)node, entries, 2))
		return NULL;
	if (node->array[0] != contextvar.variable || node->array[1] != value ||
	    __builtin_popcount(node->bitmap) != 1)
		return NULL;
	*bit = node->bitmap;
	return Py_TYPE(node);
}

PyObject *contextvar_search(PyObject *context)
{
	const struct hamt_bitmap_node *node = contextvar_node(context);
	PyObject *value = NULL;

	if (!context)
		return NULL;
	if (node && (node->bitmap & contextvar.bit)) {
		uint32_t before = node->bitmap & (contextvar.bit - 1);

		contextvar.at = 2 * (uint32_t)__builtin_popcount(before);
		if (contextvar_is_there(node))
			return node->array[contextvar.at + 1];
	}
	/*
	 * Neither allocates nor runs code of the program, for a variable that is in
	 * the context or not: contexts are compared by identity and ours has no
	 * default.
	 */
	if (PyContextVar_Get(contextvar.variable, NULL, &value) < 0)
		PyErr_Clear();
	Py_XDECREF(value);
	return value;
}

int contextvar_prepare(void)
{
	PyObject *context = PyContext_New();
	PyObject *value = PyList_New(0);
	PyObject *token = NULL;

	contextvar.bitmap_node = NULL;
	contextvar.variable = PyContextVar_New("objcg", NULL);
	if (context && value && contextvar.variable && PyContext_Enter(context) == 0) {
		token = PyContextVar_Set(contextvar.variable, value);
		if (PyContext_Exit(context) < 0)
			Py_CLEAR(token);
	}
	if (token)
		contextvar.bitmap_node = look_at(context, value, &contextvar.bit);
	Py_XDECREF(value);
	Py_XDECREF(context);
	Py_XDECREF(token);
	return token ? 0 : -1;
}
