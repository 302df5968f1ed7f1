/* A disk that fails as it is told: a file system in memory (FUSE), of one
 * directory.
 *
 *   disk DIR     mounts it on DIR, says "ready", and reads words, each of which
 *                it answers by "done":
 *
 *   ok           it works
 *   refuse       write(2) and fsync(2) err with EIO
 *   forget       fsync(2) errs with EIO once, and what was not forced before is
 *                never forced by a later one, unless it is written again: as
 *                with the pages of a real disk (fsync(2), EIO)
 *   hang         nobody gets an answer, until it is told otherwise
 *   save FILE    writes what is forced of the largest file, that is: what a
 *                power failure would leave, to FILE
 *
 * It ends, and all that wait for it with errors, at the end of its input, and
 * by itself after three minutes.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define FILES 16
#define SIZE (1 << 22)
#define ROOT 1

struct file {
	char name[256];
	int used;	/* it has a name */
	unsigned mode, uid, gid;
	size_t size, forced_size;
	char *bytes, *forced, *dirty;
	struct timespec changed;
};

static struct file files[FILES];
static int device;
static enum { OK, REFUSE, FORGET } state;

static void die(const char *what)
{
	perror(what);
	_exit(1);
}

static void reply(const struct fuse_in_header *in, int error, const void *data, size_t size)
{
	struct fuse_out_header out = {
		.len = sizeof out + (error ? 0 : size), .error = -error, .unique = in->unique };
	struct iovec parts[] = { { &out, sizeof out }, { (void *)data, error ? 0 : size } };
	/* ENOENT: whoever asked was killed. */
	if (writev(device, parts, 2) < 0 && errno != ENOENT)
		die("a reply to FUSE");
}

static struct file *named(const char *name)
{
	for (int i = 0; i < FILES; i++)
		if (files[i].used && !strcmp(files[i].name, name))
			return &files[i];
	return NULL;
}

static struct fuse_attr attributes(const struct file *file)
{
	if (!file)
		return (struct fuse_attr){ .ino = ROOT, .nlink = 2, .blksize = 4096,
					   .mode = S_IFDIR | 0755 };
	return (struct fuse_attr){
		.ino = file - files + 2, .nlink = file->used, .size = file->size,
		.blocks = (file->size + 511) / 512, .blksize = 4096, .mode = S_IFREG | file->mode,
		.uid = file->uid, .gid = file->gid, .mtime = file->changed.tv_sec,
		.mtimensec = file->changed.tv_nsec, .ctime = file->changed.tv_sec,
		.ctimensec = file->changed.tv_nsec };
}

/* Nothing is cached: each question comes here. */
static struct fuse_entry_out entry(const struct file *file)
{
	return (struct fuse_entry_out){ .nodeid = file - files + 2, .attr = attributes(file) };
}

static void resize(struct file *file, size_t size)
{
	if (size < file->size)
		memset(file->bytes + size, 0, file->size - size);
	file->size = size;
	clock_gettime(CLOCK_REALTIME, &file->changed);
}

static struct file *make(const char *name, unsigned mode, const struct fuse_in_header *in)
{
	size_t length = strlen(name);
	for (int i = 0; i < FILES && length < sizeof files[0].name; i++) {
		struct file *file = &files[i];
		/* Numbers are not used twice: somebody may have the former file open. */
		if (file->bytes)
			continue;
		memcpy(file->name, name, length + 1);
		file->used = 1;
		file->mode = mode & 07777;
		file->uid = in->uid;
		file->gid = in->gid;
		file->bytes = calloc(3, SIZE);
		if (!file->bytes)
			die("calloc");
		file->forced = file->bytes + SIZE;
		file->dirty = file->forced + SIZE;
		resize(file, 0);
		return file;
	}
	return NULL;
}

static int force(struct file *file)
{
	if (state == REFUSE)
		return EIO;
	if (state == OK) {
		for (size_t i = 0; i < file->size; i++)
			if (file->dirty[i])
				file->forced[i] = file->bytes[i];
		file->forced_size = file->size;
	}
	memset(file->dirty, 0, SIZE);
	int error = state == FORGET ? EIO : 0;
	state = OK;
	return error;
}

static void list(const struct fuse_in_header *in, const struct fuse_read_in *read)
{
	char out[8192];
	size_t length = 0;
	for (int i = read->offset; i < FILES && length < sizeof out / 2 && length < read->size / 2; i++) {
		if (!files[i].used)
			continue;
		struct fuse_dirent *one = (void *)(out + length);
		memset(one, 0, sizeof *one + 264);
		*one = (struct fuse_dirent){ .ino = i + 2, .off = i + 1, .type = S_IFREG >> 12,
					     .namelen = strlen(files[i].name) };
		memcpy(one->name, files[i].name, one->namelen);
		length += FUSE_DIRENT_SIZE(one);
	}
	reply(in, 0, out, length);
}

