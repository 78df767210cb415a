/*
 * Slabs: every size gets a block of its own, aligned, with its owner; blocks
 * come home from other cpus; memory that is empty goes back to the system.
 */
#include <sched.h>

#include "check_that.h"
#include "slab_pool.h"

static struct cpu *cpu;
static struct task *tasks[3];

/* --- sizes --------------------------------------------------------------- */

struct span {
	char *start;
	size_t size;
	unsigned fill;
};

static int compare_spans(const void *a, const void *b)
{
	const struct span *x = a;
	const struct span *y = b;

	return (x->start > y->start) - (x->start < y->start);
}

static void check_disjoint(struct span *spans, size_t nr)
{
	qsort(spans, nr, sizeof(*spans), compare_spans);
	for (size_t i = 1; i < nr; i++)
		check_compare(spans[i].start - spans[i - 1].start, >=, spans[i - 1].size);
}

static void check_filled(const struct span *span)
{
	for (size_t i = 0; i < span->size; i++)
		if ((unsigned char)span->start[i] != (unsigned char)span->fill)
			fail_that("byte %zu of a block of %zu is %#x, not %#x", i, span->size,
				  (unsigned char)span->start[i], (unsigned char)span->fill);
}

static void every_size_gets_blocks_of_its_own_aligned_to_16(void)
{
	enum { OF_EACH = 3 };
	static struct span spans[SLAB_BLOCK_MAX * OF_EACH + 3];
	size_t nr = 0;

	/* Interleaved, so that classes share the pool. */
	for (int turn = 0; turn < OF_EACH; turn++) {
		for (size_t size = 0; size <= SLAB_BLOCK_MAX; size++) {
			char *p = alloc(cpu, tasks[0], size);
			size_t charged = size ? (size + 15) & ~(size_t)15 : 16;

			check_equal((uintptr_t)p % 16, 0);
			check_that(in_slab_range(p));
			check_equal(bytes_of(p), charged);
			check_that(slab_is_small(virt_to_slab(p)) == (size <= SLAB_SMALL_MAX));
			/* All that is charged may be used. */
			check_compare(charged, <=, virt_to_slab(p)->block_size);
			spans[nr] = (struct span){p, charged, (unsigned)nr % 251};
			memset(p, (int)spans[nr].fill, charged);
			nr++;
		}
	}
	for (size_t i = 0; i < nr; i++)
		check_filled(&spans[i]);
	check_disjoint(spans, nr);
	check_conserved();
	for (size_t i = 0; i < nr; i++)
		release(cpu, spans[i].start);
	check_conserved();
	check_equal(memcg_current(root_memcg()), 0);
}

static void classes_fit_their_sizes_with_little_waste(void)
{
	for (size_t size = 1; size <= SLAB_BLOCK_MAX; size++) {
		size_t class = size <= SLAB_SMALL_MAX ? small_class(size) : medium_class(size);
		size_t block = class_block_size(class);

		check_compare(class, <, NR_CLASSES);
		check_compare(block, >=, size);
		/* Within 16 bytes, or an eighth for the eight steps to a doubling. */
		check_compare(block - size, <, size <= SLAB_SMALL_MAX ? 16 : (size + 7) / 8 + 1);
		check_equal(block % 16, 0);
		if (class)
			check_compare(class_block_size(class - 1), <, size);
	}
}

static void every_block_of_a_slab_finds_its_index(void)
{
	for (unsigned class = 0; class < NR_CLASSES; class ++) {
		size_t size = class_block_size(class);
		void *p = alloc(cpu, tasks[0], size);
		struct slab *slab = virt_to_slab(p);
		char *base = slab_address(slab);

		check_equal(slab->block_size, size);
		check_equal(slab->capacity, SLAB_SIZE / size);
		for (uint32_t i = 0; i < slab->capacity; i++)
			check_equal(obj_to_index(slab, base + i * size), i);
		release(cpu, p);
	}
}

/* --- owners -------------------------------------------------------------- */

