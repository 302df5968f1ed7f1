/* Makes files at a steady pace and measures how long the alert of each takes to
 * stand in the log, until its standard input ends.
 *
 *   pace UID PREFIX LOG MILLISECONDS FAST SPAN
 *
 * Every MILLISECONDS (40 times that after FAST files) a child of user UID makes
 * PREFIX and a number, writes to it, closes it, and is gone. The parent reads the
 * log every half millisecond with real-time priority, so that it is the daemon
 * that is measured. SPAN seconds after the end what has not come is missing.
 *
 * Prints, as median/99th of a hundred/most: of all files from right before open(2), by
 * the maker's own clock, how long the alert took, and the maker until it had closed the
 * file; of the alert from then on; how late a sleeper without priority is waked
 * meanwhile; and what fdatasync(2) of a line takes there.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 200000 };

static struct key {
	double begun, opened, closed, told;
} *keys;
static struct {
	double late[MOST];
	long count;
} *sleeper, *syncer;

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void *shared(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		die("mmap");
	return memory;
}

static void rest(double milliseconds)
{
	struct timespec time = { 0, milliseconds * 1e6 };
	nanosleep(&time, NULL);
}

static pid_t start(int uid)
{
	pid_t pid = fork();
	if (pid < 0)
		die("fork");
	if (!pid) {
		/* Last, for setuid(2) takes it away. */
		if (setgid(uid) || setuid(uid) || prctl(PR_SET_PDEATHSIG, SIGKILL))
			die("setuid");
	}
	return pid;
}

static void make(int uid, const char *prefix, long number)
{
	if (start(uid))
		return;
	char path[4096];
	snprintf(path, sizeof path, "%s%ld", prefix, number);
	keys[number].begun = now();
	int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0600);
	keys[number].opened = now();
	if (fd < 0)
		die(path);
	if (write(fd, "line\n", 5) != 5)
		die("write");
	close(fd);
	keys[number].closed = now();
	_exit(0);
}

static void sleep_again_and_again(int uid)
{
	if (start(uid))
		return;
	for (;;) {
		double due = now() + 5;
		rest(5);
		long at = sleeper->count % MOST;
		sleeper->late[at] = now() - due;
		sleeper->count++;
	}
}

/* What the disk alone takes: a line that is forced to it, beside the log. */
static void sync_again_and_again(const char *log)
{
	char path[4096];
	pid_t pid = fork();
	if (pid < 0)
		die("fork");
	if (pid)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	snprintf(path, sizeof path, "%s.sync", log);
	int fd = open(path, O_CREAT | O_APPEND | O_WRONLY, 0600);
	if (fd < 0 || unlink(path))
		die(path);
	for (;;) {
		double begun = now();
		if (write(fd, "line\n", 5) != 5 || fdatasync(fd))
			die("fdatasync");
		syncer->late[syncer->count % MOST] = now() - begun;
		syncer->count++;
		rest(100);
	}
}

/* Opens the log anew when it has been rotated. */
static int follow(int log, const char *path)
{
	struct stat open_one, named;
	int fresh;
	if (fstat(log, &open_one) || stat(path, &named) || open_one.st_ino == named.st_ino)
		return log;
	if ((fresh = open(path, O_RDONLY)) < 0)
		return log;
	return fresh;
}

/* Notes which files the new lines of the log tell of. */
static void read_log(int log, const char *prefix, long made)
{
	static char text[8 << 20];
	static size_t have;
	char path[4096];
	ssize_t got;

	snprintf(path, sizeof path, "\"path\":\"%s", prefix);
	while ((got = read(log, text + have, sizeof text - 1 - have)) > 0) {
		double time = now();
		have += got;
		text[have] = 0;
		char *line = text, *end;
		while ((end = memchr(line, '\n', text + have - line))) {
			*end = 0;
			char *found = strstr(line, "\"kind\":\"alert\"") ? line : NULL;
			while (found && (found = strstr(found, path))) {
				char *rest;
				long number = strtol(found += strlen(path), &rest, 10);
				if (*rest == '"' && number < made && !keys[number].told)
					keys[number].told = time;
			}
			line = end + 1;
		}
		have -= line - text;
		memmove(text, line, have);
		if (have == sizeof text - 1)
			have = 0;
	}
}

static int compare(const void *one, const void *other)
{
	double a = *(const double *)one, b = *(const double *)other;
	return (a > b) - (a < b);
}

static void print(const char *what, double *values, long count)
{
	if (!count)
		return;
	qsort(values, count, sizeof *values, compare);
	printf("%s %.1f/%.1f/%.1f ms", what, values[count / 2], values[count * 99 / 100],
	       values[count - 1]);
}

int main(int argc, char **argv)
{
	if (argc != 7)
		return 2;
	int uid = atoi(argv[1]);
	const char *prefix = argv[2];
	double pace = atof(argv[4]), span = atof(argv[6]) * 1e3;
	long fast = atol(argv[5]);
	struct sched_param priority = { .sched_priority = 1 };

	keys = shared(MOST * sizeof *keys);
	sleeper = shared(sizeof *sleeper);
	syncer = shared(sizeof *syncer);
	sleep_again_and_again(uid);
	sync_again_and_again(argv[3]);
	if (sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &priority))
		die("sched_setscheduler");
	int log = open(argv[3], O_RDONLY);
	if (log < 0)
		die(argv[3]);
	lseek(log, 0, SEEK_END);

	long made = 0, missing = 0;
	double due = now(), end = 0;
	do {
		rest(0.5);
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		if (!end && made < MOST && now() >= due) {
			make(uid, prefix, made++);
			due += made < fast ? pace : 40 * pace;
		}
		struct pollfd input = { .fd = 0 };
		if (!end && poll(&input, 1, 0) > 0)
			end = now() + span;
		int next = follow(log, argv[3]);
		/* To the end, before the next one. */
		read_log(log, prefix, made);
		if (log != next)
			close(log);
		log = next;
		missing = 0;
		for (long number = made; end && number--;)
			missing += !keys[number].told;
	} while (!end || (missing && now() < end));

	static double told[MOST], own[MOST], since[MOST];
	long count = 0, over = 0;
	for (long number = 0; number < made; number++) {
		struct key *key = keys + number;
		if (!key->told) {
			fprintf(stderr, "%s%ld is missing: opened after %.1f ms, closed after %.1f ms\n",
				prefix, number, key->opened - key->begun, key->closed - key->begun);
			continue;
		}
		told[count] = key->told - key->begun;
		own[count] = key->closed - key->begun;
		over += told[count] > 100;
		since[count++] = key->told - key->closed;
	}
	printf("%ld made, %ld missing, %ld after 100 ms; ", made, missing, over);
	print("alert after", told, count);
	print(", maker", own, count);
	print(", alert since its end", since, count);
	print(", sleeper late by", sleeper->late, sleeper->count < MOST ? sleeper->count : MOST);
	print(", fdatasync beside the log", syncer->late, syncer->count < MOST ? syncer->count : MOST);
	printf("\n");
	return missing != 0;
}
