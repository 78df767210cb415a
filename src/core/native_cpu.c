/* A cpu for each thread that allocates natively, and how others get at it. See native.h. */
#define _GNU_SOURCE
#include "native.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "memcg.h"

#define GATE_STOP 1u
#define GATE_FENCE 2u /* the system has no membarrier: everyone has to order his own steps */

__thread struct native_thread native_thread __attribute__((tls_model("initial-exec")));

_Atomic uint32_t native_gate;

static struct native_cpu natives[CPU_MAX];
static struct native_cpu *shared;
static pthread_mutex_t shared_lock = PTHREAD_MUTEX_INITIALIZER;
/* Held by whoever stops the others; those wait for it. */
static pthread_mutex_t stop_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_key_t key;

static int membarrier(int command)
{
	return (int)syscall(SYS_membarrier, command, 0, 0);
}

static void register_membarrier(void)
{
	if (membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) < 0)
		store_seq_cst(&native_gate, GATE_FENCE);
}

static struct native_cpu *native_cpu_get(void)
{
	struct cpu *cpu = cpu_get(CPU_KIND_NATIVE);
	struct native_cpu *native;

	if (!cpu)
		return NULL;
	native = &natives[cpu->index];
	if (!load_relaxed(&native->tally)) {
		size_t size = region.header->sections[SECTION_OBJCG].capacity * sizeof(int64_t);
		void *tally = (libc_allocator.mmap)(NULL, size, PROT_READ | PROT_WRITE,
						    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
						    0);

		if (tally == MAP_FAILED) {
			cpu_put(cpu);
			return NULL;
		}
		store_release(&native->tally, tally);
	}
	native->stocks = cpu->stocks;
	store_release(&native->cpu, cpu);
	return native;
}

/* The thread ends: what it has in stock goes back, and its cpu is for another. */
static void native_cpu_put(void *arg)
{
	struct native_thread *self = arg;

	self->inside++;
	if (self->cpu) {
		struct native_cpu *native = native_enter(self);
		struct cpu *cpu = cpu_of(native);

		self->cpu = NULL;
		/* Drained before nobody looks at it any more, and free for others after that. */
		stock_drain_all(cpu);
		store_release(&native->cpu, NULL);
		native_exit(native);
		cpu_put(cpu);
	}
	self->ended = true;
	native_task_drop(self);
	self->inside--;
}

int native_cpu_init(void)
{
	int err = -pthread_key_create(&key, native_cpu_put);

	if (err < 0)
		return err;
	shared = native_cpu_get();
	if (!shared)
		return -ENOMEM;
	shared->is_shared = true;
	register_membarrier();
	return 0;
}

/*
 * Waits until nobody stops the others. A full barrier between the two steps of
 * the protocol here; it costs nothing beside the wait.
 */
static void pass_gate(struct native_cpu *native)
{
	for (;;) {
		store_seq_cst(&native->busy, 1);
		if (!(load_seq_cst(&native_gate) & GATE_STOP))
			return;
		store_release(&native->busy, 0);
		pthread_mutex_lock(&stop_lock);
		pthread_mutex_unlock(&stop_lock);
	}
}

struct native_cpu *native_enter_slowly(struct native_thread *self)
{
	struct native_cpu *native = self->cpu;
	int saved = errno;

	if (!native && !self->ended) {
		native = native_cpu_get();
		/* Some C libraries allocate here; self->inside has it go past us. */
		if (native && pthread_setspecific(key, self) != 0) {
			struct cpu *cpu = cpu_of(native);

			store_release(&native->cpu, NULL);
			cpu_put(cpu);
			native = NULL;
		}
		self->cpu = native;
	}
	if (!native) {
		/* A thread that has ended, or the 1024 cpus are all taken. */
		pthread_mutex_lock(&shared_lock);
		self->in_shared = true;
		native = shared;
	}
	pass_gate(native);
	errno = saved;
	return native;
}

void native_exit_shared(struct native_cpu *native)
{
	(void)native;
	native_thread.in_shared = false;
	pthread_mutex_unlock(&shared_lock);
}

/* --- stopping the others --------------------------------------------------- */

bool native_stop_others(bool wait)
{
	struct native_thread *self = &native_thread;
	/*
	 * A thread that is inside its cpu keeps it.  Whether it is, of its own only it knows; the
	 * shared one may be busy by another thread.
	 */
	const struct native_cpu *own = self->cpu ? self->cpu : shared;
	bool own_is_busy = self->cpu ? self->inside && load_relaxed(&own->busy) : self->in_shared;
	uint32_t nr;

	self->inside++;
	if (wait) {
		pthread_mutex_lock(&stop_lock);
	} else if (pthread_mutex_trylock(&stop_lock) != 0) {
		self->inside--;
		return false;
	}
	/* seq_cst, and the barrier on all processors: see native_enter(). */
	store_seq_cst(&native_gate, load_relaxed(&native_gate) | GATE_STOP);
	if (!(load_relaxed(&native_gate) & GATE_FENCE) &&
	    membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) < 0) {
		store_seq_cst(&native_gate, GATE_FENCE);
		pthread_mutex_unlock(&stop_lock);
		self->inside--;
		return false;
	}
	nr = cpu_count();
	for (uint32_t i = 0; i < nr; i++)
		while (load_seq_cst(&natives[i].busy) && !(own_is_busy && &natives[i] == own))
			sched_yield();
	return true;
}

