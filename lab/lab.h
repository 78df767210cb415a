/*
 * What the module of each variant offers to whoever measures it: one struct of
 * functions, `lab_ops`.  Plain C, so that all variants are loaded into one
 * process and measured in turns.  src/objcg/bench/_lab.py has the same structs.
 */
#ifndef OBJCG_LAB_H
#define OBJCG_LAB_H

#include <stddef.h>
#include <stdint.h>

#define LAB_VERSION 1u

/* Tables of the variants have room for this many; who makes more is told so. */
#define LAB_RECORDS 8192u
#define LAB_CPUS 16u
#define LAB_THREADS 8u
#define LAB_DEPTH 16u

/* What one operation is. */
enum lab_scenario {
	LAB_ALLOC,   /* one allocation; the blocks are freed afterwards, untimed */
	LAB_PAIR,    /* one allocation and its free */
	LAB_BATCHES, /* one allocation and its free; `allocations` of them, then their frees */
	LAB_FORK,    /* a task is made, allocates and frees `allocations` blocks, and ends */
	LAB_MOVE,    /* a move of the task, then `allocations`; freed afterwards, untimed */
	LAB_MOVED,   /* as LAB_PAIR, while another thread moves the task once a microsecond */
	LAB_CHARGE, /* a batch of a stock charged to the group, and uncharged: no stock, no block */
	NR_LAB_SCENARIOS,
};

struct lab_request {
	uint32_t scenario;
	uint32_t threads;     /* 1 (the caller itself), or more; each has a cpu and a task */
	uint32_t depth;	      /* of the group of the tasks: 0 is the root */
	uint32_t size;	      /* of a block, up to SLAB_SMALL_MAX */
	uint32_t allocations; /* of one operation, where the scenario says so */
	uint32_t resident;    /* not 0: the slabs' pages are brought in before the clock starts */
	uint64_t count;	      /* operations of each thread */
};

struct lab_result {
	double ns; /* of one operation: mean of the threads */
};

enum lab_flag {
	LAB_CHARGES = 1,   /* blocks are charged: the audit must find no drift */
	LAB_COUNTS = 2,	   /* references are counted: all must be given back */
	LAB_MIGRATES = 4,  /* tasks may be moved */
	LAB_TASKS = 8,	   /* there are tasks and groups at all */
	LAB_ROOT_FREE = 16 /* nothing is charged to the root */
};

struct lab_ops {
	uint32_t version;
	uint32_t flags;
	const char *name;
	const char *compiler;
	int (*init)(void); /* before all others; 0 or -errno */
	int (*run)(const struct lab_request *request, struct lab_result *result); /* 0 or -errno */
	const char *(*self_test)(void); /* NULL, or what is wrong */

	/* This variant's allocation as a function, for a task in a group at that depth. */
	int (*call_begin)(uint32_t depth);
	void (*call_end)(void);
	void *(*call_malloc)(size_t size);
	void (*call_free)(void *p);

	/* The variant `called` only: what it calls. */
	void (*set_callee)(void *(*callee_malloc)(size_t size), void (*callee_free)(void *p));
};

#endif