static void blocks_of_one_slab_keep_the_owners_they_began_with(uint64_t *random, bool shared)
{
	enum { NR = 20000 };
	static void *blocks[NR];
	static struct mem_cgroup *owners[NR];
	static const size_t sizes[] = {16, 48, 512, 600, 8192};

	if (shared)
		slabs_are_shared(cpu, true);
	for (size_t s = 0; s < sizeof(sizes) / sizeof(*sizes); s++) {
		uint32_t nr = sizes[s] < 600 ? NR : NR / 20;
		uint32_t mixed = 0;

		memset(blocks, 0, sizeof(blocks));
		/* One owner first, so that a slab has to change its mind. */
		for (uint32_t i = 0; i < 3 * nr; i++) {
			uint32_t at = random_below(random, nr);
			struct task *task = tasks[i < nr / 2 ? 0 : random_below(random, 3)];

			if (blocks[at]) {
				check_that(group_of(blocks[at]) == owners[at]);
				release(cpu, blocks[at]);
			}
			blocks[at] = alloc(cpu, task, sizes[s]);
			owners[at] = memcg_from_id(load_relaxed(&task->memcg));
			mixed += load_relaxed(&virt_to_slab(blocks[at])->owner) == OWNER_MIXED;
		}
		if (shared && sizes[s] <= SLAB_SMALL_MAX)
			check_compare(mixed, >, 0);
		for (uint32_t i = 0; i < nr; i++) {
			if (!blocks[i])
				continue;
			check_that(group_of(blocks[i]) == owners[i]);
			slab_check(virt_to_slab(blocks[i]));
		}
		check_conserved();
		for (uint32_t i = 0; i < nr; i++)
			if (blocks[i])
				release(cpu, blocks[i]);
		check_conserved();
	}
	for (int i = 0; i < 3; i++)
		check_equal(memcg_current(memcg_from_id(load_relaxed(&tasks[i]->memcg))), 0);
	if (shared)
		slabs_are_shared(cpu, false);
}

static void groups_have_slabs_of_their_own_while_few_are_begun_early(void)
{
	enum { NR = 200 };
	struct task *task[NR];
	void *blocks[NR];
	uint32_t early = cpu->heap.nr_early;
	uint32_t mixed = 0;
	struct slab *first;

	for (int i = 0; i < NR; i++) {
		task[i] = task_new(group_new(root_memcg()));
		blocks[i] = alloc(cpu, task[i], 272);
		mixed += load_relaxed(&virt_to_slab(blocks[i])->owner) == OWNER_MIXED;
	}
	first = virt_to_slab(blocks[0]);
	check_compare(cpu->heap.nr_early - early, >, 2);
	check_compare(cpu->heap.nr_early, <=, 64 + cpu->heap.nr_slabs / 32);
	/* Each row begins with a slab for whoever comes first. */
	check_compare(mixed, >=, NR - 64 - cpu->heap.nr_slabs / 32 - NR_ROWS);
	check_equal(load_relaxed(&first->owner), load_relaxed(&task[0]->objcg));
	check_conserved();
	for (int i = 0; i < NR; i++) {
		release(cpu, blocks[i]);
		task_free(task[i]);
	}
	check_compare(cpu->heap.nr_early, <=, early + NR_ROWS); /* the current ones of the class */
	check_conserved();
}

static void current_slabs_of_groups_that_need_them_no_more_are_given_up(void)
{
	enum { GROUPS = 2 * NR_ROWS, SIZES = 24, BLOCKS = SIZES * 40 };
	static void *blocks[GROUPS][BLOCKS];
	struct task *task[GROUPS];
	size_t active;

	heap_trim(cpu);
	active = slab_pool_stat().active;
	for (int i = 0; i < GROUPS; i++) {
		task[i] = task_new(group_new(root_memcg()));
		/* more than a page of each class but the smallest few */
		for (int j = 0; j < BLOCKS; j++)
			blocks[i][j] = alloc(cpu, task[i], 128 + (size_t)(j % SIZES) * 16);
	}
	check_compare(slab_pool_stat().active, >=, active + NR_ROWS * SIZES * SLAB_SIZE / 2);
	for (int i = 0; i < GROUPS; i++) {
		for (int j = 0; j < BLOCKS; j++)
			release(cpu, blocks[i][j]);
		task_free(task[i]);
	}
	heap_trim(cpu);
	/* Those with no more than a page stay. */
	for (size_t i = 0; i < NR_ROWS * NR_CLASSES; i++) {
		struct slab *slab = cpu->heap.current[i / NR_CLASSES][i % NR_CLASSES];

		check_that(slab->capacity == 0 || slab_used(slab) != 0 ||
			   slab->bump * slab->block_size <= 4096);
	}
	check_conserved();
}

