/*
 * Who pays for a block that changes its size: in place its owner, and if it
 * moves whoever moved it; and after a refusal the block is as it was.
 */
#include "allocator.h"
#include "check_that.h"

static struct cpu *cpu;
static struct mem_cgroup *parent, *ours, *theirs;
static struct task *we, *they;

static void *resize(struct task *task, void *p, size_t size, struct charge_result *result)
{
	memset(result, 0, sizeof(*result));
	return kmem_realloc(cpu, task, DOMAIN_OBJECT, p, size, result);
}

static void check_currents(int64_t expected_ours, int64_t expected_theirs)
{
	check_equal(memcg_current(ours), expected_ours);
	check_equal(memcg_current(theirs), expected_theirs);
	check_equal(memcg_current(parent), expected_ours + expected_theirs);
	check_conserved();
}

static int64_t charged(size_t size)
{
	return (int64_t)((size + 15) & ~(size_t)15);
}

static const size_t sizes[] = {1,    16,    17,	   100,	  150,	  384,	  500,	  512,
			       513,  640,   700,   3000,  3900,	  8000,	  8192,	  8193,
			       9000, 20000, 32767, 40000, 130000, 200000, 1000000};
enum { NR_SIZES = sizeof(sizes) / sizeof(*sizes) };

/* Every pair of sizes: contents, charge and owner, whoever resizes. */
static void every_change_of_size_is_charged_to_one_of_the_two(struct task *resizer)
{
	int kept = 0;
	int moved = 0;

	for (int from = 0; from < NR_SIZES; from++) {
		for (int to = 0; to < NR_SIZES; to++) {
			size_t common = sizes[from] < sizes[to] ? sizes[from] : sizes[to];
			struct charge_result result;
			unsigned char *p = alloc(cpu, we, sizes[from]);
			unsigned char *q;
			int64_t bytes;

			fill(p, 0, sizes[from]);
			check_currents(charged(sizes[from]), 0);
			q = resize(resizer, p, sizes[to], &result);
			check_that(q != NULL);
			check_equal(result.refused, 0);
			check_contents(q, common);
			bytes = (int64_t)bytes_of(q);
			check_compare(bytes, >=, charged(sizes[to]));
			/* A small block that stays keeps its class. */
			check_compare(bytes, <=,
				      sizes[to] <= 512 ? charged(sizes[to]) * 4 / 3 + 16
						       : charged(sizes[to]));
			if (p == q) {
				kept++;
				check_that(group_of(q) == ours);
				check_currents(bytes, 0);
			} else {
				moved++;
				check_that(group_of(q) ==
					   memcg_from_id(load_relaxed(&resizer->memcg)));
				if (resizer == we)
					check_currents(bytes, 0);
				else
					check_currents(0, bytes);
			}
			fill(q, 0, sizes[to]);
			release(cpu, q);
			check_currents(0, 0);
		}
	}
	check_compare(kept, >=, NR_SIZES);
	check_compare(moved, >=, NR_SIZES);
}

static void statistics_follow(void)
{
	for (int from = 0; from < NR_SIZES; from++) {
		for (int to = 0; to < NR_SIZES; to++) {
			struct charge_result result = {0, 0, 0};
			struct memcg_view view;
			void *p = alloc_for(cpu, we, DOMAIN_RAW, sizes[from], &result);
			void *q = kmem_realloc(cpu, they, DOMAIN_RAW, p, sizes[to], &result);

			check_that(q != NULL);
			memcg_view(group_of(q), &view);
			check_equal(view.blocks, 1);
			check_equal(view.stat[DOMAIN_RAW], bytes_of(q));
			memcg_view(parent, &view);
			check_equal(view.blocks, 1);
			check_equal(view.stat[DOMAIN_RAW], bytes_of(q));
			release_in(cpu, DOMAIN_RAW, q);
		}
	}
	check_currents(0, 0);
}

/* --- refusals ------------------------------------------------------------ */

static void a_refused_growth_leaves_the_block_as_it_was(void)
{
	for (int from = 0; from < NR_SIZES; from++) {
		struct charge_result result;
		unsigned char *p = alloc(cpu, we, sizes[from]);

		fill(p, 0, sizes[from]);
		page_counter_set_max(ours, 1100000);
		check_that(!resize(we, p, 2000000, &result));
		check_equal(result.refused, memcg_id(ours));
		check_contents(p, sizes[from]);
		check_that(group_of(p) == ours);
		check_currents(charged(sizes[from]), 0);
		page_counter_set_max(ours, COUNTER_UNSET);

		page_counter_set_max(theirs, 1100000);
		check_that(!resize(they, p, 2000000, &result));
		check_equal(result.refused, memcg_id(theirs));
		check_contents(p, sizes[from]);
		check_that(group_of(p) == ours);
		check_currents(charged(sizes[from]), 0);
		page_counter_set_max(theirs, COUNTER_UNSET);
		release(cpu, p);
	}
	check_currents(0, 0);
}