void native_start_others(void)
{
	store_seq_cst(&native_gate, load_relaxed(&native_gate) & GATE_FENCE);
	pthread_mutex_unlock(&stop_lock);
	native_thread.inside--;
}

/* --- stocks ----------------------------------------------------------------- */

typedef bool (*key_fn)(uint32_t key, const void *arg);

static bool is_below(uint32_t key_, const void *root)
{
	struct mem_cgroup *memcg = obj_cgroup_memcg(objcg_from_id(key_ >> 1));

	return memcg_is_descendant(memcg, root);
}

static bool is_dying(uint32_t key_, const void *unused)
{
	(void)unused;
	return load_acquire(&objcg_from_id(key_ >> 1)->state) == OBJCG_DYING;
}

/* Whether a native cpu has such a stock. Others may run: one that comes after we looked stays. */
static bool any_stock(key_fn fn, const void *arg)
{
	uint32_t nr = cpu_count();

	for (uint32_t i = 0; i < nr; i++) {
		const struct cpu *cpu = load_acquire(&natives[i].cpu);

		if (!cpu)
			continue;
		for (uint32_t j = 0; j < NR_STOCKS; j++) {
			uint32_t key_ = load_acquire(&cpu->stocks[j].key);

			if (key_ && fn(key_, arg))
				return true;
		}
	}
	return false;
}

static void drain(const struct mem_cgroup *root)
{
	uint32_t nr = cpu_count();

	for (uint32_t i = 0; i < nr; i++) {
		struct cpu *cpu = load_acquire(&natives[i].cpu);

		/* The caller's own, if it is inside it: it has drained that, and is in a section. */
		if (!cpu || load_relaxed(&natives[i].busy))
			continue;
		if (root)
			stock_drain_subtree(cpu, root);
		else
			stock_drain_dying(cpu);
	}
}

void native_drain_full(const struct mem_cgroup *root)
{
	if (native_is_on() && any_stock(is_below, root) && native_stop_others(false)) {
		drain(root);
		native_start_others();
	}
}

void native_drain_subtree(const struct mem_cgroup *root)
{
	if (native_is_on() && any_stock(is_below, root) && native_stop_others(true)) {
		drain(root);
		native_start_others();
	}
}

void native_drain_dying(void)
{
	if (native_is_on() && load_relaxed(&memcg_from_id(MEMCG_ROOT)->nr_dying) &&
	    any_stock(is_dying, NULL) && native_stop_others(true)) {
		drain(NULL);
		native_start_others();
	}
}

/* --- the audit, fork -------------------------------------------------------- */

void native_tally_for_each(void (*fn)(uint32_t objcg, int64_t bytes, void *arg), void *arg,
			   uint32_t nr_objcgs)
{
	for (uint32_t i = 0; i < CPU_MAX; i++) {
		_Atomic int64_t *tally = load_acquire(&natives[i].tally);

		for (uint32_t id = 1; tally && id < nr_objcgs; id++) {
			int64_t bytes = load_relaxed(&tally[id]);

			if (bytes)
				fn(id, bytes, arg);
		}
	}
}

void native_freeze(void)
{
	if (!native_is_on())
		return;
	native_map_lock();
	/* If that fails once (see there) the second try can do without membarrier. */
	if (!native_stop_others(true))
		native_stop_others(true);
}

void native_thaw(void)
{
	if (!native_is_on())
		return;
	native_start_others();
	native_map_unlock();
}

/*
 * The world was stopped before the fork, so nobody was inside a cpu.  But who comes says
 * so before it looks at the gate, and may have been copied in between.
 */
void native_fork_child(void)
{
	struct native_thread *self = &native_thread;

	if (!native_is_on())
		return;
	pthread_mutex_init(&shared_lock, NULL);
	pthread_mutex_init(&stop_lock, NULL);
	store_relaxed(&native_gate, 0);
	register_membarrier();
	for (uint32_t i = 0; i < cpu_count(); i++) {
		struct cpu *cpu = cpu_of(&natives[i]);

		store_relaxed(&natives[i].busy, 0);
		if (!cpu || &natives[i] == self->cpu || natives[i].is_shared)
			continue;
		/* Of a thread that is not there: else its stocks would be charged for ever. */
		store_relaxed(&natives[i].cpu, NULL);
		cpu_put(cpu);
	}
	native_tasks_after_fork();
	native_map_lock_reset_after_fork();
	self->inside--;
}
