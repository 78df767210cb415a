/*
 * The data memory of NumPy's arrays, charged to the task that makes them.
 *
 * NumPy calls a handler for it: a struct of functions in a capsule, as NEP 49
 * has it (https://numpy.org/neps/nep-0049.html), from NumPy 1.22 on.  Which one is
 * the value of a ContextVar, so a handler of our own would be in force in one
 * context, and not in those that exist already or on other threads.  But the
 * variable's default is a handler as well, which NumPy uses wherever nobody has
 * set another.  So what is replaced is the functions in that struct: at once in
 * force in every context and thread, and for arrays that exist already, as each
 * keeps the capsule that it was made by.  Handlers that a program sets stay what
 * they are (docs/decisions/0010-numpy-handler.md).
 *
 * The functions are called with the GIL by NumPy, and by whoever has got hold of
 * the handler as he likes: hooks_numpy_malloc() and its like look.  They are exchanged
 * once and never back, as the hooks of CPython's domains are, and a block that is
 * not ours goes to the function that was there before.
 *
 * NumPy's headers are not needed to build this: the struct and two entries of the
 * table of its C API are declared here, and looked at before they are trusted.
 */
#include "binding.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* PyDataMemAllocator and PyDataMem_Handler, as NEP 49 and numpy/ndarraytypes.h have them. */
struct data_allocator {
	void *ctx;
	void *(*malloc)(void *ctx, size_t size);
	void *(*calloc)(void *ctx, size_t nelem, size_t elsize);
	void *(*realloc)(void *ctx, void *p, size_t size);
	void (*free)(void *ctx, void *p, size_t size);
};

struct data_handler {
	char name[127];
	uint8_t version;
	struct data_allocator allocator;
};

_Static_assert(offsetof(struct data_handler, allocator) == 128, "NEP 49");

#define HANDLER_CAPSULE "mem_handler"
#define HANDLER_NAME "default_allocator"
#define HANDLER_VERSION 1

/* The table of NumPy's C API, the capsule _ARRAY_API: what is used of it. */
enum {
	API_ABI_VERSION = 0,	   /* PyArray_GetNDArrayCVersion() */
	API_FEATURE_VERSION = 211, /* PyArray_GetNDArrayCFeatureVersion() */
	API_DEFAULT_HANDLER = 306, /* &PyDataMem_DefaultHandler */
};
#define ABI_NUMPY_1 0x01000009u
#define ABI_NUMPY_2 0x02000000u
#define FEATURES_WITH_HANDLERS 0x0fu /* NumPy 1.22 */

/* The functions that were replaced. */
static struct data_allocator saved;
static bool replaced;

/* --- huge pages ---------------------------------------------------------- */

/*
 * NumPy's own functions ask for huge pages for arrays from 4 MiB on, unless the
 * program or NUMPY_MADVISE_HUGEPAGE has switched that off.  NumPy can be asked
 * by the C function behind numpy._core.multiarray._get_madvise_hugepage(), which
 * returns a bool and does nothing else; NumPy 1.22 only by that behind
 * _set_madvise_hugepage(), which returns what was set before.
 */
#define HUGE_FROM ((size_t)4 << 20)

static PyCFunction madvise_hugepage;
static PyObject *madvise_module; /* its first argument */
static bool madvise_is_setter;

static PyObject *ask_madvise(void)
{
	PyObject *was;

	if (!madvise_is_setter)
		return madvise_hugepage(madvise_module, NULL);
	was = madvise_hugepage(madvise_module, Py_True);
	if (was == Py_False)
		Py_XDECREF(madvise_hugepage(madvise_module, Py_False));
	return was;
}

static void advise_huge(void *p, size_t size)
{
	const uintptr_t page = 4096;
	uintptr_t begin = ((uintptr_t)p + page - 1) & ~(page - 1);
	int error = errno;
	PyObject *wanted;

	/* Without the GIL nobody can be asked, and a hint is not worth waiting for it. */
	if (!madvise_hugepage || !hooks_with_gil())
		return;
	wanted = ask_madvise();
	if (wanted == Py_True)
		madvise((void *)begin, (uintptr_t)p + size - begin, MADV_HUGEPAGE);
	Py_XDECREF(wanted);
	errno = error; /* a kernel without huge pages is none of the program's concern */
}

static __attribute__((noinline)) void *alloc_huge(size_t size, bool zero)
{
	void *p = zero ? hooks_numpy_calloc(size) : hooks_numpy_malloc(size);

	if (p)
		advise_huge(p, size);
	return p;
}

/* --- the handler's functions --------------------------------------------- */

static void *numpy_malloc(void *ctx, size_t size)
{
	(void)ctx;
	if (unlikely(size >= HUGE_FROM))
		return alloc_huge(size, false);
	return hooks_numpy_malloc(size);
}

static void *numpy_calloc(void *ctx, size_t nelem, size_t elsize)
{
	size_t size;

	(void)ctx;
	if (__builtin_mul_overflow(nelem, elsize, &size))
		return NULL;
	if (unlikely(size >= HUGE_FROM))
		return alloc_huge(size, true);
	return hooks_numpy_calloc(size);
}

static void *numpy_realloc(void *ctx, void *p, size_t size)
{
	if (!p)
		return numpy_malloc(ctx, size);
	if (!kmem_is_ours(p)) {
		hooks_keep_older(1);
		p = saved.realloc(saved.ctx, p, size);
		hooks_keep_older(0);
		return p;
	}
	return hooks_numpy_realloc(p, size);
}

