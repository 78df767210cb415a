/*
 * Timing of malloc() and free() as a C library calls them: by their symbols, which
 * are the preload library's where that is loaded.  Never the core's table
 * (allocator.h), which goes past it.
 *
 * The clock is the thread's own processor time.  All is done in user mode, but for
 * page faults, so on a busy machine elapsed time would tell of its other processes.
 */
#include "binding.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
	SMALLEST = 16, /* bytes of a block of the working set */
	NR_SIZES = 8,  /* so many times the range of sizes doubles: to 4095 */
};

static const char working_set_name[] = "objcg._core.working_set";

/* Blocks that live together; each is replaced at some time by one of another size. */
struct working_set {
	uint64_t state; /* of the random numbers, the same in every process */
	uint64_t sum;	/* of what was read back */
	size_t bytes;	/* asked for by the blocks that are there */
	Py_ssize_t n;
	struct {
		unsigned char *p;
		size_t size;
	} blocks[];
};

static double now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static uint64_t next_random(struct working_set *set)
{
	set->state ^= set->state << 13;
	set->state ^= set->state >> 7;
	set->state ^= set->state << 17;
	return set->state;
}

/* Half of the blocks have 16 to 31 bytes, a quarter 32 to 63 and so on: 108 on average. */
static size_t random_size(uint64_t random)
{
	size_t least = (size_t)SMALLEST << __builtin_ctzll(random | 1u << (NR_SIZES - 1));

	return least + ((random >> NR_SIZES) & (least - 1));
}

/* Frees a block and puts a new one there, which is written in full. False: there is none. */
static inline bool replace(struct working_set *set, Py_ssize_t i, uint64_t random)
{
	size_t size = random_size(random);
	unsigned char *p = set->blocks[i].p;

	if (p) {
		set->sum += p[set->blocks[i].size - 1];
		set->bytes -= set->blocks[i].size;
	}
	free(p);
	p = malloc(size);
	set->blocks[i].p = p;
	if (!p)
		return false;
	memset(p, (int)(random & 0xff), size);
	set->blocks[i].size = size;
	set->bytes += size;
	return true;
}

static void working_set_free(PyObject *capsule)
{
	struct working_set *set = PyCapsule_GetPointer(capsule, working_set_name);

	for (Py_ssize_t i = 0; i < set->n; i++)
		free(set->blocks[i].p);
	free(set);
}

/* new_working_set(n) -> n blocks */
static PyObject *new_working_set(PyObject *module, PyObject *arg)
{
	Py_ssize_t n = PyNumber_AsSsize_t(arg, PyExc_OverflowError);
	struct working_set *set;
	PyObject *capsule;

	(void)module;
	if (n == -1 && PyErr_Occurred())
		return NULL;
	if (n <= 0 || n > PY_SSIZE_T_MAX / 32)
		return PyErr_Format(PyExc_ValueError, "n must be positive, not %zd", n);
	set = calloc(1, sizeof(*set) + (size_t)n * sizeof(set->blocks[0]));
	if (!set)
		return PyErr_NoMemory();
	set->n = n;
	set->state = 88172645463325252u;
	capsule = PyCapsule_New(set, working_set_name, working_set_free);
	if (!capsule) {
		free(set);
		return NULL;
	}
	for (Py_ssize_t i = 0; i < n; i++) {
		if (!replace(set, i, next_random(set))) {
			Py_DECREF(capsule);
			return PyErr_NoMemory();
		}
	}
	return capsule;
}

/*
 * time_working_set(set, n) -> (ns per replacement, the sum of all that was read
 * back, bytes asked for by the blocks that are there)
 *
 * n times a random block is read, freed and replaced.  The sum is the same in
 * every process that has made the same calls.
 */
static PyObject *time_working_set(PyObject *module, PyObject *args)
{
	struct working_set *set;
	PyObject *capsule;
	double start, end;
	bool failed = false;
	Py_ssize_t n;

	(void)module;
	if (!PyArg_ParseTuple(args, "On", &capsule, &n))
		return NULL;
	set = PyCapsule_GetPointer(capsule, working_set_name);
	if (!set)
		return NULL;
	if (n <= 0)
		return PyErr_Format(PyExc_ValueError, "n must be positive, not %zd", n);
	start = now_ns();
	for (Py_ssize_t i = 0; i < n && !failed; i++) {
		uint64_t random = next_random(set);

		failed = !replace(set, (Py_ssize_t)((random >> 32) % (uint64_t)set->n), random);
	}
	end = now_ns();
	if (failed)
		return PyErr_NoMemory();
	return Py_BuildValue("dKn", (end - start) / (double)n, (unsigned long long)set->sum,
			     (Py_ssize_t)set->bytes);
}

/* time_native_pair(n, size) -> ns for malloc() and free() of a block, one byte of it written */
static PyObject *time_native_pair(PyObject *module, PyObject *args)
{
	double start, end;
	Py_ssize_t n, size;

	(void)module;
	if (!PyArg_ParseTuple(args, "nn", &n, &size))
		return NULL;
	if (n <= 0 || size <= 0)
		return PyErr_Format(PyExc_ValueError, "n and size must be positive");
	start = now_ns();
	for (Py_ssize_t i = 0; i < n; i++) {
		/* volatile: a compiler may leave out a malloc() whose block nobody sees */
		unsigned char *volatile p = malloc((size_t)size);

		if (!p)
			return PyErr_NoMemory();
		*p = 1;
		free(p);
	}
	end = now_ns();
	return PyFloat_FromDouble((end - start) / (double)n);
}

PyMethodDef bench_native_methods[] = {
	{"new_working_set", new_working_set, METH_O, NULL},
	{"time_working_set", time_working_set, METH_VARARGS, NULL},
	{"time_native_pair", time_native_pair, METH_VARARGS, NULL},
	{NULL, NULL, 0, NULL},
};
