#define _GNU_SOURCE
#include "place.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static const char control_name[] = "control", exit_name[] = "exit", new_exit_name[] = "exit.new";

static bool parse_file(struct place_file *file, const char *what, bool beside) {
    char *end = NULL;
    long target = what[0] >= '0' && what[0] <= '9' ? strtol(what, &end, 10) : -1;
    if (end == NULL || *end != '=' || target < 0 || target > 1024) return false;
    const char *name = end + 1;
    if (name[0] == '\0' || name[0] == '.' || strchr(name, '/') != NULL || strlen(name) > 32) return false;
    *file = (struct place_file){.beside = beside, .target = (int)target, .fd = -1, .theirs = -1, .name = name, .out = -1};
    return true;
}

bool place_add_socket(struct place *place, const char *what, bool beside) {
    return place->socket_count < PLACE_MAX_SOCKETS && parse_file(&place->sockets[place->socket_count++], what, beside);
}

bool place_add_log(struct place *place, const char *what, bool beside) {
    return place->log_count < PLACE_MAX_LOGS && parse_file(&place->logs[place->log_count++], what, beside);
}

/* By its name alone, in the current directory: a whole path is often longer than a socket's address may be. */
static int listen_as(const char *name) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", name);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -1;
    unlink(name);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && listen(fd, PLACE_QUEUE) == 0) return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

/* The file that says how it ended, with room taken for what will be in it: the disk may be full by then. */
static int reserve_exit(void) {
    char room[PLACE_EXIT_BYTES] = {0};
    int fd = open(new_exit_name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, room, sizeof room) == (ssize_t)sizeof room) return fd;
    close(fd);
    errno = ENOSPC;
    return -1;
}

bool place_targets_below(const struct place *place, int limit) {
    for (int n = 0; n < place->socket_count; n++) if (place->sockets[n].target >= limit) return false;
    for (int n = 0; n < place->log_count; n++) if (place->logs[n].target >= limit) return false;
    return true;
}

/*
 * A keeper that was here before may still be at ending its program, or have begun so late that nobody found it to end it, and would take our sockets for its
 * own then. Not for long, and not without our maker.
 */
static bool own(int directory, int lifeline) {
    for (int tries = PLACE_TRIES; flock(directory, LOCK_EX | LOCK_NB) != 0; tries--) {
        if (errno != EWOULDBLOCK && errno != EINTR) return false;
        if (tries == 0) return errno = EBUSY, false;
        struct pollfd maker = {.fd = lifeline, .events = POLLRDHUP};
        if (poll(&maker, 1, PLACE_RETRY_MS) > 0) return errno = ECANCELED, false;
    }
    return true;
}

bool place_open(struct place *place, const char *directory, int lifeline) {
    place->owner = -1;
    place->directory = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (place->directory < 0 || !own(place->directory, lifeline) || fchdir(place->directory) != 0) return false;
    umask(077);
    if (unlink(exit_name) != 0 && errno != ENOENT) return false;
    if ((place->exit = reserve_exit()) < 0) return false;
    for (int n = 0; n < place->socket_count; n++)
        if ((place->sockets[n].fd = listen_as(place->sockets[n].name)) < 0) return false;
    for (int n = 0; n < place->log_count; n++) {
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return false;
        place->logs[n].fd = pair[0];
        place->logs[n].theirs = pair[1];
        if (fcntl(pair[0], F_SETFL, O_NONBLOCK) != 0) return false;
        unlink(place->logs[n].name);
    }
    /* Last: who can connect to it finds the rest in place. */
    return (place->control = listen_as(control_name)) >= 0;
}

void place_enter(const struct place *place) {
    if (place->directory < 0) return;
    for (int n = 0; n < place->socket_count; n++)
        if (!place->sockets[n].beside) dup2(place->sockets[n].fd, place->sockets[n].target);
    for (int n = 0; n < place->log_count; n++)
        if (!place->logs[n].beside) dup2(place->logs[n].theirs, place->logs[n].target);
    umask(022);
    if (chdir("/") != 0) _exit(125);
}

void place_started(struct place *place) {
    /* The program has them now; ours would keep a connection open that nobody serves any more. */
    for (int n = 0; n < place->socket_count; n++) close(place->sockets[n].fd);
    for (int n = 0; n < place->log_count; n++) close(place->logs[n].theirs);
}

int place_descriptors(const struct place *place, unsigned *fds) {
    if (place->directory < 0) return 0;
    int count = 0;
    fds[count++] = (unsigned)place->directory;
    fds[count++] = (unsigned)place->control;
    fds[count++] = (unsigned)place->exit;
    for (int n = 0; n < place->log_count; n++) fds[count++] = (unsigned)place->logs[n].fd;
    return count;
}

