/* Runs a program many times, each in a process of its own that the next one
 * waits for, and tells "PID PATH" of each.
 *
 *   spawn COUNT PREFIX PROGRAM [ARGUMENT...]      the path PREFIX.N comes last
 *   spawn flood read SECONDS PATH                 opens PATH as fast as it can
 *   spawn flood make SECONDS PREFIX               makes PREFIX.N, and removes it
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int flood(const char *how, int seconds, const char *prefix)
{
	char name[4200];
	int make = !strcmp(how, "make");
	long count = 0;
	time_t end = time(NULL) + seconds;
	snprintf(name, sizeof name, "%s", prefix);
	for (; time(NULL) < end; count++) {
		if (make)
			snprintf(name, sizeof name, "%s.%ld", prefix, count);
		int fd = open(name, make ? O_CREAT | O_EXCL | O_WRONLY : O_RDONLY, 0600);
		if (fd < 0) {
			perror(name);
			return 1;
		}
		close(fd);
		if (make && unlink(name)) {
			perror(name);
			return 1;
		}
	}
	printf("%s: %ld a second\n", how, count / seconds);
	return 0;
}

int main(int argc, char **argv)
{
	static char path[4096];
	if (argc < 4)
		return 2;
	if (!strcmp(argv[1], "flood"))
		return argc == 5 ? flood(argv[2], atoi(argv[3]), argv[4]) : 2;
	int count = atoi(argv[1]), failed = 0;
	char **args = calloc(argc, sizeof *args);
	if (!args)
		return 1;
	for (int i = 3; i < argc; i++)
		args[i - 3] = argv[i];
	args[argc - 3] = path;
	for (int i = 0; i < count; i++) {
		snprintf(path, sizeof path, "%s.%d", argv[2], i);
		pid_t child = vfork();
		if (child < 0)
			return 1;
		if (child == 0) {
			execv(args[0], args);
			_exit(127);
		}
		printf("%d %s\n", child, path);
		int status;
		if (waitpid(child, &status, 0) != child || status)
			failed++;
	}
	return failed != 0;
}
