/* Blocks of slabs: given out, taken back, and the lists that a heap keeps of its slabs. */
#include "slab.h"

#include <stdlib.h>

#include "allocator.h"
#include "slab_pool.h"

/* No number of used blocks: the slab stays where it is, whatever is freed. */
#define SLOW_NEVER (-1)
/* See slab_of_own(). */
#define CREDIT_MAX 128u

#define PAGE ((size_t)4096)

enum slab_state { SLAB_UNUSED, SLAB_CURRENT, SLAB_PARTIAL, SLAB_FULL, SLAB_EMPTY };

/* Every class's current slab before its first: full, so that nobody takes from it. */
static struct slab no_slab = {.slow_at = SLOW_NEVER, .above = -SLOW_NEVER};
/* Of slabs that have no owner, or many: has nothing. */
static struct stock no_stock;

void heap_init(struct heap *heap)
{
	for (unsigned i = 0; i < NR_ROWS * NR_CLASSES; i++)
		heap->current[i / NR_CLASSES][i % NR_CLASSES] = &no_slab;
	heap->credit = CREDIT_MAX;
}

size_t class_block_size(size_t class)
{
	size_t doubling;
	size_t step;

	if (class < NR_SMALL_CLASSES)
		return (class + 1) << 4;
	doubling = (class - NR_SMALL_CLASSES) / 8;
	step = (class - NR_SMALL_CLASSES) % 8;
	return (9 + step) << (6 + doubling);
}

/* --- lists of a heap ----------------------------------------------------- */

static void slab_set_slow_at(struct slab *slab, int32_t used)
{
	slab->above += slab->slow_at - used;
	slab->slow_at = (int16_t)used;
}

static void partial_prepend(struct heap *heap, struct slab *slab)
{
	size_t class = slab->class;

	slab->state = SLAB_PARTIAL;
	slab_set_slow_at(slab, 0);
	slab->prev = NULL;
	slab->next = heap->partial_head[class];
	if (slab->next)
		slab->next->prev = slab;
	heap->partial_head[class] = slab;
}

static void partial_remove(struct heap *heap, struct slab *slab)
{
	size_t class = slab->class;

	if (slab->prev)
		slab->prev->next = slab->next;
	else
		heap->partial_head[class] = slab->next;
	if (slab->next)
		slab->next->prev = slab->prev;
	slab->next = NULL;
	slab->prev = NULL;
}

static void slab_not_early(struct heap *heap, struct slab *slab)
{
	heap->nr_early -= slab->early;
	slab->early = false;
}

/* An empty slab leaves its heap. No other thread knows any of its blocks. */
static void slab_release(struct heap *heap, struct slab *slab)
{
	slab_not_early(heap, slab);
	heap->nr_slabs--;
	base_free(load_relaxed(&slab->vector));
	store_relaxed(&slab->vector, NULL);
	store_relaxed(&slab->owner, OWNER_NONE);
	slab->free = NULL;
	slab->state = SLAB_EMPTY;
	store_relaxed(&slab->heap, NULL);
	slab_pool_put(slab);
}

/*
 * A full slab counts as one until this many of its blocks are free: where frees
 * are scattered over many slabs, changing to another for each block would cost
 * more than a 64th of the memory is worth.
 */
static int32_t nr_free_to_reuse(const struct slab *slab)
{
	return slab->capacity < 2 * 64 ? 1 : slab->capacity / 64;
}

/* The current slab of its class makes room for another. */
static void current_retire(struct heap *heap, struct slab *slab)
{
	if (slab == &no_slab)
		return;
	if (slab_used(slab) == 0) {
		slab_release(heap, slab);
	} else if (slab->free || slab->bump < slab->capacity) {
		partial_prepend(heap, slab);
	} else {
		slab_not_early(heap, slab);
		slab->state = SLAB_FULL;
		slab_set_slow_at(slab, slab->capacity - nr_free_to_reuse(slab));
	}
}

/* Takes the place of the one that is current there now. */
static void current_set(struct heap *heap, uint32_t row, struct slab *slab)
{
	current_retire(heap, heap->current[row][slab->class]);
	/* Lost meanwhile, perhaps: slab_stock_is_lost() tells only those that are current. */
	if (load_relaxed(&slab->stock->key) != load_relaxed(&slab->owner))
		slab->stock = &no_stock;
	slab->state = SLAB_CURRENT;
	slab->row = (uint8_t)row;
	slab_set_slow_at(slab, SLOW_NEVER);
	heap->current[row][slab->class] = slab;
}

/*
 * Of a current slab nobody notices that it is empty, since an allocation may be
 * next.  There are many, and their owners may be gone: so they are looked at now
 * and then, while slabs become empty.
 */
#define TRIM_EVERY 32u

void heap_trim(struct cpu *cpu)
{
	struct heap *heap = &cpu->heap;

	for (size_t i = 0; i < NR_ROWS * NR_CLASSES; i++) {
		struct slab **current = &heap->current[i / NR_CLASSES][i % NR_CLASSES];
		struct slab *slab = *current;

		if (slab == &no_slab || slab_used(slab) != 0 ||
		    (size_t)slab->bump * slab->block_size <= PAGE)
			continue;
		*current = &no_slab;
		slab_release(heap, slab);
	}
}

