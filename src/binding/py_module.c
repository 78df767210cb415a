/* The module objcg._core. */
#include "binding.h"

#include <errno.h>
#include <string.h>

#include "slab_pool.h"

static PyObject *enabled(PyObject *module, PyObject *unused)
{
	(void)module;
	(void)unused;
	return PyBool_FromLong(hooks_installed());
}

/* install(path | None, migration, command) */
static PyObject *install(PyObject *module, PyObject *args)
{
	PyObject *path_object;
	PyObject *path = NULL;
	const char *command;
	int migration;
	int err;

	(void)module;
	if (!PyArg_ParseTuple(args, "Ops", &path_object, &migration, &command))
		return NULL;
	if (!in_main_interpreter())
		return NULL;
	/* The core is there for as long as the process; the package that knows its groups is not. */
	if (hooks_installed()) {
		PyErr_SetString(
			PyExc_RuntimeError,
			"it is enabled in this process already, by a package objcg that was "
			"loaded before this one: it was taken out of sys.modules, or its "
			"interpreter was finalized");
		return NULL;
	}
	if (path_object != Py_None && !PyUnicode_FSConverter(path_object, &path))
		return NULL;
	err = kmem_init(path ? PyBytes_AS_STRING(path) : NULL, command, Py_GetVersion());
	if (err == 0 && (err = hooks_prepare()) < 0)
		region_remove_file();
	Py_XDECREF(path);
	if (err < 0)
		return raise_errno(err);
	if (migration)
		fetch_or_acq_rel(&region.header->flags, (uint32_t)REGION_MIGRATION);
	if (context_init() < 0)
		return NULL;
	hooks_install();
	native_install();
	Py_RETURN_NONE;
}

static PyObject *region_path(PyObject *module, PyObject *unused)
{
	(void)module;
	(void)unused;
	if (!region.header || !region.path[0])
		Py_RETURN_NONE;
	return PyUnicode_DecodeFSDefault(region.path);
}

/* Field 22 of this process's /proc/PID/stat; 0 where that cannot be read. */
static PyObject *start_time(PyObject *module, PyObject *unused)
{
	(void)module;
	(void)unused;
	if (!need_enabled())
		return NULL;
	return PyLong_FromUnsignedLongLong(region.header->start_time);
}

/* startup() -> (bytes resident when objcg was enabled, of that shared) */
static PyObject *startup(PyObject *module, PyObject *unused)
{
	const struct region_header *header = region.header;

	(void)module;
	(void)unused;
	return Py_BuildValue("KK", (unsigned long long)(header ? header->startup : 0),
			     (unsigned long long)(header ? header->startup_shared : 0));
}

static PyObject *mark_exited(PyObject *module, PyObject *unused)
{
	(void)module;
	(void)unused;
	native_finalizing();
	if (region.header)
		fetch_or_acq_rel(&region.header->flags, (uint32_t)REGION_EXITED);
	Py_RETURN_NONE;
}

static PyObject *set_auto(PyObject *module, PyObject *on)
{
	int automatic = PyObject_IsTrue(on);

	(void)module;
	if (automatic < 0 || !need_enabled())
		return NULL;
	if (automatic)
		fetch_or_acq_rel(&region.header->flags, (uint32_t)REGION_AUTO);
	else
		fetch_and_acq_rel(&region.header->flags, ~(uint32_t)REGION_AUTO);
	if (!automatic)
		page_counter_unbound(memcg_from_id(MEMCG_ROOT));
	Py_RETURN_NONE;
}

static PyObject *after_fork_child(PyObject *module, PyObject *path_object)
{
	PyObject *path;
	int err;

	(void)module;
	if (!need_enabled())
		return NULL;
	context_after_fork_child();
	if (path_object == Py_None)
		Py_RETURN_NONE;
	if (!PyUnicode_FSConverter(path_object, &path))
		return NULL;
	/* The region is copied, and the copy takes its place: what threads write meanwhile,
	 * which a library may have started in the child before us, would be lost. */
	others_stop();
	err = region_attach_file(PyBytes_AS_STRING(path));
	others_start();
	Py_DECREF(path);
	if (err < 0)
		return raise_errno(err);
	Py_RETURN_NONE;
}

