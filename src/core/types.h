/*
 * Types of the core: plain C11, nothing of Python.
 *
 * Glossary (the kernel's words, for the kernel's things):
 *
 *   mem_cgroup   a node of the tree of groups, with hierarchical counters: its
 *                usage is what its whole subtree is charged.
 *   obj_cgroup   what a block is charged to.  Every mem_cgroup has one; it
 *                outlives its group and then stands for the nearest living
 *                ancestor ("reparented").  Blocks name it by a 32 bit id.
 *   task         what allocates: it has a tagged reference to an objcg, whose
 *                low bit OBJCG_UPDATE says "look your group up again".
 *   stock        bytes that are charged to an objcg already, but used by no
 *                block yet; they make a charge a subtraction.
 *   cpu          the state that only one thread at a time may use: stocks and
 *                the slab heap.  The kernel has one per CPU, since code on a
 *                CPU excludes other code on it.  What excludes others here is
 *                a lock: under CPython all threads that share a GIL share one
 *                cpu.  A C program has one cpu per thread.
 *   slab         64 KiB of blocks of one size class, with their owners.
 *   region       the shared file that all counters live in.
 *
 * The conservation equations, which check.c recomputes and every test asserts.
 * At any quiet moment,
 *
 *   for every objcg:       objcg.bytes  = sum(bytes of its blocks) + sum(its stocks)
 *   for every mem_cgroup:  usage        = sum(objcg.bytes of the objcgs of its subtree)
 *   what users see:        current      = usage - sum(stocks of its subtree)
 *
 * Everything marked "region" below has a fixed layout (version 1): other
 * processes read it.  All references between records are indexes; index 0
 * means "none".
 */
#ifndef OBJCG_TYPES_H
#define OBJCG_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "atomic.h"

#define REGION_MAGIC "OBJCGRG1"
#define REGION_VERSION 1u
#define REGION_HEADER_SIZE 4096u

#define MEMCG_ROOT 1u
#define MEMCG_MAX (1u << 20)
#define MEMCG_DEPTH_MAX 128u
#define NAME_BYTES_MAX 255u
#define COUNTER_UNSET INT64_MAX

enum domain { DOMAIN_OBJECT, DOMAIN_MEM, DOMAIN_RAW, DOMAIN_NUMPY, DOMAIN_NATIVE, DOMAIN_MMAP };
#define NR_DOMAINS 6
/* What DOMAIN_OBJECT uses is not counted: it is usage less all the others. */
#define NR_DOMAINS_COUNTED (NR_DOMAINS - 1)

enum memcg_event { EVENT_LOW, EVENT_HIGH, EVENT_MAX, EVENT_CEILING, EVENT_RAISED };
#define NR_EVENTS 5

/* --- region: header ------------------------------------------------------ */

enum region_section { SECTION_MEMCG, SECTION_OBJCG, SECTION_TASK, SECTION_CPU };
#define NR_SECTIONS 4

struct section_header {
	uint64_t offset;
	uint32_t record_size;
	uint32_t capacity;
	_Atomic uint32_t used; /* records [0, used) may hold something */
	uint32_t pad;
};

enum region_flag { REGION_NATIVE = 1, REGION_MIGRATION = 2, REGION_EXITED = 4, REGION_AUTO = 8 };

struct region_header {
	char magic[8];
	uint32_t version;
	uint32_t header_size;
	uint64_t file_size;
	uint32_t pid;
	uint32_t uid;
	uint64_t start_time; /* field 22 of /proc/PID/stat: with pid, names one process */
	char boot_id[40];
	uint64_t created_ns;
	_Atomic uint32_t flags;
	uint32_t reserved;
	struct section_header sections[NR_SECTIONS];
	_Atomic uint64_t updated_ns; /* when a counter or the tree last changed: region_touch() */
	_Atomic uint64_t requests; /* how many other processes have made: see task_request_move() */
	uint64_t startup;	   /* bytes resident at enable(): the interpreter and its modules */
	uint64_t startup_shared;   /* of that, mapped files and shared memory */
	uint8_t spare[32];
	char python[64];
	uint32_t command_len;
	char command[3072];
};

/* --- region: mem_cgroup -------------------------------------------------- */

enum memcg_state { MEMCG_FREE, MEMCG_ONLINE, MEMCG_OFFLINE };

struct page_counter {
	_Atomic int64_t usage; /* of the subtree, stocks included */
	_Atomic int64_t max;
	_Atomic int64_t high;
	_Atomic int64_t low;
	_Atomic int64_t watermark;
};

