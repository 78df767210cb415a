/*
 * The region: its layout, its file, its growth, and what happens to it at fork.
 * Each test runs in a process of its own, since a process has one region.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "check_that.h"
#include "place.h"

static char dir[64] = "/dev/shm/objcg-test-XXXXXX";
static char path[128];

static void run(const char *name, void (*test)(void))
{
	int status;
	pid_t pid;

	fflush(NULL);
	unlink(path);
	pid = fork();
	check_that(pid >= 0);
	if (pid == 0) {
		alarm(30); /* a lock that nobody gives back */
		test();
		leave_child(0);
	}
	check_equal(waitpid(pid, &status, 0), pid);
	if (status != 0) {
		fprintf(stderr, "%s: failed (%s %d)\n", name,
			WIFSIGNALED(status) ? "signal" : "status",
			WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
		unlink(path);
		rmdir(dir);
		exit(1);
	}
	unlink(path);
}

#define RUN(test) run(#test, test)

/* --- layout -------------------------------------------------------------- */

#define check_field(type, field, at, bytes)                                                        \
	do {                                                                                       \
		check_equal(offsetof(struct type, field), at);                                     \
		check_equal(sizeof(((struct type *)0)->field), bytes);                             \
	} while (0)

/* Readers in other processes and in Python have these numbers too. Version 1 never changes. */
static void the_layout_is_version_1(void)
{
	check_equal(REGION_VERSION, 1);
	check_equal(memcmp(REGION_MAGIC, "OBJCGRG1", 8), 0);
	check_field(region_header, magic, 0, 8);
	check_field(region_header, version, 8, 4);
	check_field(region_header, header_size, 12, 4);
	check_field(region_header, file_size, 16, 8);
	check_field(region_header, pid, 24, 4);
	check_field(region_header, uid, 28, 4);
	check_field(region_header, start_time, 32, 8);
	check_field(region_header, boot_id, 40, 40);
	check_field(region_header, created_ns, 80, 8);
	check_field(region_header, flags, 88, 4);
	check_field(region_header, sections, 96, 4 * 24);
	check_field(region_header, updated_ns, 192, 8);
	check_field(region_header, startup, 208, 8);
	check_field(region_header, startup_shared, 216, 8);
	check_field(region_header, python, 256, 64);
	check_field(region_header, command_len, 320, 4);
	check_field(region_header, command, 324, 3072);
	check_field(section_header, offset, 0, 8);
	check_field(section_header, record_size, 8, 4);
	check_field(section_header, capacity, 12, 4);
	check_field(section_header, used, 16, 4);

	check_equal(sizeof(struct mem_cgroup), 512);
	check_field(mem_cgroup, state, 0, 4);
	check_field(mem_cgroup, gen, 4, 4);
	check_field(mem_cgroup, parent, 8, 4);
	check_field(mem_cgroup, depth, 12, 4);
	check_field(mem_cgroup, objcg, 16, 4);
	check_field(mem_cgroup, nr_tasks, 20, 4);
	check_field(mem_cgroup, nr_children, 24, 4);
	check_field(mem_cgroup, nr_dying, 28, 4);
	check_field(mem_cgroup, exempt_until, 32, 8);
	check_field(mem_cgroup, uid, 40, 8);
	check_field(mem_cgroup, memory.usage, 64, 8);
	check_field(mem_cgroup, memory.max, 72, 8);
	check_field(mem_cgroup, memory.high, 80, 8);
	check_field(mem_cgroup, memory.low, 88, 8);
	check_field(mem_cgroup, memory.watermark, 96, 8);
	check_field(mem_cgroup, blocks, 104, 8);
	check_field(mem_cgroup, stat, 112, 6 * 8);
	check_field(mem_cgroup, events, 160, 5 * 8);
	check_field(mem_cgroup, objcg_head, 200, 4);
	check_field(mem_cgroup, seq, 208, 4);
	check_field(mem_cgroup, name_len, 212, 4);
	check_field(mem_cgroup, name, 256, 256);

	check_equal(sizeof(struct obj_cgroup), 64);
	check_field(obj_cgroup, state, 0, 4);
	check_field(obj_cgroup, memcg, 4, 4);
	check_field(obj_cgroup, bytes, 8, 8);

	check_equal(sizeof(struct task), 128);
	check_field(task, objcg, 0, 4);
	check_field(task, memcg, 4, 4);
	check_field(task, gen, 8, 4);
	check_field(task, state, 12, 4);
	check_field(task, id, 16, 8);
	check_field(task, name_len, 28, 4);
	check_field(task, name, 32, 64);

	check_equal(sizeof(struct cpu_record), 8256);
	check_field(cpu_record, state, 0, 4);
	check_field(cpu_record, kind, 4, 4);
	check_field(cpu_record, section, 8, 8);
	check_field(cpu_record, stocks, 64, 8192);
	check_equal(sizeof(struct stock), 64);
	check_field(stock, key, 0, 4);
	check_field(stock, bytes, 8, 8);
	check_field(stock, blocks, 16, 8);
	check_field(stock, stat, 24, 5 * 8);

	check_equal(MEMCG_FREE, 0);
	check_equal(MEMCG_ONLINE, 1);
	check_equal(MEMCG_OFFLINE, 2);
	check_equal(OBJCG_LIVE, 1);
	check_equal(OBJCG_DYING, 2);
	check_equal(TASK_LIVE, 1);
	check_equal(COUNTER_UNSET, INT64_MAX);
	check_equal(REGION_NATIVE, 1);
	check_equal(REGION_MIGRATION, 2);
	check_equal(REGION_EXITED, 4);
}

