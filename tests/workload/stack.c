/* Runs code on its stack, in a program that no file is mapped for: it maps PROGRAM,
 * to be taken for that, renames FROM to TO, makes MADE, and ends.
 *
 *   stack PERSONALITY FILE PROGRAM FROM TO MADE
 *
 * FILE is where the program is put; PERSONALITY (personality(2), a number) is set
 * besides ADDR_NO_RANDOMIZE. For x86-64 alone.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <unistd.h>

#define NAME 256
#define NAMES 4

extern const char code[], code_end[];

__asm__(".pushsection .rodata\n"
	"code:\n"
	/* open(PROGRAM, O_RDONLY) */
	"	mov $2, %eax\n"
	"	lea names(%rip), %rdi\n"
	"	xor %esi, %esi\n"
	"	syscall\n"
	/* mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) */
	"	mov %rax, %r8\n"
	"	mov $9, %eax\n"
	"	xor %edi, %edi\n"
	"	mov $4096, %esi\n"
	"	mov $5, %edx\n"
	"	mov $2, %r10d\n"
	"	xor %r9d, %r9d\n"
	"	syscall\n"
	/* rename(FROM, TO) */
	"	mov $82, %eax\n"
	"	lea names + 256(%rip), %rdi\n"
	"	lea names + 512(%rip), %rsi\n"
	"	syscall\n"
	"	mov %rax, %r12\n"
	/* open(MADE, O_WRONLY | O_CREAT | O_EXCL, 0600) */
	"	mov $2, %eax\n"
	"	lea names + 768(%rip), %rdi\n"
	"	mov $0xc1, %esi\n"
	"	mov $0x180, %edx\n"
	"	syscall\n"
	/* write(fd, line, 5) */
	"	mov %rax, %rdi\n"
	"	mov $1, %eax\n"
	"	lea line(%rip), %rsi\n"
	"	mov $5, %edx\n"
	"	syscall\n"
	/* exit(what rename said) */
	"	mov $60, %eax\n"
	"	mov %r12, %rdi\n"
	"	syscall\n"
	"line:	.ascii \"line\\n\"\n"
	"names:	.fill 1024\n"
	"code_end:\n"
	".popsection\n");

static void die(const char *what)
{
	perror(what);
	_exit(1);
}

int main(int argc, char **argv)
{
	static char blob[4096];
	static char *strings[sizeof blob + 1];
	if (argc != 3 + NAMES)
		return 2;
	size_t length = code_end - code;
	memcpy(blob, code, length);
	for (int i = 0; i < NAMES; i++) {
		if (strlen(argv[3 + i]) >= NAME)
			return 2;
		strcpy(blob + length - (NAMES - i) * NAME, argv[3 + i]);
	}
	/* Its environment is the code, cut where there is a zero. The kernel puts it on
	 * top of the stack, below the program's path. */
	int count = 0;
	for (char *at = blob; at <= blob + length; at += strlen(at) + 1)
		strings[count++] = at;
	const char *file = argv[2];
	unsigned long top = 0x7ffffffff000 - sizeof(void *);
	unsigned long entry = top - (strlen(file) + 1) - (length + 1);

	static struct {
		Elf64_Ehdr header;
		Elf64_Phdr parts[2];
		char rest[4096 - sizeof(Elf64_Ehdr) - 2 * sizeof(Elf64_Phdr)];
	} program = {
		.header = {
			.e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64,
				     ELFDATA2LSB, EV_CURRENT },
			.e_type = ET_EXEC,
			.e_machine = EM_X86_64,
			.e_version = EV_CURRENT,
			.e_phoff = sizeof(Elf64_Ehdr),
			.e_ehsize = sizeof(Elf64_Ehdr),
			.e_phentsize = sizeof(Elf64_Phdr),
			.e_phnum = 2,
		},
		.parts = {
			{ .p_type = PT_LOAD, .p_flags = PF_R, .p_vaddr = 0x400000,
			  .p_filesz = 4096, .p_memsz = 4096, .p_align = 4096 },
			{ .p_type = PT_GNU_STACK, .p_flags = PF_R | PF_W | PF_X, .p_align = 16 },
		},
	};
	program.header.e_entry = entry;
	int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0700);
	if (fd < 0 || write(fd, &program, sizeof program) != sizeof program || close(fd))
		die(file);
	if (personality(ADDR_NO_RANDOMIZE | strtoul(argv[1], NULL, 0)) < 0)
		die("personality");
	char *const arguments[] = { (char *)file, NULL };
	execve(file, arguments, strings);
	die("execve");
}
