/*
 * Stocks: charged ahead, within the bounds that stock.h states, and no reason
 * for anyone to be refused what still fits.
 */
#include "check_that.h"
#include "fault.h"

#define KIB ((int64_t)1 << 10)

static struct cpu *cpu;

static int64_t in_stock(struct cpu *of, struct mem_cgroup *memcg)
{
	uint32_t id = load_relaxed(&memcg->objcg);
	struct stock *stock = stock_slot(of, id);

	return load_relaxed(&stock->key) == id << 1 ? load_relaxed(&stock->bytes) : 0;
}

static void check_bounds(struct cpu *of)
{
	for (uint32_t i = 0; i < NR_STOCKS; i++) {
		check_compare(load_relaxed(&of->stocks[i].bytes), >=, 0);
		check_compare(load_relaxed(&of->stocks[i].bytes), <=, STOCK_MAX);
		if (load_relaxed(&of->stocks[i].key) == 0)
			check_equal(load_relaxed(&of->stocks[i].bytes), 0);
	}
}

struct subject {
	struct mem_cgroup *memcg;
	struct task *task;
};

static struct subject subject_new(struct mem_cgroup *parent)
{
	struct subject subject;

	subject.memcg = group_new(parent);
	subject.task = task_new(subject.memcg);
	return subject;
}

/* Two groups whose objcgs share a slot. */
static void subjects_new_in_one_slot(struct subject *a, struct subject *b)
{
	*a = subject_new(root_memcg());
	do {
		*b = subject_new(root_memcg());
	} while ((load_relaxed(&a->memcg->objcg) ^ load_relaxed(&b->memcg->objcg)) % NR_STOCKS);
}

static void a_batch_is_an_eighth_of_what_the_group_has_within_its_bounds(void)
{
	struct subject s = subject_new(root_memcg());
	void *large;

	release(cpu, alloc(cpu, s.task, 16));
	check_equal(usage_of(s.memcg), STOCK_BATCH_MIN);
	stock_drain_all(cpu);
	check_equal(usage_of(s.memcg), 0);

	large = alloc(cpu, s.task, 80 * 1024);
	check_equal(usage_of(s.memcg), 80 * KIB); /* above a batch: exactly what is needed */
	release(cpu, alloc(cpu, s.task, 16));
	check_equal(usage_of(s.memcg), 90 * KIB);
	release(cpu, large);
	stock_drain_all(cpu);

	large = alloc(cpu, s.task, 100 << 20);
	release(cpu, alloc(cpu, s.task, 16));
	check_equal(usage_of(s.memcg), (100 << 20) + STOCK_BATCH_MAX);
	release(cpu, large);
	stock_drain_all(cpu);
	check_equal(usage_of(s.memcg), 0);
	task_free(s.task);
}

static void a_slot_never_holds_more_than_its_bound(uint64_t *random)
{
	enum { NR = 400 };
	struct subject s = subject_new(root_memcg());
	struct cpu *other = cpu_get(0);
	static void *blocks[NR];
	int64_t most = 0;

	for (int turn = 0; turn < 30000; turn++) {
		static const uint32_t ranges[] = {512, 8192, 70000, 200000};
		uint32_t at = random_below(random, NR);
		struct cpu *by = random_below(random, 2) ? cpu : other;

		if (blocks[at]) {
			release(by, blocks[at]);
			blocks[at] = NULL;
		} else if (random_below(random, 3000) > (uint32_t)turn % 3000) {
			/* In waves, so that there are many frees in a row. */
			blocks[at] =
				alloc(by, s.task,
				      1 + random_below(random, ranges[random_below(random, 4)]));
		}
		check_bounds(by);
		if (in_stock(by, s.memcg) > most)
			most = in_stock(by, s.memcg);
		check_compare(usage_of(s.memcg), >=, 0);
	}
	check_compare(most, >, STOCK_BATCH_MAX); /* the bound was approached */
	check_conserved();
	for (int i = 0; i < NR; i++) {
		if (blocks[i])
			release(i % 2 ? cpu : other, blocks[i]);
		check_bounds(cpu);
		check_bounds(other);
		blocks[i] = NULL;
	}
	/* What is left are the stocks of two cpus. */
	check_compare(usage_of(s.memcg), <=, 2 * STOCK_MAX);
	check_equal(usage_of(s.memcg), in_stock(cpu, s.memcg) + in_stock(other, s.memcg));
	check_equal(memcg_current(s.memcg), 0);
	check_conserved();
	cpu_put(other);
	stock_drain_all(cpu);
	task_free(s.task);
}

