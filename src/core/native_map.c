/*
 * Anonymous memory that C code maps by itself: which addresses, and whose.
 *
 * Charged are whole pages, when they are mapped, of private or shared anonymous
 * mappings that can be written and have their memory reserved.  Reservations of
 * addresses (PROT_NONE, or MAP_NORESERVE as allocators use it) are not: what is
 * used of them nobody tells us.
 *
 * The lock is held around the system call, or somebody could be given addresses
 * before we have forgotten whose they were.  What is mapped or unmapped by a way
 * that we do not see leaves a range behind that is not there any more; it goes
 * when its addresses are mapped again.
 *
 * OpenBLAS reserves its memory by mapping it like any other: tens of MiB for a thread,
 * at the first product of matrices, kept for whoever comes next, and little of it ever
 * written.  It ends the process, or tries for ever, if it does not get them.  So they
 * count as the reservation that they are.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <string.h>

#include "kmem.h"
#include "native.h"

#define PAGE ((size_t)4096)
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4 /* Linux 5.7 */
#endif

struct range {
	uintptr_t start;
	uintptr_t end;
	uint32_t objcg;
};

/* By rising addresses, none overlapping. */
static struct {
	pthread_mutex_t lock;
	struct range *ranges;
	_Atomic size_t nr;
	size_t room;
} maps = {.lock = PTHREAD_MUTEX_INITIALIZER};

void native_map_lock(void)
{
	/* A signal handler that maps memory meanwhile must not wait for us. */
	native_thread.inside++;
	pthread_mutex_lock(&maps.lock);
}

void native_map_unlock(void)
{
	pthread_mutex_unlock(&maps.lock);
	native_thread.inside--;
}

void native_map_lock_reset_after_fork(void)
{
	pthread_mutex_init(&maps.lock, NULL);
	native_thread.inside--;
}

void native_map_for_each(void (*fn)(uint32_t objcg, int64_t bytes, void *arg), void *arg)
{
	for (size_t i = 0; i < load_relaxed(&maps.nr); i++)
		fn(maps.ranges[i].objcg, (int64_t)(maps.ranges[i].end - maps.ranges[i].start), arg);
}