struct mem_cgroup {
	_Atomic uint32_t state;
	_Atomic uint32_t gen; /* goes up when the record is freed */
	_Atomic uint32_t parent;
	uint32_t depth;
	_Atomic uint32_t objcg;
	_Atomic uint32_t nr_tasks;
	_Atomic uint32_t nr_children;
	_Atomic uint32_t nr_dying; /* objcgs of removed groups of the subtree */
	_Atomic int64_t exempt_until;
	uint64_t uid;
	_Atomic uint32_t flagged; /* enum memcg_flag, for the reclaimer */
	uint32_t next_free;
	uint64_t stamp; /* offline: the epoch after which nobody can hold it */

	struct page_counter memory;
	_Atomic int64_t blocks;
	_Atomic int64_t stat[NR_DOMAINS];
	_Atomic uint64_t events[NR_EVENTS];
	uint32_t objcg_head; /* its own and all inherited objcgs */
	uint32_t task_head;
	_Atomic uint32_t seq; /* odd while name, parent or state change */
	uint32_t name_len;
	_Atomic int64_t granted_until; /* above the ceiling, after a refusal */
	_Atomic int64_t wanted; /* the largest allocation refused since reclaim last looked */
	_Atomic int64_t
		lowered_from; /* the usage that max was set below of, see prepare_lowering() */
	_Atomic int64_t bounded_to; /* where the ceiling ends in any case; 0: nowhere */
	uint8_t spare[8];
	char name[256];
};

/* Why the reclaimer should look at a group. */
enum memcg_flag {
	FLAG_HIGH = 1,
	FLAG_MAX = 2,
	FLAG_CEILING = 4,
	FLAG_EMPTY = 8,
	FLAG_REFUSED = 16,
	FLAG_RAISED = 32
};

/* --- region: obj_cgroup -------------------------------------------------- */

enum objcg_state { OBJCG_FREE, OBJCG_LIVE, OBJCG_DYING };

struct obj_cgroup {
	_Atomic uint32_t state;
	_Atomic uint32_t memcg; /* nearest living group */
	_Atomic int64_t bytes;	/* blocks and stocks: the reference that keeps it alive */
	uint32_t next;		/* list of its memcg, under tree_lock */
	uint32_t prev;
	_Atomic uint32_t candidate; /* on the list of those that may be recycled */
	_Atomic uint32_t next_candidate;
	uint64_t stamp;
	uint8_t spare[24];
};

/* --- region: task -------------------------------------------------------- */

#define OBJCG_UPDATE 1u

enum task_state { TASK_FREE, TASK_LIVE };

struct task {
	union {
		struct {
			_Atomic uint32_t objcg; /* objcg id << 1 | OBJCG_UPDATE */
			_Atomic uint32_t memcg;
		};
		_Atomic uint64_t word; /* both, memcg in the upper half: what is changed */
	};
	_Atomic uint32_t gen;
	_Atomic uint32_t state;
	uint64_t id;
	uint32_t next; /* list of its memcg, or of free records, under tree_lock */
	uint32_t name_len;
	char name[64];
	uint32_t prev;
	uint32_t is_native;	  /* of a thread that C code has started: see native_thread.c */
	_Atomic uint64_t request; /* for a move, by another process: see task_request_move() */
	uint8_t spare[16];
};

/* --- region: cpu --------------------------------------------------------- */

#define NR_STOCKS 128u

struct stock {
	_Atomic uint32_t key; /* objcg id << 1: compares unequal to a reference with OBJCG_UPDATE */
	uint32_t pad;
	_Atomic int64_t bytes;
	_Atomic int64_t blocks; /* allocations less frees, not yet in the counters */
	_Atomic int64_t stat[NR_DOMAINS_COUNTED];
};

struct cpu_record {
	_Atomic uint32_t state; /* 0 free, 1 in use */
	uint32_t kind;
	_Atomic uint64_t section; /* 0, or the epoch in which it began to look at records */
	uint8_t spare[48];
	struct stock stocks[NR_STOCKS];
};

_Static_assert(sizeof(struct region_header) <= REGION_HEADER_SIZE, "header");
_Static_assert(offsetof(struct region_header, startup) == 208, "layout version 1");
_Static_assert(offsetof(struct region_header, startup_shared) == 216, "layout version 1");
_Static_assert(offsetof(struct region_header, command) == 324, "layout version 1");
_Static_assert(sizeof(struct mem_cgroup) == 512, "layout version 1");
_Static_assert(offsetof(struct mem_cgroup, memory) == 64, "layout version 1");
_Static_assert(offsetof(struct mem_cgroup, events) == 160, "layout version 1");
_Static_assert(offsetof(struct mem_cgroup, name) == 256, "layout version 1");
_Static_assert(sizeof(struct obj_cgroup) == 64, "layout version 1");
_Static_assert(sizeof(struct task) == 128, "layout version 1");
_Static_assert(offsetof(struct task, request) == 104, "layout version 1");
_Static_assert(sizeof(struct stock) == 64, "layout version 1");
_Static_assert(sizeof(struct cpu_record) == 64 + 64 * NR_STOCKS, "layout version 1");