static void a_slab_with_one_owner_needs_no_vector(void)
{
	void *p = alloc(cpu, tasks[0], 208);
	struct slab *slab = virt_to_slab(p);
	void *same = alloc(cpu, tasks[0], 208);
	void *other;

	check_that(virt_to_slab(same) == slab);
	check_equal(load_relaxed(&slab->owner), load_relaxed(&tasks[0]->objcg));
	check_that(load_relaxed(&slab->vector) == NULL);
	slabs_are_shared(cpu, true);
	other = alloc(cpu, tasks[1], 208);
	slabs_are_shared(cpu, false);
	check_that(virt_to_slab(other) == slab);
	check_equal(load_relaxed(&slab->owner), OWNER_MIXED);
	check_that(group_of(p) == memcg_from_id(load_relaxed(&tasks[0]->memcg)));
	check_that(group_of(same) == memcg_from_id(load_relaxed(&tasks[0]->memcg)));
	check_that(group_of(other) == memcg_from_id(load_relaxed(&tasks[1]->memcg)));
	release(cpu, p);
	release(cpu, same);
	release(cpu, other);
}

static void an_empty_slab_takes_the_next_owner_without_a_vector(void)
{
	void *p = alloc(cpu, tasks[0], 272);
	struct slab *slab = virt_to_slab(p);

	release(cpu, p);
	p = alloc(cpu, tasks[1], 272);
	check_that(virt_to_slab(p) == slab);
	check_that(load_relaxed(&slab->vector) == NULL);
	check_that(group_of(p) == memcg_from_id(load_relaxed(&tasks[1]->memcg)));
	release(cpu, p);
}

static void zeroed_blocks_are_zero_also_when_used_before(void)
{
	static const size_t sizes[] = {1, 100, 512, 513, 3000, 8192, 8193, 100000};

	for (size_t s = 0; s < sizeof(sizes) / sizeof(*sizes); s++) {
		for (int turn = 0; turn < 3; turn++) {
			struct charge_result result = {0, 0, 0};
			char *p = kmem_alloc(cpu, tasks[0], DOMAIN_MEM, sizes[s], true, &result);

			check_that(p != NULL);
			for (size_t i = 0; i < sizes[s]; i++)
				check_equal(p[i], 0);
			memset(p, 0xA5, sizes[s]);
			release_in(cpu, DOMAIN_MEM, p);
		}
	}
}

/* --- other cpus ---------------------------------------------------------- */

#define REMOTE_BLOCKS (UNDER_TSAN ? 20000 : 200000)

static _Atomic(void *) mailbox[256];
static _Atomic int sender_done;

static void *free_what_arrives(void *arg)
{
	struct cpu *mine = cpu_get(0);
	uint64_t freed = 0;

	check_that(mine != NULL);
	for (;;) {
		int done = load_acquire(&sender_done);
		uint64_t before = freed;

		for (unsigned i = 0; i < 256; i++) {
			unsigned char *p = xchg_acq_rel(&mailbox[i], NULL);

			if (!p)
				continue;
			check_equal(p[0], (unsigned char)(p[1] ^ 0x5A));
			release(mine, p);
			freed++;
		}
		if (freed == before && done)
			break;
		if (freed == before)
			sched_yield();
	}
	cpu_put(mine);
	*(uint64_t *)arg = freed;
	return NULL;
}

static void blocks_freed_by_other_cpus_come_home(uint64_t *random)
{
	pthread_t threads[2];
	uint64_t freed[2];
	uint64_t sent = 0;
	size_t active = slab_pool_stat().active;
	size_t most = 0;

	store_release(&sender_done, 0);
	for (int i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, free_what_arrives, &freed[i]);
	while (sent < REMOTE_BLOCKS) {
		size_t size = 16 + random_below(random, 1200);
		unsigned char *p = alloc(cpu, tasks[random_below(random, 3)], size);
		unsigned at = random_below(random, 256);
		void *expected = NULL;

		p[1] = (unsigned char)sent;
		p[0] = (unsigned char)(p[1] ^ 0x5A);
		if (cas_acq_rel(&mailbox[at], &expected, p)) {
			sent++;
		} else {
			release(cpu, p);
			if (random_below(random, 8) == 0)
				sched_yield();
		}
		if (sent % 1024 == 0 && slab_pool_stat().active > most)
			most = slab_pool_stat().active;
	}
	store_release(&sender_done, 1);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	check_equal(freed[0] + freed[1], sent);
	check_conserved();
	heap_collect(cpu);
	check_conserved();
	check_equal(memcg_current(root_memcg()), 0);
	/*
	 * What was freed is used again: never more than the mailbox's 256 blocks at
	 * a time are alive, at worst each in a slab of its own, beside one current
	 * and one pending slab for each of the 44 classes up to 1216 bytes.
	 */
	check_compare(most, <=, active + (256 + 2 * 44) * SLAB_SIZE);
	/* All home: at most the current slab of each class is left, which is never released. */
	check_compare(slab_pool_stat().active, <=, active + 44 * SLAB_SIZE);
}

