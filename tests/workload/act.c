/* Puts a file into place in one of many ways and is gone: the writers that are
 * hardest to name. Static, so that each lives as shortly as can be.
 *
 *   act [fork] [refused PROGRAM] [exec PROGRAM | hand PROGRAM] HOW ARGUMENT...
 *
 * HOW is one of
 *   create PATH | append PATH           open(2), one line, exit
 *   map PATH                            changes its first byte by a shared mapping
 *   map-open PATH FIFO                  the same, and closes it when FIFO is written to
 *   map-late PATH FIFO TEXT             writes to it while it has it mapped, waits, and puts
 *                                       TEXT behind that, which moves no times
 *   uring PATH | uring-async PATH | uring-sqpoll PATH
 *                                       the same through io_uring
 *   mkdir-create DIR PATH               makes the directory first
 *   tmpfile DIR PATH                    O_TMPFILE and linkat(2)
 *   tmpfile-hand DIR PROGRAM PATH       O_TMPFILE, and PROGRAM does linkat(2)
 *   linkfd FD PATH                      what it does it with
 *   mknod PATH | open-hand FROM PROGRAM PATH   opens FROM, and PROGRAM links it
 *   rename FROM PATH | link FROM PATH | symlink FROM PATH
 *   handle DIR PATH                     opens the directory by its handle
 *   leader PATH                         the first thread ends, another creates
 *   vfork PATH PROGRAM                  a vfork child creates, then runs PROGRAM
 *   unlink-create SELF PATH             takes its own name away first
 *   memfd HOW ARGUMENT...               does HOW as a program in memory
 *   nothing
 *
 * With fork, a child does it that never calls exec. With exec, whoever did it
 * runs PROGRAM right after; with hand, PROGRAM appends to what was made. With
 * refused, an exec of PROGRAM fails before. A child's pid is told as "PID PATH", by one write(2)
 * to standard output: the spawner knows all other pids itself.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const char line[] = "line\n";

static void die(const char *what)
{
	perror(what);
	_exit(1);
}

static void tell(pid_t pid, const char *path)
{
	char text[4200];
	int length = snprintf(text, sizeof text, "%d %s\n", pid, path);
	if (write(1, text, length) != length)
		die("write");
}

static void put(int fd)
{
	if (fd < 0)
		die("open");
	if (write(fd, line, 5) != 5)
		die("write");
}

/* One entry of a ring: submitted, waited for; returns its result. */
struct ring {
	int fd;
	unsigned flags;
	unsigned *sq_tail, *sq_mask, *sq_array, *sq_flags, *cq_head, *cq_tail, *cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
};

static void ring_open(struct ring *ring, unsigned flags)
{
	struct io_uring_params p = { .flags = flags, .sq_thread_idle = 1000 };
	ring->fd = syscall(SYS_io_uring_setup, 4, &p);
	if (ring->fd < 0)
		die("io_uring_setup");
	ring->flags = flags;
	char *sq = mmap(0, p.sq_off.array + p.sq_entries * sizeof(unsigned),
			PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, IORING_OFF_SQ_RING);
	char *cq = mmap(0, p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe),
			PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, IORING_OFF_CQ_RING);
	ring->sqes = mmap(0, p.sq_entries * sizeof(struct io_uring_sqe),
			  PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, IORING_OFF_SQES);
	if (sq == MAP_FAILED || cq == MAP_FAILED || ring->sqes == MAP_FAILED)
		die("mmap");
	ring->sq_tail = (unsigned *)(sq + p.sq_off.tail);
	ring->sq_mask = (unsigned *)(sq + p.sq_off.ring_mask);
	ring->sq_array = (unsigned *)(sq + p.sq_off.array);
	ring->sq_flags = (unsigned *)(sq + p.sq_off.flags);
	ring->cq_head = (unsigned *)(cq + p.cq_off.head);
	ring->cq_tail = (unsigned *)(cq + p.cq_off.tail);
	ring->cq_mask = (unsigned *)(cq + p.cq_off.ring_mask);
	ring->cqes = (struct io_uring_cqe *)(cq + p.cq_off.cqes);
}

