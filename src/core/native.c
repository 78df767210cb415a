/* The functions of malloc's family, charged. See native.h. */
#define _GNU_SOURCE
#include "native.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>

#include "kmem.h"
#include "memcg.h"

struct task *(*native_current_task)(void);
void (*native_notice)(const struct charge_result *result);

static bool is_on;

/* --- charging --------------------------------------------------------------- */

static inline bool is_notable(const struct charge_result *result)
{
	return unlikely(result->over || result->high || result->refused);
}

static __attribute__((noinline)) uint32_t charge_slowly(struct native_cpu *native,
							struct task *task, size_t bytes,
							struct charge_result *result)
{
	uint32_t id = charge_task(cpu_of(native), task, DOMAIN_NATIVE, bytes, result);

	if (id)
		kmem_note_peak(cpu_of(native), id, bytes);
	return id;
}

/* Charges a block of `bytes` to the task; its objcg, or 0: refused. */
static inline uint32_t charge(struct native_thread *self, struct task *task, size_t bytes,
			      struct charge_result *result)
{
	struct native_cpu *native = native_enter(self);
	uint32_t reference = load_relaxed(&task->objcg);
	uint32_t id = reference >> 1;

	if (unlikely(!consume_stock(cpu_of(native), reference, DOMAIN_NATIVE, (int64_t)bytes)))
		id = charge_slowly(native, task, bytes, result);
	if (likely(id))
		native_tally_add(native, id, (int64_t)bytes);
	native_exit(native);
	return id;
}

static inline void uncharge(struct native_thread *self, uint32_t id, size_t bytes)
{
	struct native_cpu *native = native_enter(self);

	/* Before the bytes are gone: until then the id is this objcg's. */
	native_tally_add(native, id, -(int64_t)bytes);
	if (unlikely(!refill_stock(cpu_of(native), id, DOMAIN_NATIVE, (int64_t)bytes)))
		uncharge_objcg(cpu_of(native), id, DOMAIN_NATIVE, bytes, 1);
	native_exit(native);
}

/* Changes what a living block is charged, to its own objcg. False: no room for more. */
static bool recharge(struct native_thread *self, uint32_t id, size_t old, size_t bytes,
		     struct charge_result *result)
{
	struct native_cpu *native;
	bool charged = true;

	if (old == bytes)
		return true;
	native = native_enter(self);
	if (bytes > old) {
		charged = charge_objcg(cpu_of(native), id, DOMAIN_NATIVE, bytes - old, result);
		if (charged)
			kmem_note_peak(cpu_of(native), id, bytes - old);
	} else {
		uncharge_objcg(cpu_of(native), id, DOMAIN_NATIVE, old - bytes, 0);
	}
	if (charged)
		native_tally_add(native, id, (int64_t)bytes - (int64_t)old);
	native_exit(native);
	return charged;
}

/* --- blocks that a signal handler frees ---------------------------------------- */

static void release(struct native_thread *self, void *p, uint32_t id, size_t real)
{
	tag_write(p, real, 0); /* what has this memory next is not ours because of it */
	base_free(p);
	uncharge(self, id, real + BLOCK_OVERHEAD);
}

static __attribute__((noinline)) void release_deferred(struct native_thread *self)
{
	void *p = xchg_acq_rel(&self->deferred, NULL);

	while (p) {
		void *following = *(void **)p;
		size_t real;
		uint32_t id = tag_read(p, &real);

		if (id)
			release(self, p, id, real);
		else
			base_free(p);
		p = following;
	}
}

/* A signal handler of this thread that comes in between goes straight to the C library. */
static inline void begin(struct native_thread *self)
{
	self->inside = 1;
	__asm__ volatile("" ::: "memory");
}

static inline void end(struct native_thread *self)
{
	if (unlikely(load_relaxed(&self->deferred)))
		release_deferred(self);
	__asm__ volatile("" ::: "memory");
	self->inside = 0;
}

/* --- allocation ---------------------------------------------------------------- */

static __attribute__((noinline)) void *refuse(void *p, const struct charge_result *result)
{
	base_free(p);
	native_notice(result);
	errno = ENOMEM;
	return NULL;
}

