/*
 * Timing of the object allocator itself: of objcg's, or of the one that is or
 * was there without it.  Only calls of the allocator are between two readings
 * of the clock.
 */
#include "binding.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

/* A fixed shuffle, the same for every allocator and run. */
static void shuffle(void **blocks, Py_ssize_t n)
{
	uint64_t state = 88172645463325252u;

	for (Py_ssize_t i = n - 1; i > 0; i--) {
		Py_ssize_t j;
		void *other;

		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		j = (Py_ssize_t)(state % (uint64_t)(i + 1));
		other = blocks[i];
		blocks[i] = blocks[j];
		blocks[j] = other;
	}
}

static void reverse(void **blocks, Py_ssize_t n)
{
	for (Py_ssize_t i = 0; i < n / 2; i++) {
		void *other = blocks[i];

		blocks[i] = blocks[n - 1 - i];
		blocks[n - 1 - i] = other;
	}
}

/* "stock", the object allocator before objcg, or "objcg"; 0, or -1 and an exception. */
static int find_allocator(const char *which, PyMemAllocatorEx *allocator)
{
	if (strcmp(which, "stock") == 0) {
		*allocator = *hooks_saved_object();
		if (!hooks_installed())
			PyMem_GetAllocator(PYMEM_DOMAIN_OBJ, allocator);
	} else if (strcmp(which, "objcg") == 0) {
		PyMem_GetAllocator(PYMEM_DOMAIN_OBJ, allocator);
	} else {
		PyErr_Format(PyExc_ValueError, "'%s' is no allocator; there are stock and objcg",
			     which);
		return -1;
	}
	return 0;
}

/*
 * time_malloc(which, n, size, pattern) -> (ns per allocation, ns per free)
 *
 * which: see find_allocator().  n blocks of size bytes are allocated one after
 * the other and freed in an order: "fifo", "lifo" or "random"; or, "pair", each
 * is freed before the next is allocated (then the second number is 0).
 */
static PyObject *time_malloc(PyObject *module, PyObject *args)
{
	PyMemAllocatorEx allocator;
	const char *which, *pattern;
	Py_ssize_t n, size;
	double start, middle, end;
	void **blocks;

	(void)module;
	if (!PyArg_ParseTuple(args, "snns", &which, &n, &size, &pattern))
		return NULL;
	if (find_allocator(which, &allocator) < 0)
		return NULL;
	if (n <= 0 || size < 0)
		return PyErr_Format(PyExc_ValueError, "n must be positive and size not negative");
	if (strcmp(pattern, "pair") == 0) {
		start = now_ns();
		for (Py_ssize_t i = 0; i < n; i++) {
			void *volatile block = allocator.malloc(allocator.ctx, (size_t)size);

			allocator.free(allocator.ctx, block);
		}
		end = now_ns();
		return Py_BuildValue("dd", (end - start) / (double)n, 0.0);
	}
	blocks = malloc((size_t)n * sizeof(*blocks));
	if (!blocks)
		return PyErr_NoMemory();
	memset(blocks, 0xff,
	       (size_t)n * sizeof(*blocks)); /* its page faults are not the allocator's */
	start = now_ns();
	for (Py_ssize_t i = 0; i < n; i++)
		blocks[i] = allocator.malloc(allocator.ctx, (size_t)size);
	middle = now_ns();
	if (strcmp(pattern, "random") == 0)
		shuffle(blocks, n);
	else if (strcmp(pattern, "lifo") == 0)
		reverse(blocks, n);
	end = now_ns();
	for (Py_ssize_t i = 0; i < n; i++)
		allocator.free(allocator.ctx, blocks[i]);
	end = now_ns() - end;
	free(blocks);
	return Py_BuildValue("dd", (middle - start) / (double)n, end / (double)n);
}

/* --- from thread to thread ------------------------------------------------ */

static const char batch_name[] = "objcg._core.batch";

/* Blocks that one thread allocates and another frees. */
struct batch {
	PyMemAllocatorEx allocator;
	Py_ssize_t n;
	Py_ssize_t filled;
	void *blocks[];
};

static void batch_empty(struct batch *batch)
{
	for (Py_ssize_t i = 0; i < batch->filled; i++)
		batch->allocator.free(batch->allocator.ctx, batch->blocks[i]);
	batch->filled = 0;
}

static void batch_free(PyObject *capsule)
{
	struct batch *batch = PyCapsule_GetPointer(capsule, batch_name);

	batch_empty(batch);
	free(batch);
}

/*
 * new_batch(n) -> a batch with room for n blocks.  It is used again and again:
 * what holds the blocks is not to come from the allocator in between.
 */
static PyObject *new_batch(PyObject *module, PyObject *arg)
{
	Py_ssize_t n = PyNumber_AsSsize_t(arg, PyExc_OverflowError);
	struct batch *batch;
	PyObject *capsule;
	size_t bytes;

	(void)module;
	if (n == -1 && PyErr_Occurred())
		return NULL;
	if (n <= 0 || n > PY_SSIZE_T_MAX / 16)
		return PyErr_Format(PyExc_ValueError, "n must be positive, not %zd", n);
	bytes = sizeof(*batch) + (size_t)n * sizeof(batch->blocks[0]);
	batch = malloc(bytes);
	if (!batch)
		return PyErr_NoMemory();
	memset(batch, 0, bytes);
	batch->n = n;
	capsule = PyCapsule_New(batch, batch_name, batch_free);
	if (!capsule)
		free(batch);
	return capsule;
}

