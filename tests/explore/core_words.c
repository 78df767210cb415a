#include "core_words.h"

#include <string.h>

struct cpu *cpus[3];

void make_cpus(unsigned nr)
{
	for (unsigned i = 0; i < nr; i++)
		cpus[i] = cpu_get(i);
	/* The first slab of all has its memory from the system; nobody else uses this class. */
	give(cpus[0], take(cpus[0], &region.tasks[TASK_ROOT], 16));
	stock_drain_all(cpus[0]);
}

struct mem_cgroup *make_group(struct mem_cgroup *parent, const char *name)
{
	struct mem_cgroup *memcg = NULL;

	expect(memcg_create(parent, name, strlen(name), &memcg) == 0, "no group %s", name);
	return memcg;
}

struct task *make_task(struct mem_cgroup *memcg)
{
	int err = 0;
	struct task *task = task_alloc(memcg, &err);

	expect(task, "no task: %d", err);
	return task;
}

void move(struct task *task, struct mem_cgroup *to)
{
	int err = task_move(task, load_relaxed(&task->gen), to);

	expect(err == 0, "no move to %s: %d", name_of(to), err);
}

void make_flagged(struct task *task)
{
	move(task, memcg_from_id(load_relaxed(&task->memcg)));
}

void *try_take(struct cpu *cpu, struct task *task, size_t size)
{
	struct charge_result result = {0, 0, 0};
	void *block = NULL;

	if (size <= SLAB_SMALL_MAX)
		block = kmem_alloc_fast(cpu, task, DOMAIN_MEM, size);
	if (!block)
		block = kmem_alloc(cpu, task, DOMAIN_MEM, size, false, &result);
	/* Plain writes: if two fibers ever have the same block, that is a race. */
	if (block)
		((uint64_t *)block)[0] = ((uint64_t *)block)[1] = size;
	return block;
}

void *take(struct cpu *cpu, struct task *task, size_t size)
{
	void *block = try_take(cpu, task, size);

	expect(block, "no block of %zu bytes", size);
	return block;
}

void give(struct cpu *cpu, void *block)
{
	expect(((uint64_t *)block)[0] == ((uint64_t *)block)[1],
	       "somebody else wrote into a block");
	if (!in_slab_range(block) || !kmem_free_fast(cpu, DOMAIN_MEM, block))
		kmem_free(cpu, DOMAIN_MEM, block);
}

bool is_online(const struct mem_cgroup *memcg)
{
	return load_acquire(&memcg->state) == MEMCG_ONLINE;
}

struct mem_cgroup *group_of(void *block)
{
	size_t bytes;
	uint32_t id = kmem_owner(block, &bytes);

	expect(id && id < section_used(SECTION_OBJCG), "a block's owner is %u", id);
	return memcg_from_id(load_acquire(&objcg_from_id(id)->memcg));
}

const char *name_of(const struct mem_cgroup *memcg)
{
	return memcg == root() ? "root" : memcg->name;
}

/* --- after an execution ------------------------------------------------------ */

static void check_conserved(void)
{
	struct audit audit;

	expect(audit_run(&audit) == 0, "no memory for the audit");
	expect(audit.drift == 0, "the audit's drift is %lld", (long long)audit.drift);
	audit_free(&audit);
}

/* Every task is on the list of its group, which is online, and would charge it. */
static void check_tasks(void)
{
	uint32_t listed = 0;
	uint32_t living = 0;

	for (uint32_t id = MEMCG_ROOT; id < section_used(SECTION_MEMCG); id++) {
		struct mem_cgroup *memcg = memcg_from_id(id);
		uint32_t nr = 0;

		if (!is_online(memcg))
			continue;
		for (uint32_t i = memcg->task_head; i; i = region.tasks[i].next) {
			struct task *task = &region.tasks[i];
			uint32_t reference = load_relaxed(&task->objcg);

			expect(++nr <= section_used(SECTION_TASK), "a list of tasks has no end");
			expect(load_relaxed(&task->memcg) == id, "task %u is on the list of %s", i,
			       name_of(memcg));
			expect(load_relaxed(&task->state) == TASK_LIVE,
			       "task %u is gone, and in %s", i, name_of(memcg));
			expect((reference & OBJCG_UPDATE) ||
				       reference == load_relaxed(&memcg->objcg) << 1,
			       "task %u is in %s, and charges objcg %u", i, name_of(memcg),
			       reference >> 1);
		}
		expect(load_relaxed(&memcg->nr_tasks) == nr, "%s has %u tasks and counts %u",
		       name_of(memcg), nr, load_relaxed(&memcg->nr_tasks));
		listed += nr;
	}
	for (uint32_t i = TASK_ROOT; i < section_used(SECTION_TASK); i++)
		living += load_relaxed(&region.tasks[i].state) == TASK_LIVE;
	expect(listed == living, "%u tasks live and %u are on lists", living, listed);
}

static void check_slabs(void)
{
	for (uint32_t i = 0; i < load_relaxed(&slab_range.top); i++)
		if (load_relaxed(&slab_range.slabs[i].heap))
			slab_check(&slab_range.slabs[i]);
}

static void check_nothing_left(void)
{
	for (uint32_t id = MEMCG_ROOT; id < section_used(SECTION_MEMCG); id++) {
		struct mem_cgroup *memcg = memcg_from_id(id);
		struct memcg_view view;

		if (!is_online(memcg))
			continue;
		memcg_view(memcg, &view);
		expect(view.current == 0, "%s is left with %lld bytes", name_of(memcg),
		       (long long)view.current);
		expect(view.blocks == 0, "%s is left with %lld blocks", name_of(memcg),
		       (long long)view.blocks);
		for (int i = 0; i < NR_DOMAINS; i++)
			expect(view.stat[i] == 0, "%s is left with %lld bytes of domain %d",
			       name_of(memcg), (long long)view.stat[i], i);
		expect(load_relaxed(&memcg->nr_dying) == 0,
		       "%u removed groups of %s are never recycled", load_relaxed(&memcg->nr_dying),
		       name_of(memcg));
	}
	for (uint32_t id = 1; id < section_used(SECTION_OBJCG); id++)
		expect(load_relaxed(&objcg_from_id(id)->bytes) == 0,
		       "objcg %u is left with %lld bytes", id,
		       (long long)load_relaxed(&objcg_from_id(id)->bytes));
}

void check_all(void *const blocks[], unsigned nr)
{
	check_conserved();
	check_slabs();
	check_tasks();
	for (unsigned i = 0; i < nr; i++) {
		if (!blocks[i])
			continue;
		expect(is_online(group_of(blocks[i])), "a block is charged to a removed group");
		give(cpus[0], blocks[i]);
	}
	for (uint32_t i = 0; i < cpu_count(); i++) {
		heap_collect(cpu_nth(i));
		stock_drain_all(cpu_nth(i));
	}
	tree_lock();
	objcg_reap();
	tree_unlock();
	check_conserved();
	check_slabs();
	check_nothing_left();
}