/* --- the file ------------------------------------------------------------ */

static struct stat file_stat(void)
{
	struct stat st;

	check_equal(stat(path, &st), 0);
	return st;
}

/* As another process would see it. */
static struct region_header *header_in_file(void)
{
	static union {
		struct region_header header;
		char bytes[REGION_HEADER_SIZE];
	} copy;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	check_that(fd >= 0);
	check_equal(pread(fd, &copy, sizeof(copy), 0), sizeof(copy));
	close(fd);
	return &copy.header;
}

static void the_file_is_private_sparse_and_describes_itself(void)
{
	struct region_header *header;
	struct stat st;
	uint64_t end = REGION_HEADER_SIZE;

	umask(0);
	check_equal(region_create(path, "python -m thing", "3.12.1"), 0);
	st = file_stat();
	check_equal(st.st_mode & 07777, 0600);
	check_equal(st.st_uid, geteuid());
	check_equal((size_t)st.st_size, region.size);
	check_compare(st.st_blocks * 512, <=, 1 << 16);

	header = header_in_file();
	check_equal(memcmp(header->magic, REGION_MAGIC, 8), 0);
	check_equal(header->version, 1);
	check_equal(header->header_size, 4096);
	check_equal(header->file_size, st.st_size);
	check_equal(header->pid, getpid());
	check_equal(header->uid, geteuid());
	check_compare(header->start_time, >, 0);
	check_equal(strlen(header->boot_id), 36);
	check_equal(header->command_len, strlen("python -m thing"));
	check_equal(strcmp(header->command, "python -m thing"), 0);
	check_equal(strcmp(header->python, "3.12.1"), 0);
	for (int i = 0; i < NR_SECTIONS; i++) {
		struct section_header *section = &header->sections[i];

		check_equal(section->offset % 4096, 0);
		check_compare(section->offset, >=, end);
		check_equal(load_relaxed(&section->used), 0);
		end = section->offset + (uint64_t)section->record_size * section->capacity;
	}
	check_compare(end, <=, header->file_size);
	check_compare(header->sections[SECTION_MEMCG].capacity, >=, 1000000);
}

