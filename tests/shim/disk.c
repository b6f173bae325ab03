/*
 * A shim between one process, its children and their disk (LD_PRELOAD, Linux): it sees every call
 * that changes what stands below one directory, can write it down, and can let it go wrong.
 * `tests/suite/support/shim.rs` builds it, sets it up and reads its record.
 *
 *   SHIM_ROOT     the directory, as the process names it
 *   SHIM_ONLY     faults and counting only where the path contains this; the record has everything
 *   SHIM_SINCE    counting begins with the first call whose path (a new name, too) contains this
 *   SHIM_RECORD   where the record goes: what was done, in order
 *   SHIM_KILL     "N" or "N:after": SIGKILL before, or right after, the Nth counted call
 *   SHIM_FAIL     "sync:N", "write:N": the Nth of its kind fails with EIO; "…:N+" from then on
 *   SHIM_DELAY    every sync takes so many milliseconds longer
 *   SHIM_FORGET   any value: fsync and fdatasync are done, but not recorded
 *   SHIM_CONTROL  a directory of switches that work while they exist: `hold` (syncs wait), `quota`
 *                 (holds a number: as many bytes have room below the root, beyond it is ENOSPC;
 *                 "N user": a user's quota, beyond it is EDQUOT, and free space does not tell)
 *
 * Not seen: memory maps, io_uring, copy_file_range, and system calls that do not go through libc. The
 * tests compare the directory with the record, so that nothing can be overlooked in silence.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* What an entry takes beside its bytes. */
#define ENTRY_BYTES 4096

enum fault { NAME, WRITE, SYNC, KINDS };

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static const char *only, *since, *control;
static int record = -1, forget, kill_after, fail_on;
static long kill_at, delay_ms, fail_at[KINDS], count, count_of[KINDS];
static uint64_t syncs;

__attribute__((constructor)) static void set_up(void)
{
	const char *text = getenv("SHIM_ROOT");
	if (!text || strlen(text) >= sizeof root)
		return;
	strcpy(root, text);
	only = getenv("SHIM_ONLY");
	since = getenv("SHIM_SINCE");
	control = getenv("SHIM_CONTROL");
	forget = getenv("SHIM_FORGET") != NULL;
	if ((text = getenv("SHIM_DELAY")))
		delay_ms = atol(text);
	if ((text = getenv("SHIM_KILL"))) {
		kill_at = atol(text);
		kill_after = strstr(text, ":after") != NULL;
	}
	if ((text = getenv("SHIM_FAIL"))) {
		fail_at[strncmp(text, "sync:", 5) ? WRITE : SYNC] = atol(strchr(text, ':') + 1);
		fail_on = strchr(text, '+') != NULL;
	}
	if ((text = getenv("SHIM_RECORD")))
		record = syscall(SYS_openat, AT_FDCWD, text,
				 O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	syncs = (uint64_t)getpid() << 32;
	/* A child of the process is recorded as it is, and spared the faults. */
	unsetenv("SHIM_CONTROL");
	unsetenv("SHIM_DELAY");
	unsetenv("SHIM_KILL");
	unsetenv("SHIM_FAIL");
}

/* Paths */

static int below(const char *path)
{
	size_t length = strlen(root);
	return length && !strncmp(path, root, length) && (path[length] == '/' || !path[length]);
}

static int path_of(int fd, char *path)
{
	char link[64];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t length = readlink(link, path, PATH_MAX - 1);
	path[length > 0 ? length : 0] = 0;
	return length > 0 && below(path);
}

static int path_at(int dir, const char *name, char *path)
{
	path[0] = 0;
	if (!root[0])
		return 0;
	if (name[0] != '/') {
		if (dir == AT_FDCWD ? !getcwd(path, PATH_MAX) : (path_of(dir, path), !path[0]))
			return 0;
		strncat(path, "/", PATH_MAX - strlen(path) - 1);
	}
	strncat(path, name, PATH_MAX - strlen(path) - 1);
	return below(path);
}

static uint64_t inode_at(const char *path)
{
	struct stat found;
	return fstatat(AT_FDCWD, path, &found, AT_SYMLINK_NOFOLLOW) ? 0 : found.st_ino;
}

static const char *name_in(const char *path)
{
	return strrchr(path, '/') + 1;
}

static uint64_t parent_of(const char *path)
{
	char parent[PATH_MAX];
	strcpy(parent, path);
	*strrchr(parent, '/') = 0;
	return inode_at(parent);
}

/* The record: size of the text, kind, three numbers, text. */

static void note(char kind, uint64_t a, uint64_t b, uint64_t c, const void *text, size_t size)
{
	struct { uint32_t size, kind; uint64_t numbers[3]; } head = { size, kind, { a, b, c } };
	struct iovec parts[2] = { { &head, sizeof head }, { (void *)text, size } };
	if (record >= 0 && syscall(SYS_writev, record, parts, 2) != (long)(sizeof head + size))
		abort();
}

/* Faults */

static void die(void)
{
	syscall(SYS_kill, getpid(), SIGKILL);
	for (;;)
		pause();
}

static int concerns(const char *path)
{
	return !only || strstr(path, only);
}

/* Counts a call; kills, or says with which error it shall fail. */
static int before(enum fault kind, const char *path, long *number)
{
	*number = 0;
	if (since && strstr(path, since))
		since = NULL;
	if (since || !concerns(path))
		return 0;
	*number = ++count;
	if (*number == kill_at && !kill_after)
		die();
	long of_kind = ++count_of[kind], at = fail_at[kind];
	return at && (of_kind == at || (fail_on && of_kind > at)) ? EIO : 0;
}

static void after(long number)
{
	if (number && number == kill_at && kill_after)
		die();
}

static int is_switched(const char *name, char *content, size_t size)
{
	char path[PATH_MAX];
	if (!control || snprintf(path, sizeof path, "%s/%s", control, name) >= PATH_MAX)
		return 0;
	int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	ssize_t length = read(fd, content, size - 1);
	content[length > 0 ? length : 0] = 0;
	close(fd);
	return 1;
}

static uint64_t bytes_below(const char *dir)
{
	uint64_t sum = 0;
	DIR *entries = opendir(dir);
	for (struct dirent *entry; entries && (entry = readdir(entries));) {
		char path[PATH_MAX];
		struct stat found;
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") ||
		    snprintf(path, sizeof path, "%s/%s", dir, entry->d_name) >= PATH_MAX ||
		    fstatat(AT_FDCWD, path, &found, AT_SYMLINK_NOFOLLOW))
			continue;
		sum += ENTRY_BYTES + (S_ISDIR(found.st_mode) ? bytes_below(path) : (uint64_t)found.st_size);
	}
	if (entries)
		closedir(entries);
	return sum;
}