/* A new block: charged and tagged, or freed again where a limit refuses it. */
static inline void *adopt(struct native_thread *self, void *p)
{
	struct charge_result result = {0, 0, 0};
	size_t real;
	uint32_t id;

	if (unlikely(!p))
		return NULL;
	real = real_size(p);
	id = charge(self, native_current_task(), real + BLOCK_OVERHEAD, &result);
	if (unlikely(!id))
		return refuse(p, &result);
	tag_write(p, real, tag_of(p, id));
	if (is_notable(&result))
		native_notice(&result);
	return p;
}

/* No wish for more can be met, and below it no sum overflows. */
static inline bool goes_past_us(const struct native_thread *self, size_t size)
{
	return unlikely(self->inside) || unlikely(size > ALLOC_MAX);
}

static __attribute__((noinline)) void *adopt_slowly(struct native_thread *self, void *p)
{
	p = adopt(self, p);
	end(self);
	return p;
}

/*
 * adopt() and end() for a block of glibc's that is no mapping of its own, on a thread with
 * its cpu, where the task's objcg has stock: nothing is called but what finds the task.
 * Whatever is not so is found before anything was changed, and adopt() does it all.
 */
static inline void *adopt_quickly(struct native_thread *self, void *p)
{
	struct native_cpu *native;
	uint32_t reference;
	size_t bytes;

	if (unlikely(!p) || unlikely(!occupies_at_once(p, &bytes)))
		return adopt_slowly(self, p);
	reference = load_relaxed(&native_current_task()->objcg);
	native = native_enter_own(self);
	if (unlikely(!native))
		return adopt_slowly(self, p);
	/* A reference of 0 finds an empty slot at best, which has no bytes. */
	if (unlikely(!consume_stock_at(native->stocks, reference, DOMAIN_NATIVE, (int64_t)bytes))) {
		native_exit_own(native);
		return adopt_slowly(self, p);
	}
	native_tally_add(native, reference >> 1, (int64_t)bytes);
	native_exit_own(native);
	tag_write(p, bytes - BLOCK_OVERHEAD, tag_of(p, reference >> 1));
	end(self);
	return p;
}

static void *native_malloc(size_t size)
{
	struct native_thread *self = &native_thread;

	if (goes_past_us(self, size))
		return base_malloc(size);
	begin(self);
	return adopt_quickly(self, base_malloc(size + TAG_SIZE));
}

static void *native_calloc(size_t nr, size_t size)
{
	struct native_thread *self = &native_thread;
	size_t bytes;

	if (__builtin_mul_overflow(nr, size, &bytes) || goes_past_us(self, bytes))
		return base_calloc(nr, size);
	begin(self);
	return adopt_quickly(self, base_calloc(1, bytes + TAG_SIZE));
}

static void *native_memalign(size_t alignment, size_t size)
{
	struct native_thread *self = &native_thread;

	if (goes_past_us(self, size))
		return libc_allocator.memalign(alignment, size);
	begin(self);
	return adopt_quickly(self, libc_allocator.memalign(alignment, size + TAG_SIZE));
}

static void *native_aligned_alloc(size_t alignment, size_t size)
{
	struct native_thread *self = &native_thread;

	/* Its size has to be a multiple of the alignment, with some; not so memalign's. */
	if (goes_past_us(self, size) || !alignment || (alignment & (alignment - 1)))
		return base_aligned_alloc(alignment, size);
	begin(self);
	return adopt_quickly(self, libc_allocator.memalign(alignment, size + TAG_SIZE));
}

static int native_posix_memalign(void **result, size_t alignment, size_t size)
{
	struct native_thread *self = &native_thread;
	int saved = errno;
	void *p;
	int err;

	if (goes_past_us(self, size))
		return libc_allocator.posix_memalign(result, alignment, size);
	begin(self);
	err = libc_allocator.posix_memalign(&p, alignment, size + TAG_SIZE);
	if (err == 0) {
		p = adopt(self, p);
		if (p)
			*result = p;
		else
			err = ENOMEM;
	}
	end(self);
	errno = saved;
	return err;
}

/*
 * A signal handler that frees while its thread is in here cannot uncharge: the
 * cpu is in the middle of something.  The block stays, on a list through its first
 * word, until the thread comes out (end()).  So does what is freed by other
 * libraries' handlers of fork while we have the others stopped.
 */
static __attribute__((noinline)) void free_slowly(void *p)
{
	struct native_thread *self = &native_thread;
	size_t real;
	uint32_t id = tag_read(p, &real);

	if (!id) {
		base_free(p);
	} else if (self->inside) {
		*(void **)p = load_relaxed(&self->deferred);
		store_relaxed(&self->deferred, p);
	} else {
		begin(self);
		release(self, p, id, real);
		end(self);
	}
}