static void a_long_command_is_cut(void)
{
	char command[10000];

	memset(command, 'c', sizeof(command) - 1);
	command[sizeof(command) - 1] = '\0';
	check_equal(region_create(path, command, command), 0);
	check_equal(region.header->command_len, 3071);
	check_equal(strlen(region.header->command), 3071);
	check_equal(strlen(region.header->python), 63);
}

static void no_file_is_overwritten_or_followed(void)
{
	char target[160];
	char long_path[5000];
	struct stat st;
	int fd = open(path, O_WRONLY | O_CREAT, 0600);

	check_equal(write(fd, "precious", 8), 8);
	close(fd);
	check_equal(region_create(path, "", ""), -EEXIST);
	check_equal(file_stat().st_size, 8);
	check_equal(unlink(path), 0);

	snprintf(target, sizeof(target), "%s-target", path);
	check_equal(symlink(target, path), 0);
	check_equal(region_create(path, "", ""), -EEXIST);
	check_equal(lstat(target, &st), -1);
	check_equal(unlink(path), 0);

	check_equal(region_create("/nonexistent/folder/file", "", ""), -ENOENT);
	memset(long_path, 'p', sizeof(long_path) - 1);
	long_path[sizeof(long_path) - 1] = '\0';
	check_equal(region_create(long_path, "", ""), -ENAMETOOLONG);
}

static void no_folder_is_used_that_is_not_ours_alone(void)
{
	char link[160];
	char through[192];

	check_equal(chmod(dir, 0750), 0);
	check_equal(region_create(path, "", ""), -EPERM);
	check_equal(chmod(dir, 0701), 0);
	check_equal(region_create(path, "", ""), -EPERM);
	check_equal(chmod(dir, 0700), 0);

	snprintf(link, sizeof(link), "%s-link", dir);
	snprintf(through, sizeof(through), "%s/1-2.region", link);
	check_equal(symlink(dir, link), 0);
	check_equal(region_create(through, "", ""), -ENOTDIR);
	check_equal(access(path, F_OK), -1);
	check_equal(region.path[0], 0);

	/* A forked child's file: the folder may be another by then. */
	check_equal(region_create(NULL, "", ""), 0);
	check_equal(region_attach_file(through), -ENOTDIR);
	check_equal(region.path[0], 0);
	check_equal(region_attach_file(path), 0);
	/* Nor is anything taken away there. */
	strcpy(region.path, through);
	region_remove_file();
	check_equal(access(path, F_OK), 0);
	strcpy(region.path, path);
	region_remove_file();
	check_equal(access(path, F_OK), -1);
	check_equal(unlink(link), 0);
}

static void anonymous_memory_has_no_path(void)
{
	check_equal(region_create(NULL, "", ""), 0);
	check_equal(region.path[0], 0);
	check_equal(region_reserve(SECTION_TASK, 1000), 0);
	check_equal(region_attach_file(path), 0);
	check_equal(strcmp(region.path, path), 0);
	check_equal(load_relaxed(&header_in_file()->sections[SECTION_TASK].used), 1000);
}

/* --- growth -------------------------------------------------------------- */

static void reserving_makes_records_usable_up_to_the_capacity(void)
{
	static const uint32_t counts[] = {1, 2, 3, 100, 101, 5000, 5001};
	long blocks;

	check_equal(region_create(path, "", ""), 0);
	for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
		check_equal(region_reserve(SECTION_MEMCG, counts[i]), 0);
		check_equal(section_used(SECTION_MEMCG), counts[i]);
		memcg_from_id(counts[i] - 1)->uid = counts[i];
	}
	for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++)
		check_equal(memcg_from_id(counts[i] - 1)->uid, counts[i]);
	check_equal(memcg_from_id(4000)->uid, 0);
	/* Fewer than there are already: nothing is taken back. */
	check_equal(region_reserve(SECTION_MEMCG, 10), 0);
	check_equal(section_used(SECTION_MEMCG), 5001);
	/* Backed by memory, and not by much more than asked for. */
	blocks = (long)file_stat().st_blocks;
	check_compare(blocks * 512, >=, 5001 * 512);
	check_compare(blocks * 512, <=, 5001 * 512 + (64 << 10));

	for (int i = 0; i < NR_SECTIONS; i++) {
		uint32_t capacity = region.header->sections[i].capacity;

		check_equal(region_reserve((enum region_section)i, capacity + 1), -ENOSPC);
		check_compare(section_used((enum region_section)i), <=, capacity);
	}
	/* To the very last record. */
	check_equal(region_reserve(SECTION_CPU, region.header->sections[SECTION_CPU].capacity), 0);
	memset(&region.cpus[region.header->sections[SECTION_CPU].capacity - 1], 1,
	       sizeof(struct cpu_record));
}