/*
 * Called when as many blocks are used as slow_at says.  A full slab of which a
 * block is freed becomes the current one, if that is of the same owner: as with
 * pymalloc's pools, what is allocated next is what was freed last, and in the
 * processor's cache.
 */
void slab_changes_lists(struct cpu *cpu, struct slab *slab)
{
	if (slab->state == SLAB_FULL) {
		uint32_t owner = load_relaxed(&slab->owner);
		struct slab *current = cpu->heap.current[slab->row][slab->class];

		if (owner == load_relaxed(&current->owner))
			current_set(&cpu->heap, slab->row, slab);
		else
			partial_prepend(&cpu->heap, slab);
		return;
	}
	partial_remove(&cpu->heap, slab);
	slab_release(&cpu->heap, slab);
	if (++cpu->heap.nr_released % TRIM_EVERY == 0)
		heap_trim(cpu);
}

void slab_stock_is_lost(struct cpu *cpu, const struct stock *stock, uint32_t reference)
{
	struct slab **row = cpu->heap.current[slab_row(reference)];

	for (size_t i = 0; i < NR_SMALL_CLASSES; i++) {
		struct slab *slab = row[i];

		if (slab->stock == stock && load_relaxed(&slab->owner) != reference)
			slab->stock = &no_stock;
	}
}

static struct slab *slab_create(struct cpu *cpu, size_t class)
{
	struct slab *slab = slab_pool_get();
	size_t size = class_block_size(class);
	uint32_t granules = (uint32_t)(size >> 4);

	if (!slab)
		return NULL;
	slab->block_size = (uint16_t)size;
	slab->cpu = (uint16_t)cpu->index;
	slab->reciprocal = ((1u << 24) + granules - 1) / granules;
	slab->capacity = (uint16_t)(SLAB_SIZE / size);
	slab->bump = 0;
	slab->above = 0;
	slab->slow_at = 0;
	slab->free = NULL;
	slab->class = (uint8_t)class;
	slab->stock = &no_stock;
	store_relaxed(&slab->owner, slab_is_small(slab) ? OWNER_NONE : OWNER_MIXED);
	if (!slab_is_small(slab)) {
		void *vector = base_calloc(slab->capacity, sizeof(struct medium_owner));

		if (!vector) {
			slab_pool_put(slab);
			return NULL;
		}
		store_relaxed(&slab->vector, vector);
	}
	store_release(&slab->heap, &cpu->heap);
	cpu->heap.nr_slabs++;
	return slab;
}

/* Puts the next page's worth of never used blocks on the free list. */
static void slab_extend(struct slab *slab)
{
	uint32_t size = slab->block_size;
	uint32_t nr = size < PAGE ? (uint32_t)PAGE / size : 1;
	uint32_t left = (uint32_t)(slab->capacity - slab->bump);
	char *block = slab_address(slab) + (size_t)slab->bump * size;

	if (nr > left)
		nr = left;
	slab->bump = (uint16_t)(slab->bump + nr);
	slab->free = block;
	for (; nr > 1; nr--, block += size)
		*(void **)block = block + size;
	*(void **)block = NULL;
}

/*
 * Only the user of the heap collects, and only slabs that it takes off
 * heap->pending: so a slab with remote frees that is not on that list yet (its
 * freeing thread is between the two steps of slab_free_remote) keeps its
 * blocks counted as used, and cannot be released under that thread.
 */
void heap_collect(struct cpu *cpu)
{
	struct slab *slab;

	if (likely(!load_relaxed(&cpu->heap.pending)))
		return;
	slab = xchg_acq_rel(&cpu->heap.pending, NULL);
	while (slab) {
		/* Read first: from the exchange below on, another thread may list it again. */
		struct slab *next = slab->next_pending;
		char *block = xchg_acq_rel(&slab->remote, NULL);

		while (block) {
			char *after = *(void **)block;

			*(void **)block = slab->free;
			slab->free = block;
			block = after;
			if (--slab->above == 0)
				slab_changes_lists(cpu, slab);
		}
		slab = next;
	}
}

/*
 * A block goes back to a heap that another thread uses.  Who makes the list of
 * the slab non-empty lists the slab with its heap; linearises at the exchange
 * of slab->remote, which also acquires: the collector that emptied the list has
 * read next_pending before, and it is ours to write now.  slab->heap does not
 * change while the block is in use.
 * tests/core/test_slab.c, tests/core/stress.c (frees of others' blocks).
 */
void slab_free_remote(struct slab *slab, void *p)
{
	struct heap *heap = load_relaxed(&slab->heap);
	void *first = load_relaxed(&slab->remote);
	struct slab *head;

	do {
		*(void **)p = first;
	} while (!cas_weak_acq_rel(&slab->remote, &first, p));
	if (first)
		return;
	head = load_relaxed(&heap->pending);
	do {
		slab->next_pending = head;
	} while (!cas_weak_release(&heap->pending, &head, slab));
}