static PyObject *current_task(PyObject *module, PyObject *unused)
{
	(void)module;
	(void)unused;
	if (!need_enabled())
		return NULL;
	return task_handle(thread_cache_now()->task);
}

static PyObject *current_gid(PyObject *module, PyObject *unused)
{
	(void)module;
	(void)unused;
	if (!need_enabled())
		return NULL;
	return PyLong_FromUnsignedLong(task_gid(thread_cache_now()->task));
}

/* Where an object's block begins: what CPython puts before the object itself. */
static void *object_block(PyObject *object)
{
	PyTypeObject *type = Py_TYPE(object);
	size_t before = 0;

	/* Not PyObject_IS_GC: an object of a GC type without a header is static, and not ours. */
	if (PyType_IS_GC(type))
		before += 2 * sizeof(void *); /* PyGC_Head */
#if PY_VERSION_HEX >= 0x030C0000
	if (type->tp_flags & (Py_TPFLAGS_MANAGED_DICT | Py_TPFLAGS_MANAGED_WEAKREF))
		before += 2 * sizeof(PyObject *);
#elif PY_VERSION_HEX >= 0x030B0000
	if (type->tp_flags & Py_TPFLAGS_MANAGED_DICT)
		before += 2 * sizeof(PyObject *);
#endif
	return (char *)object - before;
}

/* owner(obj) -> gid, 0 for a block that is not ours */
static PyObject *owner(PyObject *module, PyObject *object)
{
	void *block = object_block(object);
	uint32_t gid = 0;
	size_t bytes;

	(void)module;
	if (!need_enabled())
		return NULL;
	if (kmem_is_ours(block)) {
		uint32_t id = kmem_owner(block, &bytes);

		gid = load_acquire(&objcg_from_id(id)->memcg);
	}
	return PyLong_FromUnsignedLong(gid);
}

/* audit() -> (drift, [(gid, counted, recomputed), ...]), of living groups */
static PyObject *audit(PyObject *module, PyObject *unused)
{
	struct audit audit;
	PyObject *list;
	int err;

	(void)module;
	(void)unused;
	if (!need_enabled())
		return NULL;
	settle();
	others_stop();
	err = audit_run(&audit);
	others_start();
	if (err < 0)
		return PyErr_NoMemory();
	list = PyList_New(0);
	for (uint32_t id = MEMCG_ROOT; list && id < audit.nr; id++) {
		PyObject *row;

		if (load_relaxed(&memcg_from_id(id)->state) != MEMCG_ONLINE)
			continue;
		row = Py_BuildValue("ILL", (unsigned int)id, (long long)audit.counted[id],
				    (long long)audit.recomputed[id]);
		if (!row || PyList_Append(list, row) < 0)
			Py_CLEAR(list);
		Py_XDECREF(row);
	}
	audit_free(&audit);
	return list ? Py_BuildValue("LN", (long long)audit.drift, list) : NULL;
}

static PyObject *bind_thread(PyObject *module, PyObject *function)
{
	(void)module;
	return need_enabled() ? context_bind(function, "thread") : NULL;
}

static PyObject *bind_job(PyObject *module, PyObject *function)
{
	(void)module;
	return need_enabled() ? context_bind(function, "job") : NULL;
}

static PyObject *at_root(PyObject *module, PyObject *function)
{
	(void)module;
	return need_enabled() ? context_bind(function, "root") : NULL;
}

static PyObject *write_unraisable(PyObject *module, PyObject *args)
{
	PyObject *exception;
	PyObject *source;

	(void)module;
	if (!PyArg_ParseTuple(args, "OO", &exception, &source))
		return NULL;
	PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
	PyErr_WriteUnraisable(source);
	Py_RETURN_NONE;
}

