#define _GNU_SOURCE
#include "fiber.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#define STACK_SIZE ((size_t)128 << 10)
#define STACKS_SIZE (FIBERS_MAX * STACK_SIZE)

static struct fibers {
	char *stacks;
	void (*body)(void);
	unsigned making;
	ucontext_t context[FIBERS_MAX];
	ucontext_t main;
	jmp_buf start[FIBERS_MAX];
	jmp_buf at[FIBERS_MAX];
} *fibers;

/*
 * The only way onto a new stack is a context; from then on the cheaper jumps
 * do.  The place of the first one is kept, and each execution begins there.
 */
static void on_stack(void)
{
	if (_setjmp(fibers->start[fibers->making]) == 0)
		setcontext(&fibers->main);
	fibers->body();
	abort();
}

void fibers_init(void (*body)(void))
{
	volatile unsigned i;

	fibers = calloc(1, sizeof(*fibers));
	if (!fibers) {
		perror("explore: fibers");
		exit(2);
	}
	fibers->body = body;
	fibers->stacks = mmap(NULL, STACKS_SIZE, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	if (fibers->stacks == MAP_FAILED) {
		perror("explore: stacks");
		exit(2);
	}
	for (i = 0; i < FIBERS_MAX; i++) {
		volatile bool made = false;

		fibers->making = i;
		getcontext(&fibers->context[i]);
		fibers->context[i].uc_stack.ss_sp = fibers->stacks + i * STACK_SIZE;
		fibers->context[i].uc_stack.ss_size = STACK_SIZE;
		makecontext(&fibers->context[i], on_stack, 0);
		getcontext(&fibers->main);
		if (!made) {
			made = true;
			setcontext(&fibers->context[i]);
		}
	}
	fibers_rewind();
}

void fibers_rewind(void)
{
	memcpy(fibers->at, fibers->start, sizeof(fibers->at));
}

void fiber_enter(unsigned to)
{
	_longjmp(fibers->at[to], 1);
}

void fiber_switch(unsigned from, unsigned to)
{
	if (_setjmp(fibers->at[from]) == 0)
		_longjmp(fibers->at[to], 1);
}

bool fiber_has(const void *address)
{
	return (size_t)((const char *)address - fibers->stacks) < STACKS_SIZE;
}
