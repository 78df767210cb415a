#include "stock.h"

#include "fault.h"
#include "memcg.h"
#include "slab.h"

void (*stock_drain_others)(const struct mem_cgroup *root);
__thread int charges_forced __attribute__((tls_model("initial-exec")));

/* Moves a slot's statistics, and all but `keep` of its bytes, to the counters. In a section. */
static void drain_stock(struct stock *stock, int64_t keep)
{
	struct obj_cgroup *objcg = objcg_from_id(load_relaxed(&stock->key) >> 1);
	int64_t blocks = load_relaxed(&stock->blocks);
	int64_t bytes = load_relaxed(&stock->bytes) - keep;

	if (blocks) {
		store_relaxed(&stock->blocks, 0);
		obj_cgroup_stat(objcg, DOMAIN_OBJECT, 0, blocks);
	}
	for (int i = 0; i < NR_DOMAINS_COUNTED; i++) {
		int64_t stat = load_relaxed(&stock->stat[i]);

		if (stat) {
			store_relaxed(&stock->stat[i], 0);
			obj_cgroup_stat(objcg, (enum domain)(i + 1), stat, 0);
		}
	}
	/*
	 * The slot first: a reader in between takes the bytes for used, not for
	 * negative.  If we are killed in between, the counter is too high by
	 * these bytes, at most one slot per cpu.
	 */
	if (bytes > 0) {
		store_release(&stock->bytes, keep);
		obj_cgroup_uncharge(objcg, bytes);
	}
}

/* The slot for this objcg, emptied of another one's stock if need be. In a section. */
static struct stock *take_slot(struct cpu *cpu, uint32_t id)
{
	struct stock *stock = stock_slot(cpu, id);
	uint32_t key = load_relaxed(&stock->key);

	if (key != id << 1) {
		if (key)
			drain_stock(stock, 0);
		slab_stock_is_lost(cpu, stock, id << 1);
		store_release(&stock->key, id << 1);
	}
	return stock;
}

static void drain_slot(struct stock *stock)
{
	if (!load_relaxed(&stock->key))
		return;
	drain_stock(stock, 0);
	/* After the bytes: objcg_reap() may recycle the id from here on. */
	store_release(&stock->key, 0);
}

void stock_drain_all(struct cpu *cpu)
{
	section_enter(cpu);
	for (uint32_t i = 0; i < NR_STOCKS; i++)
		drain_slot(&cpu->stocks[i]);
	section_exit(cpu);
}

static void drain_subtree(struct cpu *cpu, const struct mem_cgroup *root)
{
	for (uint32_t i = 0; i < NR_STOCKS; i++) {
		struct stock *stock = &cpu->stocks[i];
		uint32_t key = load_relaxed(&stock->key);

		if (key && memcg_is_descendant(obj_cgroup_memcg(objcg_from_id(key >> 1)), root))
			drain_slot(stock);
	}
}

void stock_drain_subtree(struct cpu *cpu, const struct mem_cgroup *root)
{
	section_enter(cpu);
	drain_subtree(cpu, root);
	section_exit(cpu);
}

void stock_drain_dying(struct cpu *cpu)
{
	section_enter(cpu);
	for (uint32_t i = 0; i < NR_STOCKS; i++) {
		uint32_t key = load_relaxed(&cpu->stocks[i].key);

		if (key && load_acquire(&objcg_from_id(key >> 1)->state) == OBJCG_DYING)
			drain_slot(&cpu->stocks[i]);
	}
	section_exit(cpu);
}

/*
 * How much to charge ahead: in proportion to what the group has, so that a
 * small group's stock stays small and a busy group seldom walks up the tree.
 */
static int64_t batch_for(struct obj_cgroup *objcg)
{
	int64_t batch = load_relaxed(&objcg->bytes) >> 3;

	if (batch < STOCK_BATCH_MIN)
		return STOCK_BATCH_MIN;
	if (batch > STOCK_BATCH_MAX)
		return STOCK_BATCH_MAX;
	return batch & ~(int64_t)15;
}

/* Whether this or a group above it is charged more than its max. In a section. */
static bool is_over_max(struct obj_cgroup *objcg)
{
	struct mem_cgroup *memcg = obj_cgroup_memcg(objcg);

	for (; memcg; memcg = parent_mem_cgroup(memcg))
		if (load_relaxed(&memcg->memory.usage) > load_relaxed(&memcg->memory.max))
			return true;
	return false;
}

/* A large allocation fails at once; reclaim makes room for when it is tried again. */
static void note_refusal(struct mem_cgroup *memcg, int64_t bytes)
{
	/* Two at once: one of them is remembered. */
	if (bytes > load_relaxed(&memcg->wanted))
		store_relaxed(&memcg->wanted, bytes);
	memcg_event(memcg, EVENT_MAX);
	memcg_flag(memcg, FLAG_REFUSED);
}

/*
 * Without stock: what is freed lowers the counter at once, and each allocation is
 * looked at.  From CHARGE_STRICT on max refuses; below, only the ceiling does; and
 * where charges are forced nothing, and nobody is interrupted.
 */