static void a_remote_free_may_be_of_a_full_a_partial_or_the_current_slab(void)
{
	struct cpu *other = cpu_get(0);
	enum { NR = 3 * 128 }; /* three slabs of 512 bytes: two full, one current */
	void *blocks[NR];
	struct slab *first;

	for (int i = 0; i < NR; i++)
		blocks[i] = alloc(cpu, tasks[0], 512);
	first = virt_to_slab(blocks[0]);
	for (int i = 0; i < NR; i++) {
		release(other, blocks[i]);
		if (i % 7 == 0)
			heap_collect(cpu);
		slab_check(virt_to_slab(blocks[i]));
		check_conserved();
	}
	heap_collect(cpu);
	check_conserved();
	check_equal(slab_used(first), 0);
	stock_drain_all(other);
	stock_drain_all(cpu);
	check_equal(usage_of(root_memcg()), 0);
	cpu_put(other);
}

static void a_cpu_that_is_put_hands_its_heap_to_the_next_user(void)
{
	struct cpu *first = cpu_get(0);
	struct cpu *second;
	void *p = alloc(first, tasks[1], 64);
	struct mem_cgroup *owner = group_of(p);

	cpu_put(first);
	release(cpu, p); /* to a heap that nobody uses */
	check_conserved();
	second = cpu_get(0);
	check_that(second == first);
	heap_collect(second);
	check_that(alloc(second, tasks[1], 64) == p);
	check_that(group_of(p) == owner);
	release(second, p);
	cpu_put(second);
	check_conserved();
}

/* --- giving back --------------------------------------------------------- */

static size_t resident_bytes(void)
{
	FILE *file = fopen("/proc/self/statm", "r");
	size_t pages = 0;

	check_that(file != NULL);
	check_equal(fscanf(file, "%*u %zu", &pages), 1);
	fclose(file);
	return pages * 4096;
}

/* `spare`: what is kept besides, since it was wanted again before. */
static void empty_slabs_go_back_to_the_system(size_t size, size_t spare)
{
	enum { TOTAL = 64 << 20 };
	size_t nr = TOTAL / size;
	void **blocks = malloc(nr * sizeof(*blocks));
	const size_t current = cpu_count() * NR_CLASSES * SLAB_SIZE;
	struct slab_pool_stat stat;
	size_t full;
	size_t empty;

	for (size_t i = 0; i < nr; i++) {
		blocks[i] = alloc(cpu, tasks[0], size);
		memset(blocks[i], 1, size);
	}
	full = resident_bytes();
	check_compare(slab_pool_stat().active, >=, (size_t)TOTAL);
	for (size_t i = 0; i < nr; i++)
		release(cpu, blocks[i]);
	stat = slab_pool_stat();
	empty = resident_bytes();
	/* Left: each heap's current slab of each class, and what the pool keeps for the next. */
	check_compare(stat.active, <=, current);
	check_compare(stat.kept, <=, (8 << 20) + spare);
	check_compare(stat.returned, >=, (size_t)TOTAL - stat.kept - current);
	/* A sanitizer keeps shadows of its own. */
	if (!UNDER_ASAN && !UNDER_TSAN)
		check_compare(full - empty, >=, (size_t)TOTAL - stat.kept - (6 << 20));

	/* And it can be had again, whole. */
	for (size_t i = 0; i < nr; i++) {
		blocks[i] = alloc(cpu, tasks[1], size);
		memset(blocks[i], 2, size);
	}
	check_conserved();
	for (size_t i = 0; i < nr; i++)
		release(cpu, blocks[nr - 1 - i]);
	check_compare(slab_pool_stat().active, <=, current);
	check_conserved();
	free(blocks);
}

static void allocate_and_free(size_t total)
{
	enum { SIZE = 1024 };
	void **blocks = malloc(total / SIZE * sizeof(*blocks));

	for (size_t i = 0; i < total / SIZE; i++)
		blocks[i] = alloc(cpu, tasks[0], SIZE);
	for (size_t i = 0; i < total / SIZE; i++)
		release(cpu, blocks[i]);
	free(blocks);
}

