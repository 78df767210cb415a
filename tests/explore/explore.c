/*
 * A schedule explorer over the real core: see README.md.
 *
 * Each scenario has a process of its own, so that a crash ends one of them, and
 * the core, which can be started once, is started for each.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "access.h"
#include "kmem.h"
#include "memory.h"
#include "run.h"
#include "search.h"

#define SCHEDULE_SIZE 8192u
#define SIGNAL_STACK_SIZE ((size_t)64 << 10)
/* Of the processor's time; an execution takes some hundredths of a millisecond. */
#define TIMER_SECONDS 5

static const struct scenario *const lists[] = {
	task_scenarios,
	charge_scenarios,
	removal_scenarios,
	slab_scenarios,
};

/* What the processes of all scenarios did, in memory that they share. */
struct totals {
	uint64_t executions;
	uint64_t merged;
	uint64_t points;
	unsigned complete; /* scenarios */
};

static struct options {
	const char *scenarios; /* names with commas; NULL: all */
	const char *replay;
	int preemptions; /* -1: as the scenario says */
	int delays;
	int extra;
	bool unreduced;
} options = {.preemptions = -1, .delays = -1};

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

/* --- one scenario ----------------------------------------------------------- */

static void on_signal(int nr, siginfo_t *info, void *context)
{
	if (nr == SIGSEGV && memory_first_write(info->si_addr))
		return;
	if (run_is_on())
		explore_fail("crash: %s, address %p", strsignal(nr), info->si_addr);
	signal(nr, SIG_DFL);
	raise(nr);
}

/* A loop without an atomic operation is not seen by anybody else. */
static void on_timer(int nr)
{
	if (run_is_on() && run->nr_executions == run->nr_at_timer)
		explore_fail("no end: one execution took %d seconds", TIMER_SECONDS);
	run->nr_at_timer = run->nr_executions;
}

static void catch_signals(void)
{
	static const int signals[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};
	struct sigaction action = {.sa_sigaction = on_signal,
				   .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
	struct sigaction timer_action = {.sa_handler = on_timer,
					 .sa_flags = SA_ONSTACK | SA_NODEFER | SA_RESTART};
	struct itimerval timer = {{TIMER_SECONDS, 0}, {TIMER_SECONDS, 0}};
	stack_t stack = {.ss_sp = malloc(SIGNAL_STACK_SIZE), .ss_size = SIGNAL_STACK_SIZE};

	if (!stack.ss_sp || sigaltstack(&stack, NULL) < 0) {
		perror("explore: sigaltstack");
		exit(2);
	}
	for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++)
		sigaction(signals[i], &action, NULL);
	sigaction(SIGVTALRM, &timer_action, NULL);
	setitimer(ITIMER_VIRTUAL, &timer, NULL);
}

static void start(const struct scenario *scenario)
{
	memory_init();
	locations_init();
	search_init();
	run_init(scenario);
	if (kmem_init(NULL, "explore", "none") < 0) {
		fputs("explore: the core does not start\n", stderr);
		exit(2);
	}
	scenario->setup();
	catch_signals();
	memory_mark();
}

/* Once more with a trace: the same failure, or the explorer is at fault. */
static void report_failure(unsigned preemptions, unsigned delays)
{
	const char *name = run->scenario->name;
	char *schedule = malloc(SCHEDULE_SIZE);
	char *failure = strdup(run->failure);
	bool passed;

	if (!schedule || !failure)
		_exit(2);
	search_schedule(schedule, SCHEDULE_SIZE);
	printf("%-20s FAILED within %u preemptions, %u delayed stores\n\n    %s\n\n", name,
	       preemptions, delays, failure);
	fflush(stdout);
	run->trace = true;
	passed = search_replay(schedule);
	printf("\n    %s\n\n    explore --scenario %s --replay '%s'\n\n",
	       passed ? "NOT the same when it is replayed" : run->failure, name, schedule);
	free(schedule);
	free(failure);
}

/* All executions within two bounds, added to the totals; false if one fails. */
static bool search_within(unsigned preemptions, unsigned delays, struct counts *counts,
			  struct totals *totals)
{
	bool passed = search_all(preemptions, delays, counts);

	totals->executions += counts->executions;
	totals->merged += counts->merged;
	totals->points += counts->points;
	if (!passed)
		report_failure(preemptions, delays);
	return passed;
}

static int explore(const struct scenario *scenario, struct totals *totals)
{
	unsigned preemptions = options.preemptions < 0 ? scenario->preemptions
						       : (unsigned)options.preemptions;
	unsigned delays = options.delays < 0 ? scenario->delays : (unsigned)options.delays;
	double began = seconds();
	struct counts counts = {0};
	unsigned bound;

	preemptions += (unsigned)options.extra;
	start(scenario);
	if (options.unreduced)
		search_unreduced();
	/* The smallest bounds first: a failure has no more of either than it needs. */
	for (bound = 0;; bound++) {
		if (!search_within(bound, 0, &counts, totals))
			return 1;
		if (delays > 1 && !search_within(bound, 1, &counts, totals))
			return 1;
		if (delays && !search_within(bound, delays, &counts, totals))
			return 1;
		if (counts.complete || bound == preemptions)
			break;
	}
	totals->complete += counts.complete;
	printf("%-20s %2u %2u%c %10" PRIu64 " %10" PRIu64 " %10" PRIu64 " %12" PRIu64 " %7.2f\n",
	       scenario->name, bound, delays, counts.complete ? '*' : ' ', counts.executions,
	       counts.merged, counts.ends, counts.points, seconds() - began);
	return 0;
}

