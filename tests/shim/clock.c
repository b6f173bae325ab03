/*
 * A shim between one process and its wall clock (LD_PRELOAD, Linux): what it is told is so many
 * microseconds off as stand in the file that CLOCK_OFFSET names, 8 bytes, mapped, so that they can
 * be changed while it runs. Monotonic clocks are as they are. `tests/suite/support/wall.rs` builds
 * it and sets it.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND_US 1000000

static const volatile int64_t *offset;

__attribute__((constructor)) static void set_up(void)
{
	const char *path = getenv("CLOCK_OFFSET");
	int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void *page;
	if (file < 0)
		return;
	page = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
	if (page != MAP_FAILED)
		offset = page;
	close(file);
}

int clock_gettime(clockid_t clock, struct timespec *at)
{
	int failed = syscall(SYS_clock_gettime, clock, at);
	if (!failed && offset && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
		int64_t by = *offset, us = at->tv_nsec / 1000 + by % SECOND_US;
		int64_t carry = us < 0 ? -1 : us >= SECOND_US;
		at->tv_sec += by / SECOND_US + carry;
		at->tv_nsec = at->tv_nsec % 1000 + (us - carry * SECOND_US) * 1000;
	}
	return failed;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone)
{
	struct timespec now;
	(void)zone;
	clock_gettime(CLOCK_REALTIME, &now);
	at->tv_sec = now.tv_sec;
	at->tv_usec = now.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *at)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	if (at)
		*at = now.tv_sec;
	return now.tv_sec;
}
