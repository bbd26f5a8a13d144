/*
 * A place: the directory in which other processes find what the keeper keeps. In it are sockets that the program serves and that
 * the keeper opens for it, logs of what it says, the socket `control`, and in the end the file `exit`.
 *
 * Whoever connects to `control` asks with single bytes:
 *   o  "end it when this connection ends": answered y, or n if somebody else asked before
 *   p  the program's process id, answered in digits and a newline
 *   e  "end it" (if somebody owns it, as if the owner went): when all of it is gone, the connection ends, as all others do
 * Whoever asks anything else is let go of. When the directory is removed, so that nobody could ever find it again, all of it ends, too.
 *
 * A place is one keeper's at a time, which holds flock(2) on the directory for as long as it lives.
 */
#ifndef PYRO_PLACE_H
#define PYRO_PLACE_H

#include <poll.h>
#include <stdbool.h>
#include <sys/types.h>

enum {
    PLACE_MAX_SOCKETS = 9,
    PLACE_MAX_LOGS = 3,
    PLACE_MAX_CLIENTS = 256,
    PLACE_QUEUE = 1024, /* of those that are not connected yet; the kernel has a limit of its own */
    PLACE_MAX_POLL = 1 + PLACE_MAX_LOGS + PLACE_MAX_CLIENTS,
    /* A log and the one before it: what is kept is between one and two of these. */
    PLACE_LOG_BYTES = 65536,
    PLACE_EXIT_BYTES = 64,
    PLACE_LOOK_MS = 5000, /* between two looks whether the directory is there */
    PLACE_RETRY_MS = 10,
    PLACE_TRIES = 500, /* five seconds, for the keeper that was there before */
};

struct place_file {
    bool beside; /* of the second program (beside.h), not of the kept one */
    int target;  /* the program's descriptor */
    int fd;      /* a listening socket, or our end of what the program writes to */
    int theirs;  /* of a log: the program's end */
    const char *name;
    int out; /* of a log: the file, -1 while there is none */
    off_t bytes;
};

struct place {
    int directory; /* -1: there is no place */
    int control;
    int exit; /* the file that becomes `exit` */
    struct place_file sockets[PLACE_MAX_SOCKETS], logs[PLACE_MAX_LOGS];
    int socket_count, log_count;
    int clients[PLACE_MAX_CLIENTS];
    int client_count;
    int owner; /* a descriptor of `clients`, -1: nobody */
};

enum place_wish { PLACE_NOTHING, PLACE_END, PLACE_OWNER_GONE };

/* `what` is FD=NAME; false if it is anything else, or one too many. */
bool place_add_socket(struct place *place, const char *what, bool beside);
bool place_add_log(struct place *place, const char *what, bool beside);

/* Whether the program's descriptors are all below `limit`. */
bool place_targets_below(const struct place *place, int limit);

/*
 * Makes all of it. False with errno: EBUSY if another keeper is there and stays, ECANCELED if the other end of `lifeline` closes before it goes. The program's
 * descriptors must be taken by then, or one of ours might get such a number.
 */
bool place_open(struct place *place, const char *directory, int lifeline);

/* In the program's process, before it is executed. */
void place_enter(const struct place *place);
/* In ours, when all programs run. */
void place_started(struct place *place);

/* The descriptors to be kept open; at most PLACE_MAX_POLL + 2. */
int place_descriptors(const struct place *place, unsigned *fds);

int place_poll(const struct place *place, struct pollfd *wait);
/* Does what the poll brought up. */
enum place_wish place_step(struct place *place, const struct pollfd *wait, int count, pid_t program);

/* Whether the directory was removed. */
bool place_is_gone(const struct place *place);

/* Takes what is left in the logs, writes `exit`, removes the sockets' names, and lets everybody go who is connected. */
void place_close(struct place *place, const char *reason, int status);

#endif