static void groups_that_share_a_slot_keep_their_bytes_apart(void)
{
	enum { NR = 50 };
	struct subject a;
	struct subject b;
	void *of_a[NR];
	void *of_b[NR];

	subjects_new_in_one_slot(&a, &b);
	for (int i = 0; i < NR; i++) {
		of_a[i] = alloc(cpu, a.task, 100);
		check_equal(in_stock(cpu, b.memcg), 0);
		of_b[i] = alloc(cpu, b.task, 200);
		check_equal(in_stock(cpu, a.memcg), 0);
		check_equal(memcg_current(a.memcg), (i + 1) * 112);
		check_equal(memcg_current(b.memcg), (i + 1) * 208);
		check_conserved();
	}
	/* Nothing of the other's stock is left behind in the counter. */
	check_equal(usage_of(a.memcg), NR * 112);
	for (int i = 0; i < NR; i++) {
		release(cpu, of_a[i]);
		release(cpu, of_b[i]);
		check_conserved();
	}
	check_equal(memcg_current(a.memcg), 0);
	check_equal(memcg_current(b.memcg), 0);
	stock_drain_all(cpu);
	check_equal(usage_of(a.memcg), 0);
	check_equal(usage_of(b.memcg), 0);
	check_equal(load_relaxed(&a.memcg->blocks), 0);
	check_equal(load_relaxed(&b.memcg->blocks), 0);
	task_free(a.task);
	task_free(b.task);
}

static void a_slot_that_another_takes_is_lost_to_the_slabs_of_who_had_it(void)
{
	struct subject a, b;
	void *blocks[3];

	subjects_new_in_one_slot(&a, &b);
	blocks[0] = alloc(cpu, a.task, 336); /* leaves a slab with one owner, and stock */
	blocks[1] = alloc(cpu, b.task, 368); /* of another class, so that slab is as it was */
	check_that(kmem_alloc_fast(cpu, a.task, DOMAIN_OBJECT, 336) == NULL);
	check_conserved();
	blocks[2] = alloc(cpu, a.task, 336);
	check_that(kmem_alloc_fast(cpu, b.task, DOMAIN_OBJECT, 368) == NULL);
	check_conserved();
	check_equal(memcg_current(a.memcg), 2 * 336);
	check_equal(memcg_current(b.memcg), 368);
	for (int i = 0; i < 3; i++)
		release(cpu, blocks[i]);
	check_conserved();
	task_free(a.task);
	task_free(b.task);
}

/* A slab that is not current is not told; it must look when it becomes current again. */
static void a_slab_that_was_full_meanwhile_has_lost_it_too(void)
{
	enum { NR = 2 * SLAB_SIZE / 384 + 1 };
	static void *blocks[NR];
	struct cpu *second = cpu_get(0);
	struct subject a, b;
	struct slab *full;
	int nr = 0;
	void *other;

	subjects_new_in_one_slot(&a, &b);
	do {
		blocks[nr++] = alloc(cpu, a.task, 384);
		full = virt_to_slab(blocks[0]);
	} while (virt_to_slab(blocks[nr - 1]) == full);
	other = alloc(cpu, b.task, 368); /* the slot is b's now, with stock */
	for (int i = 0; i < 8; i++) {
		release(second, blocks[i]);
		blocks[i] = NULL;
	}
	heap_collect(cpu);
	check_that(cpu->heap.current[slab_row(load_relaxed(&a.task->objcg))][small_class(384)] ==
		   full);
	check_that(kmem_alloc_fast(cpu, a.task, DOMAIN_OBJECT, 384) == NULL);
	check_conserved();
	for (int i = 0; i < nr; i++)
		if (blocks[i])
			release(cpu, blocks[i]);
	release(cpu, other);
	cpu_put(second);
	check_conserved();
	task_free(a.task);
	task_free(b.task);
}