/*
 * Where builds are is a disk on most machines. What the kernel reads of the file is charged to the
 * process's cgroup, mapped or not; it would read 128 KiB around each page.
 */
static void a_disk_has_no_more_in_memory_than_is_used(void)
{
	unsigned char *resident;
	char here[] = "region-XXXXXX";
	char file[64];
	size_t pages;
	size_t n = 0;

	check_that(mkdtemp(here) != NULL);
	snprintf(file, sizeof(file), "%s/1-2.region", here);
	check_equal(region_create(file, "", ""), 0);
	for (int i = 0; i < NR_SECTIONS; i++)
		check_equal(region_reserve((enum region_section)i, 1), 0);
	memcg_from_id(0)->uid = 1;
	pages = region.size / 4096;
	resident = malloc(pages);
	check_that(resident != NULL);
	check_equal(mincore(region.header, region.size, resident), 0);
	for (size_t i = 0; i < pages; i++)
		n += resident[i] & 1;
	/* the header's page, and of each section what is backed at once */
	check_compare(n, <=, 1 + NR_SECTIONS * (64 << 10) / 4096);
	free(resident);
	check_equal(unlink(file), 0);
	check_equal(rmdir(here), 0);
}

static void a_full_file_system_is_an_error_and_no_signal(void)
{
	struct mem_cgroup *memcg;
	struct cpu *cpu;
	struct task *task;
	int err = 0;
	int nr = 0;

	if ((unshare(CLONE_NEWNS) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0) ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("tmpfs", dir, "tmpfs", 0, "size=256k,mode=700") < 0) {
		printf("cannot mount a small tmpfs here: %s; not tested\n", strerror(errno));
		return;
	}
	check_equal(kmem_init(path, "", ""), 0);
	cpu = cpu_get(0);
	check_that(cpu != NULL);
	for (;;) {
		err = memcg_create(root_memcg(), "g", 1, &memcg);
		if (err)
			break;
		task = task_alloc(memcg, &err);
		if (!task)
			break;
		release(cpu, alloc(cpu, task, 100));
		nr++;
	}
	check_equal(err, -ENOSPC);
	check_compare(nr, >, 100);
	/* What there is goes on working, and what is removed can be had again. */
	for (uint32_t id = MEMCG_ROOT + 1; id < 50; id++)
		check_equal(memcg_remove(memcg_from_id(id), true), 0);
	stock_drain_all(cpu);
	for (int i = 0; i < 10; i++)
		group_new(root_memcg());
	check_conserved();
	umount2(dir, MNT_DETACH);
}

static void a_small_address_space_gets_room_for_fewer_groups(void)
{
	struct rlimit limit = {(rlim_t)600 << 20, (rlim_t)600 << 20};

	if (UNDER_ASAN || UNDER_TSAN)
		return;
	check_equal(setrlimit(RLIMIT_AS, &limit), 0);
	check_equal(region_create(path, "", ""), 0);
	check_compare(region.size, <, 600 << 20);
	check_compare(region.header->sections[SECTION_MEMCG].capacity, >=, 4096);
	check_equal(region.header->sections[SECTION_CPU].capacity, 1024);
	check_equal((size_t)file_stat().st_size, region.size);
	check_equal(region_reserve(SECTION_MEMCG, 2000), 0);
}

