/* Makes a file, writes one line and exits at once: the hardest kind of writer
 * to name, because nothing of it is left when its record is read. */
#include <fcntl.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc != 2)
		return 2;
	int fd = open(argv[1], O_CREAT | O_EXCL | O_WRONLY, 0600);
	if (fd < 0)
		return 1;
	return write(fd, "line\n", 5) == 5 ? 0 : 1;
}
