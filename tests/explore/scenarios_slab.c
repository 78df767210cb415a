/* Blocks: slabs that several cpus free to, owner vectors, the table of large blocks. */
#include "core_words.h"
#include "large.h"

/* A class with eight blocks to a slab: a slab is soon full, and soon empty. */
#define MEDIUM ((size_t)8192)
#define PER_SLAB 8u

static struct mem_cgroup *a;
static struct mem_cgroup *b;
static struct task *task;
static struct task *other;
static void *blocks[18];

static void check_usual(void)
{
	check_rest(blocks);
}

static void two_tasks(unsigned nr_cpus)
{
	make_cpus(nr_cpus);
	a = make_group(root(), "a");
	b = make_group(root(), "b");
	task = make_task(a);
	other = make_task(b);
}

static void give_back(struct cpu *cpu, unsigned i)
{
	give(cpu, blocks[i]);
	blocks[i] = NULL;
}

/* --- blocks freed by other cpus come back to their slab ---------------------------- */

/* All that the slab has handed out: the next allocation collects. */
static void page_of_blocks(void)
{
	two_tasks(3);
	for (unsigned i = 0; i < 8; i++)
		blocks[i] = take(cpus[0], task, BLOCK);
}

static void taker_of_two(void)
{
	blocks[8] = take(cpus[0], task, BLOCK);
	blocks[9] = take(cpus[0], task, BLOCK);
}

static void freer_of_two(void)
{
	give_back(cpus[1], 0);
	give_back(cpus[1], 1);
}

static void freer_of_a_third(void)
{
	give_back(cpus[2], 2);
}

static void collector(void)
{
	heap_collect(cpus[0]);
	heap_collect(cpus[0]);
}

/* --- a slab gets a second owner ---------------------------------------------------- */

static void one_owner(void)
{
	two_tasks(2);
	/* In one row, and no slab is begun for the other. */
	while (slab_row(load_relaxed(&b->objcg) << 1) != slab_row(load_relaxed(&a->objcg) << 1))
		b = make_group(root(), "b");
	other = make_task(b);
	cpus[0]->heap.nr_early = 1000;
	blocks[0] = take(cpus[0], task, BLOCK);
	blocks[1] = take(cpus[0], task, BLOCK);
	/* With stock for both, so that few steps are not the slab's. */
	give(cpus[1], take(cpus[1], task, 2 * BLOCK));
}

static void mixer(void)
{
	blocks[2] = take(cpus[0], other, BLOCK);
	expect(group_of(blocks[2]) == b, "charged to b, and owned by %s",
	       name_of(group_of(blocks[2])));
}

static void reader(void)
{
	expect(group_of(blocks[0]) == a, "a block of a's is owned by %s",
	       name_of(group_of(blocks[0])));
	give_back(cpus[1], 0);
}

/* --- a slab is emptied by others, and is the next one's ------------------------------- */

/* Two slabs of cpu 0; of the first, two blocks are in use. */
static void nearly_empty_slab(void)
{
	void *first[PER_SLAB];
	void *second[PER_SLAB];

	two_tasks(3);
	for (unsigned i = 0; i < PER_SLAB; i++)
		first[i] = take(cpus[0], task, MEDIUM);
	for (unsigned i = 0; i < PER_SLAB; i++)
		second[i] = take(cpus[0], task, MEDIUM);
	for (unsigned i = 2; i < PER_SLAB; i++)
		give(cpus[0], first[i]);
	/* Makes the second the current one, so that the first can be released. */
	for (unsigned i = 1; i < PER_SLAB; i++)
		give(cpus[0], second[i]);
	blocks[0] = first[0];
	blocks[1] = first[1];
	blocks[2] = second[0];
}

static void freer_on_1(void)
{
	give_back(cpus[1], 0);
}

static void collecting_freer(void)
{
	give_back(cpus[0], 1);
	heap_collect(cpus[0]);
}

/* Takes what slab there is, for another class. */
static void taker_on_2(void)
{
	blocks[3] = take(cpus[2], other, 1024);
}

/* --- large blocks ------------------------------------------------------------------------ */

static int64_t large_bytes;

static void one_large(void)
{
	two_tasks(2);
	blocks[0] = take(cpus[0], task, LARGE);
}

static void large_taker_0(void)
{
	blocks[1] = take(cpus[0], task, LARGE);
	give_back(cpus[0], 1);
}

static void large_taker_1(void)
{
	give_back(cpus[1], 0);
	blocks[2] = take(cpus[1], other, LARGE);
}

static void add_bytes(const struct large_header *header, void *arg)
{
	*(int64_t *)arg += (int64_t)header->size;
}

