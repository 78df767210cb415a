/*
 * Timing of the allocator itself, beside the one that was there before it:
 * both in one process, so that a comparison is of like with like.
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

/*
 * time_malloc(which, n, size, pattern) -> (ns per allocation, ns per free)
 *
 * which: "stock", the object allocator before objcg, or "objcg".  n blocks of
 * size bytes are allocated one after the other and freed in an order: "fifo",
 * "lifo" or "random"; or, "pair", each is freed before the next is allocated
 * (then the second number is 0).
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
	if (strcmp(which, "stock") == 0) {
		allocator = *hooks_saved_object();
		if (!hooks_installed())
			PyMem_GetAllocator(PYMEM_DOMAIN_OBJ, &allocator);
	} else {
		PyMem_GetAllocator(PYMEM_DOMAIN_OBJ, &allocator);
	}
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

PyMethodDef bench_methods[] = {
	{"time_malloc", time_malloc, METH_VARARGS, NULL},
	{NULL, NULL, 0, NULL},
};
