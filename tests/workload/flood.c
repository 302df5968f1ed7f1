/* Does the same thing as often or as long as it can, and tells how fast.
 *
 *   flood files COUNT DIRECTORY       makes DIRECTORY/f.N
 *   flood names COUNT DIRECTORY       the same with names of 255 bytes of newlines and escapes
 *   flood dirs COUNT DIRECTORY        makes directories DIRECTORY/d.N
 *   flood deep COUNT DIRECTORY        makes directories in one another
 *   flood links COUNT FILE DIRECTORY  makes links to FILE
 *   flood swap SECONDS DIRECTORY      renames DIRECTORY/a to DIRECTORY/b and back
 *   flood away SECONDS DIRECTORY      renames DIRECTORY itself away and back
 *   flood open SECONDS FILE           opens FILE and closes it
 *   flood creat SECONDS DIRECTORY     the same with O_CREAT, of a new file and an old one by turns
 *   flood by PROCESSES HOW ...        does HOW (not deep or away) by several processes at once
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char name[PATH_MAX + 512], other[PATH_MAX + 512];

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static int fail(const char *what)
{
	perror(what);
	return 1;
}

static int make(const char *path)
{
	int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0600);
	if (fd < 0)
		return fail(path);
	close(fd);
	return 0;
}

static void hostile(const char *directory, long number)
{
	int at = snprintf(name, sizeof name, "%s/%ld", directory, number);
	int end = strlen(directory) + 1 + 255;
	while (at < end) {
		name[at] = "\n\033[2J\r\t\xff\x1b]0;"[at % 12];
		at++;
	}
	name[at] = 0;
}

static int open_and_close(const char *path, int flags)
{
	int fd = open(path, flags, 0600);
	if (fd < 0)
		return fail(path);
	close(fd);
	return 0;
}

/* The part of this process; every name of its own ends with a number of its own. */
static int flood(int argc, char **argv, int part, int parts, long *done)
{
	const char *how = argv[1], *place = argv[argc - 1];
	long most = atol(argv[2]), count = 0;
	const char *timed_ones[] = { "swap", "away", "open", "creat" };
	int timed = 0;
	for (int at = 0; at < 4; at++)
		timed |= !strcmp(how, timed_ones[at]);
	int swap = !strcmp(how, "swap");
	double end = now() + most;
	snprintf(name, sizeof name, swap ? "%s/a.%d" : "%s", place, part);
	snprintf(other, sizeof other, swap ? "%s/b.%d" : "%s.away", place, part);
	if (swap && make(name))
		return 1;
	for (; timed ? now() < end : count < most; count++) {
		long number = count * parts + part;
		if (swap || !strcmp(how, "away")) {
			if (rename(name, other) || rename(other, name))
				return fail(name);
		} else if (!strcmp(how, "open")) {
			if (open_and_close(place, O_RDONLY))
				return 1;
		} else if (!strcmp(how, "creat")) {
			snprintf(name, sizeof name, "%s/c.%d.%ld", place, part, count / 2);
			if (open_and_close(name, O_CREAT | O_WRONLY))
				return 1;
		} else if (!strcmp(how, "files")) {
			snprintf(name, sizeof name, "%s/f.%ld", place, number);
			if (make(name))
				return 1;
		} else if (!strcmp(how, "names")) {
			hostile(place, number);
			if (make(name))
				return 1;
		} else if (!strcmp(how, "dirs")) {
			snprintf(name, sizeof name, "%s/d.%ld", place, number);
			if (mkdir(name, 0700))
				return fail(name);
		} else if (!strcmp(how, "deep")) {
			if (!count && chdir(place))
				return fail(place);
			if (mkdir("d", 0700) || chdir("d"))
				return fail("d");
		} else if (!strcmp(how, "links")) {
			snprintf(name, sizeof name, "%s/l.%ld", place, number);
			if (link(argv[3], name))
				return fail(name);
		} else {
			return 2;
		}
	}
	*done = count;
	return 0;
}

int main(int argc, char **argv)
{
	int parts = 1, failed = 0;
	if (argc > 3 && !strcmp(argv[1], "by")) {
		parts = atoi(argv[2]);
		argc -= 2;
		argv += 2;
	}
	if (argc < 4 || parts < 1)
		return 2;
	long *done = mmap(NULL, parts * sizeof *done, PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS, -1, 0), count = 0;
	if (done == MAP_FAILED)
		return fail("mmap");
	double start = now();
	for (int part = 1; part < parts; part++) {
		pid_t pid = fork();
		if (pid < 0)
			return fail("fork");
		if (!pid)
			_exit(flood(argc, argv, part, parts, done + part));
	}
	failed = flood(argc, argv, 0, parts, done);
	for (int part = 1, status; part < parts; part++)
		failed |= wait(&status) < 0 || status;
	if (failed)
		return 1;
	for (int part = 0; part < parts; part++)
		count += done[part];
	printf("%s by %d: %ld, %.0f a second\n", argv[1], parts, count, count / (now() - start));
	return 0;
}
