#define _GNU_SOURCE
#include "confine.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <libgen.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/fsverity.h>
#include <linux/landlock.h>
#include <linux/mount.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* <sys/mount.h> can't be had together with <linux/mount.h> in every C library. */
extern int mount(const char *, const char *, const char *, unsigned long, const void *);
extern int umount2(const char *, int);
enum { OWN_MNT_DETACH = 2 };

enum {
    /*
     * systemd's list of user numbers (UIDS-GIDS.md) has nobody in 0x70000000 to 0x7fffffff. A keeper's process number, below 2^22, makes it its
     * VM's own; in the bits above is something of the process namespace, as containers have the same process numbers.
     */
    USER_BASE = 0x70000000,
    USER_PID_BITS = 22,
    USER_OTHER_BITS = 6,
    MAX_SOURCES = 40,
    ASKED_BYTES = 256,
    ANSWER_BYTES = 4096, /* more than any kernel's structures for a question */
    MAX_CAPABILITY = 63,
    /*
     * Where the program has what is sealed: a number of our choice, so that a filter knows it, and above all that it has by then. Where it may not have so
     * many it is the last one, if there are enough between: QEMU 7.2 has ten more than it was given when it asks.
     */
    SEALED_FD = 250,
    LEAST_BETWEEN = 16,
    /* Newer than the headers that this may be built with (arch/x86/entry/syscalls/syscall_64.tbl of Linux). */
    FCHMODAT2 = 452,
    SETXATTRAT = 463,
    REMOVEXATTRAT = 466,
    FILE_SETATTR = 469,
};

/* Landlock as far as it is used here, also where the headers that this is built with know less of it (Documentation/userspace-api/landlock.rst of Linux). */
static const struct {
    int version; /* of Landlock, from which on there are these */
    uint64_t files, network, scoped;
} landlock_rights[] = {
    {1, (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1, 0, 0},
    {2, 1 << 13, 0, 0},             /* giving a file another directory */
    {3, 1 << 14, 0, 0},             /* truncating */
    {4, 0, 1 << 0 | 1 << 1, 0},     /* TCP: bind, connect */
    {5, 1 << 15, 0, 0},             /* ioctl of devices */
    {6, 0, 0, 1 << 0 | 1 << 1},     /* abstract sockets of others, signals to others */
};
struct landlock_handled { uint64_t files, network, scoped; };

static const unsigned long spaces = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWUTS;

/* ---- before the fork ---- */

bool confine_add(struct confine *confine, const char *what) {
    confine->wanted = true;
    if (strcmp(what, "on") == 0) return true;
    if (strncmp(what, "read=/", 6) == 0 && confine->read_count < CONFINE_MAX_FILES) {
        confine->read[confine->read_count++] = what + 5;
        return true;
    }
    if (strncmp(what, "write=/", 7) == 0 && confine->written_count < CONFINE_MAX_FILES) {
        confine->written[confine->written_count++] = what + 6;
        return true;
    }
    confine->sealed = strncmp(what, "seal=", 5) == 0;
    const char *number = what + (confine->sealed ? 5 : 7);
    if ((!confine->sealed && strncmp(what, "reopen=", 7) != 0) || *number < '0' || *number > '9' || confine->reopen >= 0) return false;
    char *end = NULL;
    long fd = strtol(number, &end, 10);
    if (*end != '\0' || fd > 1024) return false;
    confine->reopen = (int)fd;
    return true;
}

static int sealed_number(int limit) {
    struct rlimit most;
    if (getrlimit(RLIMIT_NOFILE, &most) != 0 || most.rlim_cur > SEALED_FD || most.rlim_cur < (rlim_t)(limit + LEAST_BETWEEN)) return SEALED_FD;
    return (int)most.rlim_cur - 1;
}

static uid_t own_user(void) {
    struct stat space = {0};
    unsigned other = stat("/proc/self/ns/pid", &space) == 0 ? (unsigned)space.st_ino : 0;
    return (uid_t)(USER_BASE | ((other & ((1u << USER_OTHER_BITS) - 1)) << USER_PID_BITS) | ((unsigned)getpid() & ((1u << USER_PID_BITS) - 1)));
}

bool confine_open(struct confine *confine, int limit) {
    confine->copy = confine->listener = confine->pair[0] = confine->pair[1] = -1;
    if (!confine->wanted) return true;
    /* In a user namespace of its own it could not find out any more. */
    confine->uid = geteuid();
    confine->gid = getegid();
    confine->own = own_user();
    confine->sealed_fd = confine->sealed ? sealed_number(limit) : -1;
    if (confine->reopen >= limit) {
        errno = EBADF;
        return false;
    }
    if (confine->reopen >= 0 && (confine->copy = fcntl(confine->reopen, F_DUPFD_CLOEXEC, limit)) < 0) return false;
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, confine->pair) == 0;
}