static void a_flagged_reference_takes_nothing_from_a_stock(void)
{
	struct subject s = subject_new(root_memcg());

	release(cpu, alloc(cpu, s.task, 64));
	check_that(!consume_stock(cpu, load_relaxed(&s.task->objcg) | OBJCG_UPDATE, DOMAIN_OBJECT,
				  16));
	check_that(!consume_stock(cpu, 0, DOMAIN_OBJECT, 16));
	check_that(consume_stock(cpu, load_relaxed(&s.task->objcg), DOMAIN_OBJECT, 16));
	check_that(refill_stock(cpu, load_relaxed(&s.task->objcg) >> 1, DOMAIN_OBJECT, 16));
	check_conserved();
	task_free(s.task);
}

static void draining_empties_what_it_names_and_nothing_else(void)
{
	struct mem_cgroup *parent = group_new(root_memcg());
	struct subject inside = subject_new(parent);
	struct subject outside = subject_new(root_memcg());
	void *p = alloc(cpu, inside.task, 64);
	void *q = alloc(cpu, outside.task, 64);

	check_compare(in_stock(cpu, inside.memcg), >, 0);
	stock_drain_dying(cpu);
	check_compare(in_stock(cpu, inside.memcg), >, 0);
	stock_drain_subtree(cpu, parent);
	check_equal(in_stock(cpu, inside.memcg), 0);
	check_compare(in_stock(cpu, outside.memcg), >, 0);
	check_equal(usage_of(parent), 64);
	check_equal(load_relaxed(&parent->blocks), 1);
	release(cpu, p);
	release(cpu, q);
	stock_drain_all(cpu);
	check_equal(usage_of(root_memcg()), 0);
	check_equal(load_relaxed(&root_memcg()->blocks), 0);
	check_conserved();
	task_free(inside.task);
	task_free(outside.task);
}

/* --- near a limit -------------------------------------------------------- */

static void small_blocks_fill_a_group_to_the_last_byte_before_it_is_over(void)
{
	static const size_t sizes[] = {16, 64, 512, 1024, 8192, 20000};

	for (size_t s = 0; s < sizeof(sizes) / sizeof(*sizes); s++) {
		struct subject subject = subject_new(root_memcg());
		int64_t charged = (int64_t)((sizes[s] + 15) & ~(size_t)15);
		int64_t max = charged * 37;
		void *blocks[38];
		struct charge_result result = {0, 0, 0};

		page_counter_set_max(subject.memcg, max);
		for (int i = 0; i < 37; i++) {
			blocks[i] = alloc_for(cpu, subject.task, DOMAIN_OBJECT, sizes[s], &result);
			check_that(blocks[i] != NULL);
			check_equal(result.over, 0);
			check_equal(result.refused, 0);
		}
		check_equal(memcg_current(subject.memcg), max);
		blocks[37] = alloc_for(cpu, subject.task, DOMAIN_OBJECT, sizes[s], &result);
		check_that(blocks[37] != NULL); /* below CHARGE_STRICT: over, but served */
		check_equal(result.over, memcg_id(subject.memcg));
		check_equal(result.refused, 0);
		for (int i = 0; i < 38; i++)
			release(cpu, blocks[i]);
		check_conserved();
		task_free(subject.task);
	}
}