/* Out of the way, so that native_free() has nothing to keep for after a call. */
static __attribute__((noinline)) void end_and_free(void *p)
{
	end(&native_thread);
	base_free(p);
}

/*
 * As adopt_quickly(): all at once, or free_slowly().  Uncharged before it is freed, so
 * that the C library's function can be jumped to: between the two the counters are too
 * low by this block, which nobody can tell from a free that is over.  Its tag is gone by
 * then, and our thread is not inside: a signal handler may come in between, and one that
 * never returns leaves a block behind that is nobody's.  (tests/core/test_native.c:
 * signals_in_the_middle_do_no_harm)
 */
static void native_free(void *p)
{
	struct native_thread *self = &native_thread;
	struct native_cpu *native;
	size_t bytes;
	uint64_t tag;
	uint32_t id;

	if (unlikely(!p))
		return;
	if (unlikely(self->inside) || unlikely(!occupies_at_once(p, &bytes))) {
		free_slowly(p);
		return;
	}
	memcpy(&tag, (char *)p + bytes - BLOCK_OVERHEAD - TAG_SIZE, TAG_SIZE);
	if (unlikely(!tag_is_valid(p, tag, &id))) {
		base_free(p);
		return;
	}
	begin(self);
	native = native_enter_own(self);
	if (unlikely(!native))
		goto slowly;
	if (unlikely(!refill_slot(&native->stocks[id % NR_STOCKS], id << 1, DOMAIN_NATIVE,
				  (int64_t)bytes))) {
		native_exit_own(native);
		goto slowly;
	}
	/* The id is still this objcg's: its bytes are in our stock. */
	native_tally_add(native, id, -(int64_t)bytes);
	native_exit_own(native);
	tag_write(p, bytes - BLOCK_OVERHEAD, 0); /* what has this memory next is not ours */
	if (unlikely(load_relaxed(&self->deferred))) {
		end_and_free(p);
		return;
	}
	__asm__ volatile("" ::: "memory");
	self->inside = 0;
	base_free(p);
	return;

slowly:
	self->inside = 0;
	free_slowly(p);
}

static size_t native_usable_size(void *p)
{
	size_t real;

	return tag_read(p, &real) ? real - TAG_SIZE : real;
}

/* --- realloc --------------------------------------------------------------------- */

/* At least what glibc's block of this size will be charged: a limit is asked before it moves. */
static size_t bytes_at_most(size_t size)
{
	/* size > 0, so this is never less than its smallest block, of 32. */
	size_t bytes = (size + TAG_SIZE + BLOCK_OVERHEAD + 15) & ~(size_t)15;

	/* From its mmap threshold on it may be whole pages, with another word. */
	return bytes < (size_t)64 << 10 ? bytes + 16 : (bytes + 16 + 4095) & ~(size_t)4095;
}

/*
 * The block is `q` now, and `id` pays `charged` for it: makes that what it occupies.
 * Another C library's block may occupy more than we have asked the limit for, and
 * the group be full; that block is then nobody's.
 */
static void *settle_block(struct native_thread *self, void *q, uint32_t id, size_t charged)
{
	struct charge_result ignored = {0, 0, 0};
	size_t real = real_size(q);

	if (unlikely(!recharge(self, id, charged, real + BLOCK_OVERHEAD, &ignored))) {
		uncharge(self, id, charged);
		return q;
	}
	tag_write(q, real, tag_of(q, id));
	return q;
}

/* By its owner's own task: only the difference matters, wherever the block goes. */
static void *realloc_by_owner(struct native_thread *self, void *p, uint32_t id, size_t real,
			      size_t size, struct charge_result *result)
{
	size_t old = real + BLOCK_OVERHEAD;
	size_t charged = bytes_at_most(size) > old ? bytes_at_most(size) : old;
	void *q;

	if (!recharge(self, id, old, charged, result)) {
		errno = ENOMEM;
		return NULL;
	}
	tag_write(p, real, 0);
	q = base_realloc(p, size + TAG_SIZE);
	/* If that failed the block is as it was. */
	settle_block(self, q ? q : p, id, charged);
	return q;
}