unsigned long confine_namespaces(const struct confine *confine, int index) {
    if (!confine->wanted) return 0;
    if (geteuid() != 0) index++; /* only root makes them without a user namespace */
    return index == 0 ? spaces : index == 1 ? spaces | CLONE_NEWUSER : 0;
}

/* ---- in the program's process ---- */

static void had(struct confine_report *report, enum confine_piece piece) {
    report->had[piece] = true;
}

static void not_had(struct confine_report *report, enum confine_piece piece, const char *what) {
    snprintf(report->why[piece], CONFINE_WHY_BYTES, "%s: %s", what, strerror(errno));
}

static bool write_file(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return false;
    bool done = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    close(fd);
    return done;
}

/* We stay who we are, and are nobody else. */
static bool map_user(uid_t uid, gid_t gid) {
    char map[64];
    if (!write_file("/proc/self/setgroups", "deny")) return false;
    snprintf(map, sizeof map, "%u %u 1", uid, uid);
    if (!write_file("/proc/self/uid_map", map)) return false;
    snprintf(map, sizeof map, "%u %u 1", gid, gid);
    return write_file("/proc/self/gid_map", map);
}

struct source {
    int tree; /* -1: `link` is where a symbolic link points */
    bool directory;
    char path[PATH_MAX], link[256];
};

struct sources {
    struct source list[MAX_SOURCES];
    int count;
    bool mounts; /* detached copies of them; else they are opened where they are */
};

/* What is not there is left out: not every system has all of it. False if there is no room, or it is there and can't be had. */
static bool add_source(struct sources *sources, const char *path) {
    struct stat stat;
    if (lstat(path, &stat) != 0) return errno == ENOENT || errno == ENOTDIR || errno == EACCES;
    if (sources->count == MAX_SOURCES) return errno = E2BIG, false;
    struct source *source = &sources->list[sources->count];
    if ((size_t)snprintf(source->path, sizeof source->path, "%s", path) >= sizeof source->path) return errno = ENAMETOOLONG, false;
    source->tree = -1;
    source->directory = S_ISDIR(stat.st_mode);
    if (sources->mounts && S_ISLNK(stat.st_mode) && strrchr(path, '/') == path) { /* /lib is one to usr/lib on most systems */
        ssize_t length = readlink(path, source->link, sizeof source->link - 1);
        if (length <= 0) return false;
        source->link[length] = '\0';
    } else {
        if (S_ISLNK(stat.st_mode) && (fstatat(AT_FDCWD, path, &stat, 0) != 0)) return errno == ENOENT;
        source->directory = S_ISDIR(stat.st_mode);
        source->tree = sources->mounts ? (int)syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE) : open(path, O_PATH | O_CLOEXEC);
        if (source->tree < 0) return false;
    }
    sources->count++;
    return true;
}

static bool is_in(const char *path, const char *directory) {
    size_t length = strlen(directory);
    return strncmp(path, directory, length) == 0 && path[length] == '/';
}

static const char *const systems[] = {"/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin", "/nix/store", "/gnu/store"};

/* A program that is not the system's: itself, and where it looks for what belongs to it; not all of a directory that may be somebody's home. */
static bool add_program(struct sources *sources, const char *program) {
    static const char *const beside[] = {"../share/qemu", "../lib", "../lib64", "pc-bios", "qemu-bundle"};
    for (size_t n = 0; n < sizeof systems / sizeof *systems; n++) if (is_in(program, systems[n])) return true;
    if (!add_source(sources, program)) return false;
    char copy[PATH_MAX], path[PATH_MAX + 32];
    snprintf(copy, sizeof copy, "%s", program);
    const char *directory = dirname(copy);
    bool is_bin = strcmp(strrchr(directory, '/') == NULL ? directory : strrchr(directory, '/') + 1, "bin") == 0;
    for (size_t n = 0; n < sizeof beside / sizeof *beside; n++) {
        if (strncmp(beside[n], "..", 2) == 0 && !is_bin) continue;
        snprintf(path, sizeof path, "%s/%s", directory, beside[n]);
        char real[PATH_MAX];
        if (realpath(path, real) != NULL && !add_source(sources, real)) return false;
    }
    return true;
}

