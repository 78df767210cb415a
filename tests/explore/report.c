#define _GNU_SOURCE
#include "report.h"

#include <dlfcn.h>
#include <link.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cpu.h"
#include "slab.h"

/* Without its folders: file names of the core are unique. */
static const char *short_site(const char *site)
{
	const char *colon = strchr(site, ':');
	const char *start = site;

	for (const char *p = site; colon && p < colon; p++)
		if (*p == '/')
			start = p + 1;
	return start;
}

static bool is_in(const volatile void *p, const void *table, size_t record, uint32_t nr,
		  uint32_t *index)
{
	size_t offset = (size_t)((const volatile char *)p - (const char *)table);

	*index = (uint32_t)(offset / record);
	return offset < record * nr;
}

const char *report_name(const volatile void *p)
{
	char *text = run->name;
	const size_t size = sizeof(run->name);
	uint32_t i;

	if (!region.header)
		snprintf(text, size, "%p", (const void *)p);
	else if (is_in(p, region.memcgs, sizeof(struct mem_cgroup), 256, &i))
		snprintf(text, size, "memcg %u (%.20s)", i,
			 i == MEMCG_ROOT ? "root" : region.memcgs[i].name);
	else if (is_in(p, region.objcgs, sizeof(struct obj_cgroup), 256, &i))
		snprintf(text, size, "objcg %u", i);
	else if (is_in(p, region.tasks, sizeof(struct task), 64, &i))
		snprintf(text, size, "task %u", i);
	else if (is_in(p, region.cpus, sizeof(struct cpu_record), 16, &i))
		snprintf(text, size, "cpu %u", i);
	else if (is_in(p, slab_range.slabs, sizeof(struct slab), 64, &i))
		snprintf(text, size, "slab %u", i);
	else if (in_slab_range((const void *)p))
		snprintf(text, size, "block in slab %u",
			 (unsigned)(virt_to_slab((const void *)p) - slab_range.slabs));
	else
		snprintf(text, size, "%p", (const void *)p);
	return text;
}

void report_step(const struct fiber *fiber, const char *site, const volatile void *p,
		 const char *format, ...)
{
	va_list args;

	if (!run->trace)
		return;
	printf("%u@%-4u %-12s %*s%s, %s: ", fiber->index, fiber->nr_operations,
	       run->scenario->fibers[fiber->index].name, (int)(4 * fiber->index), "",
	       short_site(site), report_name(p));
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
}

/* In words by the tool that comes with the compiler; without it, an offset for a debugger. */
void report_code(char *text, size_t size, const void *pc)
{
	char command[128];
	Dl_info info;
	size_t offset;
	FILE *pipe;

	text[0] = '\0';
	if (!pc || !dladdr(pc, &info))
		return;
	offset = (size_t)((const char *)pc - (const char *)info.dli_fbase) - 1;
	snprintf(text, size, "explore+0x%zx", offset);
	if (!run->trace)
		return;
	snprintf(command, sizeof(command), "addr2line -s -e /proc/%d/exe 0x%zx 2>/dev/null",
		 (int)getpid(), offset);
	pipe = popen(command, "r");
	if (!pipe)
		return;
	if (fgets(command, sizeof(command), pipe) && command[0] != '?') {
		command[strcspn(command, "\n")] = '\0';
		snprintf(text, size, "%s", command);
	}
	pclose(pipe);
}
