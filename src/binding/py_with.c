/*
 * What `with group:` calls.
 *
 * The statement binds __enter__ and __exit__ to the group, and CPython makes an
 * object for each, tracked by the garbage collector, and frees it: a third of
 * what the whole statement takes.  Here the descriptors bind to objects that are
 * used again.  They stand for the methods that they replace, and for everything
 * but a call they ask those.
 */
#include "binding.h"

#include <stddef.h>

/* In the type, in place of a method's descriptor. */
typedef struct {
	PyObject_HEAD PyObject *method; /* that descriptor */
	vectorcallfunc call;
} WithMethod;

/*
 * Bound to a group.  Not tracked: a group that was given its own as an attribute
 * is never freed.
 */
typedef struct {
	PyObject_HEAD vectorcallfunc call;
	WithMethod *of;
	PyObject *group;
} BoundWith;

static PyTypeObject BoundWith_Type;

/* Not blocks, which would stay charged to whoever made them first; see membership_alloc(). */
#define NR_SPARE 16

static BoundWith spare[NR_SPARE];
static BoundWith *spare_head; /* through ->group */
static int spare_used;

static BoundWith *bound_with_alloc(void)
{
	BoundWith *self = spare_head;

	if (self)
		spare_head = (BoundWith *)self->group;
	else if (spare_used < NR_SPARE)
		self = &spare[spare_used++];
	else
		return PyObject_New(BoundWith, &BoundWith_Type);
	return (BoundWith *)PyObject_Init((PyObject *)self, &BoundWith_Type);
}

static void bound_with_dealloc(BoundWith *self)
{
	PyObject *group = self->group;

	Py_DECREF(self->of);
	if (self >= spare && self < spare + NR_SPARE) {
		self->group = (PyObject *)spare_head;
		spare_head = self;
	} else {
		PyObject_Free(self);
	}
	Py_DECREF(group);
}

/* The method that CPython would have made. */
static PyObject *plain_method(const BoundWith *self)
{
	PyObject *method = self->of->method;

	return Py_TYPE(method)->tp_descr_get(method, self->group, (PyObject *)Py_TYPE(self->group));
}

static PyObject *enter(PyObject *object, PyObject *const *args, size_t nargs, PyObject *names)
{
	BoundWith *self = (BoundWith *)object;
	PyObject *method;
	PyObject *result;

	if (likely(PyVectorcall_NARGS(nargs) == 0 && !names))
		return group_enter_method(self->group, NULL);
	method = plain_method(self); /* which knows what is wrong */
	result = method ? PyObject_Vectorcall(method, args, nargs, names) : NULL;
	Py_XDECREF(method);
	return result;
}

static PyObject *leave(PyObject *object, PyObject *const *args, size_t nargs, PyObject *names)
{
	BoundWith *self = (BoundWith *)object;
	PyObject *method;
	PyObject *result;

	if (likely(!names))
		return group_exit_method(self->group, args, PyVectorcall_NARGS(nargs));
	method = plain_method(self);
	result = method ? PyObject_Vectorcall(method, args, nargs, names) : NULL;
	Py_XDECREF(method);
	return result;
}

static PyObject *bound_with_getattr(BoundWith *self, PyObject *name)
{
	PyObject *method = plain_method(self);
	PyObject *value = method ? PyObject_GetAttr(method, name) : NULL;

	Py_XDECREF(method);
	return value;
}

static PyObject *bound_with_repr(BoundWith *self)
{
	PyObject *method = plain_method(self);
	PyObject *text = method ? PyObject_Repr(method) : NULL;

	Py_XDECREF(method);
	return text;
}

static PyObject *bound_with_richcompare(PyObject *a, PyObject *b, int op)
{
	int equal;

	if ((op != Py_EQ && op != Py_NE) || Py_TYPE(b) != &BoundWith_Type)
		Py_RETURN_NOTIMPLEMENTED;
	equal = ((BoundWith *)a)->of == ((BoundWith *)b)->of &&
		((BoundWith *)a)->group == ((BoundWith *)b)->group;
	return PyBool_FromLong(op == Py_EQ ? equal : !equal);
}

static Py_hash_t bound_with_hash(BoundWith *self)
{
	PyObject *method = plain_method(self);
	Py_hash_t hash = method ? PyObject_Hash(method) : -1;

	Py_XDECREF(method);
	return hash;
}

static PyTypeObject BoundWith_Type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "objcg._core.BoundWith",
	.tp_doc = "A group's __enter__ or __exit__.",
	.tp_basicsize = sizeof(BoundWith),
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL,
	.tp_vectorcall_offset = offsetof(BoundWith, call),
	.tp_call = PyVectorcall_Call,
	.tp_dealloc = (destructor)bound_with_dealloc,
	.tp_getattro = (getattrofunc)bound_with_getattr,
	.tp_repr = (reprfunc)bound_with_repr,
	.tp_richcompare = bound_with_richcompare,
	.tp_hash = (hashfunc)bound_with_hash,
};

static PyObject *with_method_get(PyObject *object, PyObject *group, PyObject *type)
{
	WithMethod *self = (WithMethod *)object;
	BoundWith *bound;

	if (unlikely(!group || !PyObject_TypeCheck(group, &GroupBase_Type)))
		return Py_TYPE(self->method)->tp_descr_get(self->method, group, type);
	bound = bound_with_alloc();
	if (!bound)
		return NULL;
	bound->call = self->call;
	Py_INCREF(self);
	bound->of = self;
	Py_INCREF(group);
	bound->group = group;
	return (PyObject *)bound;
}

static PyTypeObject WithMethod_Type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "objcg._core.WithMethod",
	.tp_doc = "Descriptor of a group's __enter__ or __exit__.",
	.tp_basicsize = sizeof(WithMethod),
	.tp_flags = Py_TPFLAGS_DEFAULT,
	.tp_descr_get = with_method_get,
};

static int replace(const char *name, vectorcallfunc call)
{
	PyObject *method = PyDict_GetItemString(GroupBase_Type.tp_dict, name);
	WithMethod *self;
	int failed;

	if (method && Py_TYPE(method) == &WithMethod_Type)
		return 0; /* the module is initialised once more */
	self = method ? PyObject_New(WithMethod, &WithMethod_Type) : NULL;
	if (!self)
		return -1;
	/* For good: types of extension modules do not end. */
	Py_INCREF(method);
	self->method = method;
	self->call = call;
	failed = PyDict_SetItemString(GroupBase_Type.tp_dict, name, (PyObject *)self);
	Py_DECREF(self);
	return failed;
}

/* After PyType_Ready(&GroupBase_Type), before anybody derives from it. */
int with_prepare(void)
{
	if (PyType_Ready(&BoundWith_Type) < 0 || PyType_Ready(&WithMethod_Type) < 0 ||
	    replace("__enter__", enter) < 0 || replace("__exit__", leave) < 0)
		return -1;
	PyType_Modified(&GroupBase_Type);
	return 0;
}
