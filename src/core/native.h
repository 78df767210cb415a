/*
 * Native memory: what C code allocates by malloc() and mmap(), of which the
 * preload library (src/preload) tells.
 *
 * A block of malloc's has its owner in a tag (native_block.h).  What is charged is
 * what the block occupies, as the C library says, so that it can be told from the
 * block alone.
 *
 * Each thread has a cpu (types.h) of its own for this, since nothing excludes
 * threads from each other here.  A thread uses its cpu between native_enter()
 * and native_exit(), which cost no atomic instruction; whoever needs the cpus of
 * others (to give back stocks, to audit, to fork) keeps everyone out for a
 * moment: native_stop_others().
 */
#ifndef OBJCG_NATIVE_H
#define OBJCG_NATIVE_H

#include "allocator.h"
#include "cpu.h"
#include "native_block.h"
#include "stock.h"

#define CPU_KIND_NATIVE 3u

/* What the native side keeps beside each cpu; indexed by cpu->index. */
struct native_cpu {
	_Alignas(64) _Atomic uint32_t busy; /* its user is between enter and exit */
	bool is_shared;			    /* by threads without a cpu, under a mutex */
	_Atomic(struct cpu *) cpu;	    /* NULL: not one of ours now */
	struct stock *stocks;		    /* the cpu's, which never move */
	/*
	 * By objcg id, the bytes of blocks that this cpu charged less those that it
	 * uncharged.  Kept apart from all counters, for the audit to compare; it
	 * stays when the cpu is given back.
	 */
	_Atomic(_Atomic int64_t *) tally;
};

/* What a thread knows about itself. */
struct native_thread {
	struct native_cpu *cpu;	  /* NULL: none yet, or no more */
	uint32_t inside;	  /* > 0: calls go straight to the C library */
	bool ended;		  /* its destructor has run: it uses the shared cpu */
	bool in_shared;		  /* it is between enter and exit of that */
	_Atomic(void *) deferred; /* freed by a signal handler while inside; see native_free() */
	struct task *task;	  /* what a thread that C code started allocates as, or NULL */
};

extern __thread struct native_thread native_thread __attribute__((tls_model("initial-exec")));

/* The binding's: as which task this thread allocates now; never NULL. Allocates nothing. */
extern struct task *(*native_current_task)(void);
/* The binding's: what a charge met. Called without a lock of ours; allocates nothing. */
extern void (*native_notice)(const struct charge_result *result);

/*
 * Has the preload library call us; 0, -ENOENT if it is not loaded, -EPROTO if it
 * is of another version, or -errno.  For good.
 */
int native_start(void);
/* The same without a preload library: for tests, which call the table below. */
int native_prepare(void);
bool native_is_on(void);

/*
 * Registers what the caller does around a fork, native_freeze() and so on: with the preload
 * library nearer to the fork than what any library has registered, whenever that was loaded.
 * Returns 0 or -errno.  `handlers` stays in use.
 */
int native_at_fork(const struct fork_handlers *handlers);

/* What the preload library calls from then on. */
extern const struct allocator native_allocator;

/* Between the two this thread's calls go straight to the C library. */
static inline void native_bypass_begin(void)
{
	native_thread.inside++;
}

static inline void native_bypass_end(void)
{
	native_thread.inside--;
}

/* --- native_cpu.c -------------------------------------------------------- */

int native_cpu_init(void);

/* The thread's cpu, for it alone until native_exit(). self->inside is set. */
struct native_cpu *native_enter_slowly(struct native_thread *self);
void native_exit_shared(struct native_cpu *native);

extern _Atomic uint32_t native_gate; /* 0, unless somebody stops the others */

/*
 * The thread's own cpu; NULL if it has none, or somebody stops the others just now:
 * native_enter() does what is to be done then.
 *
 * Dekker's protocol with native_stop_others(): we store busy and then look at the gate,
 * it closes the gate and then looks who is busy; one of us must see the other.
 * The order of our two steps is only the compiler's: the stopper has the kernel
 * run a barrier on every processor that runs a thread of ours (membarrier), so
 * that we need none.  The thread sanitizer knows nothing of that.
 */
static inline struct native_cpu *native_enter_own(struct native_thread *self)
{
	struct native_cpu *native = self->cpu;
	uint32_t gate;

	if (unlikely(!native))
		return NULL;
#if defined(__SANITIZE_THREAD__)
	store_seq_cst(&native->busy, 1);
	gate = load_seq_cst(&native_gate);
#else
	store_relaxed(&native->busy, 1);
	__asm__ volatile("" ::: "memory");
	gate = load_relaxed(&native_gate);
#endif
	if (likely(!gate))
		return native;
	store_release(&native->busy, 0);
	return NULL;
}

/* Leaving it takes no look at whose cpu it is. */
static inline void native_exit_own(struct native_cpu *native)
{
	store_release(&native->busy, 0);
}

static inline struct native_cpu *native_enter(struct native_thread *self)
{
	struct native_cpu *native = native_enter_own(self);

	return likely(native) ? native : native_enter_slowly(self);
}

static inline void native_exit(struct native_cpu *native)
{
	store_release(&native->busy, 0);
	if (unlikely(native->is_shared))
		native_exit_shared(native);
}

/*
 * Keeps all threads from using their native cpus until native_start_others(); those
 * that come wait.  Without `wait` false if somebody else does it already.  The
 * caller may be inside its own cpu.  May be called with the map table's lock held,
 * or with none of the core's.
 */
bool native_stop_others(bool wait);
void native_start_others(void);

/* Gives stocks back, where there are any: of a group that is full (if it can be done at once) ... */
void native_drain_full(const struct mem_cgroup *root);
/* ... of a group that is removed or has another limit, of groups removed before. */
void native_drain_subtree(const struct mem_cgroup *root);
void native_drain_dying(void);

/* Bytes of all living native blocks by objcg, added. Others are stopped. */
void native_tally_for_each(void (*fn)(uint32_t objcg, int64_t bytes, void *arg), void *arg,
			   uint32_t nr_objcgs);

/* Of what native_enter() has returned. */
static inline struct cpu *cpu_of(const struct native_cpu *native)
{
	return load_relaxed(&native->cpu);
}

static inline void native_tally_add(struct native_cpu *native, uint32_t objcg, int64_t bytes)
{
	add_single_writer(&load_relaxed(&native->tally)[objcg], bytes);
}

/* --- native_thread.c ----------------------------------------------------- */

int native_thread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *),
			 void *arg);
/* Python runs on this thread, so its contexts say who pays: the inherited task is not needed. */
void native_thread_is_python(void);
/* The thread ends. */
void native_task_drop(struct native_thread *self);
/* In a forked child: the tasks of threads that are not there. */
void native_tasks_after_fork(void);

/* --- native_map.c -------------------------------------------------------- */

void *native_mmap(void *address, size_t len, int protection, int flags, int fd, off_t offset);
int native_munmap(void *address, size_t len);
void *native_mremap(void *address, size_t old, size_t len, int flags, void *to);

void native_map_lock(void);
void native_map_unlock(void);
void native_map_lock_reset_after_fork(void);
void native_map_for_each(void (*fn)(uint32_t objcg, int64_t bytes, void *arg), void *arg);

/* --- for the binding ----------------------------------------------------- */

/* Both of the above, for the audit and for fork. In this order before all locks of the core. */
void native_freeze(void);
void native_thaw(void);
void native_fork_child(void);

#endif
