#define _GNU_SOURCE
#include "region.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "place.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define GROWTH_STEP_MAX ((size_t)16 << 10)
#define PAGE ((size_t)4096)

struct region region;

static const uint32_t record_sizes[NR_SECTIONS] = {
	[SECTION_MEMCG] = sizeof(struct mem_cgroup),
	[SECTION_OBJCG] = sizeof(struct obj_cgroup),
	[SECTION_TASK] = sizeof(struct task),
	[SECTION_CPU] = sizeof(struct cpu_record),
};

/* Room for a million groups; sparse, so it costs address space only. */
static const uint32_t capacities[NR_SECTIONS] = {
	[SECTION_MEMCG] = MEMCG_MAX,
	[SECTION_OBJCG] = 1u << 21,
	[SECTION_TASK] = 1u << 20,
	[SECTION_CPU] = 1024,
};

/* Bytes of each section that are known to be backed by memory. */
static size_t backed[NR_SECTIONS];

/* Of one clock, as what is updated must not be older than what was created. */
static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME_COARSE, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/*
 * Threads race here, and the later of two ticks may be overwritten by the earlier
 * one: the time is then too early by the milliseconds between them, until anybody
 * charges again.  Nothing but a reader's text depends on it.
 */
void region_touch(void)
{
#ifndef OBJCG_EXPLORE /* where time would tell states apart that are the same */
	uint64_t now = now_ns();

	/* The line is shared by all threads: written once in a tick, not in each batch. */
	if (load_relaxed(&region.header->updated_ns) != now)
		store_relaxed(&region.header->updated_ns, now);
#endif
}

/* Only what is safe in a forked child: no stdio, no malloc. */
static ssize_t read_small_file(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -1;
	n = read(fd, buf, size - 1);
	close(fd);
	if (n >= 0)
		buf[n] = '\0';
	return n;
}

/* Field 22 of /proc/self/stat; the command in field 2 may contain anything. */
static uint64_t process_start_time(void)
{
	char buf[1024];
	char *p;

	if (read_small_file("/proc/self/stat", buf, sizeof(buf)) < 0)
		return 0;
	p = strrchr(buf, ')');
	for (int field = 2; p && field < 22; field++) {
		p = strchr(p, ' ');
		if (p)
			p++;
	}
	return p ? strtoull(p, NULL, 10) : 0;
}

/* Fields 2 and 3 of /proc/self/statm, in bytes; left alone without /proc. */
static void resident_bytes(uint64_t *all, uint64_t *shared)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	char buf[256];
	char *p;

	if (read_small_file("/proc/self/statm", buf, sizeof(buf)) < 0)
		return;
	p = strchr(buf, ' ');
	if (p) {
		*all = strtoull(p, &p, 10) * page;
		*shared = strtoull(p, NULL, 10) * page;
	}
}

/* All that differs in a forked child. */
static void identify_process(struct region_header *header)
{
	header->pid = (uint32_t)getpid();
	header->uid = (uint32_t)geteuid();
	header->start_time = process_start_time();
	header->created_ns = now_ns();
	store_relaxed(&header->updated_ns, header->created_ns);
}

static void identify_boot(struct region_header *header)
{
	ssize_t n;

	memset(header->boot_id, 0, sizeof(header->boot_id));
	n = read_small_file("/proc/sys/kernel/random/boot_id", header->boot_id,
			    sizeof(header->boot_id));
	if (n > 0 && header->boot_id[n - 1] == '\n')
		header->boot_id[n - 1] = '\0';
}

/* Where each section begins, for capacities divided by 2^shift; returns the file's size. */
static size_t lay_out(size_t offsets[NR_SECTIONS], unsigned shift)
{
	size_t at = REGION_HEADER_SIZE;

	for (int i = 0; i < NR_SECTIONS; i++) {
		size_t capacity = i == SECTION_CPU ? capacities[i] : capacities[i] >> shift;

		offsets[i] = at;
		at += (capacity * record_sizes[i] + PAGE - 1) & ~(PAGE - 1);
	}
	return at;
}

static void *map(int fd, size_t size)
{
	int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
			   : MAP_SHARED | MAP_NORESERVE;
	void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);

	/*
	 * On a disk (OBJCG_DIR) the kernel would read around each new page: 128 KiB
	 * and more of holes, charged to the cgroup.  No harm where it does not listen.
	 */
	if (fd >= 0 && base != MAP_FAILED)
		(void)madvise(base, size, MADV_RANDOM);
	return base;
}

static int allocate_by_name(off_t offset, off_t len)
{
	struct place place;
	int err;
	int fd;

	if (place_open(&place, region.path) < 0)
		return 0; /* deleted: nothing to be done, and pages are still likely */
	fd = place_open_file(&place);
	place_close(&place);
	if (fd < 0)
		return 0;
	err = posix_fallocate(fd, offset, len);
	close(fd);
	return err ? -ENOSPC : 0;
}

