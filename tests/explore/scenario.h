/* What is explored: a few fibers with a few operations each, and what must be true of them. */
#ifndef OBJCG_EXPLORE_SCENARIO_H
#define OBJCG_EXPLORE_SCENARIO_H

/* More than any execution of a small scenario can have: its search is complete. */
#define UNBOUNDED 20u

struct scenario {
	const char *name;
	const char *about;
	void (*setup)(void); /* once; every execution begins in the state it leaves */
	struct {
		const char *name;
		void (*run)(void);
	} fibers[4];
	void (*check)(void); /* after the last fiber has finished */
	unsigned preemptions;
	unsigned delays;
};

/* Each file's, ended by one without a name. */
extern const struct scenario task_scenarios[];
extern const struct scenario charge_scenarios[];
extern const struct scenario removal_scenarios[];
extern const struct scenario slab_scenarios[];

#endif
