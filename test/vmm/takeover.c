/*
 * Acts as a monitor that its guest has taken over: started in QEMU's place, by the same code, it tries all that should not be possible, and says on
 * standard error what became of each attempt, `NAME refused ERROR` or `NAME DONE`, with semicolons between, as only the last lines are kept. Where to aim is in the word behind -append, as KEY=VALUE with
 * spaces between: secret (a file of the user's), memory (another VM's), socket (another VM's), port (of a listener on the host), abstract (a socket's
 * name), pid (a process of the user's, or `parent`), program (one of the user's), reopen (a descriptor that may be opened once more, for writing).
 *
 * `takeover without-landlock PROGRAM ARGS` executes a program for which the kernel has no Landlock, `without-mount-calls` one that may not ask for
 * mounts in the newer way, as containers' filters have it, `without-questions` one that may not have a filter ask somebody.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/io_uring.h>
#include <linux/perf_event.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static char targets[8192];

static const char *target(const char *key) {
    static char value[8][1024];
    static int next;
    char *into = value[next++ % 8];
    size_t length = strlen(key);
    for (const char *at = targets; at != NULL; at = strchr(at, ' ')) {
        if (*at == ' ') at++;
        if (strncmp(at, key, length) != 0 || at[length] != '=') continue;
        snprintf(into, sizeof value[0], "%.*s", (int)strcspn(at + length + 1, " "), at + length + 1);
        return into;
    }
    return "";
}

/* A negative result is a refusal. */
static void attempt(const char *name, long result) {
    if (result < 0) dprintf(2, "%s refused %s; ", name, strerrorname_np(errno));
    else dprintf(2, "%s DONE; ", name);
}

static long reads(const char *path) {
    char byte;
    int fd = open(path, O_RDONLY);
    return fd < 0 ? -1 : read(fd, &byte, 1) < 0 ? -1 : fd;
}

static long connects(int family, const struct sockaddr *address, socklen_t length) {
    int fd = socket(family, SOCK_STREAM, 0);
    return fd < 0 ? -1 : connect(fd, address, length);
}

static long connects_to(const char *name, bool abstract) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path + abstract, sizeof address.sun_path - abstract, "%s", name);
    return connects(AF_UNIX, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + abstract + strlen(name) + !abstract));
}

/* A child that can be made is enough; what it does is said by its own end. */
static long forks(long child) {
    if (child == 0) _exit(0);
    return child;
}

static pid_t victim(void) {
    return strcmp(target("pid"), "parent") == 0 ? getppid() : (pid_t)atoi(target("pid"));
}

static long reads_of(pid_t pid, const char *name) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    return reads(path);
}

static void files(void) {
    attempt("read a file of the user's", reads(target("secret")));
    attempt("read another VM's memory", reads(target("memory")));
    attempt("read /etc/passwd", reads("/etc/passwd"));
    attempt("read /proc/self/environ", reads("/proc/self/environ"));
    attempt("read /sys/kernel/notes", reads("/sys/kernel/notes"));
    attempt("read a device", reads("/dev/urandom"));
    char out[128] = "";
    for (int n = 0; n < 12; n++) strcat(out, "../");
    strcat(out, "etc/passwd");
    attempt("climb out of the root", reads(out));
    long climbed = -1;
    errno = EACCES;
    for (int fd = 0; fd < 64 && climbed < 0; fd++) climbed = openat(fd, "../../../../../../etc/passwd", O_RDONLY); /* a descriptor that is a directory */
    attempt("climb out by a descriptor", climbed);
    attempt("list the user's directory", opendir(dirname((char *)target("secret"))) == NULL ? -1 : 0);
    attempt("make a file in /", open("/made", O_WRONLY | O_CREAT, 0600));
    attempt("make a file in /tmp", open("/tmp/made", O_WRONLY | O_CREAT, 0600));
    attempt("write to a program of the system's", open("/usr/bin/env", O_WRONLY));
    attempt("cut a program of the system's off", open("/usr/bin/env", O_RDONLY | O_TRUNC));
    attempt("open /dev/kvm, not being told to", open("/dev/kvm", O_RDWR));
    attempt("make a device", mknod("/disk", S_IFBLK | 0600, 0));
    attempt("make a directory", mkdir("/made", 0700));
    attempt("make a name", link("/usr/bin/env", "/made"));
    attempt("remove a file", unlink(target("secret")));
    attempt("rename a file", rename(target("secret"), "/made"));
    attempt("read a process of the user's environment", reads_of(victim(), "environ"));
    attempt("read a process of the user's memory", reads_of(victim(), "mem"));
    attempt("read a process of the user's files", reads_of(victim(), "fd/0"));
    attempt("open by handle", syscall(SYS_open_by_handle_at, AT_FDCWD, NULL, 0));
}