/* Room below the root while there is a quota, and what is said beyond it; 0: there is none. */
static int is_bounded(uint64_t *room)
{
	char text[32];
	if (!is_switched("quota", text, sizeof text))
		return 0;
	uint64_t quota = strtoull(text, NULL, 10), used = bytes_below(root);
	*room = used < quota ? quota - used : 0;
	return strstr(text, "user") ? EDQUOT : ENOSPC;
}

/* 0, or why so many bytes do not fit. */
static int no_room(uint64_t bytes)
{
	uint64_t room;
	int error = bytes ? is_bounded(&room) : 0;
	return error && bytes > room ? error : 0;
}

/* Files */

static long do_open(int dir, const char *name, int flags, mode_t mode)
{
	char path[PATH_MAX];
	if (!(flags & (O_CREAT | O_TRUNC)) || (flags & O_TMPFILE) == O_TMPFILE ||
	    !path_at(dir, name, path))
		return syscall(SYS_openat, dir, name, flags, mode);
	pthread_mutex_lock(&turn);
	uint64_t known = inode_at(path);
	long number = 0, fd = -1;
	int changes = (flags & O_TRUNC) || !known;
	int error = changes ? before(NAME, path, &number) : 0;
	if (!error && !known)
		error = no_room(ENTRY_BYTES);
	if (!error)
		fd = syscall(SYS_openat, dir, name, flags, mode);
	if (fd >= 0 && !known)
		note('C', parent_of(path), inode_at(path), 0, name_in(path), strlen(name_in(path)));
	else if (fd >= 0 && changes)
		note('T', known, 0, 0, NULL, 0);
	int saved = error ? error : errno;
	after(number);
	pthread_mutex_unlock(&turn);
	errno = saved;
	return fd;
}

static mode_t mode_in(int flags, va_list rest)
{
	int made = flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE;
	return made ? va_arg(rest, mode_t) : 0;
}

int open(const char *name, int flags, ...)
{
	va_list rest;
	va_start(rest, flags);
	mode_t mode = mode_in(flags, rest);
	va_end(rest);
	return do_open(AT_FDCWD, name, flags, mode);
}