static void walker(void)
{
	large_for_each(add_bytes, &large_bytes);
}

static void check_large(void)
{
	expect(large_bytes % (int64_t)LARGE == 0 && large_bytes <= 3 * (int64_t)LARGE,
	       "a walk of the table saw %lld bytes", (long long)large_bytes);
	large_bytes = 0;
	walker();
	expect(large_bytes == (int64_t)LARGE,
	       "one large block is left, and the table has %lld bytes", (long long)large_bytes);
	check_rest(blocks);
}

/* --- as a whole: each frees what the other had -------------------------------------------- */

/* Each slab has handed out all it had ready, and nothing is in stock: no way is short. */
static void full_pages(void)
{
	two_tasks(2);
	for (unsigned i = 0; i < 8; i++) {
		blocks[i] = take(cpus[0], task, BLOCK);
		blocks[8 + i] = take(cpus[1], other, BLOCK);
	}
	stock_drain_all(cpus[0]);
	stock_drain_all(cpus[1]);
}

static void exchanger_0(void)
{
	give_back(cpus[0], 8);
	blocks[16] = take(cpus[0], task, BLOCK);
}

static void exchanger_1(void)
{
	give_back(cpus[1], 0);
	blocks[17] = take(cpus[1], other, BLOCK);
}

/* A block grows on a cpu that is not its slab's; its neighbour is freed there. */
static void grower(void)
{
	struct charge_result result = {0, 0, 0};
	uint64_t *grown = kmem_realloc(cpus[1], other, DOMAIN_MEM, blocks[0], 1024, &result);

	expect(grown, "no room to grow");
	blocks[0] = NULL;
	expect(grown[0] == BLOCK && grown[1] == BLOCK, "what was written is lost");
	blocks[0] = grown;
	expect(group_of(grown) == b, "it moved, and is charged to %s", name_of(group_of(grown)));
}

static void neighbour(void)
{
	give_back(cpus[0], 1);
	blocks[16] = take(cpus[0], task, BLOCK);
	blocks[17] = take(cpus[0], task, BLOCK);
}

const struct scenario slab_scenarios[] = {
	{
		.name = "remote-free",
		.about = "two cpus free blocks of a third, which allocates",
		.setup = page_of_blocks,
		.fibers = {{"taker", taker_of_two},
			   {"freer", freer_of_two},
			   {"third", freer_of_a_third}},
		.check = check_usual,
		.preemptions = 3,
		.delays = 1,
	},
	{
		.name = "remote-collect",
		.about = "the same, with nothing but two looks at what was freed",
		.setup = page_of_blocks,
		.fibers = {{"collector", collector},
			   {"freer", freer_of_two},
			   {"third", freer_of_a_third}},
		.check = check_usual,
		.preemptions = UNBOUNDED,
		.delays = UNBOUNDED,
	},
	{
		.name = "mixed-owners",
		.about = "a slab gets its vector of owners while one of them is read",
		.setup = one_owner,
		.fibers = {{"mixer", mixer}, {"reader", reader}},
		.check = check_usual,
		.preemptions = UNBOUNDED,
		.delays = UNBOUNDED,
	},
	{
		.name = "emptied-slab",
		.about = "the last blocks of a slab are freed by two cpus; a third takes the slab",
		.setup = nearly_empty_slab,
		.fibers = {{"owner", collecting_freer},
			   {"freer", freer_on_1},
			   {"taker", taker_on_2}},
		.check = check_usual,
		.preemptions = UNBOUNDED,
		.delays = UNBOUNDED,
	},
	{
		.name = "large-table",
		.about = "large blocks come and go while the table is walked",
		.setup = one_large,
		.fibers = {{"taker 0", large_taker_0},
			   {"taker 1", large_taker_1},
			   {"walker", walker}},
		.check = check_large,
		.preemptions = 2,
		.delays = 1,
	},
	{
		.name = "exchange",
		.about = "two cpus free each other's blocks and allocate",
		.setup = full_pages,
		.fibers = {{"cpu 0", exchanger_0}, {"cpu 1", exchanger_1}},
		.check = check_usual,
		.preemptions = UNBOUNDED,
		.delays = UNBOUNDED,
	},
	{
		.name = "grow",
		.about = "a block is grown by another cpu while its neighbour is freed",
		.setup = full_pages,
		.fibers = {{"grower", grower}, {"neighbour", neighbour}},
		.check = check_usual,
		.preemptions = UNBOUNDED,
		.delays = UNBOUNDED,
	},
	{.name = NULL},
};
