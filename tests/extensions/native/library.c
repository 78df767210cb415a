/* A C library as the tests of native memory need one: it has never heard of Python. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define NR_MAX 100000

static void *held[NR_MAX];
static long nr_held;

/* Holds `nr` more blocks; returns how many it got. */
long hold(long nr, size_t size)
{
	long got = 0;

	while (got < nr && nr_held < NR_MAX && (held[nr_held] = malloc(size)) != NULL) {
		memset(held[nr_held++], 1, size);
		got++;
	}
	return got;
}

void let_go(void)
{
	while (nr_held)
		free(held[--nr_held]);
}

void *make(size_t size)
{
	void *p = malloc(size);

	return p ? memset(p, 1, size) : NULL;
}

void *resize(void *p, size_t size)
{
	return realloc(p, size);
}

void give_back(void *p)
{
	free(p);
}

/* --- threads ------------------------------------------------------------- */

static pthread_t worker;
static pthread_barrier_t barrier;
static long worker_nr;
static size_t worker_size;

static void *hold_in_thread(void *arg)
{
	hold(worker_nr, worker_size);
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier); /* the caller looks */
	hold(worker_nr, worker_size);
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	return arg;
}

/* A thread holds `nr` blocks, and `nr` more after thread_goes_on(). */
int thread_holds(long nr, size_t size)
{
	worker_nr = nr;
	worker_size = size;
	pthread_barrier_init(&barrier, NULL, 2);
	if (pthread_create(&worker, NULL, hold_in_thread, NULL))
		return -1;
	pthread_barrier_wait(&barrier);
	return 0;
}

void thread_goes_on(void)
{
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
}

void thread_ends(void)
{
	pthread_barrier_wait(&barrier);
	pthread_join(worker, NULL);
}

static void *one_block(void *arg)
{
	free(malloc(1000));
	free(arg);
	return malloc(2000);
}

int many_threads(int nr)
{
	for (int i = 0; i < nr; i++) {
		pthread_t thread;
		void *result;

		if (pthread_create(&thread, NULL, one_block, malloc(500)))
			return -1;
		pthread_join(thread, &result);
		free(result);
	}
	return 0;
}

/* --- a pool that works while others look --------------------------------- */

static volatile int stopped;
static pthread_t pool[3];

static void *churn(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	void *blocks[64] = {NULL};

	while (!stopped) {
		unsigned k = rand_r(&seed) % 64;

		free(blocks[k]);
		blocks[k] = malloc(1 + rand_r(&seed) % 5000);
		if (k == 0) {
			void *p = mmap(NULL, 20000, PROT_READ | PROT_WRITE,
				       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			if (p != MAP_FAILED)
				munmap(p, 20000);
		}
	}
	for (int k = 0; k < 64; k++)
		free(blocks[k]);
	return NULL;
}

void pool_starts(void)
{
	stopped = 0;
	for (uintptr_t i = 0; i < 3; i++)
		pthread_create(&pool[i], NULL, churn, (void *)(i + 1));
}

void pool_ends(void)
{
	stopped = 1;
	for (int i = 0; i < 3; i++)
		pthread_join(pool[i], NULL);
}

/* --- handlers of fork ------------------------------------------------------ */

static pthread_mutex_t fork_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_t forkable[2];
static volatile int forkable_stops;

/* Allocates with a lock held that the handlers take. */
static void *allocate_locked(void *arg)
{
	while (!forkable_stops) {
		pthread_mutex_lock(&fork_lock);
		for (int i = 0; i < 100; i++)
			free(malloc(1000));
		pthread_mutex_unlock(&fork_lock);
	}
	return arg;
}

static void *allocate_and_wait(void *arg)
{
	free(malloc(1000));
	while (!forkable_stops)
		usleep(100);
	return arg;
}

void workers_start(void)
{
	forkable_stops = 0;
	pthread_create(&forkable[0], NULL, allocate_locked, NULL);
	pthread_create(&forkable[1], NULL, allocate_and_wait, NULL);
}

static void workers_end(void)
{
	forkable_stops = 1;
	for (int i = 0; i < 2; i++)
		pthread_join(forkable[i], NULL);
}

static int workers_end_at_fork;

static void before_fork(void)
{
	pthread_mutex_lock(&fork_lock);
	if (!workers_end_at_fork)
		return;
	pthread_mutex_unlock(&fork_lock);
	workers_end();
	pthread_mutex_lock(&fork_lock);
}

static void after_fork(void)
{
	free(malloc(1000));
	pthread_mutex_unlock(&fork_lock);
	if (workers_end_at_fork)
		workers_start();
}

/* As libraries do that keep a pool: its lock is held during a fork, or its threads end before it. */
int handle_forks(int end)
{
	workers_end_at_fork = end;
	return pthread_atfork(before_fork, after_fork, after_fork);
}

/* --- signals ------------------------------------------------------------- */

static volatile int nr_signals;

static void count(int signal_number)
{
	(void)signal_number;
	nr_signals++;
}

/* Allocates and frees under a profiler's timer until it has rung `nr` times. */
int ring(int nr)
{
	struct itimerval often = {{0, 500}, {0, 500}};
	struct itimerval never = {{0, 0}, {0, 0}};
	struct sigaction before;
	struct sigaction action;

	memset(&action, 0, sizeof(action));
	action.sa_handler = count;
	action.sa_flags = SA_RESTART;
	sigaction(SIGPROF, &action, &before);
	setitimer(ITIMER_PROF, &often, NULL);
	for (nr_signals = 0; nr_signals < nr;) {
		void *p = malloc(3000);
		void *q = calloc(10, 100);

		p = realloc(p, 6000);
		free(q);
		free(p);
	}
	setitimer(ITIMER_PROF, &never, NULL);
	sigaction(SIGPROF, &before, NULL);
	return nr_signals;
}

/* --- vfork ---------------------------------------------------------------- */

/* The child does what it must not by the book, in its parent's memory. */
int vforks(const char *program)
{
	int status = -1;
	pid_t pid = vfork();

	if (pid == 0) {
		free(malloc(100));
		execl(program, program, (char *)NULL);
		_exit(127);
	}
	waitpid(pid, &status, 0);
	return status;
}

/* --- maps ------------------------------------------------------------------ */

void *map(size_t size)
{
	return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

void *grow(void *p, size_t old, size_t size)
{
	return mremap(p, old, size, MREMAP_MAYMOVE);
}

/* --- callbacks --------------------------------------------------------------- */

static void *call_in_thread(void *arg)
{
	void (*function)(void) = (void (*)(void))(uintptr_t)arg;

	function();
	hold(10, 100000);
	return NULL;
}

/* A thread that Python does not know calls into it, and allocates after. */
int call_from_thread(void (*function)(void))
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, call_in_thread, (void *)(uintptr_t)function))
		return -1;
	pthread_join(thread, NULL);
	return 0;
}