/* time_batch_malloc(batch, which, size) -> ns per allocation; the batch must be empty. */
static PyObject *time_batch_malloc(PyObject *module, PyObject *args)
{
	struct batch *batch;
	const char *which;
	PyObject *capsule;
	Py_ssize_t size;
	double start, end;

	(void)module;
	if (!PyArg_ParseTuple(args, "Osn", &capsule, &which, &size))
		return NULL;
	batch = PyCapsule_GetPointer(capsule, batch_name);
	if (!batch)
		return NULL;
	if (size < 0 || batch->filled)
		return PyErr_Format(PyExc_ValueError,
				    "size must not be negative, and the batch must be empty");
	if (find_allocator(which, &batch->allocator) < 0)
		return NULL;
	start = now_ns();
	for (Py_ssize_t i = 0; i < batch->n; i++)
		batch->blocks[i] = batch->allocator.malloc(batch->allocator.ctx, (size_t)size);
	end = now_ns();
	batch->filled = batch->n;
	for (Py_ssize_t i = 0; i < batch->n; i++) {
		if (!batch->blocks[i]) {
			batch_empty(batch);
			return PyErr_NoMemory();
		}
	}
	return PyFloat_FromDouble((end - start) / (double)batch->n);
}

/* time_batch_free(batch) -> ns per free, the oldest first; the batch must be full. */
static PyObject *time_batch_free(PyObject *module, PyObject *capsule)
{
	struct batch *batch = PyCapsule_GetPointer(capsule, batch_name);
	double start, end;

	(void)module;
	if (!batch)
		return NULL;
	if (!batch->filled)
		return PyErr_Format(PyExc_ValueError, "the batch is empty");
	start = now_ns();
	batch_empty(batch);
	end = now_ns();
	return PyFloat_FromDouble((end - start) / (double)batch->n);
}

/* --- blocks that grow ----------------------------------------------------- */

enum {
	GROWING = 64, /* how many blocks grow in turns, so that they are in each other's way */
	GROWTH = 16,  /* to how many times their size */
	PAGE = 4096,
};

/* What list.append() makes of a full list of so many bytes (list_resize()). */
static size_t grow_list(size_t bytes)
{
	size_t items = bytes / sizeof(void *) + 1;

	return ((items + (items >> 3) + 6) & ~(size_t)3) * sizeof(void *);
}

/* What bytearray.append() makes of a full bytearray (PyByteArray_Resize()). */
static size_t grow_bytearray(size_t bytes)
{
	return bytes + (bytes >> 3) + (bytes < 9 ? 3 : 6);
}

/* Writes into what was added, once to each page: who grows a block uses it. */
static void touch(char *block, size_t from, size_t to)
{
	for (size_t at = from; at < to; at = (at / PAGE + 1) * PAGE)
		((volatile char *)block)[at] = 1;
}

/*
 * time_realloc(which, n, size, growth) -> ns per realloc()
 *
 * which: see find_allocator().  growth: "list" or "bytearray", as these grow.
 * GROWING blocks of size bytes grow in turns, step by step, to GROWTH times
 * their size, and are freed; so often that it comes to n steps at least.  One
 * write to each page added is in the time; the first malloc() and the free()
 * of each are not.
 */
static PyObject *time_realloc(PyObject *module, PyObject *args)
{
	size_t (*grow)(size_t);
	PyMemAllocatorEx allocator;
	const char *which, *growth;
	char *blocks[GROWING];
	Py_ssize_t n, size, steps = 0;
	double ns = 0;
	int failed = 0;

	(void)module;
	if (!PyArg_ParseTuple(args, "snns", &which, &n, &size, &growth))
		return NULL;
	if (find_allocator(which, &allocator) < 0)
		return NULL;
	if (strcmp(growth, "list") == 0)
		grow = grow_list;
	else if (strcmp(growth, "bytearray") == 0)
		grow = grow_bytearray;
	else
		return PyErr_Format(PyExc_ValueError,
				    "'%s' is no growth; there are list and bytearray", growth);
	if (n <= 0 || size <= 0 || size > PY_SSIZE_T_MAX / (2 * GROWTH))
		return PyErr_Format(PyExc_ValueError, "n and size must be positive");
	while (steps < n && !failed) {
		double start;

		for (int i = 0; i < GROWING; i++) {
			blocks[i] = allocator.malloc(allocator.ctx, (size_t)size);
			failed |= !blocks[i];
		}
		start = now_ns();
		for (size_t from = (size_t)size; from < (size_t)size * GROWTH && !failed;) {
			size_t to = grow(from);

			for (int i = 0; i < GROWING && !failed; i++) {
				char *block = allocator.realloc(allocator.ctx, blocks[i], to);

				failed = !block;
				if (block) {
					touch(block, from, to);
					blocks[i] = block;
				}
			}
			steps += GROWING;
			from = to;
		}
		ns += now_ns() - start;
		for (int i = 0; i < GROWING; i++)
			allocator.free(allocator.ctx, blocks[i]);
	}
	if (failed)
		return PyErr_NoMemory();
	return PyFloat_FromDouble(ns / (double)steps);
}

PyMethodDef bench_methods[] = {
	{"time_malloc", time_malloc, METH_VARARGS, NULL},
	{"new_batch", new_batch, METH_O, NULL},
	{"time_batch_malloc", time_batch_malloc, METH_VARARGS, NULL},
	{"time_batch_free", time_batch_free, METH_O, NULL},
	{"time_realloc", time_realloc, METH_VARARGS, NULL},
	{NULL, NULL, 0, NULL},
};
