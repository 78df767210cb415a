/*
 * Threads that use CPython's raw allocator without holding the GIL, as native
 * libraries do.  A Worker does what it is told, on one of two kinds of thread:
 *
 *   start()   on a thread of the C library that Python has never seen
 *   serve()   on the Python thread that calls it, with the GIL released
 *
 * In between it churns, if told so: allocates, resizes and frees at random.
 *
 * take() makes Python objects of the blocks that a Worker holds.  Nothing is
 * copied: the object is the block, so objcg.owner() says whom it is charged to.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define HELD_MAX 1024u
#define CHURN_SLOTS 64u
#define CHURN_BATCH 32u

enum command { NONE, ALLOCATE, RESIZE, FREE, CALL, CLOSE };

typedef struct {
	PyObject_HEAD pthread_mutex_t mutex;
	pthread_cond_t changed;
	pthread_t thread;
	bool native;  /* a thread of ours is to be joined */
	bool serving; /* a thread takes commands */
	enum command command;
	size_t count;
	size_t size;
	PyObject *function;
	bool failed; /* the last command */

	void *held[HELD_MAX];
	size_t nr_held;

	bool churning;
	uint64_t operations;
	uint64_t corrupt; /* blocks whose content had changed */
	uint64_t random;
	unsigned char *churned[CHURN_SLOTS];
	size_t sizes[CHURN_SLOTS];
} Worker;

static uint64_t next_random(Worker *self)
{
	self->random ^= self->random << 13;
	self->random ^= self->random >> 7;
	self->random ^= self->random << 17;
	return self->random;
}

/* Mostly small, some of a few KiB, a few above what a slab holds. */
static size_t random_size(Worker *self)
{
	uint64_t random = next_random(self);

	if (random % 64 == 0)
		return 8192 + (random >> 8) % 50000;
	if (random % 8 == 0)
		return 512 + (random >> 8) % 7000;
	return 16 + (random >> 8) % 500;
}

static unsigned char mark_of(size_t slot, size_t size)
{
	return (unsigned char)(slot * 31 + size);
}

static void mark(Worker *self, size_t slot)
{
	unsigned char *p = self->churned[slot];
	size_t size = self->sizes[slot];

	p[0] = mark_of(slot, size);
	p[size / 2] = mark_of(slot, size);
	p[size - 1] = mark_of(slot, size);
}

/* Whether the first `size` bytes are as they were marked. */
static void check_mark(Worker *self, size_t slot, size_t size)
{
	const unsigned char *p = self->churned[slot];
	size_t marked = self->sizes[slot];
	unsigned char expected = mark_of(slot, marked);

	if (p[0] != expected || (size > marked / 2 && p[marked / 2] != expected) ||
	    (size >= marked && p[marked - 1] != expected))
		self->corrupt++;
}

static void churn_free(Worker *self, size_t slot)
{
	if (!self->churned[slot])
		return;
	check_mark(self, slot, self->sizes[slot]);
	PyMem_RawFree(self->churned[slot]);
	self->churned[slot] = NULL;
}

static void churn_step(Worker *self)
{
	uint64_t random = next_random(self);
	size_t slot = random % CHURN_SLOTS;
	size_t size = random_size(self);
	unsigned char *p;

	if (!self->churned[slot]) {
		p = random >> 60 ? PyMem_RawMalloc(size) : PyMem_RawCalloc(1, size);
		if (!p)
			return;
	} else if (random >> 63) {
		churn_free(self, slot);
		return;
	} else {
		p = PyMem_RawRealloc(self->churned[slot], size);
		if (!p)
			return;
		self->churned[slot] = p;
		check_mark(self, slot, size);
	}
	self->churned[slot] = p;
	self->sizes[slot] = size;
	mark(self, slot);
}

static bool allocate(Worker *self)
{
	for (size_t i = 0; i < self->count && self->nr_held < HELD_MAX; i++) {
		void *p = PyMem_RawMalloc(self->size);

		if (!p)
			return false;
		self->held[self->nr_held++] = p;
	}
	return true;
}

static bool resize(Worker *self)
{
	for (size_t i = 0; i < self->nr_held; i++) {
		void *p = PyMem_RawRealloc(self->held[i], self->size);

		if (!p)
			return false;
		self->held[i] = p;
	}
	return true;
}

static void free_all(Worker *self)
{
	while (self->nr_held)
		PyMem_RawFree(self->held[--self->nr_held]);
}

static void call(PyObject *function)
{
	PyGILState_STATE state = PyGILState_Ensure();
	PyObject *result = PyObject_CallNoArgs(function);

	if (!result)
		PyErr_WriteUnraisable(function);
	Py_XDECREF(result);
	PyGILState_Release(state);
}

