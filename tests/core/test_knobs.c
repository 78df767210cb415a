/*
 * Limits that another process sets: met by the next charge, of the group that
 * was meant or of none.
 *
 * The other process is played by a second mapping of the region's file.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>

#include "check_that.h"
#include "knobs.h"

static struct cpu *cpu;
static char *outside; /* the other process's mapping */

static struct mem_cgroup *from_outside(const struct mem_cgroup *memcg)
{
	return (struct mem_cgroup *)(outside + region.header->sections[SECTION_MEMCG].offset) +
	       memcg_id(memcg);
}

static int set(const struct mem_cgroup *memcg, int64_t max, int64_t high, int64_t low)
{
	const struct knobs knobs = {max, high, low};

	return memcg_set_knobs_from_outside(from_outside(memcg), memcg->uid, &knobs);
}

static void the_next_batch_meets_the_new_limit(void)
{
	struct mem_cgroup *memcg = group_new(root_memcg());
	struct task *task = task_new(memcg);
	struct charge_result result = {0, 0, 0};
	int64_t stock = 0;
	void *blocks[64];
	int nr = 0;

	blocks[nr++] = kmem_alloc(cpu, task, DOMAIN_OBJECT, 512, false, &result);
	check_equal(result.over, 0);
	check_equal(set(memcg, 0, KNOB_KEEP, KNOB_KEEP), 0);
	/* What is in stock was charged before; no more than that is let through unseen. */
	for (uint32_t i = 0; i < NR_STOCKS; i++)
		if (load_relaxed(&cpu->stocks[i].key) >> 1 == load_relaxed(&memcg->objcg))
			stock = load_relaxed(&cpu->stocks[i].bytes);
	check_that(stock > 0 && stock <= STOCK_MAX);
	while (!result.over) {
		check_that(nr < 64);
		blocks[nr++] = kmem_alloc(cpu, task, DOMAIN_OBJECT, 512, false, &result);
	}
	check_equal(result.over, memcg_id(memcg));
	check_equal(nr - 2, stock / 512);
	/* A large block is refused at once. */
	check_that(!kmem_alloc(cpu, task, DOMAIN_OBJECT, CHARGE_STRICT, false, &result));
	check_equal(result.refused, memcg_id(memcg));

	check_equal(set(memcg, COUNTER_UNSET, KNOB_KEEP, KNOB_KEEP), 0);
	result = (struct charge_result){0, 0, 0};
	blocks[nr] = kmem_alloc(cpu, task, DOMAIN_OBJECT, CHARGE_STRICT, false, &result);
	check_that(blocks[nr]);
	check_equal(result.over | result.refused, 0);
	for (int i = 0; i <= nr; i++)
		release(cpu, blocks[i]);
	task_free(task);
	check_conserved();
}

static void only_what_was_given_is_changed(void)
{
	struct mem_cgroup *memcg = group_new(root_memcg());

	check_equal(set(memcg, 3000, 2000, 1000), 0);
	check_equal(set(memcg, KNOB_KEEP, 2500, KNOB_KEEP), 0);
	check_equal(load_relaxed(&memcg->memory.max), 3000);
	check_equal(load_relaxed(&memcg->memory.high), 2500);
	check_equal(load_relaxed(&memcg->memory.low), 1000);
	check_equal(set(memcg, COUNTER_UNSET, COUNTER_UNSET, 0), 0);
	check_equal(load_relaxed(&memcg->memory.max), COUNTER_UNSET);
	check_equal(load_relaxed(&memcg->memory.high), COUNTER_UNSET);
	check_equal(load_relaxed(&memcg->memory.low), 0);
}

