/* Init of a system that exists to run a few commands of the program under test on a virtio disk: in Debian's kernels virtio-blk,
 * efivarfs and vfat are modules, and somebody has to load and mount what a node's system has loaded and mounted.
 *
 * /commands has one command a line; words are separated by blanks:
 *
 *   module FILE                 loads a module
 *   mount TYPE SOURCE DIR ro|rw
 *   unmount DIR
 *   run PROGRAM ARGUMENT...     runs it to its end
 *   plain PROGRAM ARGUMENT...   the same on a processor without cryptographic instructions, like that of a Raspberry Pi 4
 *
 * Each is announced by a line "@@ COMMAND" and closed by "@@= RESULT": an exit code, 128 and a signal's number, or an errno,
 * behind it the greatest resident size in KiB. Then the machine is turned off. Nothing is synchronised before that: what was not
 * on the medium when the program ended is lost. */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define MOST_WORDS 32
/* Bits of AT_HWCAP, as arch/arm64/include/uapi/asm/hwcap.h has them: AES, PMULL, SHA1, SHA2, SHA3, SHA512. */
#define CRYPTOGRAPHY (1ul << 3 | 1ul << 4 | 1ul << 5 | 1ul << 6 | 1ul << 17 | 1ul << 21)

static int load(const char *path) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    int failed = file < 0 || syscall(SYS_finit_module, file, "", 0);
    int why = errno;
    if (file >= 0) close(file);
    return failed ? why : 0;
}

static int attach(char **words) {
    mkdir(words[3], 0755);
    return mount(words[2], words[3], words[1], strcmp(words[4], "ro") ? 0 : MS_RDONLY, 0) ? errno : 0;
}

/* The kernel puts the processor's abilities on the new program's stack, behind arguments and environment. */
static int take_cryptography(pid_t child) {
    struct user_regs_struct registers;
    struct iovec all = {&registers, sizeof registers};
    if (ptrace(PTRACE_GETREGSET, child, (void *)NT_PRSTATUS, &all)) return -1;
    unsigned long at = registers.sp;
    unsigned long count = ptrace(PTRACE_PEEKDATA, child, (void *)at, 0);
    at += 8 * (1 + count + 1);
    while (ptrace(PTRACE_PEEKDATA, child, (void *)at, 0)) at += 8;
    for (at += 8;; at += 16) {
        unsigned long kind = ptrace(PTRACE_PEEKDATA, child, (void *)at, 0);
        if (kind == AT_NULL) return -1;
        if (kind != AT_HWCAP) continue;
        unsigned long abilities = ptrace(PTRACE_PEEKDATA, child, (void *)(at + 8), 0);
        return ptrace(PTRACE_POKEDATA, child, (void *)(at + 8), (void *)(abilities & ~CRYPTOGRAPHY)) ? -1 : 0;
    }
}

static int run(char **words, int plain, long *resident) {
    struct rusage used = {0};
    int status;
    pid_t child = fork();
    if (child == 0) {
        if (plain) ptrace(PTRACE_TRACEME, 0, 0, 0);
        execv(words[1], words + 1);
        _exit(127);
    }
    if (child < 0) return errno;
    if (plain) {
        /* It stops when its image is in place. */
        if (waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) return 126;
        if (take_cryptography(child)) {
            kill(child, SIGKILL);
            waitpid(child, &status, 0);
            return 126;
        }
        ptrace(PTRACE_DETACH, child, 0, 0);
    }
    if (wait4(child, &status, 0, &used) != child) return errno;
    *resident = used.ru_maxrss;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(void) {
    char line[1024];
    FILE *commands = fopen("/commands", "re");
    while (commands && fgets(line, sizeof line, commands)) {
        char *words[MOST_WORDS + 1] = {0};
        int count = 0, result = EINVAL;
        long resident = 0;
        line[strcspn(line, "\n")] = 0;
        printf("@@ %s\n", line);
        fflush(stdout);
        for (char *word = strtok(line, " "); word && count < MOST_WORDS; word = strtok(0, " ")) words[count++] = word;
        if (count == 2 && !strcmp(words[0], "module")) result = load(words[1]);
        if (count == 5 && !strcmp(words[0], "mount")) result = attach(words);
        if (count == 2 && !strcmp(words[0], "unmount")) result = umount(words[1]) ? errno : 0;
        if (count > 1 && !strcmp(words[0], "run")) result = run(words, 0, &resident);
        if (count > 1 && !strcmp(words[0], "plain")) result = run(words, 1, &resident);
        printf("\n@@= %d %ld\n", result, resident);
        fflush(stdout);
    }
    /* Until the serial port has sent what is queued. */
    tcdrain(1);
    reboot(RB_POWER_OFF);
    return 1;
}