/* Bytes of slabs in use, of empty ones kept, of ones given back: for tests and benchmarks. */
static PyObject *slab_stat(PyObject *module, PyObject *unused)
{
	struct slab_pool_stat stat = slab_pool_stat();

	(void)module;
	(void)unused;
	return Py_BuildValue("{snsnsn}", "active", (Py_ssize_t)stat.active, "kept",
			     (Py_ssize_t)stat.kept, "returned", (Py_ssize_t)stat.returned);
}

#define FIELD(name, type, field) {name, offsetof(struct type, field)}

static const struct {
	const char *name;
	size_t value;
} layout[] = {
	{"header.size", REGION_HEADER_SIZE},
	{"group.size", sizeof(struct mem_cgroup)},
	{"objcg.size", sizeof(struct obj_cgroup)},
	{"task.size", sizeof(struct task)},
	{"cpu.size", sizeof(struct cpu_record)},
	{"stock.size", sizeof(struct stock)},
	{"stock.count", NR_STOCKS},
	FIELD("header.magic", region_header, magic),
	FIELD("header.version", region_header, version),
	FIELD("header.header_size", region_header, header_size),
	FIELD("header.file_size", region_header, file_size),
	FIELD("header.pid", region_header, pid),
	FIELD("header.uid", region_header, uid),
	FIELD("header.start_time", region_header, start_time),
	FIELD("header.boot_id", region_header, boot_id),
	FIELD("header.created_ns", region_header, created_ns),
	FIELD("header.flags", region_header, flags),
	FIELD("header.sections", region_header, sections),
	FIELD("header.updated_ns", region_header, updated_ns),
	FIELD("header.startup", region_header, startup),
	FIELD("header.startup_shared", region_header, startup_shared),
	FIELD("header.python", region_header, python),
	FIELD("header.command_len", region_header, command_len),
	FIELD("header.command", region_header, command),
	FIELD("group.state", mem_cgroup, state),
	FIELD("group.gen", mem_cgroup, gen),
	FIELD("group.parent", mem_cgroup, parent),
	FIELD("group.depth", mem_cgroup, depth),
	FIELD("group.objcg", mem_cgroup, objcg),
	FIELD("group.tasks", mem_cgroup, nr_tasks),
	FIELD("group.children", mem_cgroup, nr_children),
	FIELD("group.dying", mem_cgroup, nr_dying),
	FIELD("group.exempt_until", mem_cgroup, exempt_until),
	FIELD("group.uid", mem_cgroup, uid),
	FIELD("group.usage", mem_cgroup, memory.usage),
	FIELD("group.max", mem_cgroup, memory.max),
	FIELD("group.high", mem_cgroup, memory.high),
	FIELD("group.low", mem_cgroup, memory.low),
	FIELD("group.peak", mem_cgroup, memory.watermark),
	FIELD("group.blocks", mem_cgroup, blocks),
	FIELD("group.stat", mem_cgroup, stat),
	FIELD("group.events", mem_cgroup, events),
	FIELD("group.objcg_head", mem_cgroup, objcg_head),
	FIELD("group.seq", mem_cgroup, seq),
	FIELD("group.name_len", mem_cgroup, name_len),
	FIELD("group.name", mem_cgroup, name),
	FIELD("objcg.state", obj_cgroup, state),
	FIELD("objcg.gid", obj_cgroup, memcg),
	FIELD("objcg.bytes", obj_cgroup, bytes),
	FIELD("task.objcg", task, objcg),
	FIELD("task.gid", task, memcg),
	FIELD("task.gen", task, gen),
	FIELD("task.state", task, state),
	FIELD("task.id", task, id),
	FIELD("task.name_len", task, name_len),
	FIELD("task.name", task, name),
	FIELD("task.request", task, request),
	FIELD("cpu.state", cpu_record, state),
	FIELD("cpu.kind", cpu_record, kind),
	FIELD("cpu.section", cpu_record, section),
	FIELD("cpu.stocks", cpu_record, stocks),
	FIELD("stock.key", stock, key),
	FIELD("stock.bytes", stock, bytes),
	FIELD("stock.blocks", stock, blocks),
	FIELD("stock.stat", stock, stat),
};