/* Without the mutex, as everything here may take long. */
static bool perform(Worker *self, enum command command)
{
	switch (command) {
	case ALLOCATE:
		return allocate(self);
	case RESIZE:
		return resize(self);
	case FREE:
		free_all(self);
		return true;
	case CALL:
		call(self->function);
		return true;
	default:
		return true;
	}
}

/* What the thread does, without the GIL, until it is told to close. */
static void *work(void *arg)
{
	Worker *self = arg;
	enum command command;

	pthread_mutex_lock(&self->mutex);
	self->serving = true;
	pthread_cond_broadcast(&self->changed);
	do {
		bool failed;

		while (self->command == NONE && !self->churning)
			pthread_cond_wait(&self->changed, &self->mutex);
		command = self->command;
		pthread_mutex_unlock(&self->mutex);
		if (command == NONE)
			for (unsigned i = 0; i < CHURN_BATCH; i++)
				churn_step(self);
		failed = !perform(self, command);
		if (command == CLOSE) {
			for (size_t slot = 0; slot < CHURN_SLOTS; slot++)
				churn_free(self, slot);
			free_all(self);
		}
		pthread_mutex_lock(&self->mutex);
		if (command == NONE) {
			self->operations += CHURN_BATCH;
		} else {
			self->failed = failed;
			self->command = NONE;
		}
		pthread_cond_broadcast(&self->changed);
	} while (command != CLOSE);
	self->serving = false;
	pthread_cond_broadcast(&self->changed);
	pthread_mutex_unlock(&self->mutex);
	return NULL;
}

/* --- what Python calls --------------------------------------------------- */

/* Waits without the GIL, which nobody takes while he holds the mutex. */
static PyObject *order(Worker *self, enum command command, size_t count, size_t size,
		       PyObject *function)
{
	bool failed;

	Py_BEGIN_ALLOW_THREADS pthread_mutex_lock(&self->mutex);
	while (!self->serving || self->command != NONE)
		pthread_cond_wait(&self->changed, &self->mutex);
	self->count = count;
	self->size = size;
	self->function = function;
	self->command = command;
	pthread_cond_broadcast(&self->changed);
	while (self->command != NONE || (command == CLOSE && self->serving))
		pthread_cond_wait(&self->changed, &self->mutex);
	failed = self->failed;
	pthread_mutex_unlock(&self->mutex);
	if (command == CLOSE && self->native) {
		pthread_join(self->thread, NULL);
		self->native = false;
	}
	Py_END_ALLOW_THREADS if (failed) return PyErr_NoMemory();
	Py_RETURN_NONE;
}

static PyObject *worker_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	Worker *self = (Worker *)type->tp_alloc(type, 0);

	(void)args;
	(void)kwargs;
	if (!self)
		return NULL;
	pthread_mutex_init(&self->mutex, NULL);
	pthread_cond_init(&self->changed, NULL);
	self->random = (uint64_t)(uintptr_t)self | 1;
	return (PyObject *)self;
}

static void worker_dealloc(Worker *self)
{
	/* A thread that serves has a reference, so this one is idle or closed. */
	pthread_cond_destroy(&self->changed);
	pthread_mutex_destroy(&self->mutex);
	Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *worker_start(Worker *self, PyObject *unused)
{
	int error;

	(void)unused;
	error = pthread_create(&self->thread, NULL, work, self);
	if (error) {
		errno = error;
		return PyErr_SetFromErrno(PyExc_OSError);
	}
	self->native = true;
	Py_INCREF(self); /* the thread's, until close() */
	Py_RETURN_NONE;
}

static PyObject *worker_serve(Worker *self, PyObject *unused)
{
	(void)unused;
	Py_BEGIN_ALLOW_THREADS work(self);
	Py_END_ALLOW_THREADS Py_RETURN_NONE;
}

static PyObject *worker_allocate(Worker *self, PyObject *args)
{
	Py_ssize_t count, size;

	if (!PyArg_ParseTuple(args, "nn", &count, &size))
		return NULL;
	if (count < 0 || (size_t)count > HELD_MAX - self->nr_held ||
	    size < (Py_ssize_t)sizeof(PyObject))
		return PyErr_Format(PyExc_ValueError, "no room for %zd blocks, or below %zu bytes",
				    count, sizeof(PyObject));
	return order(self, ALLOCATE, (size_t)count, (size_t)size, NULL);
}

static PyObject *worker_resize(Worker *self, PyObject *arg)
{
	Py_ssize_t size = PyLong_AsSsize_t(arg);

	if (size == -1 && PyErr_Occurred())
		return NULL;
	if (size < (Py_ssize_t)sizeof(PyObject))
		return PyErr_Format(PyExc_ValueError, "below %zu bytes", sizeof(PyObject));
	return order(self, RESIZE, 0, (size_t)size, NULL);
}

static PyObject *worker_free(Worker *self, PyObject *unused)
{
	(void)unused;
	return order(self, FREE, 0, 0, NULL);
}

static PyObject *worker_call(Worker *self, PyObject *function)
{
	return order(self, CALL, 0, 0, function);
}

static PyObject *worker_churn(Worker *self, PyObject *on)
{
	int churning = PyObject_IsTrue(on);

	if (churning < 0)
		return NULL;
	pthread_mutex_lock(&self->mutex);
	self->churning = churning;
	pthread_cond_broadcast(&self->changed);
	pthread_mutex_unlock(&self->mutex);
	Py_RETURN_NONE;
}

static PyObject *worker_close(Worker *self, PyObject *unused)
{
	bool native = self->native;
	PyObject *result = order(self, CLOSE, 0, 0, NULL);

	(void)unused;
	if (native)
		Py_DECREF(self);
	return result;
}

static void block_dealloc(PyObject *self)
{
	PyMem_RawFree(self);
}

static PyTypeObject Block_Type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "nogil.Block",
	.tp_doc = "A block of the raw domain.",
	.tp_basicsize = sizeof(PyObject),
	.tp_flags = Py_TPFLAGS_DEFAULT,
	.tp_dealloc = block_dealloc,
};