int place_poll(const struct place *place, struct pollfd *wait) {
    if (place->directory < 0) return 0;
    int count = 0;
    /* While there is no room for one more, it waits in the socket's queue. */
    wait[count++] = (struct pollfd){.fd = place->client_count < PLACE_MAX_CLIENTS ? place->control : -1, .events = POLLIN};
    for (int n = 0; n < place->log_count; n++) wait[count++] = (struct pollfd){.fd = place->logs[n].fd, .events = POLLIN};
    for (int n = 0; n < place->client_count; n++) wait[count++] = (struct pollfd){.fd = place->clients[n], .events = POLLIN};
    return count;
}

/* A log that can't be written is lost: a full disk is no reason to end anything. */
static void write_log(struct place_file *log, const char *bytes, size_t length) {
    if (log->out >= 0 && log->bytes >= PLACE_LOG_BYTES) {
        char before[64];
        snprintf(before, sizeof before, "%s.1", log->name);
        rename(log->name, before);
        close(log->out);
        log->out = -1;
    }
    if (log->out < 0) {
        log->out = open(log->name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
        log->bytes = 0;
    }
    if (log->out < 0) return;
    ssize_t written = write(log->out, bytes, length);
    if (written > 0) log->bytes += written;
}

/* As much as the file at hand may still take, so that none is longer than it may be. */
static size_t log_room(const struct place_file *log) {
    return log->out >= 0 && log->bytes < PLACE_LOG_BYTES ? (size_t)(PLACE_LOG_BYTES - log->bytes) : PLACE_LOG_BYTES;
}

static void read_log(struct place_file *log) {
    char bytes[16384];
    size_t room = log_room(log);
    ssize_t got = read(log->fd, bytes, room < sizeof bytes ? room : sizeof bytes);
    if (got > 0) {
        write_log(log, bytes, (size_t)got);
        return;
    }
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    close(log->fd);
    log->fd = -1;
}

static void say(int client, const char *text) {
    ssize_t written = send(client, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)written; /* who does not listen does not hear */
}

/* False when the connection is over. */
static bool serve(struct place *place, int client, pid_t program, enum place_wish *wish) {
    char asked[16];
    ssize_t got = read(client, asked, sizeof asked);
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    for (ssize_t n = 0; n < got; n++) {
        char text[24];
        switch (asked[n]) {
            case 'o':
                if (place->owner < 0) place->owner = client;
                say(client, place->owner == client ? "y" : "n");
                break;
            case 'p':
                snprintf(text, sizeof text, "%d\n", (int)program);
                say(client, text);
                break;
            case 'e':
                if (*wish == PLACE_NOTHING) *wish = place->owner >= 0 ? PLACE_OWNER_GONE : PLACE_END;
                break;
            default: return false;
        }
    }
    return got > 0;
}

enum place_wish place_step(struct place *place, const struct pollfd *wait, int count, pid_t program) {
    enum place_wish wish = PLACE_NOTHING;
    if (count == 0) return wish;
    for (int n = 0; n < place->log_count; n++)
        if (wait[1 + n].revents != 0) read_log(&place->logs[n]);
    int first = 1 + place->log_count;
    for (int at = count - 1; at >= first; at--) {
        if (wait[at].revents == 0) continue;
        int n = at - first, client = place->clients[n];
        if (serve(place, client, program, &wish)) continue;
        if (client == place->owner) {
            if (wish == PLACE_NOTHING) wish = PLACE_OWNER_GONE;
            place->owner = -1;
        }
        close(client);
        place->clients[n] = place->clients[--place->client_count];
    }
    if (wait[0].revents != 0) {
        int client = accept4(place->control, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (client >= 0) place->clients[place->client_count++] = client;
    }
    return wish;
}

bool place_is_gone(const struct place *place) {
    struct stat now;
    return place->directory >= 0 && fstat(place->directory, &now) == 0 && now.st_nlink == 0;
}

void place_close(struct place *place, const char *reason, int status) {
    if (place->directory < 0) return;
    for (int n = 0; n < place->log_count; n++)
        for (int tries = 0; tries < 64 && place->logs[n].fd >= 0; tries++) read_log(&place->logs[n]);
    char text[PLACE_EXIT_BYTES];
    int length = snprintf(text, sizeof text, "%s %d\n", reason, status);
    if (pwrite(place->exit, text, (size_t)length, 0) == length && ftruncate(place->exit, length) == 0) rename(new_exit_name, exit_name);
    for (int n = 0; n < place->socket_count; n++) unlink(place->sockets[n].name);
    /* Last: once it can't be found, somebody else may make the place anew. */
    unlink(control_name);
    /* The connections end with us. */
}
