/* Tries to have its files laid to somebody else, many times over.
 *
 *   adversary HOW COUNT PREFIX PROGRAM
 *
 *   thread-exec    a thread creates PREFIX.N while the first one runs PROGRAM
 *   leader-exec    the first thread creates it while another one runs PROGRAM
 *   killed         its maker is killed while it makes it
 *   close-exec     its maker closes it and runs PROGRAM at once
 *   reuse          PREFIX.N-a is made by a process of this program, PREFIX.N-b
 *                  right after by PROGRAM under the same pid, which a third
 *                  process of this program then has for a moment
 *   reuse-link     the same with link(2), from PREFIX.source
 *   args PATH      (alone) makes a file, while reading its arguments blocks
 *   forge PATH PROGRAM   (alone) says that it runs PROGRAM, and makes a file
 *
 * Tells "PID PATH" of each file that has content and "empty PID PATH" of each
 * that has none, when its maker has ended.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/sched.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char path[4096];
static const char *program;
/* Shared with the children. */
static volatile int *go;

static void die(const char *what)
{
	perror(what);
	_exit(1);
}

static void create(const char *name)
{
	int fd = open(name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
	if (fd < 0)
		die("open");
	if (write(fd, "line\n", 5) != 5)
		die("write");
	close(fd);
}

static void spin(long nanoseconds)
{
	struct timespec from, now;
	clock_gettime(CLOCK_MONOTONIC, &from);
	do
		clock_gettime(CLOCK_MONOTONIC, &now);
	while ((now.tv_sec - from.tv_sec) * 1000000000L + now.tv_nsec - from.tv_nsec < nanoseconds);
}

static void run(void)
{
	execl(program, program, "nothing", NULL);
	die("execl");
}

static long wait_time;

static void *make_it(void *unused)
{
	*go = 1;
	create(path);
	pause();
	return unused;
}

static void *run_it(void *unused)
{
	while (!*go)
		;
	spin(wait_time);
	run();
	return unused;
}

static void tell(pid_t pid, const char *name)
{
	struct stat found;
	if (stat(name, &found))
		return;
	printf("%s%d %s\n", found.st_size ? "" : "empty ", pid, name);
}

static void reap(pid_t child)
{
	int status;
	if (waitpid(child, &status, 0) != child)
		die("waitpid");
}

static pid_t with_pid(pid_t pid)
{
	struct clone_args args = {
		.exit_signal = SIGCHLD,
		.set_tid = (uintptr_t)&pid,
		.set_tid_size = 1,
	};
	return syscall(SYS_clone3, &args, sizeof args);
}

static void reuse(const char *prefix, int i, int links)
{
	static pid_t next;
	char a[4200], b[4200], source[4200];
	snprintf(a, sizeof a, "%s.%d-a", prefix, i);
	snprintf(b, sizeof b, "%s.%d-b", prefix, i);
	snprintf(source, sizeof source, "%s.source", prefix);
	if (!next) {
		FILE *file = fopen("/proc/sys/kernel/pid_max", "r");
		int most;
		if (!file || fscanf(file, "%d", &most) != 1)
			die("pid_max");
		next = most - 500 - getpid() % 1000 * 16;
	}
	pid_t first;
	do
		first = with_pid(--next);
	while (first < 0);
	if (first == 0) {
		if (!links)
			create(a);
		else if (link(source, a))
			die("link");
		_exit(0);
	}
	reap(first);
	pid_t second = with_pid(first);
	if (second == 0) {
		if (links)
			execl(program, program, "link", source, b, NULL);
		else
			execl(program, program, "create", b, NULL);
		die("execl");
	}
	/* Somebody else has got it. */
	if (second < 0) {
		unlink(a);
		return;
	}
	reap(second);
	/* A third one that never ran what the second did. */
	pid_t third = with_pid(first);
	if (third == 0)
		_exit(0);
	if (third > 0)
		reap(third);
	printf("%d %s\n%d %s\n", first, a, second, b);
}

/* Nobody will ever answer a fault of this page. */
static char *endless_page(void)
{
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	struct uffdio_api api = { .api = UFFD_API };
	char *page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) || page == MAP_FAILED)
		die("userfaultfd");
	struct uffdio_register range = {
		.range = { .start = (uintptr_t)page, .len = 4096 },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	if (ioctl(fd, UFFDIO_REGISTER, &range))
		die("UFFDIO_REGISTER");
	return page;
}

