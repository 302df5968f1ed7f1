/* Runs a program many times, each in a process of its own that the next one
 * waits for, and tells "PID PATH" of each.
 *
 *   spawn COUNT PREFIX PROGRAM [ARGUMENT...]      the path PREFIX.N comes last
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	static char path[4096];
	if (argc < 4)
		return 2;
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
