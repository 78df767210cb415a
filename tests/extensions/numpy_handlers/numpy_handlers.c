/*
 * Data-memory handlers of NumPy (NEP 49), as programs use them.
 *
 *   set_own(api)   sets a handler of this module's own in the current context: it takes
 *                  memory from the C library and counts its blocks
 *   reset(api)     sets NumPy's default handler there
 *   Caller(api)    calls the functions of the default handler as no code of NumPy's does:
 *                  without the GIL, on a thread that Python has never seen, or on the caller's
 *
 * `api` is the capsule _ARRAY_API of NumPy's C module; its headers are not needed.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
	void *ctx;
	void *(*malloc)(void *ctx, size_t size);
	void *(*calloc)(void *ctx, size_t nelem, size_t elsize);
	void *(*realloc)(void *ctx, void *p, size_t size);
	void (*free)(void *ctx, void *p, size_t size);
} Allocator;

typedef struct {
	char name[127];
	uint8_t version;
	Allocator allocator;
} Handler;

enum { SET_HANDLER = 304, DEFAULT_HANDLER = 306 };

static void **table(PyObject *api)
{
	return PyCapsule_GetPointer(api, NULL);
}

/* --- a handler of a program's own ---------------------------------------- */

static Py_ssize_t own_blocks;
static Py_ssize_t own_wrong; /* frees with another ctx */

static void *own_malloc(void *ctx, size_t size)
{
	(void)ctx;
	own_blocks++;
	return malloc(size);
}

static void *own_calloc(void *ctx, size_t nelem, size_t elsize)
{
	(void)ctx;
	own_blocks++;
	return calloc(nelem, elsize);
}

static void *own_realloc(void *ctx, void *p, size_t size)
{
	(void)ctx;
	return realloc(p, size);
}

static void own_free(void *ctx, void *p, size_t size)
{
	(void)size;
	own_blocks--;
	own_wrong += ctx != &own_blocks;
	free(p);
}

static Handler own = {"own", 1, {&own_blocks, own_malloc, own_calloc, own_realloc, own_free}};

static PyObject *set_handler(PyObject *api, PyObject *capsule)
{
	PyObject *(*set)(PyObject *);
	PyObject *before;
	void **functions = table(api);

	if (!functions)
		return NULL;
	memcpy(&set, &functions[SET_HANDLER], sizeof(set));
	before = set(capsule);
	if (!before)
		return NULL;
	Py_DECREF(before);
	Py_RETURN_NONE;
}

static PyObject *set_own(PyObject *module, PyObject *api)
{
	PyObject *capsule = PyCapsule_New(&own, "mem_handler", NULL);
	PyObject *result = capsule ? set_handler(api, capsule) : NULL;

	(void)module;
	Py_XDECREF(capsule);
	return result;
}

static PyObject *reset(PyObject *module, PyObject *api)
{
	(void)module;
	return set_handler(api, NULL);
}

static PyObject *counts(PyObject *module, PyObject *unused)
{
	(void)module;
	(void)unused;
	return Py_BuildValue("nn", own_blocks, own_wrong);
}

/* --- the default handler, without the GIL -------------------------------- */

#define HELD_MAX 4096
#define CHURNED 64

struct job {
	const Handler *handler;
	enum { ALLOCATE, RESIZE, FREE, CHURN } what;
	size_t count;
	size_t size;
	void **held;
	size_t *sizes;
	size_t *nr_held;
	bool zeroed; /* may call calloc: NumPy's own has to be called with the GIL */
	uint64_t wrong;
	bool failed;
};

/* From 1024 bytes on NumPy's own functions, too, may be called by several threads at once. */
static size_t random_size(uint64_t *random)
{
	*random ^= *random << 13;
	*random ^= *random >> 7;
	*random ^= *random << 17;
	return 1024 + (*random >> 8) % (*random % 8 ? 7000 : 60000);
}

static void check(struct job *job, const unsigned char *p, size_t size, unsigned char mark)
{
	job->wrong += p[0] != mark || p[size / 2] != mark || p[size - 1] != mark;
}

static void churn(struct job *job)
{
	const Allocator *allocator = &job->handler->allocator;
	unsigned char *blocks[CHURNED] = {0};
	size_t sizes[CHURNED] = {0};
	uint64_t random = (uintptr_t)&random | 1;

	for (size_t i = 0; i < job->count + CHURNED; i++) {
		size_t slot = i % CHURNED;
		size_t size = random_size(&random);
		unsigned char *p = blocks[slot];

		if (p)
			check(job, p, sizes[slot], (unsigned char)slot);
		if (p && (i >= job->count || random >> 63)) {
			allocator->free(allocator->ctx, p, sizes[slot]);
			blocks[slot] = NULL;
			continue;
		}
		if (i >= job->count)
			continue;
		if (p) {
			p = allocator->realloc(allocator->ctx, p, size);
		} else if (job->zeroed && random & 256) {
			p = allocator->calloc(allocator->ctx, size, 1);
			if (p)
				check(job, p, size, 0);
		} else {
			p = allocator->malloc(allocator->ctx, size);
		}
		if (!p) {
			job->failed = true;
			continue; /* of a realloc: the block is as it was */
		}
		blocks[slot] = memset(p, (int)slot, size);
		sizes[slot] = size;
	}
}

