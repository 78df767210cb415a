/*
 * Our context variable, read and written without CPython's help.
 *
 * PyContextVar_Get remembers one answer, for one state of one thread: after
 * each switch of contexts it walks the HAMT (PEP 567) again, some 250
 * instructions, and an event loop switches at each step.  PyContextVar_Set makes
 * a HAMT, a node of it and a Token, and frees three such.  Of the HAMT we need
 * one look at its root: a bitmap node as long as the context has no more than 16
 * variables, in which ours is where its hash says.
 *
 * How a context, a HAMT and such a node lie in memory is CPython's business.
 * It is the same in 3.10 to 3.13, and contextvar_prepare() sees by public means
 * that it is: PyContext_*, PyContextVar_* and what tp_traverse visits.  Should it
 * not be, and wherever a context looks different (16 variables and more, or one
 * whose hash has the same lowest five bits), CPython is asked as ever.
 */
#ifndef OBJCG_CONTEXTVAR_H
#define OBJCG_CONTEXTVAR_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stdint.h>

#include "atomic.h"

struct hamt_bitmap_node {
	PyObject_VAR_HEAD uint32_t bitmap; /* of the lowest five bits of the hashes in it */
	PyObject *array[];		   /* a key and its value, or NULL and a node below, each */
};

struct hamt {
	PyObject_HEAD PyObject *root;
};

struct context {
	PyObject_HEAD PyObject *previous;
	struct hamt *vars;
};

struct contextvar {
	PyObject *variable;
	PyTypeObject *bitmap_node; /* NULL: CPython has to be asked */
	uint32_t bit;
	uint32_t at; /* where in a node it was found last: mostly the place is the same */
};

extern struct contextvar contextvar;

/* Makes the variable. Returns 0, or -1 with an exception. */
int contextvar_prepare(void);

/* The value in this context, borrowed, by whatever means it takes. NULL: it has none. */
PyObject *contextvar_search(PyObject *context);

/* The root of the context's HAMT, if it is a bitmap node; else NULL. */
static inline struct hamt_bitmap_node *contextvar_node(PyObject *object)
{
	const struct context *context = (const struct context *)object;
	PyObject *root = likely(context && context->vars) ? context->vars->root : NULL;

	if (unlikely(!root || Py_TYPE(root) != contextvar.bitmap_node))
		return NULL;
	return (struct hamt_bitmap_node *)root;
}

/* Whether our variable is in this node where it was found last. */
static inline bool contextvar_is_there(const struct hamt_bitmap_node *node)
{
	return likely((Py_ssize_t)contextvar.at < Py_SIZE(node)) &&
	       likely(node->array[contextvar.at] == contextvar.variable);
}

/*
 * The value in this context, borrowed; NULL: it has none.  It is read anew each
 * time, and what is read is alive: the context is the current one, and holds the
 * rest.  May be called from hooks: CPython changes a context's HAMT by storing
 * another, complete one.
 */
static inline PyObject *contextvar_get(PyObject *context)
{
	const struct hamt_bitmap_node *node = contextvar_node(context);

	if (node) {
		if (!(node->bitmap & contextvar.bit))
			return NULL;
		if (contextvar_is_there(node))
			return node->array[contextvar.at + 1];
	}
	return contextvar_search(context);
}

/*
 * The value in this context, if nothing else in the process can come by it: the
 * context alone has its HAMT, that alone its root, and that alone the value.
 * (Copies of a context share the HAMT; HAMTs share nodes; whoever iterates over
 * a context, reads the value or has a Token has a reference, too.)  Changing such
 * an object is the same as giving this context another.
 */
static inline PyObject *contextvar_get_unshared(PyObject *context)
{
	const struct hamt_bitmap_node *node = contextvar_node(context);
	PyObject *value;

	if (!node || !contextvar_is_there(node) || Py_REFCNT(node) != 1 ||
	    Py_REFCNT(((const struct context *)context)->vars) != 1)
		return NULL;
	value = node->array[contextvar.at + 1];
	return Py_REFCNT(value) == 1 ? value : NULL;
}

#endif