static bool gather(struct sources *sources, const char *program) {
    for (size_t n = 0; n < sizeof systems / sizeof *systems; n++) if (!add_source(sources, systems[n])) return false;
    if (!add_source(sources, "/etc/ld.so.cache") || !add_source(sources, "/etc/alternatives")) return false;
    char real[PATH_MAX];
    if (program != NULL && !add_program(sources, program)) return false;
    if (program != NULL && realpath(program, real) != NULL && strcmp(real, program) != 0 && !add_program(sources, real)) return false;
    return true;
}

/* Makes what is to be mounted over; `path` is absolute, and made below the current directory. */
static bool make_point(const char *path, bool directory) {
    char at[PATH_MAX];
    snprintf(at, sizeof at, "%s", path + 1);
    for (char *slash = strchr(at, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(at, 0755) != 0 && errno != EEXIST) return false;
        *slash = '/';
    }
    if (directory) return mkdir(at, 0755) == 0 || errno == EEXIST;
    return mknod(at, S_IFREG | 0644, 0) == 0 || errno == EEXIST; /* not open(2): that is for the keeper to answer by now, and it does not listen yet */
}

static bool place_source(const struct source *source) {
    if (source->tree < 0) return symlink(source->link, source->path + 1) == 0 || errno == EEXIST;
    if (!make_point(source->path, source->directory)) return false;
    return syscall(SYS_move_mount, source->tree, "", AT_FDCWD, source->path + 1, MOVE_MOUNT_F_EMPTY_PATH) == 0;
}

/* A new root in a file system that nothing else is in. NULL, or what failed, with errno; nothing of ours has changed then. */
static const char *enter_root(const char *program) {
    static struct sources sources = {.mounts = true}; /* too large for the stack of a child that shares nothing with anybody */
    /* Else what we mount would show on the host. */
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0) return "making mounts private";
    if (!gather(&sources, program)) return "taking what is to be seen";
    static const char *const points[] = {"/tmp", "/run", "/sys", "/mnt"};
    const char *point = NULL;
    for (size_t n = 0; point == NULL && n < sizeof points / sizeof *points; n++)
        if (mount("pyro", points[n], "tmpfs", MS_NOSUID | MS_NODEV, "size=256k,mode=755") == 0) point = points[n];
    if (point == NULL) return "mounting an empty file system";
    const char *failed = NULL;
    if (chdir(point) != 0) failed = "entering it";
    for (int n = 0; failed == NULL && n < sources.count; n++) if (!place_source(&sources.list[n])) failed = "mounting what is to be seen";
    struct mount_attr attributes = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV};
    if (failed == NULL && syscall(SYS_mount_setattr, AT_FDCWD, ".", AT_RECURSIVE, &attributes, sizeof attributes) != 0) failed = "making it read-only";
    if (failed == NULL && syscall(SYS_pivot_root, ".", ".") != 0) failed = "changing the root";
    if (failed != NULL) {
        int error = errno;
        if (chdir("/") != 0) _exit(125);
        umount2(point, OWN_MNT_DETACH);
        errno = error;
        return failed;
    }
    /* The old root lies over the new one now. */
    if (umount2(".", OWN_MNT_DETACH) != 0 || chdir("/") != 0) _exit(125);
    return NULL;
}

/*
 * Needs no rights at all, so it is there where namespaces are forbidden. What is not among the sources can't be opened then, but is still seen to be
 * there: its name, size and times. The ruleset's version, or -1 with errno.
 */
static int restrict_to(const struct sources *sources) {
    int version = (int)syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (version < 1) return -1;
    struct landlock_handled handled = {0};
    for (size_t n = 0; n < sizeof landlock_rights / sizeof *landlock_rights; n++) {
        if (version < landlock_rights[n].version) break;
        handled.files |= landlock_rights[n].files;
        handled.network |= landlock_rights[n].network;
        handled.scoped |= landlock_rights[n].scoped;
    }
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, &handled, sizeof handled, 0);
    if (ruleset < 0) return -1;
    for (int n = 0; n < sources->count; n++) {
        const struct source *source = &sources->list[n];
        struct landlock_path_beneath_attr beneath = {
            .allowed_access = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_EXECUTE | (source->directory ? LANDLOCK_ACCESS_FS_READ_DIR : 0),
            .parent_fd = source->tree,
        };
        if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0) != 0) return -1;
    }
    return syscall(SYS_landlock_restrict_self, ruleset, 0) == 0 ? version : -1;
}

