/*
 * The audit can fail: each error that is planted here is found, to the byte,
 * and named by its group; and it is silent again when the error is gone.
 */
#include "check_that.h"

static struct cpu *cpu;
static struct mem_cgroup *parent, *a, *b;
static struct task *task_a, *task_b;

/* Two of each kind of block for each of the groups. */
static void *small_a[2], *small_b[2], *medium_a[2], *large_a[2];

static int64_t difference_at(struct mem_cgroup *memcg)
{
	struct audit audit;
	int64_t difference;

	check_equal(audit_run(&audit), 0);
	difference = audit.counted[memcg_id(memcg)] - audit.recomputed[memcg_id(memcg)];
	audit_free(&audit);
	return difference;
}

static void the_audit_says_what_the_groups_have(void)
{
	struct audit audit;

	check_equal(audit_run(&audit), 0);
	check_equal(audit.drift, 0);
	check_compare(audit.nr, >, memcg_id(b));
	for (uint32_t id = MEMCG_ROOT; id < audit.nr; id++) {
		check_equal(audit.counted[id], audit.recomputed[id]);
		check_equal(audit.counted[id], memcg_current(memcg_from_id(id)));
	}
	check_equal(audit.recomputed[memcg_id(a)], 2 * 112 + 2 * 3008 + 2 * 30000);
	check_equal(audit.recomputed[memcg_id(b)], 2 * 112);
	check_equal(audit.recomputed[memcg_id(parent)],
		    audit.recomputed[memcg_id(a)] + audit.recomputed[memcg_id(b)]);
	check_equal(audit.recomputed[MEMCG_ROOT], audit.recomputed[memcg_id(parent)]);
	audit_free(&audit);
}

static void a_counter_that_is_off_is_found_at_its_level(void)
{
	fetch_add_relaxed(&parent->memory.usage, 16);
	check_equal(drift_now(), 16);
	check_equal(difference_at(parent), 16);
	check_equal(difference_at(a), 0);
	check_equal(difference_at(root_memcg()), 0);
	fetch_add_relaxed(&parent->memory.usage, -32);
	check_equal(drift_now(), 16);
	check_equal(difference_at(parent), -16);
	fetch_add_relaxed(&parent->memory.usage, 16);
	check_conserved();
}

static void errors_do_not_cancel_out(void)
{
	fetch_add_relaxed(&a->memory.usage, 48);
	fetch_add_relaxed(&b->memory.usage, -48);
	check_equal(drift_now(), 96);
	fetch_add_relaxed(&a->memory.usage, -48);
	fetch_add_relaxed(&b->memory.usage, 48);
	check_conserved();
}

static void an_objcgs_bytes_that_are_off_are_found(void)
{
	fetch_add_relaxed(&objcg_of(a)->bytes, 16);
	check_equal(drift_now(), 16);
	fetch_add_relaxed(&objcg_of(a)->bytes, -16);
	check_conserved();
}

static void bytes_in_a_stock_that_nobody_charged_are_found(void)
{
	struct stock *stock = stock_slot(cpu, objcg_id(objcg_of(b)));

	check_equal(load_relaxed(&stock->key), objcg_id(objcg_of(b)) << 1);
	fetch_add_relaxed(&stock->bytes, 16);
	/* At the objcg, and at each of the three levels. */
	check_equal(drift_now(), 4 * 16);
	check_equal(difference_at(b), -16);
	check_equal(difference_at(a), 0);
	fetch_add_relaxed(&stock->bytes, -16);
	check_conserved();
}

static void a_wrong_owner_is_found(void)
{
	struct slab *slab = virt_to_slab(small_a[0]);
	uint32_t *vector = load_relaxed(&slab->vector);
	uint32_t id_a = objcg_id(objcg_of(a));
	uint32_t id_b = objcg_id(objcg_of(b));

	/* small: both groups' blocks are in one slab, so it has a vector */
	check_equal(load_relaxed(&slab->owner), OWNER_MIXED);
	vector[obj_to_index(slab, small_a[0])] = id_b;
	/* One objcg has too much and one too little; so have their groups; the parent is right. */
	check_equal(drift_now(), 4 * 112);
	check_equal(difference_at(a), 112);
	check_equal(difference_at(b), -112);
	check_equal(difference_at(parent), 0);
	vector[obj_to_index(slab, small_a[0])] = UINT32_MAX - 1; /* not an id */
	check_compare(drift_now(), >, 0);
	vector[obj_to_index(slab, small_a[0])] = OWNER_NONE;
	check_compare(drift_now(), >, 0);
	vector[obj_to_index(slab, small_a[0])] = id_a;
	check_conserved();

	slab_medium_owner(virt_to_slab(medium_a[1]), medium_a[1])->objcg = id_b;
	check_equal(drift_now(), 4 * 3008);
	slab_medium_owner(virt_to_slab(medium_a[1]), medium_a[1])->objcg = id_a;
	check_conserved();

	large_header(large_a[1])->objcg = id_b;
	check_equal(drift_now(), 4 * 30000);
	large_header(large_a[1])->objcg = id_a;
	check_conserved();
}

static void a_slab_given_to_another_owner_is_found(void)
{
	void *p = alloc(cpu, task_a, 432);
	struct slab *slab = virt_to_slab(p);

	check_equal(load_relaxed(&slab->owner), objcg_id(objcg_of(a)) << 1);
	store_relaxed(&slab->owner, objcg_id(objcg_of(b)) << 1);
	check_equal(drift_now(), 4 * 432);
	store_relaxed(&slab->owner, objcg_id(objcg_of(a)) << 1);
	check_conserved();
	release(cpu, p);
}

