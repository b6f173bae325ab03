/*
 * Waits in the kernel, as one does who waits for a slow disk, and then becomes the program that it
 * was given: whoever has called vfork sleeps uninterruptibly until that child is gone.
 */
#define _GNU_SOURCE
#include <time.h>
#include <unistd.h>

int main(int many, char **words)
{
	struct timespec pause = { 3, 0 };
	if (many < 2)
		return 1;
	if (!vfork()) {
		nanosleep(&pause, NULL);
		_exit(0);
	}
	execvp(words[1], words + 1);
	return 1;
}
