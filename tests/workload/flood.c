/* Does the same thing as often or as long as it can, and tells how fast.
 *
 *   flood files COUNT DIRECTORY       makes DIRECTORY/f.N
 *   flood names COUNT DIRECTORY       the same with names of 255 bytes of newlines and escapes
 *   flood dirs COUNT DIRECTORY        makes directories DIRECTORY/d.N
 *   flood deep COUNT DIRECTORY        makes directories in one another
 *   flood links COUNT FILE DIRECTORY  makes links to FILE
 *   flood swap SECONDS DIRECTORY      renames DIRECTORY/a to DIRECTORY/b and back
 *   flood away SECONDS DIRECTORY      renames DIRECTORY itself away and back
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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

int main(int argc, char **argv)
{
	if (argc < 4)
		return 2;
	const char *how = argv[1], *place = argv[argc - 1];
	long most = atol(argv[2]), count = 0;
	int timed = !strcmp(how, "swap") || !strcmp(how, "away");
	double start = now(), end = start + most;
	snprintf(name, sizeof name, "%s%s", place, timed && how[0] == 's' ? "/a" : "");
	snprintf(other, sizeof other, "%s%s", place, how[0] == 's' ? "/b" : ".away");
	if (!strcmp(how, "swap") && make(name))
		return 1;
	for (; timed ? now() < end : count < most; count++) {
		if (timed) {
			if (rename(name, other) || rename(other, name))
				return fail(name);
		} else if (!strcmp(how, "files")) {
			snprintf(name, sizeof name, "%s/f.%ld", place, count);
			if (make(name))
				return 1;
		} else if (!strcmp(how, "names")) {
			hostile(place, count);
			if (make(name))
				return 1;
		} else if (!strcmp(how, "dirs")) {
			snprintf(name, sizeof name, "%s/d.%ld", place, count);
			if (mkdir(name, 0700))
				return fail(name);
		} else if (!strcmp(how, "deep")) {
			if (!count && chdir(place))
				return fail(place);
			if (mkdir("d", 0700) || chdir("d"))
				return fail("d");
		} else if (!strcmp(how, "links")) {
			snprintf(name, sizeof name, "%s/l.%ld", place, count);
			if (link(argv[3], name))
				return fail(name);
		} else {
			return 2;
		}
	}
	printf("%s: %ld, %.0f a second\n", how, count, count / (now() - start));
	return 0;
}
