/* A process whose memory cannot be looked at: whoever reads its arguments waits
 * for as long as it likes. It mounts a file system of its own (FUSE) whose
 * server never finishes a write, dirties a page of a file there, and maps
 * something else in its place: the kernel waits for the server while it
 * keeps the lock of the process's memory (mmap_lock), which a reader of
 * /proc/PID/cmdline needs.
 *
 *   stall DIR PATH     then makes PATH, and waits to be killed
 *
 * Says the pid of the server. That must be killed first, for nothing can end a
 * process that waits for it; it ends by itself after a minute.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int device;

static void die(const char *what)
{
	perror(what);
	_exit(1);
}

static void reply(const struct fuse_in_header *in, int error, void *data, size_t size)
{
	struct fuse_out_header out = {
		.len = sizeof out + (error ? 0 : size), .error = -error, .unique = in->unique };
	struct iovec parts[] = { { &out, sizeof out }, { data, error ? 0 : size } };
	/* ENOENT: whoever asked was killed. */
	if (writev(device, parts, 2) < 0 && errno != ENOENT)
		die("a reply to FUSE");
}

static struct fuse_attr attributes(unsigned long node)
{
	return (struct fuse_attr){
		.ino = node, .nlink = 1, .size = node == 1 ? 0 : 4096, .blksize = 4096,
		.mode = node == 1 ? S_IFDIR | 0755 : S_IFREG | 0644 };
}

static void serve(void)
{
	static char request[1 << 17], zeros[4096];
	const struct fuse_in_header *in = (void *)request;
	ssize_t length;
	while ((length = read(device, request, sizeof request)) > 0 || errno == EINTR) {
		switch (in->opcode) {
		case FUSE_INIT: {
			struct fuse_init_out out = {
				.major = FUSE_KERNEL_VERSION, .minor = FUSE_KERNEL_MINOR_VERSION,
				.max_readahead = 4096, .max_write = 4096,
				.flags = FUSE_WRITEBACK_CACHE };
			reply(in, 0, &out, sizeof out);
			break;
		}
		case FUSE_GETATTR: {
			struct fuse_attr_out out = { .attr_valid = 60, .attr = attributes(in->nodeid) };
			reply(in, 0, &out, sizeof out);
			break;
		}
		case FUSE_LOOKUP: {
			struct fuse_entry_out out = { .nodeid = 2, .entry_valid = 60,
						      .attr_valid = 60, .attr = attributes(2) };
			reply(in, 0, &out, sizeof out);
			break;
		}
		case FUSE_OPEN: {
			struct fuse_open_out out = { 0 };
			reply(in, 0, &out, sizeof out);
			break;
		}
		case FUSE_READ:
			reply(in, 0, zeros, sizeof zeros);
			break;
		case FUSE_WRITE:
			/* Never. */
			break;
		case FUSE_FORGET:
		case FUSE_BATCH_FORGET:
		case FUSE_INTERRUPT:
			break;
		default:
			reply(in, ENOSYS, NULL, 0);
		}
	}
	_exit(0);
}

static char *page;

static volatile int mapper;

static void *map_over(void *unused)
{
	mapper = gettid();
	mmap(page, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	return unused;
}

int main(int argc, char **argv)
{
	char text[4200];
	if (argc != 3)
		return 2;
	device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (device < 0)
		die("/dev/fuse");
	snprintf(text, sizeof text, "fd=%d,rootmode=40000,user_id=0,group_id=0", device);
	if (mount("stall", argv[1], "fuse", MS_NOSUID | MS_NODEV, text))
		die("mount");
	pid_t server = fork();
	if (server < 0)
		die("fork");
	if (server == 0) {
		/* With the server everything that waits for it comes to an end. */
		alarm(60);
		close(1);
		close(2);
		serve();
	}
	printf("%d\n", server);
	fflush(stdout);
	close(device);
	snprintf(text, sizeof text, "%s/file", argv[1]);
	int fd = open(text, O_RDWR);
	if (fd < 0)
		die(text);
	page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		die("mmap");
	*page = 1;
	pthread_t thread;
	if (pthread_create(&thread, NULL, map_over, NULL))
		die("pthread_create");
	/* Until it sleeps with the lock. Nothing here may need the lock itself. */
	while (!mapper)
		;
	snprintf(text, sizeof text, "/proc/self/task/%d/stat", mapper);
	char stat[256] = "", *state;
	do {
		fd = open(text, O_RDONLY);
		ssize_t length = read(fd, stat, sizeof stat - 1);
		close(fd);
		state = length > 0 ? strrchr(stat, ')') : NULL;
	} while (!state || state[2] != 'D');
	fd = open(argv[2], O_CREAT | O_EXCL | O_WRONLY, 0600);
	if (fd < 0 || write(fd, "line\n", 5) != 5)
		die(argv[2]);
	close(fd);
	for (;;)
		pause();
}