static void *perform(void *arg)
{
	struct job *job = arg;
	const Allocator *allocator = &job->handler->allocator;

	switch (job->what) {
	case ALLOCATE:
		for (size_t i = 0; i < job->count && *job->nr_held < HELD_MAX; i++) {
			void *p = allocator->malloc(allocator->ctx, job->size);

			job->failed |= !p;
			job->sizes[*job->nr_held] = job->size;
			if (p)
				job->held[(*job->nr_held)++] = p;
		}
		break;
	case RESIZE:
		for (size_t i = 0; i < *job->nr_held; i++) {
			void *p = allocator->realloc(allocator->ctx, job->held[i], job->size);

			job->failed |= !p;
			if (p) {
				job->held[i] = p;
				job->sizes[i] = job->size;
			}
		}
		break;
	case FREE:
		while (*job->nr_held) {
			size_t last = --*job->nr_held;

			allocator->free(allocator->ctx, job->held[last], job->sizes[last]);
		}
		break;
	case CHURN:
		churn(job);
		break;
	}
	return NULL;
}

typedef struct {
	PyObject_HEAD const Handler *handler;
	void *held[HELD_MAX];
	size_t sizes[HELD_MAX];
	size_t nr_held;
} Caller;

static PyObject *caller_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	PyObject *api;
	PyObject **capsule;
	void **functions;
	Caller *self;

	(void)kwargs;
	if (!PyArg_ParseTuple(args, "O", &api) || !(functions = table(api)))
		return NULL;
	capsule = functions[DEFAULT_HANDLER];
	self = (Caller *)type->tp_alloc(type, 0);
	if (!self)
		return NULL;
	self->handler = PyCapsule_GetPointer(*capsule, "mem_handler");
	if (!self->handler)
		Py_CLEAR(self);
	return (PyObject *)self;
}

static PyObject *run(Caller *self, int what, Py_ssize_t count, Py_ssize_t size, int native,
		     int zeroed)
{
	struct job job = {
		.handler = self->handler,
		.what = what,
		.count = (size_t)count,
		.size = (size_t)size,
		.held = self->held,
		.sizes = self->sizes,
		.nr_held = &self->nr_held,
		.zeroed = zeroed,
	};
	pthread_t thread;
	int error = 0;

	Py_BEGIN_ALLOW_THREADS if (native)
	{
		error = pthread_create(&thread, NULL, perform, &job);
		if (!error)
			pthread_join(thread, NULL);
	}
	else perform(&job);
	Py_END_ALLOW_THREADS if (error)
	{
		errno = error;
		return PyErr_SetFromErrno(PyExc_OSError);
	}
	if (job.failed && what != CHURN)
		return PyErr_NoMemory();
	return PyLong_FromUnsignedLongLong(job.wrong);
}

static PyObject *caller_allocate(Caller *self, PyObject *args)
{
	Py_ssize_t count, size;
	int native;

	if (!PyArg_ParseTuple(args, "nnp", &count, &size, &native))
		return NULL;
	return run(self, ALLOCATE, count, size, native, 0);
}

static PyObject *caller_resize(Caller *self, PyObject *args)
{
	Py_ssize_t size;
	int native;

	if (!PyArg_ParseTuple(args, "np", &size, &native))
		return NULL;
	return run(self, RESIZE, 0, size, native, 0);
}

static PyObject *caller_free(Caller *self, PyObject *args)
{
	int native;

	if (!PyArg_ParseTuple(args, "p", &native))
		return NULL;
	return run(self, FREE, 0, 0, native, 0);
}

static PyObject *caller_churn(Caller *self, PyObject *args)
{
	Py_ssize_t steps;
	int native, zeroed;

	if (!PyArg_ParseTuple(args, "npp", &steps, &native, &zeroed))
		return NULL;
	return run(self, CHURN, steps, 0, native, zeroed);
}

#define METHOD(name, doc) {#name, (PyCFunction)(void (*)(void))caller_##name, METH_VARARGS, doc}

static PyMethodDef caller_methods[] = {
	METHOD(allocate, "allocate(count, size, native): blocks, which are held."),
	METHOD(resize, "resize(size, native): all held blocks."),
	METHOD(free, "free(native): all held blocks."),
	METHOD(churn, "churn(steps, native, zeroed) -> how often a block's content was wrong."),
	{NULL, NULL, 0, NULL},
};

static PyTypeObject Caller_Type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "numpy_handlers.Caller",
	.tp_doc = "Calls the default handler's functions without the GIL.",
	.tp_basicsize = sizeof(Caller),
	.tp_flags = Py_TPFLAGS_DEFAULT,
	.tp_new = caller_new,
	.tp_methods = caller_methods,
};

static PyMethodDef functions[] = {
	{"set_own", set_own, METH_O, "Set a handler of this module's own."},
	{"reset", reset, METH_O, "Set NumPy's default handler."},
	{"counts", counts, METH_NOARGS, "Return its living blocks, and frees with a wrong ctx."},
	{NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
	PyModuleDef_HEAD_INIT,
	.m_name = "numpy_handlers",
	.m_doc = "Data-memory handlers of NumPy, as programs use them.",
	.m_size = -1,
	.m_methods = functions,
};

PyMODINIT_FUNC PyInit_numpy_handlers(void)
{
	PyObject *module;

	if (PyType_Ready(&Caller_Type) < 0)
		return NULL;
	module = PyModule_Create(&definition);
	if (!module)
		return NULL;
	Py_INCREF(&Caller_Type);
	if (PyModule_AddObject(module, "Caller", (PyObject *)&Caller_Type) < 0) {
		Py_DECREF(&Caller_Type);
		Py_CLEAR(module);
	}
	return module;
}