static void answer(const struct fuse_in_header *in)
{
	struct file *file = in->nodeid >= 2 && in->nodeid < FILES + 2 ? &files[in->nodeid - 2] : NULL;
	const void *body = in + 1;
	struct fuse_attr_out attr = { 0 };
	/* A real disk is not asked when a file is closed. */
	struct fuse_open_out opened = { .open_flags = FOPEN_DIRECT_IO | FOPEN_NOFLUSH };
	switch (in->opcode) {
	case FUSE_INIT: {
		struct fuse_init_out out = { .major = FUSE_KERNEL_VERSION,
			.minor = FUSE_KERNEL_MINOR_VERSION, .max_write = 1 << 16,
			.flags = FUSE_BIG_WRITES | FUSE_ATOMIC_O_TRUNC };
		reply(in, 0, &out, sizeof out);
		break;
	}
	case FUSE_STATFS: {
		struct fuse_statfs_out out = { .st = { .blocks = 1 << 20, .bfree = 1 << 20,
			.bavail = 1 << 20, .bsize = 4096, .namelen = 255, .frsize = 4096 } };
		reply(in, 0, &out, sizeof out);
		break;
	}
	case FUSE_LOOKUP: {
		file = named(body);
		struct fuse_entry_out out = { 0 };
		if (file)
			out = entry(file);
		reply(in, file ? 0 : ENOENT, &out, sizeof out);
		break;
	}
	case FUSE_SETATTR: {
		const struct fuse_setattr_in *set = body;
		if (file && set->valid & FATTR_SIZE && set->size <= SIZE)
			resize(file, set->size);
		if (file && set->valid & FATTR_MODE)
			file->mode = set->mode & 07777;
		if (file && set->valid & FATTR_UID)
			file->uid = set->uid;
		if (file && set->valid & FATTR_GID)
			file->gid = set->gid;
	}
		/* fallthrough */
	case FUSE_GETATTR:
		attr.attr = attributes(file);
		reply(in, 0, &attr, sizeof attr);
		break;
	case FUSE_CREATE: {
		const struct fuse_create_in *create = body;
		file = named((const char *)(create + 1));
		if (!file)
			file = make((const char *)(create + 1), create->mode & ~create->umask, in);
		if (!file) {
			reply(in, ENOSPC, NULL, 0);
			break;
		}
		struct { struct fuse_entry_out entry; struct fuse_open_out open; } out = {
			entry(file), opened };
		reply(in, 0, &out, sizeof out);
		break;
	}
	case FUSE_OPEN:
		if (file && ((const struct fuse_open_in *)body)->flags & O_TRUNC)
			resize(file, 0);
		/* fallthrough */
	case FUSE_OPENDIR:
		reply(in, 0, &opened, sizeof opened);
		break;
	case FUSE_READ: {
		const struct fuse_read_in *read = body;
		size_t length = 0;
		if (read->offset < file->size)
			length = file->size - read->offset;
		if (length > read->size)
			length = read->size;
		reply(in, 0, file->bytes + read->offset, length);
		break;
	}
	case FUSE_WRITE: {
		const struct fuse_write_in *write = body;
		struct fuse_write_out out = { .size = write->size };
		if (state == REFUSE) {
			reply(in, EIO, NULL, 0);
			break;
		}
		if (write->offset + write->size > SIZE) {
			reply(in, ENOSPC, NULL, 0);
			break;
		}
		memcpy(file->bytes + write->offset, write + 1, write->size);
		memset(file->dirty + write->offset, 1, write->size);
		if (write->offset + write->size > file->size)
			resize(file, write->offset + write->size);
		reply(in, 0, &out, sizeof out);
		break;
	}
	case FUSE_FSYNC:
		reply(in, force(file), NULL, 0);
		break;
	case FUSE_READDIR:
		list(in, body);
		break;
	case FUSE_UNLINK:
		file = named(body);
		if (file)
			file->used = 0;
		reply(in, file ? 0 : ENOENT, NULL, 0);
		break;
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
	case FUSE_FSYNCDIR:
		reply(in, 0, NULL, 0);
		break;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
		break;
	default:
		reply(in, ENOSYS, NULL, 0);
	}
}

static void save(const char *path)
{
	const struct file *largest = &files[0];
	for (int i = 1; i < FILES; i++)
		if (files[i].forced_size > largest->forced_size)
			largest = &files[i];
	FILE *out = fopen(path, "w");
	if (!out || fwrite(largest->forced, 1, largest->forced_size, out) != largest->forced_size
	    || fclose(out))
		die(path);
}

int main(int argc, char **argv)
{
	static char request[1 << 18];
	char word[512];
	int hangs = 0;
	if (argc != 2)
		return 2;
	alarm(180);
	setvbuf(stdin, NULL, _IONBF, 0);
	device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (device < 0)
		die("/dev/fuse");
	snprintf(word, sizeof word, "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", device);
	if (mount("disk", argv[1], "fuse", MS_NOSUID | MS_NODEV, word))
		die("mount");
	puts("ready");
	fflush(stdout);
	for (;;) {
		struct pollfd ready[] = { { STDIN_FILENO, POLLIN, 0 }, { hangs ? -1 : device, POLLIN, 0 } };
		if (poll(ready, 2, -1) < 0 && errno != EINTR)
			die("poll");
		if (ready[0].revents) {
			if (!fgets(word, sizeof word, stdin))
				return 0;
			word[strcspn(word, "\n")] = 0;
			hangs = !strcmp(word, "hang");
			if (!strncmp(word, "save ", 5))
				save(word + 5);
			else
				state = !strcmp(word, "refuse") ? REFUSE
					: !strcmp(word, "forget") ? FORGET : OK;
			puts("done");
			fflush(stdout);
		} else if (ready[1].revents) {
			ssize_t length = read(device, request, sizeof request);
			if (length > 0)
				answer((void *)request);
			else if (errno == ENODEV)
				return 0;
			else if (errno != EINTR && errno != ENOENT && errno != EAGAIN)
				die("a request of FUSE");
		}
	}
}