/* Backs [start, end) with memory. Returns 0 or -ENOSPC. */
static int populate(void *start, size_t len)
{
	if (madvise(start, len, MADV_POPULATE_WRITE) == 0)
		return 0;
	if (errno != EINVAL || region.path[0] == '\0')
		return errno == EINVAL ? 0 : -ENOSPC;
	/*
	 * Before Linux 5.14.  The descriptor of the file was closed long ago,
	 * since a program that closes every descriptor and opens its own would
	 * make us write into its file: open the file again, by name.
	 */
	return allocate_by_name((off_t)((char *)start - (char *)region.header), (off_t)len);
}

static void set_pointers(void *base, const size_t offsets[NR_SECTIONS])
{
	char *p = base;

	region.header = base;
	region.memcgs = (void *)(p + offsets[SECTION_MEMCG]);
	region.objcgs = (void *)(p + offsets[SECTION_OBJCG]);
	region.tasks = (void *)(p + offsets[SECTION_TASK]);
	region.cpus = (void *)(p + offsets[SECTION_CPU]);
}

/* The new region is mapped; in a file if there is a place for it. Returns 0 or -errno. */
static int map_new(const struct place *place, size_t offsets[NR_SECTIONS], unsigned *shift)
{
	void *base = MAP_FAILED;
	int fd = -1;
	int err = 0;

	/* Under a small RLIMIT_AS take room for fewer groups. */
	for (*shift = 0; *shift <= 8; *shift += 2) {
		region.size = lay_out(offsets, *shift);
		if (region.size > address_space_limit() / 16 && *shift < 8)
			continue; /* leave room for everything else */
		if (place) {
			fd = place_create(place, region.size);
			if (fd < 0)
				return fd;
		}
		base = map(fd, region.size);
		err = errno;
		if (fd >= 0)
			close(fd);
		if (base != MAP_FAILED)
			break;
		if (place)
			place_remove(place);
	}
	if (base == MAP_FAILED)
		return -err;
	set_pointers(base, offsets);
	if (populate(base, REGION_HEADER_SIZE) < 0) {
		munmap(base, region.size);
		if (place)
			place_remove(place);
		region.header = NULL;
		return -ENOSPC;
	}
	return 0;
}

int region_create(const char *path, const char *command, const char *python)
{
	uint64_t startup = 0;
	uint64_t startup_shared = 0;
	size_t offsets[NR_SECTIONS];
	struct region_header *header;
	struct place place;
	unsigned shift;
	int err;

	if (path && strlen(path) >= sizeof(region.path))
		return -ENAMETOOLONG;
	resident_bytes(&startup, &startup_shared); /* before anything of ours is mapped */
	if (path) {
		err = place_open(&place, path);
		if (err < 0)
			return err;
	}
	strcpy(region.path, path ? path : "");
	err = map_new(path ? &place : NULL, offsets, &shift);
	if (path)
		place_close(&place);
	if (err < 0) {
		region.path[0] = '\0';
		return err;
	}

	header = region.header;
	header->version = REGION_VERSION;
	header->header_size = REGION_HEADER_SIZE;
	header->file_size = region.size;
	header->startup = startup;
	header->startup_shared = startup_shared;
	identify_process(header);
	identify_boot(header);
	snprintf(header->python, sizeof(header->python), "%s", python);
	snprintf(header->command, sizeof(header->command), "%s", command);
	header->command_len = (uint32_t)strlen(header->command);
	for (int i = 0; i < NR_SECTIONS; i++) {
		struct section_header *section = &header->sections[i];

		section->offset = offsets[i];
		section->record_size = record_sizes[i];
		section->capacity = i == SECTION_CPU ? capacities[i] : capacities[i] >> shift;
		store_relaxed(&section->used, 0);
		backed[i] = 0;
	}
	/* Last, so that a reader never takes a half-written header for a region. */
	memcpy(header->magic, REGION_MAGIC, sizeof(header->magic));
	return 0;
}

/*
 * How far a section is backed: in whole pages, which is enough for most programs,
 * and an eighth beyond what is wanted where there are hundreds of groups.
 */
static size_t growth_end(size_t want)
{
	size_t step = want / 8;

	if (step > GROWTH_STEP_MAX)
		step = GROWTH_STEP_MAX;
	return (want + step + PAGE - 1) & ~(PAGE - 1);
}

int region_reserve(enum region_section i, uint32_t nr)
{
	struct section_header *section = &region.header->sections[i];
	size_t want = (size_t)nr * section->record_size;

	if (nr > section->capacity)
		return -ENOSPC;
	if (want > backed[i]) {
		size_t room = ((size_t)section->capacity * section->record_size + PAGE - 1) &
			      ~(PAGE - 1);
		size_t end = growth_end(want);
		char *base = (char *)region.header + section->offset;

		if (end > room)
			end = room;
		if (populate(base + backed[i], end - backed[i]) < 0)
			return -ENOSPC;
		backed[i] = end;
	}
	if (nr > load_relaxed(&section->used))
		store_release(&section->used, nr);
	return 0;
}

static size_t section_bytes(int i)
{
	const struct section_header *section = &region.header->sections[i];

	return (size_t)load_relaxed(&section->used) * section->record_size;
}