static int replay(const struct scenario *scenario)
{
	bool passed;

	start(scenario);
	run->trace = true;
	passed = search_replay(options.replay);
	printf("\n    %s\n", passed ? "nothing wrong" : run->failure);
	return !passed;
}

/* --- all of them ------------------------------------------------------------ */

static bool is_named(const char *list, const char *name)
{
	size_t length = strlen(name);

	for (const char *p = list; p; p = strchr(p, ',')) {
		p += *p == ',';
		if (strncmp(p, name, length) == 0 && (p[length] == ',' || p[length] == '\0'))
			return true;
	}
	return false;
}

static int in_child(const struct scenario *scenario, struct totals *totals)
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid < 0) {
		perror("explore: fork");
		exit(2);
	}
	if (pid == 0) {
		status = options.replay ? replay(scenario) : explore(scenario, totals);
		fflush(stdout);
		_exit(status); /* not exit(): what it would write to is write protected */
	}
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return 2;
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	printf("%-24s ended by signal %d\n", scenario->name, WTERMSIG(status));
	return 2;
}

static int run_all(void)
{
	struct totals *totals = mmap(NULL, sizeof(*totals), PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	double began = seconds();
	unsigned nr = 0;
	int failed = 0;

	if (totals == MAP_FAILED) {
		perror("explore: mmap");
		return 2;
	}
	if (!options.replay)
		printf("%-20s %2s %2s  %10s %10s %10s %12s %7s\n", "scenario", "P", "D",
		       "executions", "merged", "ends", "points", "seconds");
	for (size_t i = 0; i < sizeof(lists) / sizeof(*lists); i++) {
		for (const struct scenario *scenario = lists[i]; scenario->name; scenario++) {
			if (options.scenarios && !is_named(options.scenarios, scenario->name))
				continue;
			nr++;
			failed += in_child(scenario, totals) != 0;
		}
	}
	if (nr == 0) {
		fprintf(stderr, "explore: no scenario is named %s; --list names them\n",
			options.scenarios);
		return 2;
	}
	if (!options.replay)
		printf("%u scenarios, %u complete, %d failed; all bounds together: %" PRIu64
		       " executions, %" PRIu64 " merged, %" PRIu64 " points, %.1f s\n",
		       nr, totals->complete, failed, totals->executions, totals->merged,
		       totals->points, seconds() - began);
	return failed != 0;
}

static void list(void)
{
	for (size_t i = 0; i < sizeof(lists) / sizeof(*lists); i++)
		for (const struct scenario *scenario = lists[i]; scenario->name; scenario++)
			printf("%-24s %s\n", scenario->name, scenario->about);
}

static const char usage[] =
	"usage: explore [--list] [--scenario NAME[,NAME]] [--preemptions P] [--delays D]\n"
	"               [--extra N] [--unreduced] [--replay SCHEDULE]\n"
	"\n"
	"  --list            what there is\n"
	"  --scenario NAMES  only these\n"
	"  --preemptions P   at most so many preemptions, in place of the scenario's own bound\n"
	"  --delays D        at most so many stores that begin to wait in a store buffer\n"
	"  --extra N         N preemptions more than each scenario's own bound\n"
	"  --unreduced       every address is a point and no state is left: as many ends\n"
	"  --replay S        one execution, with a trace; S is what a failure printed\n"
	"\n"
	"Of each scenario, within P preemptions and D delayed stores (a star: there are\n"
	"no executions with more): executions that came to their end, executions that\n"
	"were left in a state known already, different ends, and points at which a fiber\n"
	"could be preempted.\n";

static int number(const char *text)
{
	char *end;
	long value = strtol(text, &end, 10);

	if (*end || end == text || value < 0 || value > 100) {
		fprintf(stderr, "explore: %s is not a number from 0 to 100\n", text);
		exit(2);
	}
	return (int)value;
}

int main(int argc, char **argv)
{
	static const struct option long_options[] = {
		{"list", no_argument, NULL, 'l'},
		{"scenario", required_argument, NULL, 's'},
		{"preemptions", required_argument, NULL, 'p'},
		{"delays", required_argument, NULL, 'd'},
		{"extra", required_argument, NULL, 'e'},
		{"replay", required_argument, NULL, 'r'},
		{"unreduced", no_argument, NULL, 'u'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	int option;

	while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		switch (option) {
		case 'l':
			list();
			return 0;
		case 's':
			options.scenarios = optarg;
			break;
		case 'p':
			options.preemptions = number(optarg);
			break;
		case 'd':
			options.delays = number(optarg);
			break;
		case 'e':
			options.extra = number(optarg);
			break;
		case 'r':
			options.replay = optarg;
			break;
		case 'u':
			options.unreduced = true;
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			fputs(usage, stderr);
			return 2;
		}
	}
	if (optind < argc || (options.replay && !options.scenarios)) {
		fputs(usage, stderr);
		return 2;
	}
	return run_all();
}