int openat(int dir, const char *name, int flags, ...)
{
	va_list rest;
	va_start(rest, flags);
	mode_t mode = mode_in(flags, rest);
	va_end(rest);
	return do_open(dir, name, flags, mode);
}

int open64(const char *, int, ...) __attribute__((alias("open")));
int openat64(int, const char *, int, ...) __attribute__((alias("openat")));

/* `at` < 0: where the file stands. */
static ssize_t do_write(int fd, const struct iovec *parts, int many, off_t at)
{
	char path[PATH_MAX];
	if (!root[0] || !path_of(fd, path))
		return at < 0 ? syscall(SYS_writev, fd, parts, many)
			      : syscall(SYS_pwritev, fd, parts, many, at, 0);
	pthread_mutex_lock(&turn);
	struct stat found = { 0 };
	fstat(fd, &found);
	uint64_t size = 0, from = at;
	for (int i = 0; i < many; i++)
		size += parts[i].iov_len;
	if (at < 0)
		from = fcntl(fd, F_GETFL) & O_APPEND ? found.st_size : lseek(fd, 0, SEEK_CUR);
	long number, wrote = -1;
	int error = before(WRITE, path, &number);
	if (!error && from + size > (uint64_t)found.st_size)
		error = no_room(from + size - found.st_size);
	if (!error)
		wrote = at < 0 ? syscall(SYS_writev, fd, parts, many)
			       : syscall(SYS_pwritev, fd, parts, many, at, 0);
	int saved = error ? error : errno;
	char *text = wrote > 0 && record >= 0 ? malloc(size) : NULL;
	if (text) {
		uint64_t filled = 0;
		for (int i = 0; i < many; filled += parts[i++].iov_len)
			memcpy(text + filled, parts[i].iov_base, parts[i].iov_len);
		note('W', found.st_ino, from, 0, text, wrote);
		free(text);
	}
	after(number);
	pthread_mutex_unlock(&turn);
	errno = saved;
	return wrote;
}

ssize_t write(int fd, const void *bytes, size_t size)
{
	struct iovec part = { (void *)bytes, size };
	return do_write(fd, &part, 1, -1);
}

ssize_t writev(int fd, const struct iovec *parts, int many)
{
	return do_write(fd, parts, many, -1);
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t at)
{
	struct iovec part = { (void *)bytes, size };
	return do_write(fd, &part, 1, at);
}

int ftruncate64(int fd, off64_t size)
{
	char path[PATH_MAX];
	if (!root[0] || !path_of(fd, path))
		return syscall(SYS_ftruncate, fd, size);
	pthread_mutex_lock(&turn);
	struct stat found = { 0 };
	fstat(fd, &found);
	long number, done = -1;
	int error = before(WRITE, path, &number);
	if (!error && !(done = syscall(SYS_ftruncate, fd, size)))
		note('T', found.st_ino, size, 0, NULL, 0);
	int saved = error ? error : errno;
	after(number);
	pthread_mutex_unlock(&turn);
	errno = saved;
	return done;
}

/* Syncs. What was recorded before 'S' is on disk from its 'E' on; 'F' dooms it. */

static int do_sync(int fd, long call)
{
	char path[PATH_MAX], content[8];
	if (!root[0] || !path_of(fd, path))
		return syscall(call, fd);
	struct stat found = { 0 };
	fstat(fd, &found);
	pthread_mutex_lock(&turn);
	long number;
	int error = before(SYNC, path, &number);
	uint64_t id = ++syncs;
	if (!forget)
		note('S', found.st_ino, id, 0, NULL, 0);
	pthread_mutex_unlock(&turn);
	struct timespec pause = { delay_ms / 1000, delay_ms % 1000 * 1000000 };
	if (delay_ms && concerns(path))
		nanosleep(&pause, NULL);
	pause = (struct timespec){ 0, 1000000 };
	while (concerns(path) && is_switched("hold", content, sizeof content))
		nanosleep(&pause, NULL);
	int done = error ? -1 : syscall(call, fd);
	int saved = error ? error : errno;
	pthread_mutex_lock(&turn);
	if (!forget)
		note(done ? 'F' : 'E', found.st_ino, id, 0, NULL, 0);
	after(number);
	pthread_mutex_unlock(&turn);
	errno = saved;
	return done;
}

int fsync(int fd)
{
	return do_sync(fd, SYS_fsync);
}