/* Of a root of our own all may be seen. Not open(2): that is for the keeper to answer by now, and it does not listen yet. */
static bool add_root(struct sources *sources) {
    struct source *source = &sources->list[0];
    *source = (struct source){.tree = (int)syscall(SYS_open_tree, AT_FDCWD, "/", OPEN_TREE_CLOEXEC), .directory = true};
    sources->count = 1;
    return source->tree >= 0;
}

/*
 * Both where both can be had, as one may have a hole. True if there is an empty root; where there is none, only Landlock keeps files away, all but those in
 * `seen`, or NULL if that could not be opened, for the reason `error`.
 */
static bool hide_files(struct confine_report *report, bool own_mounts, const char *program, struct sources *seen, int error) {
    char *said = report->why[CONFINE_FILES];
    const char *failed = own_mounts ? enter_root(program) : NULL;
    bool entered = own_mounts && failed == NULL;
    if (failed != NULL) not_had(report, CONFINE_FILES, failed);
    else snprintf(said, CONFINE_WHY_BYTES, entered ? "an empty root" : "it has no mount namespace");
    static struct sources root;
    if (entered) seen = add_root(&root) ? &root : NULL;
    errno = error;
    int version = seen == NULL ? -1 : restrict_to(seen);
    size_t length = strlen(said);
    if (version > 0 && entered) snprintf(said + length, CONFINE_WHY_BYTES - length, " and Landlock %d", version);
    else if (version > 0) snprintf(said, CONFINE_WHY_BYTES, "Landlock %d", version);
    else if (!entered) snprintf(said + length, CONFINE_WHY_BYTES - length, ", and no Landlock: %s", strerror(errno));
    if (entered || version > 0) had(report, CONFINE_FILES);
    return entered;
}

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define LOAD_ARGUMENT(n) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args) + 8 * (n))
#define IF_NOT(value, skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), 0, (skip))
#define RETURN(action) BPF_STMT(BPF_RET | BPF_K, (action))
#define REFUSE(error) RETURN(SECCOMP_RET_ERRNO | (error))
#define ALLOW RETURN(SECCOMP_RET_ALLOW)
/* Leaves the number loaded for the next. */
#define REFUSE_CALL(number, error) IF_NOT((number), 1), REFUSE(error)
/* These end with a decision, so the number need not be loaded again. */
#define ONLY_IF_ARGUMENT(number, n, value, error) IF_NOT((number), 4), LOAD_ARGUMENT(n), IF_NOT((value), 1), ALLOW, REFUSE(error)
#define ASK_IF_ANY(number, n, flags) IF_NOT((number), 5), LOAD_ARGUMENT(n), BPF_STMT(BPF_ALU | BPF_AND | BPF_K, (flags)), IF_NOT(0, 1), ALLOW, RETURN(SECCOMP_RET_USER_NOTIF)
/* 32-bit calls and those of x32 have other numbers: none of them is any program's of ours. */
#define OWN_ARCHITECTURE LOAD(arch), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0), RETURN(SECCOMP_RET_KILL_PROCESS), \
    LOAD(nr), BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1), RETURN(SECCOMP_RET_KILL_PROCESS)

