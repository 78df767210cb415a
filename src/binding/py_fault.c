/*
 * Refusing charges on purpose (fault.h), for tests alone: tests/faults has programs
 * run with each of their allocations failing.
 */
#include "binding.h"

#include "fault.h"

/*
 * fail_charges(gid, nth, for_good) -> (charges, refused) since it was called last
 *
 * The nth charge from here on of this group and those below it is refused, and with
 * `for_good` all that follow.  nth = 0 refuses none, and counts; gid = 0 ends it.
 */
static PyObject *fail_charges(PyObject *module, PyObject *args)
{
	struct mem_cgroup *memcg = NULL;
	struct fault_counts counts;
	PyObject *gid;
	long long nth;
	int for_good;
	long none;

	(void)module;
	if (!PyArg_ParseTuple(args, "OLp", &gid, &nth, &for_good))
		return NULL;
	if (!need_enabled())
		return NULL;
	if (nth < 0) {
		PyErr_Format(PyExc_ValueError,
			     "nth: %lld is negative; accepted are 1 for the next charge, 2 for the "
			     "one after it, and so on, and 0 for none",
			     nth);
		return NULL;
	}
	none = PyLong_Check(gid) ? PyLong_AsLong(gid) : -1;
	PyErr_Clear();
	if (none != 0 && !(memcg = memcg_from_object(gid)))
		return NULL;
	counts = fault_disarm();
	if (memcg) {
		fault_arm(memcg, nth, for_good);
		drain_stocks_of(memcg);
	}
	return Py_BuildValue("LL", (long long)counts.charges, (long long)counts.refused);
}

PyMethodDef fault_methods[] = {
	{"fail_charges", fail_charges, METH_VARARGS, NULL},
	{NULL, NULL, 0, NULL},
};
