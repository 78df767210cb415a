/*
 * Threads that C code starts.  Python has no context for them, so they allocate
 * as a task of their own, in the group of whoever has started them: so do the
 * threads of OpenMP's, BLAS's and Arrow's pools, which are started by the first
 * who uses the pool.
 *
 * Where Python runs on such a thread its contexts say who pays, as on any other.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "memcg.h"
#include "native.h"

struct beginning {
	void *(*start)(void *);
	void *arg;
	struct task *task;
};

static void *begin_thread(void *arg)
{
	struct beginning beginning = *(struct beginning *)arg;
	struct native_thread *self = &native_thread;
	char name[64];
	int len = snprintf(name, sizeof(name), "native thread %ld", (long)syscall(SYS_gettid));

	self->inside++;
	base_free(arg);
	task_set_name(beginning.task, name, (size_t)len);
	self->task = beginning.task;
	/* Takes a cpu, and with it the destructor that gives back both. */
	native_exit(native_enter(self));
	self->inside--;
	return beginning.start(beginning.arg);
}

/* A task for a thread that the caller is about to start; NULL: it may go without. */
static struct task *inherit(void)
{
	struct task *task = native_current_task();

	/* Root's threads are root's without that. */
	if (load_relaxed(&task->memcg) == MEMCG_ROOT)
		return NULL;
	return task_alloc_native(task);
}

int native_thread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *),
			 void *arg)
{
	struct native_thread *self = &native_thread;
	struct beginning *beginning;
	struct task *task;
	int err;

	if (self->inside)
		return libc_allocator.thread_create(thread, attr, start, arg);
	self->inside++;
	task = inherit();
	beginning = task ? base_malloc(sizeof(*beginning)) : NULL;
	if (beginning) {
		*beginning = (struct beginning){.start = start, .arg = arg, .task = task};
		err = libc_allocator.thread_create(thread, attr, begin_thread, beginning);
		if (err)
			base_free(beginning);
	} else {
		err = libc_allocator.thread_create(thread, attr, start, arg);
	}
	if (task && (err || !beginning))
		task_free(task);
	self->inside--;
	return err;
}

void native_task_drop(struct native_thread *self)
{
	struct task *task = self->task;

	self->task = NULL;
	if (task)
		task_free(task);
}

void native_thread_is_python(void)
{
	struct native_thread *self = &native_thread;

	if (likely(!self->task))
		return;
	self->inside++;
	native_task_drop(self);
	self->inside--;
}

void native_tasks_after_fork(void)
{
	uint32_t used = section_used(SECTION_TASK);

	for (uint32_t i = TASK_ROOT + 1; i < used; i++) {
		struct task *task = &region.tasks[i];

		if (load_relaxed(&task->state) == TASK_LIVE && task->is_native &&
		    task != native_thread.task)
			task_free(task);
	}
}