/* Other threads may be writing: a word at a time, none of them torn. */
static void copy_words(char *to, const char *from, size_t len)
{
	for (size_t i = 0; i < len; i += sizeof(uint64_t))
		*(uint64_t *)(to + i) = load_relaxed((const _Atomic uint64_t *)(from + i));
}

/*
 * What is in use of the region, while a fork is under way: the header, then the
 * used records of each section.  The caller holds the core's locks, and whoever
 * forks a Python process holds the GIL; counters of threads with a cpu of their
 * own may be copied a batch too early or too late.
 */
static char *snapshot;
static size_t snapshot_size;

void region_fork_prepare(void)
{
	char *to;

	if (!region.header || region.path[0] == '\0')
		return; /* anonymous memory: copied by fork itself */
	snapshot_size = REGION_HEADER_SIZE;
	for (int i = 0; i < NR_SECTIONS; i++)
		snapshot_size += section_bytes(i);
	snapshot = map(-1, snapshot_size);
	if (snapshot == MAP_FAILED) {
		snapshot = NULL;
		return;
	}
	copy_words(snapshot, (const char *)region.header, REGION_HEADER_SIZE);
	to = snapshot + REGION_HEADER_SIZE;
	for (int i = 0; i < NR_SECTIONS; i++) {
		copy_words(to, (const char *)region.header + region.header->sections[i].offset,
			   section_bytes(i));
		to += section_bytes(i);
	}
}

void region_fork_parent(void)
{
	if (snapshot)
		munmap(snapshot, snapshot_size);
	snapshot = NULL;
}

/*
 * Between fork and anything else: only what is async-signal-safe.  Without a
 * region of its own the child would write into its parent's lists and counters:
 * it ends, as it would have if the kernel had refused the fork for want of
 * memory.
 */
static void child_without_region(void)
{
	static const char text[] = "objcg: no memory for the region of a forked process\n";
	ssize_t written = write(STDERR_FILENO, text, sizeof(text) - 1);

	(void)written;
	abort();
}

void region_fork_child(void)
{
	const char *from;

	if (!region.header)
		return;
	if (region.path[0] != '\0') {
		/* In place of the file, so it takes no more address space. */
		if (!snapshot || mmap(region.header, region.size, PROT_READ | PROT_WRITE,
				      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
				      0) == MAP_FAILED)
			child_without_region();
		memcpy(region.header, snapshot, REGION_HEADER_SIZE);
		from = snapshot + REGION_HEADER_SIZE;
		for (int i = 0; i < NR_SECTIONS; i++) {
			memcpy((char *)region.header + region.header->sections[i].offset, from,
			       section_bytes(i));
			from += section_bytes(i);
		}
		region_fork_parent();
		region.path[0] = '\0';
	}
	identify_process(region.header);
}

size_t address_space_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_AS, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
		return SIZE_MAX;
	return limit.rlim_cur;
}

/* What is backed here is backed there, and the same. */
static int copy_to(char *shared)
{
	const size_t magic = sizeof(region.header->magic);

	for (int i = -1; i < NR_SECTIONS; i++) {
		size_t offset = i < 0 ? 0 : region.header->sections[i].offset;
		size_t len = i < 0 ? REGION_HEADER_SIZE : backed[i];

		if (len && madvise(shared + offset, len, MADV_POPULATE_WRITE) < 0 &&
		    errno != EINVAL)
			return -ENOSPC;
	}
	for (int i = 0; i < NR_SECTIONS; i++) {
		size_t offset = region.header->sections[i].offset;

		memcpy(shared + offset, (const char *)region.header + offset, section_bytes(i));
	}
	/* The magic last: until then it is no region for a reader. */
	memcpy(shared + magic, (const char *)region.header + magic, REGION_HEADER_SIZE - magic);
	memcpy(shared, region.header, magic);
	return 0;
}

/* Takes the place of the private memory. */
static int move_to(int fd)
{
	void *shared = map(fd, region.size);
	int err;

	if (shared == MAP_FAILED)
		return -ENOMEM;
	err = copy_to(shared);
	if (err == 0 && mremap(shared, region.size, region.size, MREMAP_MAYMOVE | MREMAP_FIXED,
			       region.header) == MAP_FAILED)
		err = -ENOMEM;
	if (err < 0)
		munmap(shared, region.size);
	return err;
}

int region_attach_file(const char *path)
{
	struct place place;
	int err;
	int fd;

	if (strlen(path) >= sizeof(region.path))
		return -ENAMETOOLONG;
	err = place_open(&place, path);
	if (err < 0)
		return err;
	fd = place_create(&place, region.size);
	if (fd >= 0) {
		err = move_to(fd);
		close(fd);
		if (err < 0)
			place_remove(&place);
	}
	place_close(&place);
	if (fd < 0)
		return fd;
	if (err == 0)
		strcpy(region.path, path);
	return err;
}

void region_remove_file(void)
{
	struct place place;

	if (region.path[0] == '\0' || place_open(&place, region.path) < 0)
		return;
	place_remove(&place);
	place_close(&place);
}