static void a_wrong_size_is_found(void)
{
	slab_medium_owner(virt_to_slab(medium_a[0]), medium_a[0])->granules++;
	check_equal(drift_now(), 4 * 16); /* objcg, group, parent, root */
	slab_medium_owner(virt_to_slab(medium_a[0]), medium_a[0])->granules--;
	large_header(large_a[0])->size -= 16;
	check_equal(drift_now(), 4 * 16);
	large_header(large_a[0])->size += 16;
	check_conserved();
}

static void a_block_that_nobody_paid_for_is_found(void)
{
	void *p = slab_alloc(cpu, small_class(64), objcg_id(objcg_of(a)));

	check_equal(drift_now(), 4 * 64);
	slab_free(cpu, virt_to_slab(p), p);
	check_conserved();
	p = large_alloc(9008, false, objcg_id(objcg_of(a)), DOMAIN_RAW);
	check_equal(drift_now(), 4 * 9008);
	large_free(p);
	check_conserved();
}

static void a_block_that_was_lost_is_found(void)
{
	void *p = alloc(cpu, task_a, 64);

	slab_free(cpu, virt_to_slab(p), p); /* and not uncharged */
	check_equal(drift_now(), 4 * 64);
	uncharge_objcg(cpu, objcg_id(objcg_of(a)), DOMAIN_OBJECT, 64, 1);
	check_conserved();
}

static void a_block_whose_owner_was_recycled_is_found(void)
{
	struct mem_cgroup *memcg = group_new(root_memcg());
	struct obj_cgroup *objcg = objcg_of(memcg);
	void *p = alloc(cpu, task_a, 96);
	struct slab *slab = virt_to_slab(p);
	uint32_t before = load_relaxed(&slab->owner);

	check_equal(memcg_remove(memcg, false), 0);
	check_equal(load_relaxed(&objcg->state), OBJCG_FREE);
	check_equal(before, objcg_id(objcg_of(a)) << 1);
	store_relaxed(&slab->owner, objcg_id(objcg) << 1);
	check_compare(drift_now(), >=, 96);
	store_relaxed(&slab->owner, before);
	release(cpu, p);
	check_conserved();
}

/* --- slabs that contradict themselves ------------------------------------ */

static struct slab *broken;

static void lose_a_use(void)
{
	broken->above--;
}

static void make_a_cycle(void)
{
	*(void **)broken->free = broken->free;
}

static void free_what_is_no_block(void)
{
	*(void **)broken->free = (char *)broken->free + 16;
}

static void free_another_slabs_block(void)
{
	*(void **)broken->free = slab_address(broken) + SLAB_SIZE;
}

static void pass_the_capacity(void)
{
	broken->bump = (uint16_t)(broken->capacity + 1);
}

static void (*break_it)(void);

static void check_what_is_broken(void)
{
	if (!freopen("/dev/null", "w", stderr))
		leave_child(3);
	slab_check(broken);
	break_it();
	slab_check(broken);
}

/* An audit shows it as drift: it does not follow lists that lead nowhere. */
static void audit_what_is_broken(void)
{
	check_conserved();
	break_it();
	check_compare(drift_now(), >, 0);
}

static void check_is_found(void (*how)(void))
{
	break_it = how;
	check_aborts(check_what_is_broken);
	check_equal(status_of_child(audit_what_is_broken), 0);
}

static void a_slab_that_contradicts_itself_is_found(void)
{
	void *p = alloc(cpu, task_a, 160);
	void *q = alloc(cpu, task_a, 160);

	broken = virt_to_slab(p);
	release(cpu, q);
	check_is_found(lose_a_use);
	check_is_found(make_a_cycle);
	check_is_found(free_what_is_no_block);
	check_is_found(free_another_slabs_block);
	check_is_found(pass_the_capacity);
	release(cpu, p);
}

int main(void)
{
	test_seed();
	cpu = core_start();
	parent = group_new(root_memcg());
	a = group_new(parent);
	b = group_new_in_row_of(parent, a);
	task_a = task_new(a);
	task_b = task_new(b);
	slabs_are_shared(cpu, true);
	for (int i = 0; i < 2; i++) {
		small_a[i] = alloc(cpu, task_a, 100);
		small_b[i] = alloc(cpu, task_b, 100);
		medium_a[i] = alloc(cpu, task_a, 3000);
		large_a[i] = alloc(cpu, task_a, 30000);
	}
	slabs_are_shared(cpu, false);
	the_audit_says_what_the_groups_have();
	a_counter_that_is_off_is_found_at_its_level();
	errors_do_not_cancel_out();
	an_objcgs_bytes_that_are_off_are_found();
	bytes_in_a_stock_that_nobody_charged_are_found();
	a_wrong_owner_is_found();
	a_slab_given_to_another_owner_is_found();
	a_wrong_size_is_found();
	a_block_that_nobody_paid_for_is_found();
	a_block_that_was_lost_is_found();
	a_block_whose_owner_was_recycled_is_found();
	a_slab_that_contradicts_itself_is_found();
	for (int i = 0; i < 2; i++) {
		release(cpu, small_a[i]);
		release(cpu, small_b[i]);
		release(cpu, medium_a[i]);
		release(cpu, large_a[i]);
	}
	check_conserved();
	check_equal(memcg_current(root_memcg()), 0);
	return 0;
}