static int add_layout(PyObject *module)
{
	PyObject *dict = PyDict_New();

	for (size_t i = 0; dict && i < sizeof(layout) / sizeof(layout[0]); i++) {
		PyObject *value = PyLong_FromSize_t(layout[i].value);

		if (!value || PyDict_SetItemString(dict, layout[i].name, value) < 0)
			Py_CLEAR(dict);
		Py_XDECREF(value);
	}
	if (!dict)
		return -1;
	if (PyModule_AddObject(module, "LAYOUT", dict) < 0) {
		Py_DECREF(dict);
		return -1;
	}
	return 0;
}

static PyMethodDef methods[] = {
	{"enabled", enabled, METH_NOARGS, NULL},
	{"install", install, METH_VARARGS, NULL},
	{"region_path", region_path, METH_NOARGS, NULL},
	{"start_time", start_time, METH_NOARGS, NULL},
	{"startup", startup, METH_NOARGS, NULL},
	{"mark_exited", mark_exited, METH_NOARGS, NULL},
	{"set_auto", set_auto, METH_O, NULL},
	{"after_fork_child", after_fork_child, METH_O, NULL},
	{"set_task_type", set_task_type, METH_O, NULL},
	{"current_task", current_task, METH_NOARGS, NULL},
	{"current_gid", current_gid, METH_NOARGS, NULL},
	{"owner", owner, METH_O, NULL},
	{"audit", audit, METH_NOARGS, NULL},
	{"bind_thread", bind_thread, METH_O, NULL},
	{"bind_job", bind_job, METH_O, NULL},
	{"at_root", at_root, METH_O, NULL},
	{"write_unraisable", write_unraisable, METH_VARARGS, NULL},
	{"slab_stat", slab_stat, METH_NOARGS, NULL},
	{NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
	PyModuleDef_HEAD_INIT,
	.m_name = "objcg._core",
	.m_doc = "The binding of objcg's core to CPython. Private: use objcg.",
	.m_size = -1,
	.m_methods = methods,
};

PyMODINIT_FUNC PyInit__core(void)
{
	PyObject *module;

	if (PyType_Ready(&GroupBase_Type) < 0 || with_prepare() < 0 ||
	    PyType_Ready(&TaskBase_Type) < 0)
		return NULL;
	module = PyModule_Create(&definition);
	if (!module)
		return NULL;
	if (context_add_types(module) < 0 || PyModule_AddFunctions(module, limits_methods) < 0 ||
	    PyModule_AddFunctions(module, offenders_methods) < 0 ||
	    PyModule_AddFunctions(module, reclaimer_methods) < 0 ||
	    PyModule_AddFunctions(module, tree_methods) < 0 ||
	    PyModule_AddFunctions(module, run_methods) < 0 ||
	    PyModule_AddFunctions(module, exit_methods) < 0 ||
	    PyModule_AddFunctions(module, bench_methods) < 0 ||
	    PyModule_AddFunctions(module, bench_native_methods) < 0 ||
	    PyModule_AddFunctions(module, numpy_methods) < 0 ||
	    PyModule_AddFunctions(module, outside_methods) < 0 ||
	    PyModule_AddFunctions(module, fault_methods) < 0 ||
	    PyModule_AddFunctions(module, greenlet_methods) < 0 ||
	    PyModule_AddFunctions(module, native_methods) < 0 || add_layout(module) < 0)
		goto failed;
	Py_INCREF(&GroupBase_Type);
	Py_INCREF(&TaskBase_Type);
	if (PyModule_AddObject(module, "GroupBase", (PyObject *)&GroupBase_Type) < 0 ||
	    PyModule_AddObject(module, "TaskBase", (PyObject *)&TaskBase_Type) < 0)
		goto failed;
	return module;

failed:
	Py_DECREF(module);
	return NULL;
}
