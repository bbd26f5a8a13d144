/*
 * Confinement of the kept program, for one that hostile code may take over (a VM's monitor). What it has then is: its descriptors, the files that it
 * is shown, and no way to anything else.
 *
 *   privileges   no_new_privs; all capability sets empty, the bounding set too
 *   user         started by root: a user and a group of its own, which nobody else has (USER_BASE below)
 *   namespaces   mount, network, IPC, PID and UTS; where we are not root, in a user namespace
 *   files        an empty root with /usr (and its like) and the program, all of it read-only; no /proc, no /sys, no /dev; and by Landlock nothing else
 *                opened, which is all there is where there is no mount namespace: then other files' names, sizes and times can still be found out
 *   calls        a seccomp filter of ours, besides whatever the program sets up: no fork, no socket, no signal to others, no tracing, no mount,
 *                no io_uring; and nothing is opened for writing but what `write` and `reopen` name
 *
 * The keeper opens in its place what `read` and `write` name, by paths of the host's, whatever the program could reach itself.
 * `reopen=FD` is for programs that take a file only by name: opening "/proc/self/fd/FD" for writing gives descriptor FD once more, in the mode in
 * which it was opened here. So a file that may only be read stays one.
 * `seal=FD` is that for memory which others have, too: a program that gives parts of it back to the system lets go of its own pages and then punches
 * holes into the file. The holes are not made, and it is told that they were. Where that can't be had the program is not run.
 *
 * Each is had or not, whatever becomes of the others, as hosts forbid some of it; `confine_say` tells what.
 */
#ifndef PYRO_CONFINE_H
#define PYRO_CONFINE_H

#include <stdbool.h>
#include <sys/types.h>

enum confine_piece { CONFINE_PRIVILEGES, CONFINE_USER, CONFINE_NAMESPACES, CONFINE_FILES, CONFINE_CALLS, CONFINE_PIECES };

enum { CONFINE_MAX_FILES = 4, CONFINE_WHY_BYTES = 96 };

struct confine_report {
    bool had[CONFINE_PIECES];
    char why[CONFINE_PIECES][CONFINE_WHY_BYTES]; /* where it is not had; of `files` also how it is */
};

struct confine {
    bool wanted;
    const char *read[CONFINE_MAX_FILES], *written[CONFINE_MAX_FILES];
    int read_count, written_count;
    uid_t uid, own; /* whose we are, and who the program will be if we are root */
    gid_t gid;
    int reopen;   /* -1: none */
    bool sealed;  /* `reopen` came by `seal` */
    int sealed_fd; /* the number under which the program has it then; -1: none */
    int copy;     /* of `reopen`, until it was asked for */
    int pair[2];  /* what the program's process tells us before it is executed */
    int listener; /* where it asks for what it may not open itself; -1: nowhere */
};

/* `what` is `on`, read=FILE, write=FILE, reopen=FD or seal=FD; false if it is anything else, or one too many. */
bool confine_add(struct confine *confine, const char *what);

/* Before the fork. `limit` is above all of the program's descriptors. False with errno. */
bool confine_open(struct confine *confine, int limit);

/* Namespaces to be tried in a fork, best first, 0 for none at last; `index` from 0 on. */
unsigned long confine_namespaces(const struct confine *confine, int index);

/* In the program's process, last before it is executed. `namespaces` is what it was forked into. */
void confine_enter(const struct confine *confine, unsigned long namespaces, const char *program);

/* In ours, when the program runs: takes what it told us. */
void confine_started(struct confine *confine, struct confine_report *report);

/* The descriptors to be kept open, at most 2. */
int confine_descriptors(const struct confine *confine, unsigned *fds);

/* Answers one question of the program's, with what poll said of the listener; that is closed when it can't ask any more. */
void confine_answer(struct confine *confine, short events);

/* One line for each piece: its name, and `yes`, `yes: HOW` or `no: WHY`. */
void confine_say(const struct confine_report *report);

#endif