static void a_group_that_has_ended_is_not_meant_any_more(void)
{
	struct mem_cgroup *memcg = group_new(root_memcg());
	const struct knobs knobs = {1000, 1000, 1000};
	uint64_t uid = memcg->uid;
	uint32_t id = memcg_id(memcg);

	check_equal(memcg_remove(memcg, false), 0);
	check_equal(memcg_set_knobs_from_outside(from_outside(memcg), uid, &knobs), -ENODEV);
	while (memcg_id(group_new(root_memcg())) != id)
		;
	check_equal(memcg_set_knobs_from_outside(from_outside(memcg), uid, &knobs), -ENODEV);
	check_equal(load_relaxed(&memcg->memory.max), COUNTER_UNSET);
	check_equal(load_relaxed(&memcg->memory.high), COUNTER_UNSET);
	check_equal(load_relaxed(&memcg->memory.low), 0);
}

static void a_record_that_is_being_changed_is_left_alone(void)
{
	struct mem_cgroup *memcg = group_new(root_memcg());

	fetch_add_seq_cst(&memcg->seq, 1);
	check_equal(set(memcg, 1000, KNOB_KEEP, KNOB_KEEP), -EAGAIN);
	fetch_add_seq_cst(&memcg->seq, 1);
	check_equal(load_relaxed(&memcg->memory.max), COUNTER_UNSET);
}

/* --- the record becomes another group's between the look and the store ----- */

static struct mem_cgroup *victim;
static char *page; /* of the victim's record, in the other process's mapping */
static int faults;

/* The first store faults: exactly there the owner of the region does the worst it can. */
static void replace_victim(int number)
{
	uint32_t id = memcg_id(victim);

	(void)number;
	faults++;
	check_equal(mprotect(page, 4096, PROT_READ | PROT_WRITE), 0);
	check_equal(memcg_remove(victim, false), 0);
	while (memcg_id(group_new(root_memcg())) != id)
		;
}

static void what_was_stored_into_another_group_is_taken_back(void)
{
	struct sigaction action = {.sa_handler = replace_victim};
	struct sigaction before;

	victim = group_new(root_memcg());
	page = (char *)((uintptr_t)from_outside(victim) & ~(uintptr_t)4095);
	check_equal(sigaction(SIGSEGV, &action, &before), 0);
	check_equal(mprotect(page, 4096, PROT_READ), 0);
	check_equal(set(victim, 1000, 2000, 3000), -ENODEV);
	check_equal(sigaction(SIGSEGV, &before, NULL), 0);
	check_equal(faults, 1);
	check_equal(load_relaxed(&victim->state), MEMCG_ONLINE);
	check_equal(load_relaxed(&victim->memory.max), COUNTER_UNSET);
	check_equal(load_relaxed(&victim->memory.high), COUNTER_UNSET);
	check_equal(load_relaxed(&victim->memory.low), 0);
}

static void the_time_of_the_last_change_is_noted(void)
{
	struct mem_cgroup *memcg = group_new(root_memcg());
	struct task *task = task_new(memcg);
	uint64_t before;
	void *p;

	before = load_relaxed(&region.header->updated_ns);
	check_compare(before, >=, region.header->created_ns);
	/* Longer than a tick of the coarse clock, of 100 Hz at the least. */
	usleep(30000);
	p = alloc(cpu, task, 64);
	check_that(load_relaxed(&region.header->updated_ns) > before);
	before = load_relaxed(&region.header->updated_ns);
	usleep(30000);
	release(cpu, p);
	p = alloc(cpu, task, 64); /* from the stock: the fast path asks no clock */
	check_equal(load_relaxed(&region.header->updated_ns), before);
	release(cpu, p);
	check_equal(memcg_remove(memcg, true), 0);
	check_that(load_relaxed(&region.header->updated_ns) > before);
	task_free(task);
}

int main(void)
{
	test_seed();
	outside = core_start_shared();
	cpu = cpu_get(0);

	the_next_batch_meets_the_new_limit();
	only_what_was_given_is_changed();
	a_group_that_has_ended_is_not_meant_any_more();
	a_record_that_is_being_changed_is_left_alone();
	what_was_stored_into_another_group_is_taken_back();
	the_time_of_the_last_change_is_noted();
	return 0;
}