int fdatasync(int fd)
{
	return do_sync(fd, SYS_fdatasync);
}

/* Promises nothing to anybody who loses power: counted, and not recorded. */
int sync_file_range(int fd, off64_t from, off64_t length, unsigned flags)
{
	char path[PATH_MAX];
	if (root[0] && path_of(fd, path)) {
		pthread_mutex_lock(&turn);
		long number;
		int error = before(NAME, path, &number);
		after(number);
		pthread_mutex_unlock(&turn);
		if (error)
			return errno = error, -1;
	}
	return syscall(SYS_sync_file_range, fd, from, length, flags);
}

/* Names */

static int do_remove(int dir, const char *name, int flags)
{
	char path[PATH_MAX];
	if (!path_at(dir, name, path))
		return syscall(SYS_unlinkat, dir, name, flags);
	pthread_mutex_lock(&turn);
	long number;
	int done = -1, error = before(NAME, path, &number);
	if (!error && !(done = syscall(SYS_unlinkat, dir, name, flags)))
		note('U', parent_of(path), 0, 0, name_in(path), strlen(name_in(path)));
	int saved = error ? error : errno;
	after(number);
	pthread_mutex_unlock(&turn);
	errno = saved;
	return done;
}

int unlink(const char *name)
{
	return do_remove(AT_FDCWD, name, 0);
}

int unlinkat(int dir, const char *name, int flags)
{
	return do_remove(dir, name, flags);
}

int rmdir(const char *name)
{
	return do_remove(AT_FDCWD, name, AT_REMOVEDIR);
}

int mkdirat(int dir, const char *name, mode_t mode)
{
	char path[PATH_MAX];
	if (!path_at(dir, name, path))
		return syscall(SYS_mkdirat, dir, name, mode);
	pthread_mutex_lock(&turn);
	long number;
	int done = -1, error = before(NAME, path, &number);
	if (!error && !inode_at(path))
		error = no_room(ENTRY_BYTES);
	if (!error && !(done = syscall(SYS_mkdirat, dir, name, mode)))
		note('M', parent_of(path), inode_at(path), 0, name_in(path), strlen(name_in(path)));
	int saved = error ? error : errno;
	after(number);
	pthread_mutex_unlock(&turn);
	errno = saved;
	return done;
}

int mkdir(const char *name, mode_t mode)
{
	return mkdirat(AT_FDCWD, name, mode);
}

int renameat2(int dir, const char *name, int to_dir, const char *to_name, unsigned flags)
{
	char path[PATH_MAX], to[PATH_MAX], names[2 * NAME_MAX + 2];
	int from_here = path_at(dir, name, path), to_here = path_at(to_dir, to_name, to);
	if (!from_here || !to_here)
		return syscall(SYS_renameat2, dir, name, to_dir, to_name, flags);
	pthread_mutex_lock(&turn);
	long number;
	if (since && strstr(to, since))
		since = NULL;
	int done = -1, error = before(NAME, path, &number);
	if (!error && !(done = syscall(SYS_renameat2, dir, name, to_dir, to_name, flags))) {
		int length = snprintf(names, sizeof names, "%s/%s", name_in(path), name_in(to));
		note('R', parent_of(path), parent_of(to), 0, names, length);
	}
	int saved = error ? error : errno;
	after(number);
	pthread_mutex_unlock(&turn);
	errno = saved;
	return done;
}

int renameat(int dir, const char *name, int to_dir, const char *to_name)
{
	return renameat2(dir, name, to_dir, to_name, 0);
}

int rename(const char *name, const char *to)
{
	return renameat2(AT_FDCWD, name, AT_FDCWD, to, 0);
}

/* Free space, as far as the quota says. */

static void bound(struct statvfs *found)
{
	uint64_t room;
	if (is_bounded(&room) == ENOSPC)
		found->f_bfree = found->f_bavail = room / (found->f_frsize ? found->f_frsize : 1);
}

int statvfs64(const char *path, struct statvfs64 *found)
{
	int fd = syscall(SYS_openat, AT_FDCWD, path, O_PATH | O_CLOEXEC);
	if (fd < 0)
		return -1;
	int done = fstatvfs(fd, (struct statvfs *)found);
	close(fd);
	if (!done && below(path))
		bound((struct statvfs *)found);
	return done;
}

int statvfs(const char *, struct statvfs *) __attribute__((alias("statvfs64")));