#if defined __x86_64__
static int set_filter(struct sock_filter *filter, size_t bytes, unsigned flags) {
    struct sock_fprog program = {.len = (unsigned short)(bytes / sizeof *filter), .filter = filter};
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

enum { WRITING = O_ACCMODE | O_CREAT | O_TRUNC };

/* From here on, what is opened for writing, or also for reading, is the keeper's to answer. A descriptor, or -1. */
static int listen_to_opens(bool reading) {
    struct sock_filter writes[] = {
        OWN_ARCHITECTURE,
        ASK_IF_ANY(SYS_openat, 2, WRITING),
        ASK_IF_ANY(SYS_open, 1, WRITING),
        IF_NOT(SYS_creat, 1), RETURN(SECCOMP_RET_USER_NOTIF),
        REFUSE_CALL(SYS_openat2, ENOSYS), /* its flags are in memory */
        ALLOW,
    };
    struct sock_filter all[] = {
        OWN_ARCHITECTURE,
        IF_NOT(SYS_openat, 1), RETURN(SECCOMP_RET_USER_NOTIF),
        IF_NOT(SYS_open, 1), RETURN(SECCOMP_RET_USER_NOTIF),
        IF_NOT(SYS_creat, 1), RETURN(SECCOMP_RET_USER_NOTIF),
        REFUSE_CALL(SYS_openat2, ENOSYS),
        ALLOW,
    };
    return reading ? set_filter(all, sizeof all, SECCOMP_FILTER_FLAG_NEW_LISTENER) : set_filter(writes, sizeof writes, SECCOMP_FILTER_FLAG_NEW_LISTENER);
}

static bool filter_calls(int sealed_fd) {
    uint32_t self = (uint32_t)getpid();
    struct sock_filter filter[] = {
        OWN_ARCHITECTURE,
        IF_NOT(SYS_fallocate, 4), LOAD_ARGUMENT(0), IF_NOT((uint32_t)sealed_fd, 1), REFUSE(0), ALLOW,
        /* Threads, but no processes; the C library falls back to clone(2) when clone3(2), whose flags are in memory, is not there. */
        IF_NOT(SYS_clone, 4), LOAD_ARGUMENT(0), BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 0, 1), ALLOW, REFUSE(EPERM),
        REFUSE_CALL(SYS_clone3, ENOSYS), REFUSE_CALL(SYS_fork, EPERM), REFUSE_CALL(SYS_vfork, EPERM),
        /* All sockets that it has were given to it. */
        REFUSE_CALL(SYS_socket, EACCES), REFUSE_CALL(SYS_connect, EACCES), REFUSE_CALL(SYS_bind, EACCES),
        ONLY_IF_ARGUMENT(SYS_kill, 0, self, EPERM),
        ONLY_IF_ARGUMENT(SYS_tgkill, 0, self, EPERM),
        ONLY_IF_ARGUMENT(SYS_rt_sigqueueinfo, 0, self, EPERM),
        ONLY_IF_ARGUMENT(SYS_rt_tgsigqueueinfo, 0, self, EPERM),
        REFUSE_CALL(SYS_tkill, EPERM), REFUSE_CALL(SYS_pidfd_open, EPERM), REFUSE_CALL(SYS_pidfd_send_signal, EPERM), REFUSE_CALL(SYS_pidfd_getfd, EPERM),
        ONLY_IF_ARGUMENT(SYS_prlimit64, 0, 0, EPERM),
        REFUSE_CALL(SYS_ptrace, EPERM), REFUSE_CALL(SYS_process_vm_readv, EPERM), REFUSE_CALL(SYS_process_vm_writev, EPERM), REFUSE_CALL(SYS_kcmp, EPERM),
        REFUSE_CALL(SYS_mount, EPERM), REFUSE_CALL(SYS_umount2, EPERM), REFUSE_CALL(SYS_pivot_root, EPERM), REFUSE_CALL(SYS_chroot, EPERM),
        REFUSE_CALL(SYS_open_tree, EPERM), REFUSE_CALL(SYS_move_mount, EPERM), REFUSE_CALL(SYS_fsopen, EPERM), REFUSE_CALL(SYS_fsmount, EPERM),
        REFUSE_CALL(SYS_fspick, EPERM), REFUSE_CALL(SYS_mount_setattr, EPERM), REFUSE_CALL(SYS_unshare, EPERM), REFUSE_CALL(SYS_setns, EPERM),
        /* Nothing is changed by name, and nothing of a file but what is in it: whoever owns a file may do that with a descriptor for reading, too. */
        REFUSE_CALL(SYS_open_by_handle_at, EPERM), REFUSE_CALL(SYS_truncate, EACCES), REFUSE_CALL(SYS_rename, EACCES), REFUSE_CALL(SYS_renameat, EACCES),
        REFUSE_CALL(SYS_renameat2, EACCES), REFUSE_CALL(SYS_mkdir, EACCES), REFUSE_CALL(SYS_mkdirat, EACCES), REFUSE_CALL(SYS_rmdir, EACCES),
        REFUSE_CALL(SYS_link, EACCES), REFUSE_CALL(SYS_linkat, EACCES), REFUSE_CALL(SYS_symlink, EACCES), REFUSE_CALL(SYS_symlinkat, EACCES),
        REFUSE_CALL(SYS_mknod, EACCES), REFUSE_CALL(SYS_mknodat, EACCES),
        REFUSE_CALL(SYS_unlink, ENOENT), REFUSE_CALL(SYS_unlinkat, ENOENT), /* QEMU complains of anything else when it closes a socket that has a name */
        REFUSE_CALL(SYS_chmod, EPERM), REFUSE_CALL(SYS_fchmod, EPERM), REFUSE_CALL(SYS_fchmodat, EPERM), REFUSE_CALL(FCHMODAT2, ENOSYS),
        REFUSE_CALL(SYS_chown, EPERM), REFUSE_CALL(SYS_fchown, EPERM), REFUSE_CALL(SYS_lchown, EPERM), REFUSE_CALL(SYS_fchownat, EPERM),
        REFUSE_CALL(SYS_setxattr, EPERM), REFUSE_CALL(SYS_lsetxattr, EPERM), REFUSE_CALL(SYS_fsetxattr, EPERM), REFUSE_CALL(SETXATTRAT, ENOSYS),
        REFUSE_CALL(SYS_removexattr, EPERM), REFUSE_CALL(SYS_lremovexattr, EPERM), REFUSE_CALL(SYS_fremovexattr, EPERM), REFUSE_CALL(REMOVEXATTRAT, ENOSYS),
        REFUSE_CALL(SYS_utime, EPERM), REFUSE_CALL(SYS_utimes, EPERM), REFUSE_CALL(SYS_futimesat, EPERM), REFUSE_CALL(SYS_utimensat, EPERM),
        REFUSE_CALL(FILE_SETATTR, ENOSYS),
        IF_NOT(SYS_ioctl, 12), LOAD_ARGUMENT(1), REFUSE_CALL(FS_IOC_SETFLAGS, EPERM), REFUSE_CALL(FS_IOC_FSSETXATTR, EPERM), REFUSE_CALL(FS_IOC_ENABLE_VERITY, EPERM),
        REFUSE_CALL(TIOCSTI, EPERM), REFUSE_CALL(TIOCLINUX, EPERM), ALLOW,
        /* A signal by way of a descriptor. */
        IF_NOT(SYS_fcntl, 6), LOAD_ARGUMENT(1), REFUSE_CALL(F_SETOWN, EPERM), REFUSE_CALL(F_SETOWN_EX, EPERM), ALLOW,
        REFUSE_CALL(SYS_io_uring_setup, ENOSYS), REFUSE_CALL(SYS_userfaultfd, EPERM), REFUSE_CALL(SYS_bpf, EPERM), REFUSE_CALL(SYS_perf_event_open, EPERM),
        REFUSE_CALL(SYS_keyctl, EPERM), REFUSE_CALL(SYS_add_key, EPERM), REFUSE_CALL(SYS_request_key, EPERM),
        REFUSE_CALL(SYS_init_module, EPERM), REFUSE_CALL(SYS_finit_module, EPERM), REFUSE_CALL(SYS_delete_module, EPERM),
        REFUSE_CALL(SYS_kexec_load, EPERM), REFUSE_CALL(SYS_kexec_file_load, EPERM), REFUSE_CALL(SYS_reboot, EPERM),
        REFUSE_CALL(SYS_swapon, EPERM), REFUSE_CALL(SYS_swapoff, EPERM), REFUSE_CALL(SYS_acct, EPERM), REFUSE_CALL(SYS_quotactl, EPERM),
        REFUSE_CALL(SYS_iopl, EPERM), REFUSE_CALL(SYS_ioperm, EPERM), REFUSE_CALL(SYS_settimeofday, EPERM), REFUSE_CALL(SYS_clock_settime, EPERM),
        REFUSE_CALL(SYS_adjtimex, EPERM), REFUSE_CALL(SYS_clock_adjtime, EPERM), REFUSE_CALL(SYS_syslog, EPERM),
        ALLOW,
    };
    return set_filter(filter, sizeof filter, 0) == 0;
}
#else
static int listen_to_opens(bool reading) { return (void)reading, errno = ENOSYS, -1; }
static bool filter_calls(int sealed_fd) { return (void)sealed_fd, errno = ENOSYS, false; }
#endif

