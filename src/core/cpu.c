#include "cpu.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "allocator.h"
#include "slab.h"
#include "stock.h"

_Atomic uint64_t cpu_epoch = 1;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic(struct cpu *) cpus[CPU_MAX];
static _Atomic uint32_t nr_cpus;

uint32_t cpu_count(void)
{
	return load_acquire(&nr_cpus);
}

struct cpu *cpu_nth(uint32_t index)
{
	return load_acquire(&cpus[index]);
}

static struct cpu *cpu_new(uint32_t index)
{
	struct cpu *cpu;

	if (index == CPU_MAX || region_reserve(SECTION_CPU, index + 1) < 0)
		return NULL;
	cpu = base_aligned_alloc(64, sizeof(*cpu));
	if (!cpu)
		return NULL;
	memset(cpu, 0, sizeof(*cpu));
	cpu->index = index;
	cpu->record = &region.cpus[index];
	cpu->stocks = cpu->record->stocks;
	heap_init(&cpu->heap);
	return cpu;
}

struct cpu *cpu_get(uint32_t kind)
{
	struct cpu *cpu = NULL;
	uint32_t i;

	cpus_lock();
	for (i = 0; i < load_relaxed(&nr_cpus); i++) {
		cpu = load_relaxed(&cpus[i]);
		if (load_acquire(&cpu->record->state) == 0)
			break;
	}
	if (i == load_relaxed(&nr_cpus)) {
		cpu = cpu_new(i);
		if (cpu) {
			store_release(&cpus[i], cpu);
			store_release(&nr_cpus, i + 1);
		}
	}
	if (cpu) {
		cpu->record->kind = kind;
		store_release(&cpu->record->state, 1);
	}
	cpus_unlock();
	return cpu;
}

void cpu_put(struct cpu *cpu)
{
	stock_drain_all(cpu);
	store_release(&cpu->record->state, 0);
}

void cpus_lock(void)
{
	pthread_mutex_lock(&lock);
}

void cpus_unlock(void)
{
	pthread_mutex_unlock(&lock);
}

void cpus_reset_after_fork(void)
{
	pthread_mutex_init(&lock, NULL);
	for (uint32_t i = 0; i < cpu_count(); i++)
		store_relaxed(&cpu_nth(i)->record->section, 0);
}

uint64_t epoch_advance(void)
{
	return fetch_add_seq_cst(&cpu_epoch, 1) + 1;
}

/*
 * A reader loads the epoch, then stores it as its section, then follows
 * references.  If it stored after our load below, then (seq_cst) what it
 * follows was unlinked already and it cannot find the record; if before, we
 * see its epoch, which is smaller than the stamp, and wait for it to leave.
 * tests/core/test_recycle.c recycles records under running sections; scenarios
 * *-replace of tests/explore.
 */
bool epoch_passed(uint64_t stamp)
{
	uint32_t nr = cpu_count();

	for (uint32_t i = 0; i < nr; i++) {
		uint64_t section = load_seq_cst(&cpu_nth(i)->record->section);

		if (section && section < stamp)
			return false;
	}
	return true;
}