static PyObject *worker_take(Worker *self, PyObject *unused)
{
	PyObject *list = PyList_New(0);
	bool failed = list == NULL;

	(void)unused;
	while (!failed && self->nr_held) {
		PyObject *block = PyObject_Init(self->held[--self->nr_held], &Block_Type);

		failed = PyList_Append(list, block) < 0;
		Py_DECREF(block);
	}
	if (failed)
		Py_CLEAR(list);
	return list;
}

static PyObject *worker_get_operations(Worker *self, void *closure)
{
	uint64_t operations;

	(void)closure;
	pthread_mutex_lock(&self->mutex);
	operations = self->operations;
	pthread_mutex_unlock(&self->mutex);
	return PyLong_FromUnsignedLongLong(operations);
}

/* To be read when it is closed. */
static PyObject *worker_get_corrupt(Worker *self, void *closure)
{
	(void)closure;
	return PyLong_FromUnsignedLongLong(self->corrupt);
}

#define METHOD(name, flags, doc) {#name, (PyCFunction)(void (*)(void))worker_##name, flags, doc}

static PyMethodDef worker_methods[] = {
	METHOD(start, METH_NOARGS, "Have a thread that Python does not know do the work."),
	METHOD(serve, METH_NOARGS, "Do the work on this thread, without the GIL, until closed."),
	METHOD(allocate, METH_VARARGS,
	       "allocate(count, size): have blocks allocated, and hold them."),
	METHOD(resize, METH_O, "resize(size): have all held blocks reallocated."),
	METHOD(free, METH_NOARGS, "Have all held blocks freed."),
	METHOD(call, METH_O, "call(function): have it called there, with the GIL."),
	METHOD(churn, METH_O, "churn(on): allocate, resize and free at random between commands."),
	METHOD(take, METH_NOARGS, "Return the held blocks as objects; nothing is held then."),
	METHOD(close, METH_NOARGS, "Free all, end the work; return when it has ended."),
	{NULL, NULL, 0, NULL},
};

static PyGetSetDef worker_getset[] = {
	{"operations", (getter)worker_get_operations, NULL, "How often it churned.", NULL},
	{"corrupt", (getter)worker_get_corrupt, NULL, "Blocks found changed by others.", NULL},
	{NULL, NULL, NULL, NULL, NULL},
};

static PyTypeObject Worker_Type = {
	PyVarObject_HEAD_INIT(NULL, 0).tp_name = "nogil.Worker",
	.tp_doc = "A thread without the GIL that does as it is told.",
	.tp_basicsize = sizeof(Worker),
	.tp_flags = Py_TPFLAGS_DEFAULT,
	.tp_new = worker_new,
	.tp_dealloc = (destructor)worker_dealloc,
	.tp_methods = worker_methods,
	.tp_getset = worker_getset,
};

static struct PyModuleDef nogil_module = {
	PyModuleDef_HEAD_INIT,
	.m_name = "nogil",
	.m_doc = "Threads that use the raw allocator without the GIL.",
	.m_size = -1,
};

PyMODINIT_FUNC PyInit_nogil(void)
{
	PyObject *module;

	if (PyType_Ready(&Block_Type) < 0 || PyType_Ready(&Worker_Type) < 0)
		return NULL;
	module = PyModule_Create(&nogil_module);
	if (!module)
		return NULL;
	Py_INCREF(&Worker_Type);
	if (PyModule_AddObject(module, "Worker", (PyObject *)&Worker_Type) < 0) {
		Py_DECREF(&Worker_Type);
		Py_CLEAR(module);
	}
	return module;
}