static void a_strict_charge_is_refused_from_the_first_byte_too_many(void)
{
	struct subject s = subject_new(root_memcg());
	struct charge_result result = {0, 0, 0};
	void *a = alloc(cpu, s.task, 40000);
	void *b;

	page_counter_set_max(s.memcg, 40000 + 32 * KIB - 16);
	check_that(!alloc_for(cpu, s.task, DOMAIN_OBJECT, CHARGE_STRICT, &result));
	check_equal(result.refused, memcg_id(s.memcg));
	check_equal(load_relaxed(&s.memcg->events[EVENT_MAX]), 1);
	check_equal(load_relaxed(&root_memcg()->events[EVENT_MAX]), 1);
	check_equal(memcg_current(s.memcg), 40000);
	check_conserved();
	page_counter_set_max(s.memcg, 40000 + 32 * KIB);
	memset(&result, 0, sizeof(result));
	b = alloc_for(cpu, s.task, DOMAIN_OBJECT, CHARGE_STRICT, &result);
	check_that(b != NULL);
	check_equal(result.refused, 0);
	check_equal(memcg_current(s.memcg), 40000 + 32 * KIB);
	release(cpu, a);
	release(cpu, b);
	task_free(s.task);
}

static void what_is_in_stock_makes_room(void)
{
	enum { NR = 3 * STOCK_MAX / 4 / 1008 };
	struct mem_cgroup *parent = group_new(root_memcg());
	struct subject subjects[2] = {subject_new(parent), subject_new(parent)};
	struct charge_result result = {0, 0, 0};
	int64_t max = STOCK_MAX > 65536 ? STOCK_MAX : 65536;
	void *blocks[NR];
	void *p;

	/* Nearly full stocks, of the group itself and of a sibling, and a limit above them. */
	for (int s = 0; s < 2; s++) {
		for (int i = 0; i < NR; i++)
			blocks[i] = alloc(cpu, subjects[s].task, 1000);
		for (int i = 0; i < NR; i++)
			release(cpu, blocks[i]);
		check_compare(in_stock(cpu, subjects[s].memcg), >=, NR * 1008);
	}
	check_equal(memcg_current(parent), 0);
	page_counter_set_max(parent, max);
	p = alloc_for(cpu, subjects[0].task, DOMAIN_OBJECT, (size_t)max, &result);
	check_that(p != NULL);
	check_equal(result.refused, 0);
	check_equal(usage_of(parent), max);
	release(cpu, p);
	check_conserved();
	for (int s = 0; s < 2; s++)
		task_free(subjects[s].task);
}

static struct cpu *drained_cpu;
static const struct mem_cgroup *drained_for;

static void drain_the_other(const struct mem_cgroup *root)
{
	drained_for = root;
	stock_drain_subtree(drained_cpu, root);
}

static void other_cpus_are_asked_for_their_stocks(void)
{
	struct subject s = subject_new(root_memcg());
	struct charge_result result = {0, 0, 0};
	void *p;

	drained_cpu = cpu_get(0);
	release(drained_cpu, alloc(drained_cpu, s.task, 100));
	check_equal(in_stock(drained_cpu, s.memcg), STOCK_BATCH_MIN);
	page_counter_set_max(s.memcg, 64 * KIB);
	check_that(!alloc_for(cpu, s.task, DOMAIN_OBJECT, 64 * 1024, &result));
	stock_drain_others = drain_the_other;
	result.refused = 0;
	p = alloc_for(cpu, s.task, DOMAIN_OBJECT, 64 * 1024, &result);
	check_that(p != NULL);
	check_that(drained_for == s.memcg);
	release(cpu, p);
	stock_drain_others = NULL;
	cpu_put(drained_cpu);
	check_conserved();
	task_free(s.task);
}