static bool charge_exactly(struct obj_cgroup *objcg, struct stock *stock, enum domain domain,
			   int64_t bytes, int blocks, struct charge_result *result)
{
	bool strict = bytes >= (int64_t)CHARGE_STRICT;
	enum charge_bound bound = strict ? BOUND_MAX : BOUND_CEILING;
	struct mem_cgroup *full;

	if (charges_forced)
		bound = BOUND_NONE;
	drain_slot(stock);
	if (obj_cgroup_try_charge(objcg, bytes, bound, result)) {
		if (charges_forced)
			result->over = 0;
		obj_cgroup_stat(objcg, domain, bytes, blocks);
		return true;
	}
	full = memcg_from_id(result->refused);
	if (strict) {
		note_refusal(full, bytes);
	} else {
		page_counter_grant(full);
		memcg_event(full, EVENT_CEILING);
		memcg_flag(full, FLAG_CEILING);
	}
	return false;
}

/* Charges to an objcg that cannot be recycled meanwhile. In a section. */
static bool charge(struct cpu *cpu, uint32_t id, enum domain domain, size_t size, int blocks,
		   struct charge_result *result)
{
	struct obj_cgroup *objcg = objcg_from_id(id);
	struct stock *stock = take_slot(cpu, id);
	int64_t bytes = (int64_t)size;
	int64_t batch = batch_for(objcg);

	if (fault_covers(objcg)) {
		drain_slot(stock); /* else what is freed after a refusal would fill it */
		return (!fault_refuses() || charges_forced) &&
		       charge_exactly(objcg, stock, domain, bytes, blocks, result);
	}
	if (bytes <= load_relaxed(&stock->bytes)) {
		add_single_writer(&stock->bytes, -bytes);
		goto charged;
	}
	region_touch();
	if (bytes <= batch && obj_cgroup_try_charge(objcg, batch, BOUND_MAX, result)) {
		add_single_writer(&stock->bytes, batch - bytes);
		goto charged;
	}
	if (bytes > batch && obj_cgroup_try_charge(objcg, bytes, BOUND_MAX, result))
		goto charged;
	/* Near the limit: what others have in stock is not used; give it back and be exact. */
	if (result->refused) {
		struct mem_cgroup *full = memcg_from_id(result->refused);

		drain_subtree(cpu, full);
		if (stock_drain_others)
			stock_drain_others(full);
		stock = take_slot(cpu, id);
		result->refused = 0;
	}
	if (obj_cgroup_try_charge(objcg, bytes, BOUND_MAX, result))
		goto charged;
	if (size >= CHARGE_STRICT && !charges_forced) {
		note_refusal(memcg_from_id(result->refused), bytes);
		return false;
	}
	result->refused = 0;
	return charge_exactly(objcg, stock, domain, bytes, blocks, result);

charged:
	stock_count(stock, domain, bytes, blocks);
	return true;
}

uint32_t charge_task(struct cpu *cpu, struct task *task, enum domain domain, size_t bytes,
		     struct charge_result *result)
{
	uint32_t reference;
	uint32_t id;

	section_enter(cpu);
	/* In the section: a flag set before the id could be recycled is seen here. */
	reference = load_seq_cst(&task->objcg);
	if (reference == 0 || (reference & OBJCG_UPDATE)) {
		/* A request is looked for each time after the flag was cleared: see
		 * task_request_move(). */
		do
			id = current_objcg_update(task);
		while (unlikely(load_acquire(&task->request)) && task_serve_request(task));
	} else {
		id = reference >> 1;
	}
	if (!charge(cpu, id, domain, bytes, 1, result))
		id = 0;
	section_exit(cpu);
	return id;
}

bool charge_objcg(struct cpu *cpu, uint32_t id, enum domain domain, size_t bytes,
		  struct charge_result *result)
{
	bool charged;

	section_enter(cpu);
	charged = charge(cpu, id, domain, bytes, 0, result);
	section_exit(cpu);
	return charged;
}

void uncharge_objcg(struct cpu *cpu, uint32_t id, enum domain domain, size_t size, int blocks)
{
	struct obj_cgroup *objcg = objcg_from_id(id);
	int64_t bytes = (int64_t)size;
	struct stock *stock;

	section_enter(cpu);
	if (unlikely(is_over_max(objcg)) || fault_covers(objcg)) {
		region_touch();
		obj_cgroup_stat(objcg, domain, -bytes, -blocks);
		obj_cgroup_uncharge(objcg, bytes);
		section_exit(cpu);
		return;
	}
	stock = take_slot(cpu, id);
	stock_count(stock, domain, -bytes, -blocks);
	if (load_relaxed(&stock->bytes) + bytes <= STOCK_MAX) {
		add_single_writer(&stock->bytes, bytes);
		section_exit(cpu);
		return;
	}
	region_touch();
	if (bytes >= STOCK_BATCH_MAX) {
		obj_cgroup_uncharge(objcg, bytes);
	} else {
		add_single_writer(&stock->bytes, bytes);
		drain_stock(stock, STOCK_BATCH_MAX);
	}
	section_exit(cpu);
}