/*
 * CPython does not expect that a smaller block fails (list.pop() would, say).  `make_hard` is
 * called before each resize, with the group of who does it, and `make_easy` after it.
 */
static void shrinking_succeeds(void (*make_hard)(struct mem_cgroup *),
			       void (*make_easy)(struct mem_cgroup *))
{
	for (int from = 0; from < NR_SIZES; from++) {
		for (int to = 0; to <= from; to++) {
			for (int other = 0; other < 2; other++) {
				struct mem_cgroup *memcg = other ? theirs : ours;
				struct charge_result result;
				unsigned char *p = alloc(cpu, we, sizes[from]);
				unsigned char *q;

				fill(p, 0, sizes[from]);
				make_hard(memcg);
				q = resize(other ? they : we, p, sizes[to], &result);
				make_easy(memcg);
				if (!q)
					fail_that("from %zu to %zu by %s failed", sizes[from],
						  sizes[to], other ? "another" : "its owner");
				check_contents(q, sizes[to]);
				check_conserved();
				release(cpu, q);
				check_currents(0, 0);
			}
		}
	}
}

/* Above its ceiling, whatever it asks for. */
static void fill_up(struct mem_cgroup *memcg)
{
	page_counter_set_max(memcg, 0);
	fetch_add_relaxed(&memcg->memory.usage, (int64_t)64 << 20);
}

static void empty_again(struct mem_cgroup *memcg)
{
	fetch_add_relaxed(&memcg->memory.usage, -((int64_t)64 << 20));
	page_counter_set_max(memcg, COUNTER_UNSET);
}

static void shrinking_is_never_refused(void)
{
	shrinking_succeeds(fill_up, empty_again);
}

static void *(*libc_realloc)(void *, size_t);

static void *no_realloc(void *p, size_t size)
{
	(void)p;
	(void)size;
	return NULL;
}

static void take_realloc_away(struct mem_cgroup *memcg)
{
	(void)memcg;
	libc_realloc = libc_allocator.realloc;
	libc_allocator.realloc = no_realloc;
}

static void give_realloc_back(struct mem_cgroup *memcg)
{
	(void)memcg;
	libc_allocator.realloc = libc_realloc;
}

/* Ours of the same size is larger by a header, for another place. */
static void shrinking_needs_no_memory(void)
{
	shrinking_succeeds(take_realloc_away, give_realloc_back);
}

/* A reader of *result acts on a refusal; a block that was had is none. */
static void success_reports_no_refusal(void)
{
	for (int from = 0; from < NR_SIZES; from++) {
		for (int to = 0; to < NR_SIZES; to++) {
			struct charge_result result;
			unsigned char *p = alloc(cpu, we, sizes[from]);
			unsigned char *q;

			/* The owner is full, they are not. */
			page_counter_set_max(ours, 0);
			fetch_add_relaxed(&ours->memory.usage, (int64_t)64 << 20);
			q = resize(they, p, sizes[to], &result);
			fetch_add_relaxed(&ours->memory.usage, -((int64_t)64 << 20));
			page_counter_set_max(ours, COUNTER_UNSET);
			if (q && result.refused)
				fail_that("from %zu to %zu: a block, and refused by %u",
					  sizes[from], sizes[to], result.refused);
			if (!q) /* what they have room for must not fail for the owner's sake */
				fail_that("from %zu to %zu: refused by %u", sizes[from], sizes[to],
					  result.refused);
			check_conserved();
			release(cpu, q);
			check_currents(0, 0);
		}
	}
}

static void a_block_whose_group_is_gone_can_still_grow(void)
{
	for (int from = 0; from < NR_SIZES; from++) {
		struct mem_cgroup *memcg = group_new(parent);
		struct task *task = task_new(memcg);
		struct charge_result result;
		unsigned char *p = alloc(cpu, task, sizes[from]);
		unsigned char *q;

		fill(p, 0, sizes[from]);
		task_free(task);
		check_equal(memcg_remove(memcg, false), 0);
		check_that(group_of(p) == parent);
		q = resize(they, p, sizes[from] + sizes[from] / 8, &result);
		check_that(q != NULL);
		check_contents(q, sizes[from]);
		check_that(group_of(q) == (p == q ? parent : theirs));
		check_conserved();
		release(cpu, q);
		check_currents(0, 0);
	}
}

int main(void)
{
	test_seed();
	cpu = core_start();
	parent = group_new(root_memcg());
	ours = group_new(parent);
	theirs = group_new(parent);
	we = task_new(ours);
	they = task_new(theirs);
	every_change_of_size_is_charged_to_one_of_the_two(we);
	every_change_of_size_is_charged_to_one_of_the_two(they);
	statistics_follow();
	a_refused_growth_leaves_the_block_as_it_was();
	a_block_whose_group_is_gone_can_still_grow();
	shrinking_is_never_refused();
	shrinking_needs_no_memory();
	success_reports_no_refusal();
	return 0;
}