/* Disks of others, and a template's memory, are descriptors that were opened for reading. */
static void descriptors(void) {
    int disk = -1, reopen = *target("reopen") == '\0' ? -1 : atoi(target("reopen"));
    struct stat stat;
    for (int fd = 3; fd < 64 && disk < 0; fd++)
        if (fd != reopen && fstat(fd, &stat) == 0 && S_ISREG(stat.st_mode) && (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY) disk = fd;
    if (disk < 0) {
        dprintf(2, "no descriptor for reading; ");
        return;
    }
    struct timespec times[2] = {{0, 0}, {0, 0}};
    int flags = 0;
    attempt("write to a disk for reading", pwrite(disk, "x", 1, 0));
    attempt("map a disk for writing", mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, disk, 0) == MAP_FAILED ? -1 : 0);
    attempt("cut a disk off", ftruncate(disk, 0));
    attempt("punch a hole into a disk", fallocate(disk, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096));
    attempt("change a disk's mode", fchmod(disk, 0666));
    attempt("change a disk's owner", fchown(disk, getuid(), getgid()));
    attempt("change a disk's times", futimens(disk, times));
    attempt("give a disk an attribute", fsetxattr(disk, "user.pyro", "x", 1, 0));
    attempt("give a disk a flag", ioctl(disk, FS_IOC_SETFLAGS, &flags));
    char self[64];
    snprintf(self, sizeof self, "/proc/self/fd/%d", disk);
    attempt("open a disk once more, for writing", open(self, O_RDWR));
    if (*target("reopen") == '\0') return;
    snprintf(self, sizeof self, "/proc/self/fd/%s", target("reopen"));
    int memory = open(self, O_RDWR);
    dprintf(2, "the memory is %s; ", memory < 0 ? "refused" : (fcntl(memory, F_GETFL) & O_ACCMODE) == O_RDONLY ? "for reading" : "for WRITING");
    attempt("write to a template's memory", pwrite(memory, "x", 1, 0));
    attempt("map a template's memory for writing", mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0) == MAP_FAILED ? -1 : 0);
    char *mine = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, memory, 0);
    dprintf(2, "mapping it privately is %s; ", mine == MAP_FAILED ? "refused" : (*mine = 'y', "possible"));
    attempt("get it a second time", open(self, O_RDWR));
    dprintf(2, "holes into it are %s; ", fallocate(memory, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) == 0 ? "believed in" : "refused");
}

static void network(void) {
    struct sockaddr_in host = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(target("port"))), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    attempt("connect to the host", connects(AF_INET, (struct sockaddr *)&host, sizeof host));
    attempt("UDP", socket(AF_INET, SOCK_DGRAM, 0));
    attempt("IPv6", socket(AF_INET6, SOCK_STREAM, 0));
    attempt("raw packets", socket(AF_PACKET, SOCK_RAW, 0));
    attempt("netlink", socket(AF_NETLINK, SOCK_RAW, 0));
    attempt("vsock", socket(AF_VSOCK, SOCK_STREAM, 0));
    attempt("connect to another VM", connects_to(target("socket"), false));
    attempt("connect to an abstract socket", connects_to(target("abstract"), true));
}

static void processes(void) {
    pid_t pid = victim();
    long other = 0;
    struct iovec ours = {&other, sizeof other}, theirs = {(void *)0x400000, sizeof other};
    attempt("fork", forks(fork()));
    attempt("vfork", forks(syscall(SYS_vfork)));
    attempt("clone", forks(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)));
    attempt("clone3", forks(syscall(SYS_clone3, NULL, 0)));
    attempt("signal a process of the user's", kill(pid, 0));
    attempt("signal everybody", kill(-1, 0));
    attempt("signal a thread", (long)syscall(SYS_tgkill, pid, pid, 0));
    attempt("queue a signal", sigqueue(pid, 0, (union sigval){0}));
    attempt("trace a process of the user's", ptrace(PTRACE_ATTACH, pid, NULL, NULL));
    attempt("read a process of the user's", process_vm_readv(pid, &ours, 1, &theirs, 1, 0));
    attempt("write to a process of the user's", process_vm_writev(pid, &ours, 1, &theirs, 1, 0));
    attempt("open a process of the user's", syscall(SYS_pidfd_open, pid, 0));
    attempt("limit a process of the user's", prlimit(pid, RLIMIT_CPU, NULL, &(struct rlimit){0}));
    attempt("have signals sent", fcntl(0, F_SETOWN, pid));
}