/* What /proc/self/stat says of our memory, to be said again with a change. */
static struct prctl_mm_map own_map(void)
{
	struct prctl_mm_map map = { .exe_fd = -1, .brk = (uintptr_t)sbrk(0) };
	char stat[2048] = "";
	int fd = open("/proc/self/stat", O_RDONLY);
	if (read(fd, stat, sizeof stat - 1) <= 0)
		die("/proc/self/stat");
	close(fd);
	int number = 2;
	for (char *word = strtok(strrchr(stat, ')') + 1, " "); word; word = strtok(NULL, " ")) {
		unsigned long long value = strtoull(word, NULL, 10);
		switch (++number) {
		case 26: map.start_code = value; break;
		case 27: map.end_code = value; break;
		case 28: map.start_stack = value; break;
		case 45: map.start_data = value; break;
		case 46: map.end_data = value; break;
		case 47: map.start_brk = value; break;
		case 48: map.arg_start = value; break;
		case 49: map.arg_end = value; break;
		case 50: map.env_start = value; break;
		case 51: map.env_end = value; break;
		}
	}
	return map;
}

static void say(struct prctl_mm_map *map)
{
	if (prctl(PR_SET_MM, PR_SET_MM_MAP, map, sizeof *map, 0))
		die("PR_SET_MM_MAP");
}

static void block_args(void)
{
	struct prctl_mm_map map = own_map();
	map.arg_start = (uintptr_t)endless_page();
	map.arg_end = map.arg_start + 4096;
	say(&map);
}

/* The kernel changes what /proc/PID/exe says only when nothing of the old file
 * is mapped: each part gives way to a copy of itself. */
static void forge(const char *claimed)
{
	static char text[65536], own[4096];
	int fd = open("/proc/self/maps", O_RDONLY);
	ssize_t length = 0, count;
	while ((count = read(fd, text + length, sizeof text - 1 - length)) > 0)
		length += count;
	close(fd);
	count = readlink("/proc/self/exe", own, sizeof own - 1);
	if (length <= 0 || count <= 0)
		die("/proc/self");
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
		unsigned long from, to;
		char rights[5];
		if (sscanf(line, "%lx-%lx %4s", &from, &to, rights) != 3 || !strstr(line, own))
			continue;
		int protection = (rights[0] == 'r' ? PROT_READ : 0) |
				 (rights[1] == 'w' ? PROT_WRITE : 0) |
				 (rights[2] == 'x' ? PROT_EXEC : 0);
		char *copy = mmap(0, to - from, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (copy == MAP_FAILED)
			die("mmap");
		memcpy(copy, (void *)from, to - from);
		if (mprotect(copy, to - from, protection) ||
		    mremap(copy, to - from, to - from, MREMAP_MAYMOVE | MREMAP_FIXED,
			   (void *)from) == MAP_FAILED)
			die("mremap");
	}
	struct prctl_mm_map map = own_map();
	map.exe_fd = open(claimed, O_RDONLY);
	if ((int)map.exe_fd < 0)
		die(claimed);
	say(&map);
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "args")) {
		block_args();
		create(argv[2]);
		/* Until it is killed. */
		pause();
		return 0;
	}
	if (argc == 4 && !strcmp(argv[1], "forge")) {
		forge(argv[3]);
		create(argv[2]);
		return 0;
	}
	if (argc != 5)
		return 2;
	const char *how = argv[1], *prefix = argv[3];
	int count = atoi(argv[2]);
	program = argv[4];
	go = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (go == MAP_FAILED)
		die("mmap");
	srandom(getpid());
	for (int i = 0; i < count; i++) {
		if (!strncmp(how, "reuse", 5)) {
			reuse(prefix, i, !strcmp(how, "reuse-link"));
			continue;
		}
		snprintf(path, sizeof path, "%s.%d", prefix, i);
		*go = 0;
		wait_time = random() % 300000;
		fflush(stdout);
		pid_t child = fork();
		if (child < 0)
			die("fork");
		if (child == 0) {
			pthread_t other;
			if (!strcmp(how, "thread-exec")) {
				pthread_create(&other, NULL, make_it, NULL);
				run_it(NULL);
			} else if (!strcmp(how, "leader-exec")) {
				pthread_create(&other, NULL, run_it, NULL);
				make_it(NULL);
			} else if (!strcmp(how, "killed")) {
				make_it(NULL);
			} else if (!strcmp(how, "close-exec")) {
				create(path);
				run();
			}
			_exit(2);
		}
		if (!strcmp(how, "killed")) {
			while (!*go)
				;
			spin(wait_time);
			kill(child, SIGKILL);
		}
		reap(child);
		tell(child, path);
	}
	return 0;
}