static int ring_do(struct ring *ring, struct io_uring_sqe sqe)
{
	unsigned tail = *ring->sq_tail, index = tail & *ring->sq_mask;
	ring->sqes[index] = sqe;
	ring->sq_array[index] = index;
	__atomic_store_n(ring->sq_tail, tail + 1, __ATOMIC_SEQ_CST);
	unsigned flags = IORING_ENTER_GETEVENTS;
	if (ring->flags & IORING_SETUP_SQPOLL)
		flags |= IORING_ENTER_SQ_WAKEUP;
	while (__atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE) == *ring->cq_head) {
		long done = syscall(SYS_io_uring_enter, ring->fd, 1, 1, flags, 0, 0);
		if (done < 0 && errno != EINTR)
			die("io_uring_enter");
	}
	int result = ring->cqes[*ring->cq_head & *ring->cq_mask].res;
	__atomic_store_n(ring->cq_head, *ring->cq_head + 1, __ATOMIC_RELEASE);
	return result;
}

static void by_ring(const char *path, unsigned setup, unsigned char flags)
{
	struct ring ring;
	ring_open(&ring, setup);
	int fd = ring_do(&ring, (struct io_uring_sqe){
		.opcode = IORING_OP_OPENAT, .flags = flags, .fd = AT_FDCWD,
		.addr = (uintptr_t)path, .len = 0600,
		.open_flags = O_CREAT | O_EXCL | O_WRONLY });
	if (fd < 0) {
		errno = -fd;
		die("open by io_uring");
	}
	int written = ring_do(&ring, (struct io_uring_sqe){
		.opcode = IORING_OP_WRITE, .flags = flags, .fd = fd,
		.addr = (uintptr_t)line, .len = 5 });
	if (written != 5)
		die("write by io_uring");
}

static void link_fd(const char *fd, const char *path)
{
	char self[64];
	snprintf(self, sizeof self, "/proc/self/fd/%s", fd);
	if (linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW))
		die("linkat");
}

/* One argument may have 128 KiB (MAX_ARG_STRLEN, execve(2)): E2BIG. */
static void be_refused(const char *program)
{
	static char large[256 * 1024];
	memset(large, 'x', sizeof large - 1);
	execl(program, program, large, NULL);
	if (errno != E2BIG)
		die("execl");
}

static void wait_for(const char *fifo)
{
	if (fifo && open(fifo, O_RDONLY) < 0)
		die("fifo");
}

static void by_mapping(const char *path, const char *fifo)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	char *text = mmap(0, 1, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (text == MAP_FAILED)
		die("mmap");
	*text ^= ' ';
	wait_for(fifo);
	if (munmap(text, 1) || close(fd))
		die("close");
}

static void by_late_mapping(const char *path, const char *fifo, const char *text)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	char *page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		die("mmap");
	*page = '#';
	if (pwrite(fd, "#", 1, 0) != 1)
		die("pwrite");
	wait_for(fifo);
	memcpy(page + 1, text, strlen(text));
	if (munmap(page, 4096) || close(fd))
		die("close");
}

static int create(const char *path)
{
	return open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
}

static pthread_t first;

static void *after_the_first(void *path)
{
	pthread_join(first, NULL);
	put(create(path));
	_exit(0);
}

static void by_handle(const char *dir, const char *path)
{
	struct {
		struct file_handle handle;
		char room[128];
	} at = { .handle.handle_bytes = 128 };
	int mount, root = open(dir, O_RDONLY | O_DIRECTORY);
	if (root < 0 || name_to_handle_at(AT_FDCWD, dir, &at.handle, &mount, 0))
		die("name_to_handle_at");
	int found = open_by_handle_at(root, &at.handle, O_RDONLY | O_DIRECTORY);
	if (found < 0)
		die("open_by_handle_at");
	put(openat(found, strrchr(path, '/') + 1, O_CREAT | O_EXCL | O_WRONLY, 0600));
}

static void in_memory(char **argv)
{
	static char text[1 << 16];
	int from = open("/proc/self/exe", O_RDONLY);
	int to = memfd_create("innocent", MFD_CLOEXEC);
	ssize_t count;
	while ((count = read(from, text, sizeof text)) > 0)
		if (write(to, text, count) != count)
			die("write");
	fexecve(to, argv, environ);
	die("fexecve");
}

