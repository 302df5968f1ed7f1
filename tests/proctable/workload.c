/* Programs that put a file into place without opening anything there, for
 * tests/proctable.rs. Static, so that they are as short-lived as can be.
 *
 *   workload rename|link|symlink|tmpfile SOURCE TARGET     act and exit
 *   workload fork-rename|fork-link|fork-symlink S T        a child acts, without exec
 *   workload exec-after S T PROGRAM                        rename, then exec PROGRAM
 *   workload fork-exec-after S T PROGRAM                   a child renames, then execs PROGRAM
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int act(const char *how, const char *source, const char *target)
{
	if (!strcmp(how, "rename"))
		return rename(source, target);
	if (!strcmp(how, "link"))
		return link(source, target);
	if (!strcmp(how, "symlink"))
		return symlink(source, target);
	if (!strcmp(how, "tmpfile")) {
		char self[64];
		int fd = open(source, O_TMPFILE | O_WRONLY, 0600);
		if (fd < 0 || write(fd, "key\n", 4) != 4)
			return -1;
		snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
		return linkat(AT_FDCWD, self, AT_FDCWD, target, AT_SYMLINK_FOLLOW);
	}
	return -1;
}

int main(int argc, char **argv)
{
	if (argc < 4)
		return 2;
	const char *how = argv[1];
	if (!strncmp(how, "fork-", 5)) {
		pid_t child = fork();
		if (child) {
			int status = 1;
			printf("%d\n", child);
			fflush(stdout);
			waitpid(child, &status, 0);
			return status != 0;
		}
		how += 5;
	} else {
		printf("%d\n", getpid());
		fflush(stdout);
	}
	if (!strcmp(how, "exec-after")) {
		if (argc < 5 || rename(argv[2], argv[3]))
			_exit(1);
		execl(argv[4], argv[4], NULL);
		_exit(1);
	}
	_exit(act(how, argv[2], argv[3]) != 0);
}