static bool drop_capabilities(void) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {0};
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    return syscall(SYS_capset, &header, none) == 0;
}

static void tell_keeper(const struct confine *confine, const struct confine_report *report, int listener) {
    struct iovec bytes = {.iov_base = (void *)report, .iov_len = sizeof *report};
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr message = {.msg_iov = &bytes, .msg_iovlen = 1};
    if (listener >= 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof control.room;
        control.header = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(&control.header), &listener, sizeof listener);
    }
    if (sendmsg(confine->pair[1], &message, MSG_NOSIGNAL) != (ssize_t)sizeof *report) _exit(125);
    if (listener >= 0) close(listener);
}

void confine_enter(const struct confine *confine, unsigned long namespaces, const char *program) {
    if (!confine->wanted) return;
    static struct confine_report report;
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); /* a guest's memory is in it */
    if (namespaces == 0) snprintf(report.why[CONFINE_NAMESPACES], CONFINE_WHY_BYTES, "this host lets us make none");
    else if ((namespaces & CLONE_NEWUSER) != 0 && !map_user(confine->uid, confine->gid)) not_had(&report, CONFINE_NAMESPACES, "a user namespace can't be used");
    else had(&report, CONFINE_NAMESPACES);

    /* Before opening is for the keeper to answer; and by open(2), as containers' filters mostly refuse open_tree(2), and allow Landlock. */
    static struct sources seen;
    bool gathered = gather(&seen, program);
    int error = errno;
    bool quiet = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
    int listener = quiet ? listen_to_opens(confine->read_count > 0) : -1;
    /* Without it the program must find its files itself, as the user who owns them. */
    if (listener < 0) {
        not_had(&report, CONFINE_CALLS, "opening files in its place");
        snprintf(report.why[CONFINE_FILES], CONFINE_WHY_BYTES, "it has to open files itself");
    }
    bool entered = listener >= 0 && hide_files(&report, namespaces != 0, program, gathered ? &seen : NULL, error);
    for (int n = 0; n <= MAX_CAPABILITY; n++) prctl(PR_CAPBSET_DROP, n, 0, 0, 0); /* from the first that there is not: no effect */
    if (confine->uid != 0) snprintf(report.why[CONFINE_USER], CONFINE_WHY_BYTES, "only root can give it another user");
    else if (!entered || (namespaces & CLONE_NEWUSER) != 0) snprintf(report.why[CONFINE_USER], CONFINE_WHY_BYTES, "it has to find its files by their paths");
    else {
        uid_t own = confine->own;
        if (setgroups(0, NULL) == 0 && setresgid(own, own, own) == 0 && setresuid(own, own, own) == 0) had(&report, CONFINE_USER);
        else not_had(&report, CONFINE_USER, "changing the user");
    }
    if (quiet && drop_capabilities()) had(&report, CONFINE_PRIVILEGES);
    else not_had(&report, CONFINE_PRIVILEGES, "dropping capabilities");
    bool filtered = filter_calls(confine->sealed_fd);
    if (confine->sealed && (!filtered || listener < 0)) {
        dprintf(STDERR_FILENO, "pyro-keeper: memory can't be sealed here\n");
        _exit(125);
    }
    if (!filtered) not_had(&report, CONFINE_CALLS, "a seccomp filter");
    else if (listener >= 0) had(&report, CONFINE_CALLS);
    tell_keeper(confine, &report, listener);
}