static void privileges(void) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct all[2] = {{~0u, ~0u, ~0u}, {~0u, ~0u, ~0u}};
    attempt("become root", setuid(0));
    attempt("have capabilities", syscall(SYS_capset, &header, all));
    attempt("forget no_new_privs", prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0));
    attempt("write core dumps", setrlimit(RLIMIT_CORE, &(struct rlimit){1 << 20, 1 << 20}));
    attempt("a user namespace", unshare(CLONE_NEWUSER));
    attempt("enter a namespace", setns(0, 0));
    attempt("mount", mount("none", "/usr", "tmpfs", 0, NULL));
    attempt("unmount", umount2("/usr", MNT_DETACH));
    attempt("change the root", chroot("/usr"));
    attempt("pivot the root", syscall(SYS_pivot_root, "/", "/"));
    attempt("copy a mount", syscall(SYS_open_tree, AT_FDCWD, "/", 1));
    attempt("name the host", sethostname("x", 1));
    attempt("set the clock", settimeofday(&(struct timeval){0}, NULL));
    attempt("io_uring", syscall(SYS_io_uring_setup, 1, &(struct io_uring_params){0}));
    attempt("userfaultfd", syscall(SYS_userfaultfd, UFFD_USER_MODE_ONLY));
    attempt("bpf", syscall(SYS_bpf, 0, NULL, 0));
    attempt("perf", syscall(SYS_perf_event_open, &(struct perf_event_attr){.size = sizeof(struct perf_event_attr)}, 0, -1, -1, 0));
    attempt("keys", syscall(SYS_keyctl, 0, -3, 1));
    attempt("a kernel module", syscall(SYS_init_module, NULL, 0, ""));
    attempt("another kernel", syscall(SYS_kexec_load, 0, 0, NULL, 0));
    attempt("reboot", syscall(SYS_reboot, 0, 0, 0, NULL));
    attempt("the kernel's log", syscall(SYS_syslog, 3, NULL, 0));
    attempt("ports", syscall(SYS_iopl, 3));
}

static void tell_where(void) {
    char line[256] = "";
    struct dirent **entries = NULL;
    int count = scandir("/", &entries, NULL, alphasort);
    for (int n = 0; n < count; n++) if (entries[n]->d_name[0] != '.' && strlen(line) < 200) sprintf(line + strlen(line), " %.30s", entries[n]->d_name);
    dprintf(2, "in the root:%s\n", line);
    dprintf(2, "process %d, of %d\n", (int)getpid(), (int)getppid());
    dprintf(2, "user %s\n", getuid() >= 0x70000000 && getgid() == getuid() ? "of its own" : getuid() == 0 ? "root" : "of an ordinary one");
}

/* Where the second argument has these flags. */
static int without(unsigned call, unsigned flags, unsigned error, char **words) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 4),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, flags),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, flags, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) != 0) return 9;
    execv(words[0], words);
    return 9;
}

int main(int argc, char **argv) {
    if (argc > 2 && strcmp(argv[1], "without-landlock") == 0) return without(SYS_landlock_create_ruleset, 0, ENOSYS, argv + 2);
    if (argc > 2 && strcmp(argv[1], "without-mount-calls") == 0) return without(SYS_open_tree, 0, EPERM, argv + 2);
    if (argc > 2 && strcmp(argv[1], "without-questions") == 0) return without(SYS_seccomp, SECCOMP_FILTER_FLAG_NEW_LISTENER, EBUSY, argv + 2);
    for (int n = 1; n + 1 < argc; n++) if (strcmp(argv[n], "-append") == 0) snprintf(targets, sizeof targets, "%s", argv[n + 1]);
    tell_where();
    void (*const sections[])(void) = {files, descriptors, network, processes, privileges};
    for (size_t n = 0; n < sizeof sections / sizeof *sections; n++) {
        sections[n]();
        dprintf(2, "\n");
    }
    /* Last, as there is no way back from it. */
    attempt("execute a program of the user's", execve(target("program"), (char *[]){"program", NULL}, (char *[]){NULL}));
    return 0;
}