/* `ulimit -v` of 2, 3, 6 and 9 GiB: it starts, and leaves the program half of that. */
static void the_core_starts_in_a_small_address_space(void)
{
	static const rlim_t gib[] = {2, 3, 6, 9};

	if (UNDER_ASAN || UNDER_TSAN)
		return;
	for (size_t i = 0; i < sizeof(gib) / sizeof(*gib); i++) {
		int status;
		pid_t pid = fork();

		if (pid == 0) {
			struct rlimit limit = {gib[i] << 30, gib[i] << 30};
			struct cpu *cpu;
			int err;
			void *half;

			check_equal(setrlimit(RLIMIT_AS, &limit), 0);
			err = kmem_init(NULL, "", "");
			if (err)
				fail_that("%d GiB: kmem_init: %s", (int)gib[i], strerror(-err));
			cpu = cpu_get(0);
			check_that(cpu != NULL);
			half = mmap(NULL, (size_t)gib[i] << 29, PROT_NONE,
				    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
			if (half == MAP_FAILED)
				fail_that("%d GiB: not half of it is left", (int)gib[i]);
			release(cpu, alloc(cpu, task_new(root_memcg()), 100));
			leave_child(0);
		}
		check_equal(waitpid(pid, &status, 0), pid);
		check_equal(status, 0);
	}
}

/* --- fork ---------------------------------------------------------------- */

static struct cpu *cpu;
static struct mem_cgroup *memcg;
static struct task *task;
enum { NR = 1000 };
static void *blocks[NR];

static void start_with_blocks(const char *where)
{
	check_equal(kmem_init(where, "", ""), 0);
	cpu = cpu_get(0);
	memcg = group_new(group_new(root_memcg()));
	task = task_new(memcg);
	for (int i = 0; i < NR; i++)
		blocks[i] = alloc(cpu, task, 16 + (size_t)(i * 37 % 20000));
}

/* As fork(2) does it under pthread_atfork. */
static pid_t fork_core(void)
{
	pid_t pid;

	kmem_fork_prepare();
	pid = fork();
	check_that(pid >= 0);
	if (pid == 0)
		kmem_fork_child();
	else
		kmem_fork_parent();
	return pid;
}

static void wait_for_child(pid_t pid)
{
	int status;

	check_equal(waitpid(pid, &status, 0), pid);
	check_equal(status, 0);
}

/* Everything of the file that is in use. */
static uint64_t hash_of_file(void)
{
	const struct region_header *header = region.header;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint64_t hash = 14695981039346656037u; /* FNV-1a */
	static unsigned char buf[1 << 16];

	check_that(fd >= 0);
	for (int i = -1; i < NR_SECTIONS; i++) {
		uint64_t at = i < 0 ? 0 : header->sections[i].offset;
		uint64_t end =
			i < 0 ? 4096
			      : at + (uint64_t)(load_relaxed(&header->sections[i].used) + 16) *
						header->sections[i].record_size;

		while (at < end) {
			size_t want = end - at < sizeof(buf) ? end - at : sizeof(buf);

			check_equal(pread(fd, buf, want, (off_t)at), want);
			for (size_t j = 0; j < want; j++)
				hash = (hash ^ buf[j]) * 1099511628211u;
			at += want;
		}
	}
	close(fd);
	return hash;
}

/* Uses everything that writes to the region. */
static void use_the_core(void)
{
	struct mem_cgroup *another = group_new(memcg);
	struct task *other = task_new(another);
	struct cpu *other_cpu = cpu_get(0);

	check_that(other_cpu != NULL);
	for (int i = 0; i < NR; i++) {
		release(i % 2 ? cpu : other_cpu, blocks[i]);
		blocks[i] = alloc(i % 3 ? cpu : other_cpu, i % 5 ? task : other,
				  16 + (size_t)(i * 53 % 30000));
	}
	check_equal(memcg_remove(another, true), 0);
	heap_collect(cpu);
	check_conserved();
	cpu_put(other_cpu);
}

static void the_child_has_a_copy_of_its_own(void)
{
	uint64_t hash;
	int64_t usage;
	char child_path[160];
	pid_t pid;

	start_with_blocks(path);
	hash = hash_of_file();
	usage = usage_of(root_memcg());
	snprintf(child_path, sizeof(child_path), "%s-child", path);
	pid = fork_core();
	if (pid == 0) {
		struct stat st;

		check_equal(region.path[0], 0);
		check_equal(region.header->pid, getpid());
		check_equal(usage_of(root_memcg()), usage);
		check_conserved();
		use_the_core();
		check_equal(region_attach_file(child_path), 0);
		check_equal(strcmp(region.path, child_path), 0);
		check_conserved();
		use_the_core();
		check_equal(stat(child_path, &st), 0);
		check_equal(st.st_mode & 07777, 0600);
		/* What it does now is in its own file. */
		strcpy(path, child_path);
		check_equal(header_in_file()->pid, getpid());
		hash = hash_of_file();
		use_the_core();
		check_that(hash_of_file() != hash);
		/* And all can be freed, to the last byte. */
		for (int i = 0; i < NR; i++)
			release(cpu, blocks[i]);
		heap_collect(cpu);
		stock_drain_all(cpu);
		check_equal(usage_of(root_memcg()), 0);
		check_equal(unlink(child_path), 0);
		leave_child(0);
	}
	wait_for_child(pid);
	check_that(hash_of_file() == hash);
	check_equal(header_in_file()->pid, getpid());
	check_equal(usage_of(root_memcg()), usage);
	use_the_core();
}

static void a_file_that_cannot_be_made_leaves_the_child_in_private_memory(void)
{
	pid_t pid;

	start_with_blocks(path);
	pid = fork_core();
	if (pid == 0) {
		check_equal(region_attach_file("/nonexistent/folder/file"), -ENOENT);
		check_equal(region_attach_file(path), -EEXIST);
		check_equal(region.path[0], 0);
		use_the_core();
		leave_child(0);
	}
	wait_for_child(pid);
	use_the_core();
}

static void a_child_of_anonymous_memory_is_exact_too(void)
{
	pid_t pid;

	start_with_blocks(NULL);
	pid = fork_core();
	if (pid == 0) {
		pid_t grandchild;

		check_equal(region.header->pid, getpid());
		use_the_core();
		check_equal(region_attach_file(path), 0);
		grandchild = fork_core();
		if (grandchild == 0) {
			check_equal(region.path[0], 0);
			use_the_core();
			leave_child(0);
		}
		wait_for_child(grandchild);
		use_the_core();
		leave_child(0);
	}
	wait_for_child(pid);
	use_the_core();
}

/*
 * Nothing makes the child run before the parent goes on: the parent may have
 * allocated, freed, made and removed groups before the child's handler begins.
 */
static void the_child_has_the_moment_of_the_fork_whatever_the_parent_does_next(void)
{
	int go[2];
	char byte = 0;
	int64_t usage;
	uint32_t groups;
	pid_t pid;

	start_with_blocks(path);
	usage = usage_of(root_memcg());
	groups = load_relaxed(&memcg->nr_children);
	check_equal(pipe(go), 0);
	kmem_fork_prepare();
	pid = fork();
	if (pid == 0) {
		check_equal(read(go[0], &byte, 1), 1);
		kmem_fork_child();
		check_equal(usage_of(root_memcg()), usage);
		check_equal(load_relaxed(&memcg->nr_children), groups);
		check_conserved();
		use_the_core();
		leave_child(0);
	}
	kmem_fork_parent();
	use_the_core();
	group_new(memcg);
	check_equal(write(go[1], &byte, 1), 1);
	wait_for_child(pid);
	check_conserved();
}

/* Without room for a second mapping the child must still not touch its parent's counters. */
static void the_child_of_a_full_address_space_does_not_write_to_its_parents_file(void)
{
	struct rlimit limit;
	FILE *statm;
	size_t pages;
	uint64_t hash;
	pid_t pid;

	if (UNDER_ASAN || UNDER_TSAN)
		return;
	start_with_blocks(path);
	hash = hash_of_file();
	statm = fopen("/proc/self/statm", "r");
	check_equal(fscanf(statm, "%zu", &pages), 1);
	fclose(statm);
	check_equal(getrlimit(RLIMIT_AS, &limit), 0);
	limit.rlim_cur = pages * 4096 + ((rlim_t)64 << 20);
	check_equal(setrlimit(RLIMIT_AS, &limit), 0);
	pid = fork_core();
	if (pid == 0) {
		use_the_core();
		leave_child(0);
	}
	wait_for_child(pid);
	check_that(hash_of_file() == hash);
	use_the_core();
}

/* --- fork beside threads ------------------------------------------------- */

static _Atomic int stop;
static _Atomic int in_section;

static void *stay_in_a_section(void *arg)
{
	struct cpu *mine = cpu_get(0);

	(void)arg;
	section_enter(mine);
	store_release(&in_section, 1);
	while (!load_acquire(&stop))
		pause_us(1000);
	section_exit(mine);
	cpu_put(mine);
	return NULL;
}

/* The thread does not exist in the child, so its section will never end there. */
static void sections_of_other_threads_are_over_in_the_child(void)
{
	pthread_t thread;
	pid_t pid;

	start_with_blocks(path);
	pthread_create(&thread, NULL, stay_in_a_section, NULL);
	while (!load_acquire(&in_section))
		sched_yield();
	pid = fork_core();
	if (pid == 0) {
		uint32_t used = section_used(SECTION_MEMCG);

		for (int i = 0; i < 100; i++)
			check_equal(memcg_remove(group_new(memcg), false), 0);
		check_compare(section_used(SECTION_MEMCG), <=, used + 1);
		leave_child(0);
	}
	wait_for_child(pid);
	store_release(&stop, 1);
	pthread_join(thread, NULL);
}

static void *get_and_put(void *arg)
{
	(void)arg;
	while (!load_acquire(&stop)) {
		struct cpu *mine = cpu_get(0);

		if (mine)
			cpu_put(mine);
	}
	return NULL;
}

/* Every lock of the core that another thread may hold at that moment. */
static void the_child_can_take_every_lock(void)
{
	pthread_t threads[2];

	start_with_blocks(path);
	for (int i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, get_and_put, NULL);
	for (int i = 0; i < (UNDER_TSAN || UNDER_ASAN ? 60 : 200); i++) {
		pid_t pid = fork_core();

		if (pid == 0) {
			struct cpu *mine;

			alarm(2);
			mine = cpu_get(0);
			check_that(mine != NULL);
			release(mine, alloc(mine, task, 100));
			release(mine, alloc(mine, task, 100000));
			check_equal(memcg_remove(group_new(memcg), false), 0);
			leave_child(0);
		}
		wait_for_child(pid);
	}
	store_release(&stop, 1);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
}

/* --- what a kernel may not have, or refuse ------------------------------- */

static int populate_fails_with;

/* The core's calls come here, and nobody else's matter. */
int madvise(void *addr, size_t len, int advice)
{
	if (advice == MADV_POPULATE_WRITE && populate_fails_with) {
		errno = populate_fails_with;
		return -1;
	}
	return (int)syscall(SYS_madvise, addr, len, advice);
}

/* Before Linux 5.14: the file is opened again by its name, and given blocks. */
static void on_an_older_kernel_the_file_is_backed_by_its_name(void)
{
	blkcnt_t before;

	populate_fails_with = EINVAL;
	start_with_blocks(path);
	before = file_stat().st_blocks;
	check_equal(region_reserve(SECTION_MEMCG, 10000), 0);
	check_compare((file_stat().st_blocks - before) * 512, >=, 10000 * 512 / 2);
	/* A file that is gone is not made anew. */
	check_equal(unlink(path), 0);
	check_equal(region_reserve(SECTION_MEMCG, 20000), 0);
	check_equal(access(path, F_OK), -1);
	use_the_core();
}

static void a_kernel_without_memory_for_the_region_is_an_error(void)
{
	start_with_blocks(path);
	populate_fails_with = ENOMEM;
	check_equal(region_reserve(SECTION_MEMCG, 10000), -ENOSPC);
	populate_fails_with = 0;
	use_the_core();
}

static void names_that_are_too_long_are_refused(void)
{
	static char name[2 * PATH_MAX];
	struct place place;

	memset(name, 'n', sizeof(name) - 1);
	check_equal(region_create(name, "", ""), -ENAMETOOLONG);
	name[sizeof(name) - 2] = '/';
	check_equal(place_open(&place, name), -ENAMETOOLONG);
	start_with_blocks(NULL);
	check_equal(region_attach_file(name), -ENAMETOOLONG);
	/* The folder of "/name" is "/", which others may read. */
	check_compare(place_open(&place, "/name"), <, 0);
}

static void go_on_in_silence(void)
{
	check_that(freopen("/dev/null", "w", stderr) != NULL);
	region_fork_child();
}

/* Into its parent's region it must not write. */
static void a_child_without_a_region_of_its_own_ends(void)
{
	struct rlimit limit;

	if (UNDER_ASAN || UNDER_TSAN)
		return; /* their shadows do not fit */
	start_with_blocks(path);
	check_equal(getrlimit(RLIMIT_AS, &limit), 0);
	check_equal(setrlimit(RLIMIT_AS, &(struct rlimit){1 << 20, limit.rlim_max}), 0);
	region_fork_prepare();
	check_equal(setrlimit(RLIMIT_AS, &limit), 0);
	check_aborts(go_on_in_silence);
	region_fork_parent();
	use_the_core();
}

int main(void)
{
	if (!mkdtemp(dir)) {
		strcpy(dir, "/tmp/objcg-test-XXXXXX");
		check_that(mkdtemp(dir) != NULL);
	}
	snprintf(path, sizeof(path), "%s/1-2.region", dir);
	RUN(the_layout_is_version_1);
	RUN(the_file_is_private_sparse_and_describes_itself);
	RUN(a_long_command_is_cut);
	RUN(no_file_is_overwritten_or_followed);
	RUN(no_folder_is_used_that_is_not_ours_alone);
	RUN(anonymous_memory_has_no_path);
	RUN(reserving_makes_records_usable_up_to_the_capacity);
	RUN(a_disk_has_no_more_in_memory_than_is_used);
	RUN(a_full_file_system_is_an_error_and_no_signal);
	RUN(a_small_address_space_gets_room_for_fewer_groups);
	RUN(the_child_has_a_copy_of_its_own);
	RUN(a_file_that_cannot_be_made_leaves_the_child_in_private_memory);
	RUN(a_child_of_anonymous_memory_is_exact_too);
	RUN(the_child_has_the_moment_of_the_fork_whatever_the_parent_does_next);
	RUN(sections_of_other_threads_are_over_in_the_child);
	RUN(the_child_can_take_every_lock);
	RUN(the_child_of_a_full_address_space_does_not_write_to_its_parents_file);
	RUN(the_core_starts_in_a_small_address_space);
	RUN(on_an_older_kernel_the_file_is_backed_by_its_name);
	RUN(a_kernel_without_memory_for_the_region_is_an_error);
	RUN(names_that_are_too_long_are_refused);
	RUN(a_child_without_a_region_of_its_own_ends);
	check_equal(rmdir(dir), 0);
	return 0;
}