/* Room for two more, which is the most that one call can need. False: no memory. */
static bool make_room(void)
{
	size_t room = maps.room ? 2 * maps.room : PAGE / sizeof(struct range);
	void *p;

	if (load_relaxed(&maps.nr) + 2 <= maps.room)
		return true;
	if (!maps.room)
		p = (libc_allocator.mmap)(NULL, room * sizeof(struct range), PROT_READ | PROT_WRITE,
					  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	else
		p = libc_allocator.mremap(maps.ranges, maps.room * sizeof(struct range),
					  room * sizeof(struct range), MREMAP_MAYMOVE, NULL);
	if (p == MAP_FAILED)
		return false;
	maps.ranges = p;
	maps.room = room;
	return true;
}

/* The first range that ends above this address, or where it would be. */
static size_t find(uintptr_t address)
{
	size_t low = 0;
	size_t high = load_relaxed(&maps.nr);

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (maps.ranges[middle].end > address)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

static void insert(size_t at, struct range range)
{
	size_t nr = load_relaxed(&maps.nr);

	memmove(&maps.ranges[at + 1], &maps.ranges[at], (nr - at) * sizeof(range));
	maps.ranges[at] = range;
	store_relaxed(&maps.nr, nr + 1);
}

static void erase(size_t at)
{
	size_t nr = load_relaxed(&maps.nr) - 1;

	memmove(&maps.ranges[at], &maps.ranges[at + 1], (nr - at) * sizeof(struct range));
	store_relaxed(&maps.nr, nr);
}

/* A range counts as one block. */
static void uncharge(uint32_t objcg, size_t bytes, int blocks)
{
	struct native_cpu *native = native_enter(&native_thread);

	uncharge_objcg(cpu_of(native), objcg, DOMAIN_MMAP, bytes, blocks);
	native_exit(native);
}

/* Takes the first range of [start, end) out, or what of it lies in there; false: there is none. */
static bool take_first(uintptr_t start, uintptr_t end, struct range *taken, int *blocks)
{
	size_t at = find(start);
	struct range *range = &maps.ranges[at];

	if (at == load_relaxed(&maps.nr) || range->start >= end)
		return false;
	*taken = *range;
	if (taken->start < start)
		taken->start = start;
	if (taken->end > end)
		taken->end = end;
	*blocks = 0;
	if (taken->start == range->start && taken->end == range->end) {
		*blocks = 1;
		erase(at);
	} else if (taken->start == range->start) {
		range->start = taken->end;
	} else if (taken->end == range->end || load_relaxed(&maps.nr) == maps.room) {
		/* Without room for the rest behind it that goes as well. */
		taken->end = range->end;
		range->end = taken->start;
	} else {
		struct range rest = {taken->end, range->end, range->objcg};

		*blocks = -1;
		range->end = taken->start;
		insert(at + 1, rest);
	}
	return true;
}

/* These addresses are nobody's any more. */
static void forget(uintptr_t start, uintptr_t end)
{
	struct range taken;
	int blocks;

	while (take_first(start, end, &taken, &blocks))
		uncharge(taken.objcg, taken.end - taken.start, blocks);
}

static size_t pages(size_t len)
{
	return (len + PAGE - 1) & ~(PAGE - 1);
}

static bool is_charged(size_t len, int protection, int flags)
{
	return (flags & MAP_ANONYMOUS) && (protection & PROT_WRITE) && !(flags & MAP_NORESERVE) &&
	       len && len <= ALLOC_MAX;
}

/* Whether the call is none of ours: a mapping that does not count where nothing is known. */
static bool goes_past_us(void)
{
	return unlikely(native_thread.inside) || load_relaxed(&maps.nr) == 0;
}

/*
 * Whether the code at `caller` is OpenBLAS's, see above.  _dl_find_object() takes no
 * lock, and so none that somebody holds who waits for the GIL; before glibc 2.35 there
 * is only dladdr(), which does.
 */
static bool is_openblas(const void *caller)
{
	const char *path = NULL;
	const char *name;
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 35)
	struct dl_find_object found;

	if (_dl_find_object((void *)(uintptr_t)caller, &found) == 0)
		path = found.dlfo_link_map->l_name;
#else
	Dl_info info;

	if (dladdr(caller, &info))
		path = info.dli_fname;
#endif
	name = path ? strrchr(path, '/') : NULL;
	return path && strstr(name ? name : path, "openblas");
}

/* Less is not looked at: it is no reservation. */
#define LEAST_RESERVED ((size_t)1 << 20)

static uint32_t charge(size_t bytes, struct charge_result *result)
{
	struct native_cpu *native = native_enter(&native_thread);
	uint32_t id =
		charge_task(cpu_of(native), native_current_task(), DOMAIN_MMAP, bytes, result);

	native_exit(native);
	return id;
}

/* More for whoever has a range already. */
static bool charge_owner(uint32_t owner, size_t bytes, struct charge_result *result)
{
	struct native_cpu *native = native_enter(&native_thread);
	bool charged = charge_objcg(cpu_of(native), owner, DOMAIN_MMAP, bytes, result);

	native_exit(native);
	return charged;
}

static void note_peak(uint32_t id, size_t bytes)
{
	struct native_cpu *native = native_enter(&native_thread);

	kmem_note_peak(cpu_of(native), id, bytes);
	native_exit(native);
}

static void *no_memory(void)
{
	errno = ENOMEM;
	return MAP_FAILED;
}

static void *map_charged(void *address, size_t len, int protection, int flags, int fd, off_t offset,
			 struct charge_result *result)
{
	uint32_t id;
	void *p;

	if (!make_room())
		return no_memory();
	id = charge(pages(len), result);
	if (!id)
		return no_memory();
	p = (libc_allocator.mmap)(address, len, protection, flags, fd, offset);
	if (p == MAP_FAILED) {
		uncharge(id, pages(len), 1);
		return p;
	}
	forget((uintptr_t)p, (uintptr_t)p + pages(len));
	insert(find((uintptr_t)p), (struct range){(uintptr_t)p, (uintptr_t)p + pages(len), id});
	note_peak(id, pages(len));
	return p;
}

/* Called by a jump, by mmap() of the preload library: it returns to whoever has called that. */
void *native_mmap(void *address, size_t len, int protection, int flags, int fd, off_t offset)
{
	struct charge_result result = {0, 0, 0};
	void *p;

	if (!is_charged(len, protection, flags) ||
	    (len >= LEAST_RESERVED && is_openblas(__builtin_return_address(0)))) {
		if (goes_past_us())
			return (libc_allocator.mmap)(address, len, protection, flags, fd, offset);
		native_map_lock();
		make_room();
		p = (libc_allocator.mmap)(address, len, protection, flags, fd, offset);
		if (p != MAP_FAILED)
			forget((uintptr_t)p, (uintptr_t)p + pages(len));
		native_map_unlock();
		return p;
	}
	if (unlikely(native_thread.inside))
		return (libc_allocator.mmap)(address, len, protection, flags, fd, offset);
	native_map_lock();
	p = map_charged(address, len, protection, flags, fd, offset, &result);
	native_map_unlock();
	if (unlikely(result.over || result.high || result.refused)) {
		int saved = errno;

		native_notice(&result);
		errno = saved;
	}
	return p;
}

int native_munmap(void *address, size_t len)
{
	int err;

	if (goes_past_us())
		return (libc_allocator.munmap)(address, len);
	native_map_lock();
	make_room();
	err = (libc_allocator.munmap)(address, len);
	if (err == 0)
		forget((uintptr_t)address, (uintptr_t)address + pages(len));
	native_map_unlock();
	return err;
}

/* The ranges of [from, from + len) are `to` and on now; their owners stay. */
static void move(uintptr_t from, uintptr_t to, size_t len)
{
	struct range taken;
	int blocks;

	while (take_first(from, from + len, &taken, &blocks)) {
		size_t bytes = taken.end - taken.start;

		if (!make_room()) {
			uncharge(taken.objcg, bytes, blocks);
			continue;
		}
		/* A part of a range that moves becomes a range, which counts. */
		if (blocks != 1)
			uncharge(taken.objcg, 0, blocks - 1);
		taken.start += to - from;
		taken.end += to - from;
		insert(find(taken.start), taken);
	}
}

/* Of a mapping whose last page is charged: its owner pays for what it grows by. */
static void *remap_charged(uintptr_t from, size_t old, size_t len, int flags, void *to,
			   struct range *last, struct charge_result *result)
{
	size_t grown = len > old ? len - old : 0;
	uint32_t owner = last->objcg;
	uintptr_t now;
	void *p;

	if (!make_room() || (grown && !charge_owner(owner, grown, result)))
		return no_memory();
	p = libc_allocator.mremap((void *)from, old, len, flags, to);
	if (p == MAP_FAILED) {
		if (grown)
			uncharge(owner, grown, 0);
		return p;
	}
	now = (uintptr_t)p;
	if (len < old)
		forget(from + len, from + old);
	if (now != from) {
		forget(now, now + len);
		move(from, now, len < old ? len : old);
	}
	if (grown) {
		size_t at;

		forget(now + old, now + len);
		at = find(now + old - 1);
		/* Unless there was no memory for its range: see move(). */
		if (at < load_relaxed(&maps.nr) && maps.ranges[at].end == now + old &&
		    maps.ranges[at].objcg == owner)
			maps.ranges[at].end = now + len;
		else
			uncharge(owner, grown, 0);
	}
	note_peak(owner, len);
	return p;
}

/* MREMAP_DONTUNMAP: the old pages stay, empty, and can be written again. Both are the owner's. */
static void *remap_twice(uintptr_t from, size_t len, int flags, void *to, uint32_t owner,
			 struct charge_result *result)
{
	void *p;

	if (!make_room() || !charge_owner(owner, len, result))
		return no_memory();
	p = libc_allocator.mremap((void *)from, len, len, flags, to);
	if (p == MAP_FAILED) {
		uncharge(owner, len, 0);
		return p;
	}
	uncharge(owner, 0, -1); /* a range more */
	forget((uintptr_t)p, (uintptr_t)p + len);
	insert(find((uintptr_t)p), (struct range){(uintptr_t)p, (uintptr_t)p + len, owner});
	note_peak(owner, len);
	return p;
}

/* Nobody's, as far as its last page tells; but parts of what goes may be somebody's. */
static void *remap_other(uintptr_t from, size_t old, size_t len, int flags, void *to)
{
	void *p;

	make_room();
	p = libc_allocator.mremap((void *)from, old, len, flags, to);
	if (p == MAP_FAILED)
		return p;
	if (len < old)
		forget(from + len, from + old);
	if ((uintptr_t)p != from) {
		if (!(flags & MREMAP_DONTUNMAP))
			forget(from, from + old);
		forget((uintptr_t)p, (uintptr_t)p + len);
	}
	return p;
}

void *native_mremap(void *address, size_t old, size_t len, int flags, void *to)
{
	struct charge_result result = {0, 0, 0};
	uintptr_t from = (uintptr_t)address;
	void *p;
	size_t at;

	if (goes_past_us() || old > ALLOC_MAX || len > ALLOC_MAX)
		return libc_allocator.mremap(address, old, len, flags, to);
	native_map_lock();
	at = find(from + pages(old) - 1);
	if (old && at < load_relaxed(&maps.nr) && maps.ranges[at].start < from + pages(old)) {
		if (flags & MREMAP_DONTUNMAP)
			p = remap_twice(from, pages(len), flags, to, maps.ranges[at].objcg,
					&result);
		else
			p = remap_charged(from, pages(old), pages(len), flags, to, &maps.ranges[at],
					  &result);
	} else {
		p = remap_other(from, pages(old), pages(len), flags, to);
	}
	native_map_unlock();
	if (unlikely(result.over || result.high || result.refused)) {
		int saved = errno;

		native_notice(&result);
		errno = saved;
	}
	return p;
}