/* --- private ------------------------------------------------------------- */

/* Largest block in a slab; larger ones are kept by large.c. */
#define SLAB_SMALL_MAX 512u
#define SLAB_BLOCK_MAX 8192u
#define SLAB_SHIFT 16
#define SLAB_SIZE ((size_t)1 << SLAB_SHIFT)
#define NR_SMALL_CLASSES 32u
#define NR_MEDIUM_CLASSES 32u
#define NR_CLASSES (NR_SMALL_CLASSES + NR_MEDIUM_CLASSES)
/* Of a slab: else the reference of the one objcg, its id << 1, that all its blocks belong to. */
#define OWNER_NONE 0u
#define OWNER_MIXED UINT32_MAX /* flagged, so no task's reference that is valid equals it */

struct heap;

/* Owner and exact size of a block above SLAB_SMALL_MAX. */
struct medium_owner {
	uint32_t objcg;
	uint16_t granules; /* charged bytes / 16 */
	uint16_t domain;
};

/*
 * A free block's link is its first word, at an address divisible by 16.  What
 * is touched with it at each allocation and free stands at 8 modulo 16: many
 * processors have a load wait for an earlier store whose address has the same
 * low 12 bits, and these never have.
 */
struct slab {
	struct slab *next; /* partial list of its class, or empty slabs */
	void *free;	   /* blocks of this slab that its cpu may hand out */
	struct slab *prev;
	_Atomic uint32_t owner; /* reference of all its blocks' objcg, or OWNER_MIXED: see vector */
	int32_t above;		/* see slab_used(): at 0 the slab changes lists */
	_Atomic(void *) vector; /* uint32_t[capacity] or struct medium_owner[capacity] */
	struct stock *stock;	/* of its cpu: see slab_stock_is_lost() */
	int16_t slow_at;	/* how many blocks are used when the slab changes lists */
	uint16_t capacity;
	uint16_t bump; /* blocks [bump, capacity) were never handed out */
	uint8_t class;
	uint8_t state;
	uint16_t block_size;
	uint16_t cpu;	     /* whose heap it is in */
	uint32_t reciprocal; /* of block_size / 16, in 2^-24 */
	/* second cache line: what other threads write, and what is seldom read */
	_Alignas(64) _Atomic(void *) remote; /* blocks freed by other cpus */
	struct slab *next_pending;	     /* while on heap->pending */
	_Atomic(struct heap *) heap;	     /* NULL: in the pool, or never used */
	uint8_t row;			     /* in which it is or was current */
	bool early;			     /* begun while another had room: see slab_of_own() */
};

/*
 * Blocks handed out, less those free; remote frees still count.  What is kept is
 * how many that is above slow_at, so that a free has nothing to compare it with.
 */
static inline int32_t slab_used(const struct slab *slab)
{
	return slab->above + slab->slow_at;
}

_Static_assert(offsetof(struct slab, free) % 16 == 8 && offsetof(struct slab, owner) % 16 == 8 &&
		       offsetof(struct slab, stock) % 16 == 8 &&
		       offsetof(struct slab, block_size) % 16 == 8,
	       "hot words are at 8 modulo 16");
_Static_assert(sizeof(struct slab) == 128, "found by a shift");

/*
 * Each class has a current slab for each row, and an objcg has the row of its id:
 * an event loop and the tasks that it runs seldom share one.  Of medium classes
 * only row 0 is used.
 */
#define NR_ROWS 8u

struct heap {
	struct slab *current[NR_ROWS][NR_CLASSES];
	struct slab *partial_head[NR_CLASSES];
	uint32_t nr_slabs;
	uint32_t nr_early;			     /* of those, with slab->early */
	uint32_t credit;			     /* see slab_of_own() */
	uint32_t nr_released;			     /* see heap_trim() */
	_Alignas(64) _Atomic(struct slab *) pending; /* slabs with remote frees */
};

struct cpu {
	struct stock *stocks; /* in the region */
	struct cpu_record *record;
	uint32_t index;
	struct heap heap;
};

#endif
