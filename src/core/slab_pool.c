/* The range that slabs are in, and the pool of empty ones. See slab_pool.h. */
#define _GNU_SOURCE
#include "slab_pool.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "large.h"
#include "region.h"

#define RANGE_SIZE ((size_t)256 << 30)
#define RANGE_SIZE_MIN ((size_t)1 << 28)
/* The range is made accessible in these steps. */
#define COMMIT_STEP ((size_t)4 << 20)
/*
 * The kernel aligns large mappings to 2 MiB, so without it a slab and its entry
 * in the table could have addresses that are equal in all the bits by which
 * some processors predict the way of a cache (AMD's do), and throw each other
 * out at every access: three times the time for an allocation.
 */
#define TABLE_SKEW ((size_t)5 * 4096 + 13 * 64)

struct slab_range slab_range;

/*
 * Empty slabs of all heaps, by two policies for giving memory back:
 *
 * - A chunk of 2 MiB that is all empty goes back as a whole: where the kernel
 *   backs it by a huge page that costs a twentieth of giving back its pages.
 * - Of chunks that are partly in use, what is empty is kept up to a bound, and
 *   the oldest goes back beyond it.
 *
 * pymalloc keeps every arena of 1 MiB in which one block is in use.
 *
 * A program that frees and allocates the same megabytes over and over would pay
 * for their page faults each time.  So both bounds rise by a spare for each slab
 * that had to be taken back, and fall by what nobody took for a second or two.
 * A program that needs the same memory for large blocks in turns would need both
 * at once: see slab_pool_make_room().
 */
#define CHUNK_SHIFT 21
#define CHUNK_SIZE ((size_t)1 << CHUNK_SHIFT)
#define CHUNK_SLABS (1u << (CHUNK_SHIFT - SLAB_SHIFT))
#define NR_CHUNKS (RANGE_SIZE >> CHUNK_SHIFT)
#define KEPT_MIN 16u
#define KEPT_SHIFT 2
#define RETURN_BATCH CHUNK_SLABS
#define SPARE_MAX 512u
/* From this size on, a heap that grows does so by huge pages: at most 2 MiB too early. */
#define HUGE_FROM ((size_t)16 << 20)

static struct {
	pthread_mutex_t lock;
	struct slab *kept; /* newest first */
	struct slab *kept_tail;
	struct slab *returned;
	uint32_t nr_kept;
	uint32_t nr_returned;
	uint32_t nr_active;
	uint32_t spare;	   /* kept beyond the bounds */
	uint32_t kept_low; /* the fewest kept since `second` */
	size_t most;	   /* bytes ever resident at once: slabs in use or kept, and large blocks */
	time_t second;
	size_t committed;
	uint8_t kept_of_chunk[NR_CHUNKS];
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER};