static void memory_that_is_wanted_over_and_over_stays(void)
{
	enum { TOTAL = 16 << 20 };
	struct slab_pool_stat stat;

	for (int i = 0; i < 10; i++) {
		allocate_and_free(TOTAL);
		stat = slab_pool_stat();
		/* What had been given back was taken again, and from then on it is kept. */
		if (i > 0)
			check_compare(stat.kept, >=, TOTAL * 3 / 4);
	}
	check_conserved();
}

/* How much of 24 MiB is kept that come and go, when a large block comes beside. */
static size_t kept_beside(size_t large)
{
	enum { TOTAL = 24 << 20 };

	for (int i = 0; i < 3; i++)
		allocate_and_free(TOTAL);
	check_compare(slab_pool_stat().kept, >=, TOTAL * 3 / 4);
	release(cpu, alloc(cpu, tasks[0], large));
	return slab_pool_stat().kept;
}

static void what_is_kept_does_not_add_to_a_new_peak_of_large_blocks(void)
{
	/* The tests above have used 64 MiB at once. */
	check_compare(kept_beside(16 << 20), >=, 18 << 20);
	check_compare(kept_beside(128 << 20), <=, 1 << 20);
	/* Now that is what the process has been at its largest. */
	check_compare(kept_beside(64 << 20), >=, 18 << 20);
	check_conserved();
}

/* At the end of one second it is seen that nobody took it since the last look. */
static void memory_that_nobody_wants_any_more_goes_back(void)
{
	for (int second = 0; second < 3; second++) {
		pause_us(1100000);
		/* Somebody has to free something for the pool to look. */
		allocate_and_free(4 << 20);
	}
	check_compare(slab_pool_stat().kept, <=, 8 << 20);
	check_conserved();
}

static void a_slab_with_one_block_stays(void)
{
	enum { NR = 4096 * 8 };
	static void *blocks[NR];
	struct slab_pool_stat before = slab_pool_stat();

	for (int i = 0; i < NR; i++)
		blocks[i] = alloc(cpu, tasks[0], 16);
	for (int i = 0; i < NR; i++)
		if (i % 4096 != 17)
			release(cpu, blocks[i]);
	for (int i = 17; i < NR; i += 4096)
		check_that(group_of(blocks[i]) == memcg_from_id(load_relaxed(&tasks[0]->memcg)));
	check_compare(slab_pool_stat().active, >=, before.active + 7 * SLAB_SIZE);
	check_conserved();
	for (int i = 17; i < NR; i += 4096)
		release(cpu, blocks[i]);
	check_compare(slab_pool_stat().active, <=, before.active + SLAB_SIZE);
	check_conserved();
}

int main(void)
{
	uint64_t random = test_seed();

	cpu = core_start();
	for (int i = 0; i < 3; i++)
		tasks[i] = task_new(
			i ? group_new_in_row_of(root_memcg(),
						memcg_from_id(load_relaxed(&tasks[0]->memcg)))
			  : group_new(root_memcg()));
	classes_fit_their_sizes_with_little_waste();
	a_slab_with_one_owner_needs_no_vector();
	an_empty_slab_takes_the_next_owner_without_a_vector();
	every_block_of_a_slab_finds_its_index();
	every_size_gets_blocks_of_its_own_aligned_to_16();
	blocks_of_one_slab_keep_the_owners_they_began_with(&random, false);
	blocks_of_one_slab_keep_the_owners_they_began_with(&random, true);
	groups_have_slabs_of_their_own_while_few_are_begun_early();
	current_slabs_of_groups_that_need_them_no_more_are_given_up();
	zeroed_blocks_are_zero_also_when_used_before();
	a_remote_free_may_be_of_a_full_a_partial_or_the_current_slab();
	a_cpu_that_is_put_hands_its_heap_to_the_next_user();
	blocks_freed_by_other_cpus_come_home(&random);
	a_slab_with_one_block_stays();
	empty_slabs_go_back_to_the_system(64, 32 << 20);
	memory_that_nobody_wants_any_more_goes_back();
	memory_that_is_wanted_over_and_over_stays();
	what_is_kept_does_not_add_to_a_new_peak_of_large_blocks();
	memory_that_nobody_wants_any_more_goes_back();
	empty_slabs_go_back_to_the_system(4096, 32 << 20);
	return 0;
}
