#include "references.h"

_Atomic int64_t cpu_references[LAB_CPUS][LAB_RECORDS];
struct shared_references shared_references[LAB_RECORDS];

int64_t references_of(uint32_t id)
{
	int64_t sum = load_relaxed(&shared_references[id].nr);

	for (uint32_t i = 0; i < LAB_CPUS; i++)
		sum += load_relaxed(&cpu_references[i][id]);
	return sum;
}