static void small_blocks_end_at_the_ceiling(void)
{
	enum { SIZE = 30000, NR = 400 };
	struct subject s = subject_new(root_memcg());
	struct charge_result result = {0, 0, 0};
	static void *blocks[NR];
	int64_t charged = (SIZE + 15) & ~15;
	int64_t ceiling = page_counter_ceiling(2 * charged);
	uint64_t refusals = 0;
	int nr = 0;

	page_counter_set_max(s.memcg, 2 * charged);
	/* Each refusal but the last lets a block through. */
	for (int in_a_row = 0; in_a_row < 2;) {
		check_that(nr < NR);
		memset(&result, 0, sizeof(result));
		blocks[nr] = alloc_for(cpu, s.task, DOMAIN_OBJECT, SIZE, &result);
		if (!blocks[nr]) {
			if (!refusals++)
				check_equal(nr, (ceiling - CEILING_GRANTS) / charged);
			check_equal(result.refused, memcg_id(s.memcg));
			in_a_row++;
			continue;
		}
		check_equal(result.refused, 0);
		in_a_row = 0;
		nr++;
		check_compare(memcg_current(s.memcg), <=, ceiling);
	}
	check_equal(nr, ceiling / charged);
	check_equal(load_relaxed(&s.memcg->events[EVENT_CEILING]), refusals);
	check_that(load_relaxed(&s.memcg->flagged) & FLAG_CEILING);
	while (nr)
		release(cpu, blocks[--nr]);
	check_conserved();
	task_free(s.task);
}

/* Small or large, and with the faults of tests/faults: nobody is to blame, and nothing lost. */
static void a_forced_charge_is_never_refused(void)
{
	static const size_t sizes[] = {64, 5000, CHARGE_STRICT, 100000};
	enum { NR = sizeof(sizes) / sizeof(sizes[0]) };
	struct mem_cgroup *parent = group_new(root_memcg());
	struct subject s = subject_new(parent);
	struct charge_result result = {0, 0, 0};
	int64_t ceiling = page_counter_ceiling(0);
	void *full = alloc(cpu, s.task, (size_t)ceiling);
	void *blocks[2 * NR];
	int64_t charged = ceiling;

	page_counter_set_max(parent, 0);
	store_relaxed(&parent->lowered_from, 0); /* the ceiling is that of max */
	check_that(!alloc_for(cpu, s.task, DOMAIN_OBJECT, 64, &result));
	check_that(result.refused);
	for (int i = 0; i < 2 * NR; i++) {
		if (i == NR)
			fault_arm(s.memcg, 1, true);
		memset(&result, 0, sizeof(result));
		charges_forced++;
		blocks[i] = alloc_for(cpu, s.task, DOMAIN_MEM, sizes[i % NR], &result);
		charges_forced--;
		check_that(blocks[i] != NULL);
		check_equal(result.refused, 0);
		check_equal(result.over, 0);
		check_compare(memcg_current(s.memcg), >=, charged + (int64_t)sizes[i % NR]);
		charged = memcg_current(s.memcg);
		check_equal(memcg_current(parent), charged);
		check_compare(load_relaxed(&parent->memory.watermark), >=, charged);
	}
	check_equal(fault_disarm().refused, NR);
	check_that(!alloc_for(cpu, s.task, DOMAIN_OBJECT, 64, &result));
	check_equal(load_relaxed(&parent->stat[DOMAIN_MEM]) + ceiling, charged);
	check_conserved();
	for (int i = 0; i < 2 * NR; i++)
		release(cpu, blocks[i]);
	release(cpu, full);
	check_equal(memcg_current(parent), 0);
	check_conserved();
	task_free(s.task);
}

/* --- statistics ---------------------------------------------------------- */

