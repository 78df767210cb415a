/*
 * What greenlet must not be refused.
 *
 * A greenlet that is switched away from has its part of the C stack copied, into memory
 * from PyMem_Realloc().  Without it greenlet ends the process ("slp_switch(). The stack is
 * probably corrupt."), so what a limit refuses there is charged above the ceiling
 * (decision 0014).  It is told apart by who calls: PyMem_Realloc() calls the hook last of
 * all, by a jump, so a call by greenlet returns into its library.
 *
 * Guarantees that for CPython as it is built for use, with optimisation.  Not without, nor
 * under tracemalloc, which calls the hook itself: then a refusal is what it was.
 */
#define _GNU_SOURCE
#include "binding.h"

#include <dlfcn.h>
#include <link.h>

struct library {
	uintptr_t within; /* an address of it */
	uintptr_t start;
	uintptr_t end;
};

static int find_library(struct dl_phdr_info *info, size_t size, void *data)
{
	struct library *library = data;
	uintptr_t start = UINTPTR_MAX;
	uintptr_t end = 0;

	(void)size;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		uintptr_t at = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;

		if (info->dlpi_phdr[i].p_type != PT_LOAD)
			continue;
		if (at < start)
			start = at;
		if (at + info->dlpi_phdr[i].p_memsz > end)
			end = at + info->dlpi_phdr[i].p_memsz;
	}
	if (library->within < start || library->within >= end)
		return 0;
	library->start = start;
	library->end = end;
	return 1;
}

/* guard_greenlet(module): `module` is greenlet's extension. */
static PyObject *guard_greenlet(PyObject *unused, PyObject *module)
{
	struct library library = {0, 0, 0};
	PyModuleDef *def;

	(void)unused;
	if (!PyModule_Check(module)) {
		PyErr_Format(PyExc_TypeError, "an extension module is needed, not %R", module);
		return NULL;
	}
	def = PyModule_GetDef(module);
	if (!def)
		return PyErr_Occurred() ? NULL : Py_NewRef(Py_None); /* not of C: no such copies */
	library.within = (uintptr_t)def;
	if (dl_iterate_phdr(find_library, &library))
		hooks_never_refuse(library.start, library.end);
	Py_RETURN_NONE;
}

PyMethodDef greenlet_methods[] = {
	{"guard_greenlet", guard_greenlet, METH_O, NULL},
	{NULL, NULL, 0, NULL},
};
