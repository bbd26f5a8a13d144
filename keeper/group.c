#define _GNU_SOURCE
#include "group.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

static const char mount_point[] = "/sys/fs/cgroup", prefix[] = "pyro-vm.";

enum {
    MOVE_ROUNDS = 8, /* what is started meanwhile is moved in the next one */
    MAX_MOVED = 4096,
    REMOVE_TRIES = 20,
    REMOVE_PAUSE_MS = 5,
};

bool group_add_limit(struct group *group, const char *what) {
    const char *equals = strchr(what, '=');
    if (group->limit_count == GROUP_MAX_LIMITS || equals == NULL || equals == what || equals - what > 32 || memchr(what, '/', (size_t)(equals - what)) != NULL) return false;
    group->limits[group->limit_count++] = what;
    return true;
}

static bool write_text(int directory, const char *file, const char *text) {
    int fd = openat(directory, file, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return false;
    bool done = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    int error = errno;
    close(fd);
    errno = error;
    return done;
}

static bool read_text(int directory, const char *file, char *text, size_t size) {
    int fd = openat(directory, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return false;
    ssize_t got = read(fd, text, size - 1);
    close(fd);
    text[got < 0 ? 0 : got] = '\0';
    return got >= 0;
}

/* Our own group, as a path below the mount point; false where there is no cgroup v2, or another kind besides it. */
static bool own_group(char *path, size_t size) {
    char text[PATH_MAX];
    if (!read_text(AT_FDCWD, "/proc/self/cgroup", text, sizeof text)) return false;
    char *line = strncmp(text, "0::/", 4) == 0 ? text : NULL; /* with v1 beside it, it is another line */
    if (line == NULL) return false;
    line[strcspn(line, "\n")] = '\0';
    return (size_t)snprintf(path, size, "%s%s", mount_point, strcmp(line, "0::/") == 0 ? "" : line + 3) < size;
}

static int open_directory(const char *path) {
    return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
}

static bool is_delegated(const char *path) {
    char value[2] = "";
    return (getxattr(path, "user.delegate", value, sizeof value) == 1 || getxattr(path, "trusted.delegate", value, sizeof value) == 1) && value[0] == '1';
}

static const char *const controllers[] = {"memory", "pids", "cpu", "io"};
enum { CONTROLLERS = sizeof controllers / sizeof *controllers };

/* Each by itself: a controller that is not there is no reason to go without the others. True if there is any. */
static bool enable_controllers(int directory) {
    char enabled[256], words[260];
    for (int tries = 0; tries < 2; tries++) {
        if (!read_text(directory, "cgroup.subtree_control", enabled, sizeof enabled)) return false;
        enabled[strcspn(enabled, "\n")] = '\0';
        snprintf(words, sizeof words, " %s ", enabled);
        int count = 0;
        for (int n = 0; n < CONTROLLERS; n++) {
            char word[16];
            snprintf(word, sizeof word, " %s ", controllers[n]);
            if (strstr(words, word) != NULL) count++;
            else if (tries == 0) {
                snprintf(word, sizeof word, "+%s", controllers[n]);
                write_text(directory, "cgroup.subtree_control", word);
            }
        }
        if (count == CONTROLLERS || tries > 0) return count > 0;
    }
    return false;
}

/* Moves all processes of a delegated group one down, so that it can have groups with limits. */
static void move_down(int directory) {
    if (mkdirat(directory, "pyro", 0755) != 0 && errno != EEXIST) return;
    for (int round = 0; round < MOVE_ROUNDS; round++) {
        int fd = openat(directory, "cgroup.procs", O_RDONLY | O_CLOEXEC);
        FILE *processes = fd < 0 ? NULL : fdopen(fd, "r");
        if (processes == NULL) return;
        char pid[16];
        int moved = 0;
        while (moved < MAX_MOVED && fgets(pid, sizeof pid, processes) != NULL) {
            write_text(directory, "pyro/cgroup.procs", pid);
            moved++;
        }
        fclose(processes);
        if (moved == 0) return;
    }
}

static bool make_in(struct group *group, const char *path) {
    int directory = open_directory(path);
    if (directory < 0) return false;
    if (enable_controllers(directory)) {
        snprintf(group->name, sizeof group->name, "%s%d", prefix, (int)getpid());
        unlinkat(directory, group->name, AT_REMOVEDIR); /* of one that had our number and was killed */
        if (mkdirat(directory, group->name, 0755) == 0) {
            group->fd = openat(directory, group->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
            if (group->fd >= 0) {
                group->parent = directory;
                return true;
            }
            unlinkat(directory, group->name, AT_REMOVEDIR);
        }
    }
    close(directory);
    return false;
}

const char *group_open(struct group *group) {
    group->parent = group->fd = -1;
    char own[PATH_MAX], parent[PATH_MAX];
    if (access("/sys/fs/cgroup/cgroup.controllers", F_OK) != 0 || !own_group(own, sizeof own)) return "this host has no cgroup v2, or one beside v1";
    bool systemd = access("/run/systemd/system", F_OK) == 0, in_root = strcmp(own, mount_point) == 0;
    snprintf(parent, sizeof parent, "%s", own);
    if (!in_root) *strrchr(parent, '/') = '\0';
    if ((is_delegated(parent) || !systemd) && make_in(group, parent)) goto made;
    if (!in_root && is_delegated(own)) {
        int directory = open_directory(own);
        if (directory >= 0) {
            move_down(directory);
            close(directory);
        }
        if (make_in(group, own)) goto made;
    }
    return systemd ? "systemd delegated no control group to us" : "no control group may be made beside ours";
made:
    for (int n = 0; n < group->limit_count; n++) {
        char file[40];
        const char *equals = strchr(group->limits[n], '=');
        snprintf(file, sizeof file, "%.*s", (int)(equals - group->limits[n]), group->limits[n]);
        write_text(group->fd, file, equals + 1);
    }
    return NULL;
}

pid_t group_fork(const struct group *group, unsigned long namespaces) {
    if (group->fd >= 0) {
        /* Moving a process that exists would wait for all processors (cgroup_threadgroup_rwsem), milliseconds. */
        struct clone_args arguments = {.flags = CLONE_INTO_CGROUP | namespaces, .exit_signal = SIGCHLD, .cgroup = (uint64_t)group->fd};
        pid_t child = (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
        if (child >= 0) return child; /* else it is a kernel before 5.7, or somebody took the group away: without limits, then */
    }
    if (namespaces == 0) return fork();
    struct clone_args arguments = {.flags = namespaces, .exit_signal = SIGCHLD};
    return (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
}

static void remove_dead(int parent) {
    int fd = openat(parent, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    if (directory == NULL) return;
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        if (strncmp(entry->d_name, prefix, sizeof prefix - 1) != 0) continue;
        pid_t keeper = (pid_t)atol(entry->d_name + sizeof prefix - 1);
        if (keeper > 0 && kill(keeper, 0) != 0 && errno == ESRCH) unlinkat(parent, entry->d_name, AT_REMOVEDIR);
    }
    closedir(directory);
}

void group_close(struct group *group) {
    if (group->fd < 0) return;
    close(group->fd);
    /* A process that was reaped may still count for a moment. */
    for (int tries = 0; tries < REMOVE_TRIES && unlinkat(group->parent, group->name, AT_REMOVEDIR) != 0 && errno == EBUSY; tries++)
        nanosleep(&(struct timespec){.tv_nsec = REMOVE_PAUSE_MS * 1000000L}, NULL);
    remove_dead(group->parent);
    close(group->parent);
    group->fd = group->parent = -1;
}

void group_say(const struct group *group, const char *why) {
    if (why != NULL) {
        printf("none: %s\n", why);
        return;
    }
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", group->parent);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = '\0';
    int available = 0;
    for (int n = 0; n < group->limit_count; n++) {
        char file[40];
        snprintf(file, sizeof file, "%.*s", (int)(strchr(group->limits[n], '=') - group->limits[n]), group->limits[n]);
        if (faccessat(group->fd, file, W_OK, 0) == 0) printf("%s %s", available++ == 0 ? "limits" : "", file);
    }
    if (available > 0) printf(" in %s\n", path);
    else printf("none: no controller is on in %s\n", path);
}