/* ---- in the keeper ---- */

void confine_started(struct confine *confine, struct confine_report *report) {
    if (!confine->wanted) return;
    struct iovec bytes = {.iov_base = report, .iov_len = sizeof *report};
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr message = {.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control.room};
    ssize_t got = recvmsg(confine->pair[0], &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    struct cmsghdr *header = got == (ssize_t)sizeof *report ? CMSG_FIRSTHDR(&message) : NULL;
    if (header != NULL && header->cmsg_type == SCM_RIGHTS) memcpy(&confine->listener, CMSG_DATA(header), sizeof confine->listener);
    close(confine->pair[0]);
    close(confine->pair[1]);
    confine->pair[0] = confine->pair[1] = -1;
    if (confine->listener >= 0 || confine->copy < 0) return;
    close(confine->copy); /* nobody will ask for it */
    confine->copy = -1;
}

int confine_descriptors(const struct confine *confine, unsigned *fds) {
    int count = 0;
    if (confine->listener >= 0) fds[count++] = (unsigned)confine->listener;
    if (confine->copy >= 0) fds[count++] = (unsigned)confine->copy;
    return count;
}

/* Page by page, as the next one need not be there. False if it does not end in time. */
static bool read_text(pid_t process, uint64_t address, char *text, size_t size) {
    size_t at = 0;
    while (at < size) {
        size_t part = 4096 - (size_t)((address + at) % 4096);
        if (part > size - at) part = size - at;
        struct iovec ours = {.iov_base = text + at, .iov_len = part}, theirs = {.iov_base = (void *)(uintptr_t)(address + at), .iov_len = part};
        if (process_vm_readv(process, &ours, 1, &theirs, 1, 0) != (ssize_t)part) return false;
        if (memchr(text + at, '\0', part) != NULL) return true;
        at += part;
    }
    return false;
}

/* A descriptor for what is named, or -1. It decides by the name that it read, and opens that itself: whoever changes it meanwhile changes nothing. */
static int open_for(struct confine *confine, const char *name, bool writing) {
    if (!writing) {
        for (int n = 0; n < confine->read_count; n++) if (strcmp(name, confine->read[n]) == 0) return open(name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        return -1;
    }
    char reopened[32];
    snprintf(reopened, sizeof reopened, "/proc/self/fd/%d", confine->reopen);
    if (confine->copy >= 0 && strcmp(name, reopened) == 0) {
        int copy = confine->copy;
        confine->copy = -1; /* once: the file need not stay open here */
        return copy;
    }
    for (int n = 0; n < confine->written_count; n++) if (strcmp(name, confine->written[n]) == 0) return open(name, O_RDWR | O_CLOEXEC | O_NOCTTY);
    return -1;
}

static void answer(struct confine *confine, const struct seccomp_notif *question, struct seccomp_notif_resp *given) {
    char name[ASKED_BYTES];
    const struct seccomp_data *data = &question->data;
    bool writing = data->nr == SYS_creat || (data->args[data->nr == SYS_openat ? 2 : 1] & (O_ACCMODE | O_CREAT | O_TRUNC)) != 0;
    bool named = read_text((pid_t)question->pid, data->args[data->nr == SYS_openat ? 1 : 0], name, sizeof name);
    int unasked = confine->copy;
    int fd = named ? open_for(confine, name, writing) : -1;
    bool sealed = confine->sealed && confine->copy != unasked;
    struct seccomp_notif_addfd add = {.id = question->id, .srcfd = (uint32_t)fd, .newfd_flags = O_CLOEXEC};
    if (fd >= 0 && sealed) add.flags = SECCOMP_ADDFD_FLAG_SETFD, add.newfd = (uint32_t)confine->sealed_fd;
    int theirs = fd >= 0 ? ioctl(confine->listener, SECCOMP_IOCTL_NOTIF_ADDFD, &add) : -1;
    if (fd >= 0) close(fd);
    given->id = question->id;
    if (theirs >= 0) given->val = theirs;
    else if (!writing && fd < 0) given->flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE; /* what it can read by itself it may */
    else given->error = -EACCES;
}

void confine_answer(struct confine *confine, short events) {
    /* Where nobody is left to ask, kernels before 6.11 would wait for a question for ever. */
    if ((events & POLLIN) == 0) {
        close(confine->listener);
        confine->listener = -1;
        return;
    }
    /*
     * Whoever asked may be killed by now. That does not make us wait: the kernel counts each question (kernel/seccomp.c: `request`), what is received
     * counts down, and where its asker is gone ENOENT is told at once.
     */
    /* The kernel's structures may be longer than those that we know. */
    union {
        struct seccomp_notif question;
        char room[ANSWER_BYTES];
    } asked = {0};
    union {
        struct seccomp_notif_resp answer;
        char room[ANSWER_BYTES];
    } given = {0};
    if (ioctl(confine->listener, SECCOMP_IOCTL_NOTIF_RECV, &asked) == 0) {
        answer(confine, &asked.question, &given.answer);
        ioctl(confine->listener, SECCOMP_IOCTL_NOTIF_SEND, &given);
    } /* else whoever asked is gone; others may ask, and that nobody can any more is an event of its own */
}

void confine_say(const struct confine_report *report) {
    static const char *const names[CONFINE_PIECES] = {"privileges", "user", "namespaces", "files", "calls"};
    for (int n = 0; n < CONFINE_PIECES; n++) printf("%s %s%s%s\n", names[n], report->had[n] ? "yes" : "no", report->why[n][0] == '\0' ? "" : ": ", report->why[n]);
}