static void statistics_are_exact_by_domain_wherever_blocks_are_freed(uint64_t *random)
{
	enum { NR = 300 };
	struct mem_cgroup *parent = group_new(root_memcg());
	struct subject subjects[2] = {subject_new(parent), subject_new(parent)};
	struct cpu *cpus[2] = {cpu, cpu_get(0)};
	static struct {
		void *p;
		int subject;
		enum domain domain;
	} blocks[NR];
	int64_t bytes[2][NR_DOMAINS] = {{0}};
	int64_t nr[2] = {0};

	for (int turn = 0; turn < 20000; turn++) {
		uint32_t at = random_below(random, NR);
		struct cpu *by = cpus[random_below(random, 2)];
		struct memcg_view view;
		int s;

		if (blocks[at].p) {
			s = blocks[at].subject;
			bytes[s][blocks[at].domain] -= (int64_t)bytes_of(blocks[at].p);
			nr[s]--;
			release_in(by, blocks[at].domain, blocks[at].p);
			blocks[at].p = NULL;
		} else {
			struct charge_result result = {0, 0, 0};

			s = (int)random_below(random, 2);
			blocks[at].subject = s;
			blocks[at].domain = (enum domain)random_below(random, NR_DOMAINS);
			blocks[at].p = alloc_for(by, subjects[s].task, blocks[at].domain,
						 random_below(random, 10000), &result);
			check_that(blocks[at].p != NULL);
			bytes[s][blocks[at].domain] += (int64_t)bytes_of(blocks[at].p);
			nr[s]++;
		}
		memcg_view(subjects[s].memcg, &view);
		check_equal(view.blocks, nr[s]);
		for (int d = 0; d < NR_DOMAINS; d++)
			check_equal(view.stat[d], bytes[s][d]);
		check_compare(view.peak, >=, view.current);
		memcg_view(parent, &view);
		check_equal(view.blocks, nr[0] + nr[1]);
		for (int d = 0; d < NR_DOMAINS; d++)
			check_equal(view.stat[d], bytes[0][d] + bytes[1][d]);
	}
	for (int i = 0; i < NR; i++)
		if (blocks[i].p)
			release_in(cpu, blocks[i].domain, blocks[i].p);
	cpu_put(cpus[1]);
	stock_drain_all(cpu);
	for (int d = 1; d < NR_DOMAINS; d++)
		check_equal(load_relaxed(&parent->stat[d]), 0);
	check_equal(load_relaxed(&parent->blocks), 0);
	check_equal(usage_of(parent), 0);
	check_conserved();
}

static void the_peak_is_never_below_what_was_ever_in_use(uint64_t *random)
{
	enum { NR = 200 };
	struct subject s = subject_new(root_memcg());
	static void *blocks[NR];
	int64_t most = 0;
	struct memcg_view view;

	for (int turn = 0; turn < 5000; turn++) {
		uint32_t at = random_below(random, NR);

		if (blocks[at]) {
			release(cpu, blocks[at]);
			blocks[at] = NULL;
		} else {
			blocks[at] = alloc(cpu, s.task, random_below(random, 3000));
		}
		memcg_view(s.memcg, &view);
		if (view.current > most)
			most = view.current;
		check_compare(view.peak, >=, most);
		check_compare(view.peak, <=, most + STOCK_MAX); /* one cpu, one slot */
	}
	for (int i = 0; i < NR; i++)
		if (blocks[i])
			release(cpu, blocks[i]);
	memcg_view(s.memcg, &view);
	check_equal(view.current, 0);
	check_compare(view.peak, >=, most);
	check_conserved();
}

int main(void)
{
	uint64_t random = test_seed();

	cpu = core_start();
	a_batch_is_an_eighth_of_what_the_group_has_within_its_bounds();
	a_slot_never_holds_more_than_its_bound(&random);
	groups_that_share_a_slot_keep_their_bytes_apart();
	a_slot_that_another_takes_is_lost_to_the_slabs_of_who_had_it();
	a_slab_that_was_full_meanwhile_has_lost_it_too();
	a_flagged_reference_takes_nothing_from_a_stock();
	draining_empties_what_it_names_and_nothing_else();
	small_blocks_fill_a_group_to_the_last_byte_before_it_is_over();
	a_strict_charge_is_refused_from_the_first_byte_too_many();
	what_is_in_stock_makes_room();
	other_cpus_are_asked_for_their_stocks();
	small_blocks_end_at_the_ceiling();
	a_forced_charge_is_never_refused();
	statistics_are_exact_by_domain_wherever_blocks_are_freed(&random);
	the_peak_is_never_below_what_was_ever_in_use(&random);
	return 0;
}
