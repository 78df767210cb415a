/*
 * What makes a section without a fence right.  The core's callers of
 * epoch_passed() call this instead (meson.build renames it in their files).
 *
 * Every running thread passes a full barrier in here.  A section whose store
 * we do not see after that began after it, and finds nothing that was unlinked
 * before.
 */
#define _GNU_SOURCE
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cpu.h"

bool epoch_passed_after_barrier(uint64_t stamp);

bool epoch_passed_after_barrier(uint64_t stamp)
{
	static _Atomic int registered;

	if (!load_acquire(&registered)) {
		if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0))
			return false; /* before Linux 4.14: nothing is recycled */
		store_release(&registered, 1);
	}
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0))
		return false;
	return epoch_passed(stamp);
}