/* How many slabs are looked at for one that has the right owner already. */
#define PARTIAL_LOOK 4

/* One of the slabs partly in use that has this owner, if one is near. */
static struct slab *partial_find(const struct heap *heap, size_t class, uint32_t reference)
{
	struct slab *slab = heap->partial_head[class];

	for (int i = 0; slab && i < PARTIAL_LOOK; i++, slab = slab->next)
		if (load_relaxed(&slab->owner) == reference)
			return slab;
	return NULL;
}

/* Makes a slab with a free block the current one of its class, in the row of `reference`. */
static struct slab *next_slab(struct cpu *cpu, size_t class, uint32_t reference)
{
	struct heap *heap = &cpu->heap;
	uint32_t row = class < NR_SMALL_CLASSES ? slab_row(reference) : 0;
	struct slab *slab;

	heap_collect(cpu); /* which may make another the current one */
	slab = heap->current[row][class];
	if (slab->free)
		return slab;
	if (heap->credit < CREDIT_MAX)
		heap->credit++;
	if (slab->bump < slab->capacity) {
		slab_extend(slab);
		return slab;
	}
	slab = partial_find(heap, class, reference);
	if (!slab)
		slab = heap->partial_head[class];
	if (slab)
		partial_remove(heap, slab);
	else
		slab = slab_create(cpu, class);
	if (!slab)
		return NULL;
	current_set(heap, row, slab);
	if (!slab->free)
		slab_extend(slab);
	return slab;
}

/*
 * A slab with one owner is twice as fast as one with several, and needs no vector.
 * So where the current slab is another's, that makes room for one of our own; a
 * new one, too, as long as few are begun early: of each that is no more than a
 * page is wasted (64 KiB, where there are huge pages).  And each change to another
 * slab takes some of a credit, which grows with the pages that are filled: groups
 * that take turns for a few blocks at a time would pay more for changing than they
 * save, come to the end of the credit, and share slabs.
 */
#define EARLY_MIN 64u
#define EARLY_SHIFT 5

static struct slab *slab_of_own(struct cpu *cpu, size_t class, uint32_t reference)
{
	struct heap *heap = &cpu->heap;
	struct slab *slab;

	if (heap->credit == 0)
		return NULL;
	heap->credit--;
	slab = partial_find(heap, class, reference);
	if (slab) {
		partial_remove(heap, slab);
	} else {
		if (heap->nr_early >= EARLY_MIN + (heap->nr_slabs >> EARLY_SHIFT))
			return NULL;
		slab = slab_create(cpu, class);
		if (!slab)
			return NULL;
		slab->early = true;
		heap->nr_early++;
	}
	current_set(heap, slab_row(reference), slab);
	if (!slab->free)
		slab_extend(slab);
	return slab;
}

/* Gives a slab whose blocks all had one owner a vector. See slab_owner() for who may race. */
static bool slab_mix_owners(struct slab *slab)
{
	uint32_t *vector = base_malloc(slab->capacity * sizeof(*vector));
	uint32_t owner = load_relaxed(&slab->owner) >> 1;

	if (!vector)
		return false;
	for (uint32_t i = 0; i < slab->capacity; i++)
		vector[i] = owner;
	store_relaxed(&slab->vector, vector);
	store_release(&slab->owner, OWNER_MIXED);
	slab->stock = &no_stock;
	return true;
}

/*
 * The slot that a current slab of `reference` may have.  Whoever was just charged
 * has its slot, or an empty one; an owner that is not charged at all (root in a
 * variant of lab/) may find another's there, whose bytes it would spend.
 */
static struct stock *own_or_empty(struct stock *stock, uint32_t reference)
{
	uint32_t key = load_relaxed(&stock->key);

	return key == 0 || key == reference ? stock : &no_stock;
}

void *slab_alloc(struct cpu *cpu, size_t class, uint32_t owner)
{
	struct slab *slab = next_slab(cpu, class, owner << 1);
	uint32_t present;

	if (!slab)
		return NULL;
	present = load_relaxed(&slab->owner);
	if (present != owner << 1 && present != OWNER_MIXED && slab_used(slab) != 0) {
		struct slab *own = slab_of_own(cpu, class, owner << 1);

		if (!own && !slab_mix_owners(slab))
			return NULL;
		if (own)
			slab = own;
	}
	if (load_relaxed(&slab->owner) != OWNER_MIXED) {
		slab->stock = own_or_empty(stock_slot(cpu, owner), owner << 1);
		store_relaxed(&slab->owner, owner << 1);
	}
	return slab_alloc_fast(cpu, class, owner);
}

void *slab_alloc_medium(struct cpu *cpu, size_t class, uint32_t owner, size_t bytes,
			enum domain domain)
{
	struct slab *slab = next_slab(cpu, class, OWNER_MIXED);
	void *block;

	if (!slab)
		return NULL;
	block = slab->free;
	slab_take(slab, block);
	slab_set_medium_owner(slab, block, owner, bytes, domain);
	return block;
}