static __attribute__((noinline)) void free_outside_slabs(void *p, size_t size)
{
	if (!p)
		return;
	if (is_large(p))
		hooks_numpy_free(p);
	else
		saved.free(saved.ctx, p, size);
}

/* `size` is what NumPy takes the block to have; a block of ours knows its own. */
static void numpy_free(void *ctx, void *p, size_t size)
{
	(void)ctx;
	if (unlikely(!in_slab_range(p)))
		free_outside_slabs(p, size);
	else
		hooks_numpy_free(p);
}

/* --- installation -------------------------------------------------------- */

/*
 * Whether memory can be written to, without a fault where it cannot: a read from
 * a pipe fails with EFAULT there.  What it writes is the byte that is there.
 */
static int is_writable(void *p)
{
	int ends[2];
	int writable;

	if (pipe(ends) < 0)
		return 0;
	writable = write(ends[1], p, 1) == 1 && read(ends[0], p, 1) == 1;
	close(ends[0]);
	close(ends[1]);
	return writable;
}

/* The default handler that NumPy's table of functions leads to; NULL with why not. */
static struct data_handler *find_handler(void *const *api, const char **why)
{
	unsigned int (*version)(void);
	PyObject *const *capsule;
	struct data_handler *found;

	memcpy(&version, &api[API_ABI_VERSION], sizeof(version));
	if (version() != ABI_NUMPY_1 && version() != ABI_NUMPY_2) {
		*why = "its C interface is neither that of NumPy 1 nor that of NumPy 2";
		return NULL;
	}
	memcpy(&version, &api[API_FEATURE_VERSION], sizeof(version));
	if (version() < FEATURES_WITH_HANDLERS) {
		*why = "it has no data-memory handlers (NEP 49); NumPy 1.22 and newer have";
		return NULL;
	}
	capsule = api[API_DEFAULT_HANDLER];
	if (!capsule || !*capsule || !PyCapsule_IsValid(*capsule, HANDLER_CAPSULE)) {
		*why = "its default data-memory handler is not where NumPy 1.22 to 2 have it";
		return NULL;
	}
	found = PyCapsule_GetPointer(*capsule, HANDLER_CAPSULE);
	if (strncmp(found->name, HANDLER_NAME, sizeof(found->name)) != 0 ||
	    found->version != HANDLER_VERSION || !found->allocator.malloc ||
	    !found->allocator.calloc || !found->allocator.realloc || !found->allocator.free) {
		*why = "its default data-memory handler is not of version 1 (NEP 49)";
		return NULL;
	}
	if (!is_writable(&found->allocator.malloc) || !is_writable(&found->allocator.free)) {
		*why = "its default data-memory handler cannot be written to";
		return NULL;
	}
	return found;
}

/*
 * Who may call the functions meanwhile holds the GIL, or has got hold of the
 * handler, and may then see any of the old and the new ones.  So each new one
 * does with any block, ctx stays what it was, and what frees is there before
 * what makes (tests/integration/test_numpy.py: exchanged under fire).
 */
static void replace_functions(struct data_allocator *allocator)
{
	__atomic_store_n(&allocator->free, numpy_free, __ATOMIC_RELEASE);
	__atomic_store_n(&allocator->realloc, numpy_realloc, __ATOMIC_RELEASE);
	__atomic_store_n(&allocator->calloc, numpy_calloc, __ATOMIC_RELEASE);
	__atomic_store_n(&allocator->malloc, numpy_malloc, __ATOMIC_RELEASE);
}

/*
 * install_numpy(api, hugepage) -> None, or why NumPy's arrays cannot be charged.
 *
 * `api` is the capsule _ARRAY_API of NumPy's C module, `hugepage` its function
 * _get_madvise_hugepage(), or _set_madvise_hugepage() where there is no other, or None.
 */
static PyObject *install_numpy(PyObject *module, PyObject *args)
{
	const char *why = NULL;
	struct data_handler *found;
	PyObject *hugepage;
	PyObject *capsule;

	(void)module;
	if (!PyArg_ParseTuple(args, "OO", &capsule, &hugepage) || !in_main_interpreter())
		return NULL;
	if (!need_enabled())
		return NULL;
	if (!PyCapsule_IsValid(capsule, NULL))
		return PyUnicode_FromString("its C interface (_ARRAY_API) is not a capsule");
	if (replaced)
		Py_RETURN_NONE; /* NumPy's C module is loaded once in a process, and stays */
	found = find_handler(PyCapsule_GetPointer(capsule, NULL), &why);
	if (!found)
		return PyUnicode_FromString(why);
	if (PyCFunction_Check(hugepage)) {
		int flags = PyCFunction_GetFlags(hugepage);

		/* For good, like the functions. */
		madvise_module = Py_XNewRef(PyCFunction_GetSelf(hugepage));
		madvise_is_setter = flags == METH_O;
		if (flags == METH_O || flags == METH_NOARGS)
			madvise_hugepage = PyCFunction_GetFunction(hugepage);
	}
	replaced = true;
	saved = found->allocator;
	replace_functions(&found->allocator);
	Py_RETURN_NONE;
}

PyMethodDef numpy_methods[] = {
	{"install_numpy", install_numpy, METH_VARARGS, NULL},
	{NULL, NULL, 0, NULL},
};