int slab_pool_init(void)
{
	size_t size;
	char *base = MAP_FAILED;
	char *table;

	for (size = RANGE_SIZE; size >= RANGE_SIZE_MIN; size /= 2) {
		/* Under a small RLIMIT_AS leave room for everything else. */
		if (size > address_space_limit() / 4 && size > RANGE_SIZE_MIN)
			continue;
		base = mmap(NULL, size + CHUNK_SIZE, PROT_NONE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (base != MAP_FAILED)
			break;
	}
	if (base == MAP_FAILED)
		return -errno;
	table = mmap(NULL, (size >> SLAB_SHIFT) * sizeof(struct slab) + TABLE_SKEW,
		     PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (table == MAP_FAILED) {
		int err = -errno;

		munmap(base, size + CHUNK_SIZE);
		return err;
	}
	slab_range.slabs = (struct slab *)(table + TABLE_SKEW);
	slab_range.base =
		(char *)(((uintptr_t)base + CHUNK_SIZE - 1) & ~(uintptr_t)(CHUNK_SIZE - 1));
	slab_range.size = size;
	return 0;
}

void slab_pool_lock(void)
{
	pthread_mutex_lock(&pool.lock);
}

void slab_pool_unlock(void)
{
	pthread_mutex_unlock(&pool.lock);
}

void slab_pool_lock_reset_after_fork(void)
{
	pthread_mutex_init(&pool.lock, NULL);
}

struct slab_pool_stat slab_pool_stat(void)
{
	struct slab_pool_stat stat;

	slab_pool_lock();
	stat.active = pool.nr_active * SLAB_SIZE;
	stat.kept = pool.nr_kept * SLAB_SIZE;
	stat.returned = pool.nr_returned * SLAB_SIZE;
	slab_pool_unlock();
	return stat;
}

/* A slab never used before; NULL at the end of the range or of memory. Under the lock. */
static struct slab *slab_new(void)
{
	uint32_t top = load_relaxed(&slab_range.top);
	size_t end = ((size_t)top + 1) << SLAB_SHIFT;

	if (end > slab_range.size)
		return NULL;
	if (end > pool.committed) {
		char *start = slab_range.base + pool.committed;

		if (mprotect(start, COMMIT_STEP, PROT_READ | PROT_WRITE) < 0)
			return NULL;
		/* Refused where the kernel has no huge pages: then it goes by small ones. */
		if ((size_t)pool.nr_active << SLAB_SHIFT >= HUGE_FROM)
			madvise(start, COMMIT_STEP, MADV_HUGEPAGE);
		pool.committed += COMMIT_STEP;
	}
	store_release(&slab_range.top, top + 1);
	return &slab_range.slabs[top];
}

static size_t chunk_of(const struct slab *slab)
{
	return (size_t)(slab - slab_range.slabs) / CHUNK_SLABS;
}

static uint8_t *kept_of_chunk(const struct slab *slab)
{
	return &pool.kept_of_chunk[chunk_of(slab)];
}

static void kept_push(struct slab *slab)
{
	slab->prev = NULL;
	slab->next = pool.kept;
	if (slab->next)
		slab->next->prev = slab;
	else
		pool.kept_tail = slab;
	pool.kept = slab;
	pool.nr_kept++;
	(*kept_of_chunk(slab))++;
}

static struct slab *kept_remove(struct slab *slab)
{
	if (slab->prev)
		slab->prev->next = slab->next;
	else
		pool.kept = slab->next;
	if (slab->next)
		slab->next->prev = slab->prev;
	else
		pool.kept_tail = slab->prev;
	pool.nr_kept--;
	if (pool.nr_kept < pool.kept_low)
		pool.kept_low = pool.nr_kept;
	(*kept_of_chunk(slab))--;
	return slab;
}

static size_t resident(void)
{
	return ((size_t)(pool.nr_active + pool.nr_kept) << SLAB_SHIFT) + large_in_use();
}

static void note_most(void)
{
	if (resident() > pool.most)
		pool.most = resident();
}

struct slab *slab_pool_get(void)
{
	struct slab *slab;

	slab_pool_lock();
	if (pool.kept) {
		slab = kept_remove(pool.kept);
	} else if (pool.returned) {
		slab = pool.returned;
		pool.returned = slab->next;
		pool.nr_returned--;
		if (pool.spare < SPARE_MAX)
			pool.spare++;
	} else {
		slab = slab_new();
	}
	if (slab) {
		pool.nr_active++;
		note_most();
	}
	slab_pool_unlock();
	return slab;
}

static int compare_slabs(const void *a, const void *b)
{
	const struct slab *x = *(struct slab *const *)a;
	const struct slab *y = *(struct slab *const *)b;

	return (x > y) - (x < y);
}

/* Gives the memory of these slabs, which are on no list, back to the system. */
static void return_slabs(struct slab **slabs, uint32_t nr)
{
	uint32_t start = 0;

	qsort(slabs, nr, sizeof(*slabs), compare_slabs);
	for (uint32_t i = 1; i <= nr; i++) {
		if (i < nr && slabs[i] == slabs[i - 1] + 1)
			continue;
		madvise(slab_address(slabs[start]), (size_t)(i - start) << SLAB_SHIFT,
			MADV_DONTNEED);
		start = i;
	}
	slab_pool_lock();
	for (uint32_t i = nr; i-- > 0;) { /* the lowest is taken first */
		slabs[i]->next = pool.returned;
		pool.returned = slabs[i];
	}
	pool.nr_returned += nr;
	slab_pool_unlock();
}

/* Of the spare, what has been idle since the last look, a second ago or more. Under the lock. */
static void spare_decay(void)
{
	struct timespec now;
	uint32_t idle;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	if (now.tv_sec == pool.second)
		return;
	idle = pool.kept_low > KEPT_MIN ? pool.kept_low - KEPT_MIN : 0;
	pool.spare -= idle < pool.spare ? idle : pool.spare;
	pool.kept_low = pool.nr_kept;
	pool.second = now.tv_sec;
}

/* Takes off the list of kept slabs what should go back. Under the lock. */
static uint32_t take_surplus(struct slab *last, struct slab *surplus[RETURN_BATCH])
{
	uint32_t bound = KEPT_MIN + (pool.nr_active >> KEPT_SHIFT);
	size_t chunk = chunk_of(last);
	uint32_t nr;

	if (pool.nr_kept < KEPT_MIN + CHUNK_SLABS)
		return 0;
	if (pool.spare)
		spare_decay();
	if (pool.nr_kept < KEPT_MIN + CHUNK_SLABS + pool.spare)
		return 0;
	/* One that is whole by now, or was when there was room for it still. */
	if (pool.kept_of_chunk[chunk] != CHUNK_SLABS)
		chunk = chunk_of(pool.kept_tail);
	if (pool.kept_of_chunk[chunk] == CHUNK_SLABS) {
		for (nr = 0; nr < CHUNK_SLABS; nr++)
			surplus[nr] = kept_remove(&slab_range.slabs[chunk * CHUNK_SLABS + nr]);
		return nr;
	}
	if (pool.nr_kept < bound + pool.spare + 2 * RETURN_BATCH)
		return 0;
	for (nr = 0; nr < RETURN_BATCH; nr++)
		surplus[nr] = kept_remove(pool.kept_tail);
	return nr;
}

void slab_pool_put(struct slab *slab)
{
	struct slab *surplus[RETURN_BATCH];
	uint32_t nr;

	slab_pool_lock();
	pool.nr_active--;
	kept_push(slab);
	nr = take_surplus(slab, surplus);
	slab_pool_unlock();
	if (nr)
		return_slabs(surplus, nr);
}

void slab_pool_make_room(void)
{
	struct slab *surplus[RETURN_BATCH];
	uint32_t nr;

	do {
		slab_pool_lock();
		for (nr = 0; nr < RETURN_BATCH && pool.nr_kept > KEPT_MIN && resident() > pool.most;
		     nr++)
			surplus[nr] = kept_remove(pool.kept_tail);
		if (nr < RETURN_BATCH)
			note_most();
		slab_pool_unlock();
		return_slabs(surplus, nr);
	} while (nr == RETURN_BATCH);
}