/*
 * By another: if it stays where it is, it stays its owner's; if it moves it is the
 * task's.  Only the C library knows, so the task is charged first, as for a new
 * block, and whoever does not have to pay gets it back (see realloc_large).
 */
static void *realloc_by_other(struct native_thread *self, struct task *task, void *p, uint32_t id,
			      size_t real, size_t size, struct charge_result *result)
{
	struct charge_result ignored = {0, 0, 0};
	size_t old = real + BLOCK_OVERHEAD;
	size_t charged = bytes_at_most(size);
	uint32_t payer = charge(self, task, charged, result);
	void *q;

	if (!payer && charged > old) {
		errno = ENOMEM;
		return NULL;
	}
	tag_write(p, real, 0);
	q = base_realloc(p, size + TAG_SIZE);
	if (!payer) {
		/* It shrinks, and stays the owner's wherever it is. */
		result->refused = 0;
		settle_block(self, q ? q : p, id, old);
		return q;
	}
	if (!q || (q == p && recharge(self, id, old, real_size(q) + BLOCK_OVERHEAD, &ignored))) {
		uncharge(self, payer, charged);
		real = real_size(p);
		tag_write(p, real, tag_of(p, id));
		return q;
	}
	uncharge(self, id, old);
	return settle_block(self, q, payer, charged);
}

/* A block that is nobody's, or one that a signal handler must not touch. */
static void *realloc_by_copy(void *p, size_t real, size_t size)
{
	void *q = native_malloc(size);

	if (q) {
		memcpy(q, p, real < size ? real : size);
		native_free(p);
	}
	return q;
}

static void *native_realloc(void *p, size_t size)
{
	struct native_thread *self = &native_thread;
	struct charge_result result = {0, 0, 0};
	struct task *task;
	size_t real;
	uint32_t id;
	void *q;

	if (!p)
		return native_malloc(size);
	if (unlikely(size == 0)) {
		native_free(p);
		return NULL;
	}
	id = tag_read(p, &real);
	if (unlikely(size > ALLOC_MAX)) {
		errno = ENOMEM;
		return NULL;
	}
	if (unlikely(!id))
		return self->inside ? base_realloc(p, size) : realloc_by_copy(p, real, size);
	if (unlikely(self->inside))
		return realloc_by_copy(p, real - TAG_SIZE, size);
	begin(self);
	task = native_current_task();
	if (load_relaxed(&task->objcg) == id << 1)
		q = realloc_by_owner(self, p, id, real, size, &result);
	else
		q = realloc_by_other(self, task, p, id, real, size, &result);
	if (is_notable(&result))
		native_notice(&result);
	end(self);
	return q;
}

const struct allocator native_allocator = {
	.malloc = native_malloc,
	.free = native_free,
	.calloc = native_calloc,
	.realloc = native_realloc,
	.memalign = native_memalign,
	.aligned_alloc = native_aligned_alloc,
	.posix_memalign = native_posix_memalign,
	.usable_size = native_usable_size,
	.mmap = native_mmap,
	.munmap = native_munmap,
	.mremap = native_mremap,
	.thread_create = native_thread_create,
};

/* --- start ------------------------------------------------------------------------- */

bool native_is_on(void)
{
	return is_on;
}

int native_prepare(void)
{
	int err = native_cpu_init();

	if (err < 0)
		return err;
	native_block_init();
	is_on = true;
	return 0;
}

/* The preload library, if it is loaded and of this version; else why not. */
static struct preload *find_preload(int *err)
{
	struct preload *preload = dlsym(RTLD_DEFAULT, PRELOAD_SYMBOL);

	*err = -ENOENT;
	if (!preload)
		return NULL;
	*err = -EPROTO;
	if (preload->version != PRELOAD_VERSION || preload->size != sizeof(struct allocator))
		return NULL;
	return preload;
}

int native_at_fork(const struct fork_handlers *handlers)
{
	int err;
	struct preload *preload = find_preload(&err);

	if (!preload || !preload->sees_forks)
		return -pthread_atfork(handlers->prepare, handlers->parent, handlers->child);
	store_release(&preload->at_fork, handlers);
	return 0;
}

int native_start(void)
{
	int err;
	struct preload *preload = find_preload(&err);

	if (!preload)
		return err;
	libc_allocator = *preload->next;
	err = native_prepare();
	if (err < 0)
		return err;
	store_release(&preload->current, &native_allocator);
	return 0;
}