/* What is left behind is the last argument that is a path in a watched place. */
static void act(char **argv)
{
	const char *how = argv[0], *a = argv[1], *b = a ? argv[2] : 0;
	char number[16];
	int fd;
	if (!strcmp(how, "create")) {
		put(create(a));
	} else if (!strcmp(how, "append")) {
		put(open(a, O_WRONLY | O_APPEND));
	} else if (!strcmp(how, "map")) {
		by_mapping(a, 0);
	} else if (!strcmp(how, "map-open")) {
		by_mapping(a, b);
	} else if (!strcmp(how, "map-late")) {
		by_late_mapping(a, b, argv[3]);
	} else if (!strcmp(how, "uring")) {
		by_ring(a, 0, 0);
	} else if (!strcmp(how, "uring-async")) {
		by_ring(a, 0, IOSQE_ASYNC);
	} else if (!strcmp(how, "uring-sqpoll")) {
		by_ring(a, IORING_SETUP_SQPOLL, 0);
	} else if (!strcmp(how, "mkdir-create")) {
		if (mkdir(a, 0700))
			die("mkdir");
		put(create(b));
	} else if (!strcmp(how, "tmpfile")) {
		fd = open(a, O_TMPFILE | O_WRONLY, 0600);
		put(fd);
		snprintf(number, sizeof number, "%d", fd);
		link_fd(number, b);
	} else if (!strcmp(how, "tmpfile-hand")) {
		fd = open(a, O_TMPFILE | O_WRONLY, 0600);
		put(fd);
		snprintf(number, sizeof number, "%d", fd);
		execl(b, b, "linkfd", number, argv[3], NULL);
		die("execl");
	} else if (!strcmp(how, "linkfd")) {
		link_fd(a, b);
	} else if (!strcmp(how, "open-hand")) {
		if (open(a, O_RDONLY | O_CLOEXEC) < 0)
			die("open");
		execl(b, b, "link", a, argv[3], NULL);
		die("execl");
	} else if (!strcmp(how, "mknod")) {
		if (mknod(a, S_IFREG | 0600, 0))
			die("mknod");
	} else if (!strcmp(how, "unlink-create")) {
		if (unlink(a))
			die("unlink");
		put(create(b));
	} else if (!strcmp(how, "memfd")) {
		in_memory(argv);
	} else if (!strcmp(how, "rename")) {
		if (rename(a, b))
			die("rename");
	} else if (!strcmp(how, "link")) {
		if (link(a, b))
			die("link");
	} else if (!strcmp(how, "symlink")) {
		if (symlink(a, b))
			die("symlink");
	} else if (!strcmp(how, "handle")) {
		by_handle(a, b);
	} else if (!strcmp(how, "leader")) {
		pthread_t second;
		first = pthread_self();
		if (pthread_create(&second, NULL, after_the_first, (void *)a))
			die("pthread_create");
		pthread_exit(NULL);
	} else if (!strcmp(how, "vfork")) {
		pid_t child = vfork();
		if (child < 0)
			die("vfork");
		if (child == 0) {
			put(create(a));
			execl(b, b, "nothing", NULL);
			_exit(1);
		}
		tell(child, a);
		int status;
		if (waitpid(child, &status, 0) != child || status)
			_exit(1);
	} else if (strcmp(how, "nothing")) {
		fprintf(stderr, "unknown: %s\n", how);
		_exit(2);
	}
}

int main(int argc, char **argv)
{
	const char *next = NULL, *hand = NULL;
	argv++;
	if (argc > 1 && !strcmp(*argv, "fork")) {
		argv++;
		pid_t child = fork();
		if (child < 0)
			die("fork");
		if (child) {
			int status;
			char **last = argv;
			while (last[1])
				last++;
			tell(child, *last);
			if (waitpid(child, &status, 0) != child || status)
				return 1;
			return 0;
		}
	}
	if (*argv && !strcmp(*argv, "refused")) {
		be_refused(argv[1]);
		argv += 2;
	}
	if (*argv && !strcmp(*argv, "exec")) {
		next = argv[1];
		argv += 2;
	} else if (*argv && !strcmp(*argv, "hand")) {
		hand = argv[1];
		argv += 2;
	}
	if (!*argv)
		return 2;
	act(argv);
	if (hand) {
		while (argv[1])
			argv++;
		execl(hand, hand, "append", *argv, NULL);
		die("execl");
	}
	if (next) {
		execl(next, next, "nothing", NULL);
		die("execl");
	}
	_exit(0);
}
