/* Takes all marks off the fanotify groups of a process, as somebody would who
 * wants it blind: flush PID */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	char path[64], name[400], link[64];
	int pidfd = argc == 2 ? syscall(SYS_pidfd_open, atoi(argv[1]), 0) : -1;
	int flushed = 0;

	snprintf(path, sizeof path, "/proc/%s/fd", argc == 2 ? argv[1] : "");
	DIR *dir = opendir(path);
	if (pidfd < 0 || !dir) {
		perror("flush");
		return 1;
	}
	for (struct dirent *entry; (entry = readdir(dir));) {
		snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
		ssize_t length = readlink(name, link, sizeof link - 1);
		if (length < 0)
			continue;
		link[length] = 0;
		if (strcmp(link, "anon_inode:[fanotify]"))
			continue;
		int group = syscall(SYS_pidfd_getfd, pidfd, atoi(entry->d_name), 0);
		if (group >= 0 &&
		    !fanotify_mark(group, FAN_MARK_FLUSH, 0, AT_FDCWD, NULL))
			flushed++;
	}
	printf("%d\n", flushed);
	return flushed ? 0 : 1;
}
