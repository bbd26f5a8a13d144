/*
 * pyro-keeper: what Node cannot do for itself on a Linux host, in one small static program.
 *
 *   pyro-keeper keep --lifeline FD --grace-ms N [--ttl-seconds N] [--lock-shared FILE]...
 *                    [--place DIRECTORY [--listen FD=NAME]... [--log FD=NAME]...] [--attend DIRECTORY] [--limit FILE=VALUE]... [--confine WHAT]...
 *                    [--beside COUNT [--cable FD=FD] [--give FD=FD]... [--listen-beside FD=NAME]... [--log-beside FD=NAME]...] -- [WORD...] PROGRAM ARGS...
 *       Runs PROGRAM (a path) with the descriptors below FD, and ends it, with all its descendants, when FD reports its end (our maker closed it or
 *       died, SIGKILL included), when the keeper gets SIGTERM, SIGINT or SIGHUP, or when the time to live is over.
 *       With a place (place.h), other processes find it there, and once our maker has written `r` to the lifeline, it lives on without it.
 *       PROGRAM has a listening socket NAME as descriptor FD, and what it writes to FD goes to the bounded log NAME.
 *       With --attend, PROGRAM is looked up in PATH, runs in DIRECTORY, and the lifeline carries what becomes of it (attend.h).
 *       With --beside, the first COUNT words are a second program (beside.h). --cable connects descriptors of both, the kept one's first; --give gives
 *       the second one, as its second FD, what is our maker's first FD, and --listen-beside and --log-beside are what --listen and --log are.
 *       With limits, PROGRAM runs in a control group of its own, if one can be made (group.h), with VALUE in its FILE.
 *       With --confine, PROGRAM has nothing but its descriptors and what it is shown, as far as the host lets us take the rest away (confine.h).
 *       Exit status: PROGRAM's own; 128+n if signal n ended it; 124 if the time to live did; 127 if there is no such
 *       program, 126 if it can't be executed; 125 if the keeper itself failed.
 *
 *   pyro-keeper lock [--shared] [--try] -- FILE [PROGRAM ARGS...]
 *       Takes flock(2) on FILE (made 0600), says `waiting` if it has to wait, then `locked`, and holds it until the end
 *       of its standard input or SIGTERM. Exit status 75 with --try when somebody else holds it. PROGRAM (a path) is run
 *       before the lock is let go of, again and again until it succeeds: it clears up after whoever held the lock, while
 *       others that have to end too may still be in its way. With a PROGRAM, SIGTERM does not end what is held.
 *
 *   pyro-keeper limits FILE=VALUE...
 *       Says which limits `keep` could set, and where, or why none.
 *
 *   pyro-keeper confinement
 *       Confines a process of ours and says what of it could be done here, a line for each piece: its name, and `yes`, `yes: HOW` or `no: WHY`.
 *
 *   pyro-keeper send TEXT
 *       Writes TEXT to the socket that is standard input, and with it the descriptor 3: Node can't hand descriptors over.
 *
 *   pyro-keeper exchange A B
 *       Gives A's name to B and B's to A in one step (renameat2(2), which Node does not have).
 *
 *   pyro-keeper pipes N
 *       Makes N pipes and says its process id, each pipe's end to read from and the one to write to; holds them until the end of its standard input.
 *       Node has no pipes of its own; another process of the same user opens these below /proc/PID/fd.
 *
 *   pyro-keeper terminal
 *       Puts the terminal that is standard input into raw mode, says `raw`, and puts it back as it was at SIGTERM, unless somebody else
 *       has changed it meanwhile: a shell whose job died by a signal has done the same, and goes on from there.
 *
 *   pyro-keeper tsc
 *       Prints the rate of the time stamp counter in kHz.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "attend.h"
#include "beside.h"
#include "confine.h"
#include "group.h"
#include "place.h"

enum {
    EXIT_TTL = 124,
    EXIT_OWN_FAILURE = 125,
    EXIT_NOT_EXECUTABLE = 126,
    EXIT_NOT_FOUND = 127,
    EXIT_HELD = 75, /* EX_TEMPFAIL of sysexits.h */
    MAX_LOCKS = 16,
    MAX_PIPES = 16,
    LOCK_RETRY_MS = 10,
    LOCK_TRIES = 100, /* a second, for all locks together */
    MAX_SECONDS = 1 << 30,
    MAX_GRACE_MS = 1 << 30,
    /* A killed process goes at once, unless a broken device or file system holds it in the kernel. */
    DESCENDANTS_SECONDS = 30,
    LAST_ATTEMPTS = 100,
    LAST_PAUSE_MS = 100,
};

static void fail(const char *what, const char *name) {
    dprintf(STDERR_FILENO, "pyro-keeper: %s%s%s: %s\n", what, name ? " " : "", name ? name : "", strerror(errno));
    exit(EXIT_OWN_FAILURE);
}

static void usage(const char *why) {
    dprintf(STDERR_FILENO, "pyro-keeper: %s\nusage: pyro-keeper keep --lifeline FD --grace-ms N [--ttl-seconds N] [--lock-shared FILE]...\n"
            "                        [--place DIRECTORY [--listen FD=NAME]... [--log FD=NAME]...] [--attend DIRECTORY] [--limit FILE=VALUE]... [--confine WHAT]...\n"
            "                        [--beside COUNT [--cable FD=FD] [--give FD=FD]... [--listen-beside FD=NAME]... [--log-beside FD=NAME]...] -- [WORD...] PROGRAM ARGS...\n"
            "       pyro-keeper lock [--shared] [--try] -- FILE [PROGRAM ARGS...]\n       pyro-keeper limits FILE=VALUE...\n       pyro-keeper confinement\n       pyro-keeper send TEXT\n       pyro-keeper pipes N\n       pyro-keeper terminal\n       pyro-keeper tsc\n", why);
    exit(EXIT_OWN_FAILURE);
}

static long parse_number(const char *text, long least, long most) {
    char *end = NULL;
    errno = 0;
    long value = text[0] >= '0' && text[0] <= '9' ? strtol(text, &end, 10) : -1;
    if (end == NULL || *end != '\0' || errno != 0 || value < least || value > most) usage("a number is missing or out of range");
    return value;
}

/* Signals that mean "end" and SIGCHLD arrive as reads, so that one poll() waits for all there is. */
static int open_signals(sigset_t *before) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGCHLD);
    /* An ignored SIGCHLD, inherited over exec, would make children vanish before they can be waited for. */
    signal(SIGCHLD, SIG_DFL);
    if (sigprocmask(SIG_BLOCK, &set, before) != 0) fail("sigprocmask", NULL);
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0) fail("signalfd", NULL);
    return fd;
}

/* Takes all that arrived. True if one of them means "end". */
static bool told_to_end(int signals) {
    struct signalfd_siginfo info;
    bool end = false;
    while (read(signals, &info, sizeof info) == (ssize_t)sizeof info) end = end || info.ssi_signo != SIGCHLD;
    return end;
}

/* Puts the calling child under its parent: it dies with it. `parent` closes the race with a parent dead before prctl. */
static void die_with(pid_t parent) {
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent) _exit(EXIT_OWN_FAILURE);
}

/* ---- keep ---- */

struct keep {
    int lifeline;
    long grace_ms;
    long ttl_seconds; /* 0: none */
    int locks[MAX_LOCKS];
    int lock_count;
    struct place place;
    struct group group;
    struct beside beside;
    struct confine confine;
    unsigned long namespaces; /* that the program is forked into */
    const char *attend; /* the program's directory; NULL: it is not attended to */
    char **program;
};

/* close_range(2) is there since Linux 5.9, its flag since 5.11. Without them: one by one, as far as descriptors can go. */
static void close_from_to(unsigned first, unsigned last, bool only_on_exec) {
    if (first > last || close_range(first, last, only_on_exec ? CLOSE_RANGE_CLOEXEC : 0) == 0) return;
    struct rlimit limit;
    unsigned bound = getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 65536 ? (unsigned)limit.rlim_cur : 65536;
    for (unsigned fd = first; fd <= last && fd < bound; fd++) {
        if (only_on_exec) fcntl((int)fd, F_SETFD, FD_CLOEXEC);
        else close((int)fd);
    }
}

/* Whether `file` is still the name of what is open as `fd`. If not, a lock on it is one on nothing that anybody else will open. */
static bool is_named(int fd, const char *file) {
    struct stat held, named;
    return fstat(fd, &held) == 0 && stat(file, &named) == 0 && held.st_ino == named.st_ino && held.st_dev == named.st_dev;
}

/*
 * Takes the shared lock on a file that must be there. Who removes what nobody uses locks it for a moment to find out: that is
 * waited for, briefly, since our lifeline is not watched yet.
 */
static int lock_shared(const char *file, int *tries_left) {
    for (;;) {
        int fd = open(file, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK); /* a FIFO must not hold us up */
        if (fd < 0) fail("can't lock", file);
        while (flock(fd, LOCK_SH | LOCK_NB) != 0) {
            if (errno != EWOULDBLOCK && errno != EINTR) fail("can't lock", file);
            if ((*tries_left)-- == 0) {
                errno = EWOULDBLOCK;
                fail("can't lock", file);
            }
            nanosleep(&(struct timespec){.tv_nsec = LOCK_RETRY_MS * 1000000L}, NULL);
        }
        if (is_named(fd, file)) return fd;
        close(fd);
        if ((*tries_left)-- == 0) {
            errno = ESTALE;
            fail("can't lock", file);
        }
    }
}

/* Takes all numbers below the lifeline, so that no descriptor of ours gets one that the program will have something else as. */
static void fill_below(int lifeline) {
    int fd;
    do fd = open("/dev/null", O_RDWR | O_CLOEXEC); while (fd >= 0 && fd < lifeline);
    if (fd < 0) fail("open", "/dev/null");
    close(fd);
}

static bool has_beside(const struct keep *keep) {
    if (keep->beside.cable >= 0 || keep->beside.given_count > 0) return true;
    for (int n = 0; n < keep->place.socket_count; n++) if (keep->place.sockets[n].beside) return true;
    for (int n = 0; n < keep->place.log_count; n++) if (keep->place.logs[n].beside) return true;
    return false;
}

static void parse_keep(int argc, char **argv, struct keep *keep) {
    const char *lock_files[MAX_LOCKS];
    const char *place = NULL;
    keep->lifeline = -1;
    keep->grace_ms = -1;
    keep->place.directory = keep->place.control = keep->place.exit = keep->place.owner = -1;
    keep->beside.cable = keep->beside.cable_theirs = -1;
    keep->confine.reopen = -1;
    int i = 0;
    for (; i < argc && strcmp(argv[i], "--") != 0; i += 2) {
        if (i + 1 >= argc) usage("an option has no value");
        if (strcmp(argv[i], "--lifeline") == 0) keep->lifeline = (int)parse_number(argv[i + 1], 0, INT_MAX);
        else if (strcmp(argv[i], "--grace-ms") == 0) keep->grace_ms = parse_number(argv[i + 1], 0, MAX_GRACE_MS);
        else if (strcmp(argv[i], "--ttl-seconds") == 0) keep->ttl_seconds = parse_number(argv[i + 1], 1, MAX_SECONDS);
        else if (strcmp(argv[i], "--lock-shared") == 0) {
            if (keep->lock_count == MAX_LOCKS) usage("more than 16 --lock-shared");
            lock_files[keep->lock_count++] = argv[i + 1];
        } else if (strcmp(argv[i], "--beside") == 0) keep->beside.word_count = (int)parse_number(argv[i + 1], 1, BESIDE_MAX_WORDS);
        else if (strcmp(argv[i], "--cable") == 0) {
            if (!beside_set_cable(&keep->beside, argv[i + 1])) usage("--cable is not FD=FD, or there are two");
        } else if (strcmp(argv[i], "--give") == 0) {
            if (!beside_give(&keep->beside, argv[i + 1])) usage("--give is not FD=FD, or there are more than 4");
        } else if (strcmp(argv[i], "--place") == 0) place = argv[i + 1];
        else if (strcmp(argv[i], "--attend") == 0) keep->attend = argv[i + 1];
        else if (strcmp(argv[i], "--limit") == 0) {
            if (!group_add_limit(&keep->group, argv[i + 1])) usage("--limit is not FILE=VALUE, or there are more than 8");
        } else if (strcmp(argv[i], "--confine") == 0) {
            if (!confine_add(&keep->confine, argv[i + 1])) usage("--confine is not on, read=FILE, write=FILE, reopen=FD or seal=FD, or there are too many");
        }
        else if (strcmp(argv[i], "--listen") == 0 || strcmp(argv[i], "--listen-beside") == 0) {
            if (!place_add_socket(&keep->place, argv[i + 1], strcmp(argv[i], "--listen") != 0)) usage("--listen is not FD=NAME, or there are more than 9");
        } else if (strcmp(argv[i], "--log") == 0 || strcmp(argv[i], "--log-beside") == 0) {
            if (!place_add_log(&keep->place, argv[i + 1], strcmp(argv[i], "--log") != 0)) usage("--log is not FD=NAME, or there are more than 3");
        } else usage("an unknown option");
    }
    if (place == NULL && keep->place.socket_count + keep->place.log_count > 0) usage("--listen and --log need --place");
    if (i + 1 >= argc || keep->lifeline < 0 || keep->grace_ms < 0) usage("keep needs --lifeline, --grace-ms and a program");
    if (i + 1 + keep->beside.word_count >= argc) usage("the words of two programs are needed");
    if (keep->beside.word_count == 0 && has_beside(keep)) usage("--cable, --give, --listen-beside and --log-beside need --beside");
    for (int n = 0; n < keep->beside.word_count; n++) keep->beside.words[n] = argv[i + 1 + n];
    keep->program = argv + i + 1 + keep->beside.word_count;
    if (fcntl(keep->lifeline, F_SETFD, FD_CLOEXEC) != 0) fail("the lifeline", NULL);
    /* What our maker means for the program is below the lifeline. Above it is what leaked into our maker from whoever started it. */
    close_from_to((unsigned)keep->lifeline + 1, UINT_MAX, true);
    if (!place_targets_below(&keep->place, keep->lifeline)) usage("--listen and --log take descriptors below the lifeline");
    if (!beside_is_below(&keep->beside, keep->lifeline)) usage("--cable and --give take descriptors below the lifeline");
    fill_below(keep->lifeline);
    if (!beside_open(&keep->beside)) fail("what runs beside it", NULL);
    if (!confine_open(&keep->confine, keep->lifeline)) fail("the confinement", NULL);
    int tries_left = LOCK_TRIES;
    for (int n = 0; n < keep->lock_count; n++) keep->locks[n] = lock_shared(lock_files[n], &tries_left);
    if (place != NULL && !place_open(&keep->place, place, keep->lifeline)) fail("the place", place);
    keep->group.parent = keep->group.fd = -1;
    if (keep->group.limit_count > 0) group_open(&keep->group);
}

static int open_timer(void) {
    int fd = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK); /* time spent suspended counts */
    if (fd < 0) fail("timerfd_create", NULL);
    return fd;
}

static void arm(int timer, long long ms) {
    struct itimerspec when = {.it_value = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000}};
    if (timerfd_settime(timer, 0, &when, NULL) != 0) fail("timerfd_settime", NULL);
}

static void enter_program(const struct keep *keep) {
    place_enter(&keep->place);
    beside_connect(&keep->beside);
    confine_enter(&keep->confine, keep->namespaces, keep->program[0]);
}

static void enter_beside(const struct keep *keep) {
    beside_enter(&keep->beside, &keep->place, keep->lifeline);
    if (chdir("/") != 0) _exit(EXIT_OWN_FAILURE);
}

/*
 * In a child: it dies with the keeper. Last, as the kernel forgets it when the user changes. A keeper that was dead before has nobody at the other end
 * of the pipe; asking for the parent would not tell, as in a process namespace of its own a child has none.
 */
static void die_with_reader(int report) {
    struct pollfd reader = {.fd = report};
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || poll(&reader, 1, 0) < 0 || (reader.revents & POLLERR) != 0) _exit(EXIT_OWN_FAILURE);
}

struct start {
    char **program;
    const char *directory; /* it is attended to in it; NULL: it is not */
    void (*enter)(const struct keep *);
    unsigned long namespaces;
};

/* Starts a program in a process group of its own. True if it runs, else `failure` says why not. False without a child if the namespaces can't be had. */
static bool execute(const struct keep *keep, const sigset_t *mask, const struct start *start, pid_t *child, struct failure *failure) {
    int report[2];
    if (pipe2(report, O_CLOEXEC) != 0) fail("pipe", NULL);
    *child = group_fork(&keep->group, start->namespaces);
    if (*child < 0 && start->namespaces == 0) fail("fork", NULL);
    if (*child == 0) {
        close(report[0]);
        setpgid(0, 0);
        start->enter(keep);
        die_with_reader(report[1]);
        signal(SIGPIPE, SIG_DFL);
        sigprocmask(SIG_SETMASK, mask, NULL);
        if (start->directory != NULL) attend_execute(start->directory, start->program, failure);
        else {
            execv(start->program[0], start->program);
            failure->error = errno;
        }
        if (write(report[1], failure, sizeof *failure) != (ssize_t)sizeof *failure) _exit(EXIT_OWN_FAILURE);
        _exit(EXIT_NOT_FOUND);
    }
    close(report[1]);
    ssize_t got;
    do got = read(report[0], failure, sizeof *failure); while (got < 0 && errno == EINTR);
    close(report[0]);
    return *child > 0 && got != (ssize_t)sizeof *failure;
}

static int status_of(const struct failure *failure) {
    return failure->error == ENOENT || failure->error == ENOTDIR ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
}

/* Does not return if that fails. */
static pid_t start_program(struct keep *keep, const sigset_t *mask) {
    pid_t child = -1;
    struct failure failure = {0};
    bool runs = false;
    for (int n = 0; !runs && child < 0; n++) {
        keep->namespaces = confine_namespaces(&keep->confine, n);
        struct start start = {.program = keep->program, .directory = keep->attend, .enter = enter_program, .namespaces = keep->namespaces};
        runs = execute(keep, mask, &start, &child, &failure);
    }
    if (runs) {
        struct confine_report report;
        confine_started(&keep->confine, &report);
        if (keep->attend != NULL) attend_started(keep->lifeline, child);
        return child;
    }
    waitpid(child, NULL, 0);
    group_close(&keep->group);
    if (keep->attend != NULL) attend_failed(keep->lifeline, &failure);
    else dprintf(STDERR_FILENO, "pyro-keeper: can't execute %s: %s\n", keep->program[0], strerror(failure.error));
    exit(status_of(&failure));
}

/* Does not return if that fails: the kept program is ended then. */
static pid_t start_beside(struct keep *keep, const sigset_t *mask, pid_t program) {
    pid_t child;
    struct failure failure = {0};
    struct start start = {.program = keep->beside.words, .enter = enter_beside};
    if (execute(keep, mask, &start, &child, &failure)) return child;
    kill(-program, SIGKILL);
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR) {}
    group_close(&keep->group);
    dprintf(STDERR_FILENO, "pyro-keeper: can't execute %s: %s\n", keep->beside.words[0], strerror(failure.error));
    exit(status_of(&failure));
}

/* Closes what only the program needs: a socket's other side must see its end when the program closes it or dies. */
static void let_go(const struct keep *keep, const int *own, int own_count, int null) {
    for (int fd = 0; fd <= 2; fd++) dup2(null, fd);
    unsigned kept[MAX_LOCKS + PLACE_MAX_POLL + 12];
    int count = place_descriptors(&keep->place, kept);
    count += confine_descriptors(&keep->confine, kept + count);
    kept[count++] = (unsigned)keep->lifeline;
    for (int n = 0; n < keep->lock_count; n++) kept[count++] = (unsigned)keep->locks[n];
    if (keep->group.fd >= 0) {
        kept[count++] = (unsigned)keep->group.parent;
        kept[count++] = (unsigned)keep->group.fd;
    }
    for (int n = 0; n < own_count; n++) kept[count++] = (unsigned)own[n];
    unsigned next = 3;
    while (next != UINT_MAX) {
        unsigned lowest = UINT_MAX;
        for (int n = 0; n < count; n++) if (kept[n] >= next && kept[n] < lowest) lowest = kept[n];
        close_from_to(next, lowest == UINT_MAX ? UINT_MAX : lowest - 1, false);
        next = lowest == UINT_MAX ? UINT_MAX : lowest + 1;
    }
}

/* Reaps whatever died except the program itself, which keeps its id, and so its group's, from being used again. True if it is dead. */
static bool reap_until(pid_t child) {
    for (;;) {
        siginfo_t info = {.si_pid = 0};
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0) return errno == ECHILD;
        if (info.si_pid == 0) return false;
        if (info.si_pid == child) return true;
        waitpid(info.si_pid, NULL, 0);
    }
}

/* The parent of process `name` (its number as text), or 0. */
static pid_t parent_of(const char *name) {
    char path[64], stat[512];
    snprintf(path, sizeof path, "/proc/%.20s/stat", name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t length = read(fd, stat, sizeof stat - 1);
    close(fd);
    if (length <= 0) return 0;
    stat[length] = '\0';
    const char *paren = strrchr(stat, ')'); /* the name before it may hold anything */
    int parent = 0;
    if (paren == NULL || sscanf(paren + 1, " %*c %d", &parent) != 1) return 0;
    return parent;
}

/* SIGKILL for all our children. None of them can be a stranger with a used-again id: only we reap them. */
static void kill_children(void) {
    pid_t self = getpid();
    DIR *proc = opendir("/proc");
    if (proc == NULL) return;
    for (struct dirent *entry; (entry = readdir(proc)) != NULL;) {
        if (entry->d_name[0] < '1' || entry->d_name[0] > '9') continue;
        if (parent_of(entry->d_name) == self) kill((pid_t)atol(entry->d_name), SIGKILL);
    }
    closedir(proc);
}

/*
 * Kills and reaps until no descendant is left. Whoever loses its parent becomes our child (PR_SET_CHILD_SUBREAPER), so each
 * round brings up the next generation, also of those that left the group and the session.
 */
static void end_descendants(int signals) {
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (;;) {
        pid_t reaped;
        while ((reaped = waitpid(-1, NULL, WNOHANG)) > 0) {}
        if (reaped < 0 && errno == ECHILD) return;
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec - start.tv_sec > DESCENDANTS_SECONDS) return;
        kill_children();
        struct pollfd wait = {.fd = signals, .events = POLLIN};
        poll(&wait, 1, 10);
        told_to_end(signals);
    }
}

/* Waits until the second program has ended by itself, which it does when its end of the cable closes. A hung one is killed with all other descendants. */
static void let_beside_end(pid_t beside, int signals) {
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (;;) {
        pid_t reaped = waitpid(beside, NULL, WNOHANG);
        if (reaped == beside || (reaped < 0 && errno == ECHILD)) return;
        clock_gettime(CLOCK_MONOTONIC, &now);
        long waited_ms = (long)(now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000;
        if (waited_ms >= BESIDE_GRACE_MS) return;
        struct pollfd wait = {.fd = signals, .events = POLLIN};
        poll(&wait, 1, (int)(BESIDE_GRACE_MS - waited_ms));
        told_to_end(signals);
    }
}

static int keep_main(int argc, char **argv) {
    struct keep keep = {0};
    parse_keep(argc, argv, &keep);
    sigset_t mask;
    int signals = open_signals(&mask);
    int ttl = open_timer(), grace = open_timer();
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0) fail("open", "/dev/null");
    signal(SIGPIPE, SIG_IGN);
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) fail("prctl", NULL);
    if (keep.ttl_seconds > 0) arm(ttl, keep.ttl_seconds * 1000LL);

    pid_t child = start_program(&keep, &mask);
    pid_t beside = keep.beside.word_count > 0 ? start_beside(&keep, &mask, child) : 0;
    place_started(&keep.place);
    let_go(&keep, (int[]){signals, ttl, grace}, 3, null);

    enum { FIXED = 5 };
    bool ending = false, expired = false;
    const char *reason = "program"; /* the first cause counts */
    struct pollfd wait[FIXED + PLACE_MAX_POLL] = {
        {.fd = signals, .events = POLLIN}, {.fd = ttl, .events = POLLIN}, {.fd = grace, .events = POLLIN}, {.fd = keep.lifeline, .events = POLLIN | POLLRDHUP},
    };
    while (!reap_until(child)) {
        wait[4] = (struct pollfd){.fd = keep.confine.listener, .events = POLLIN};
        int placed = place_poll(&keep.place, wait + FIXED);
        if (poll(wait, FIXED + (nfds_t)placed, placed > 0 ? PLACE_LOOK_MS : -1) < 0) {
            if (errno == EINTR) continue;
            kill(-child, SIGKILL);
            fail("poll", NULL);
        }
        const char *why = wait[0].revents != 0 && told_to_end(signals) ? "signal" : NULL;
        enum place_wish wish = place_step(&keep.place, wait + FIXED, placed, child);
        if (wish != PLACE_NOTHING) why = wish == PLACE_END ? "asked" : "owner";
        else if (place_is_gone(&keep.place)) why = "asked";
        if (wait[3].revents != 0) {
            char told[256];
            /* What was written before the end counts, also when both are seen at once. */
            ssize_t got = recv(keep.lifeline, told, sizeof told, MSG_DONTWAIT);
            if (got < 0 && errno == ENOTSOCK) got = (wait[3].revents & (POLLHUP | POLLERR | POLLNVAL)) ? 0 : read(keep.lifeline, told, sizeof told);
            if (got > 0 && keep.attend != NULL) attend_signals(told, (size_t)got, child);
            if (got > 0 && keep.place.directory >= 0 && memchr(told, 'r', (size_t)got) != NULL) wait[3].fd = -1;
            else if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) why = "maker";
        }
        if (wait[4].revents != 0) confine_answer(&keep.confine, wait[4].revents);
        if (wait[1].revents != 0) {
            wait[1].fd = -1;
            expired = expired || !ending;
            why = "ttl";
        }
        if (why != NULL && !ending) {
            ending = true;
            reason = why;
            wait[3].fd = -1;
            if (keep.grace_ms > 0) {
                kill(-child, SIGTERM);
                arm(grace, keep.grace_ms);
            }
        }
        if (ending && (keep.grace_ms == 0 || wait[2].revents != 0)) {
            kill(-child, SIGKILL);
            kill(child, SIGKILL); /* it may have left its group */
            wait[2].fd = -1;
        }
    }
    kill(-child, SIGKILL); /* its id is still taken: it is dead but not reaped */
    int status = 0;
    pid_t reaped = waitpid(child, &status, 0);
    if (beside > 0) let_beside_end(beside, signals);
    end_descendants(signals);
    group_close(&keep.group);
    if (keep.attend != NULL && reaped == child) attend_ended(keep.lifeline, status);
    place_close(&keep.place, reason, reaped != child ? EXIT_OWN_FAILURE : WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
    if (expired) return EXIT_TTL;
    if (reaped != child) return EXIT_OWN_FAILURE;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* ---- lock ---- */

static void say(const char *word) {
    if (write(STDOUT_FILENO, word, strlen(word)) != (ssize_t)strlen(word)) fail("write", NULL);
}

/* Waits for the end of standard input or a signal to end (`signals` -1: not for one). With `waiter`, also for that child's end, and returns false then. */
static bool wait_for_end(int signals, pid_t waiter) {
    struct pollfd wait[] = {{.fd = signals, .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
    for (;;) {
        if (poll(wait, 2, -1) < 0 && errno != EINTR) fail("poll", NULL);
        if (wait[0].revents != 0 && told_to_end(signals)) return true;
        if (wait[1].revents != 0) {
            char ignored[256];
            ssize_t got = read(STDIN_FILENO, ignored, sizeof ignored);
            if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) return true;
        }
        if (waiter > 0 && waitpid(waiter, NULL, WNOHANG) == waiter) return false;
    }
}

/*
 * Waits for the lock in a child: flock(2) can't be waited for together with anything else, and the lock belongs to the open
 * file that both share, so it is ours when the child has it. False if we were told to end before.
 */
static bool wait_for_lock(int fd, int operation, int signals) {
    pid_t self = getpid();
    pid_t waiter = fork();
    if (waiter < 0) fail("fork", NULL);
    if (waiter == 0) {
        die_with(self);
        while (flock(fd, operation) != 0) if (errno != EINTR) _exit(EXIT_OWN_FAILURE);
        _exit(0);
    }
    if (!wait_for_end(signals, waiter)) return true;
    kill(waiter, SIGKILL);
    waitpid(waiter, NULL, 0);
    return false;
}

/* Runs the program to its end. True if it succeeded. */
static bool run_last(char **program, const sigset_t *mask) {
    pid_t self = getpid();
    pid_t child = fork();
    if (child < 0) return false;
    if (child == 0) {
        die_with(self);
        setpgid(0, 0); /* what tells our group to end is not meant for it */
        signal(SIGPIPE, SIG_DFL);
        sigprocmask(SIG_SETMASK, mask, NULL);
        int null = open("/dev/null", O_RDWR);
        for (int fd = 0; fd <= 2; fd++) dup2(null, fd);
        close(null);
        execv(program[0], program);
        _exit(EXIT_NOT_FOUND);
    }
    int status = 0;
    while (waitpid(child, &status, 0) < 0) if (errno != EINTR) return false;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static int lock_main(int argc, char **argv) {
    int operation = LOCK_EX, i = 0;
    bool only_try = false, said = false;
    for (; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--shared") == 0) operation = LOCK_SH;
        else if (strcmp(argv[i], "--try") == 0) only_try = true;
        else usage("an unknown option");
    }
    if (i + 2 > argc) usage("lock needs a file");
    const char *file = argv[i + 1];
    char **last = argv + i + 2;
    sigset_t mask;
    int signals = open_signals(&mask);
    for (;;) {
        int fd = open(file, O_RDONLY | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);
        if (fd < 0) fail("can't open", file);
        /* Asked again after the wait: the waiter may also have failed. */
        while (flock(fd, operation | LOCK_NB) != 0) {
            if (errno == EINTR) continue;
            if (errno != EWOULDBLOCK) fail("can't lock", file);
            if (only_try) return EXIT_HELD;
            if (!said) say("waiting\n");
            said = true;
            if (!wait_for_lock(fd, operation, signals)) return 0;
        }
        /* Whoever held it may have removed or replaced the file: then this is a lock on nothing that anybody else will open. */
        if (is_named(fd, file)) break;
        close(fd);
    }
    signal(SIGPIPE, SIG_IGN); /* whoever asked may be dead by now; the program is to run all the same */
    /*
     * What the program removes is whoever asked's, for as long as they live and have not let go of it. Told to end is everything of a session that ends:
     * removed under their hands, what they put in its place meanwhile would be removed, too.
     */
    if (write(STDOUT_FILENO, "locked\n", 7) == 7) wait_for_end(last[0] == NULL ? signals : -1, 0);
    for (int attempt = 0; last[0] != NULL && !run_last(last, &mask) && attempt < LAST_ATTEMPTS; attempt++) poll(NULL, 0, LAST_PAUSE_MS);
    return 0;
}

/* ---- limits ---- */

static int limits_main(int argc, char **argv) {
    struct group group = {0};
    for (int i = 0; i < argc; i++)
        if (!group_add_limit(&group, argv[i])) usage("a limit is not FILE=VALUE, or there are more than 8");
    group_say(&group, group_open(&group));
    group_close(&group);
    return fflush(stdout) == 0 ? 0 : EXIT_OWN_FAILURE;
}

/* ---- confinement ---- */

static int confinement_main(void) {
    struct confine confine = {.wanted = true, .reopen = -1};
    struct group group = {.fd = -1, .parent = -1};
    if (!confine_open(&confine, STDERR_FILENO + 1)) fail("the confinement", NULL);
    pid_t child = -1;
    for (int n = 0; child < 0; n++) {
        unsigned long namespaces = confine_namespaces(&confine, n);
        child = group_fork(&group, namespaces);
        if (child < 0 && namespaces == 0) fail("fork", NULL);
        if (child != 0) continue;
        confine_enter(&confine, namespaces, NULL);
        _exit(0);
    }
    int status = 0;
    while (waitpid(child, &status, 0) < 0) if (errno != EINTR) fail("waitpid", NULL);
    struct confine_report report = {0};
    confine_started(&confine, &report);
    if (status != 0) return EXIT_OWN_FAILURE;
    confine_say(&report);
    return fflush(stdout) == 0 ? 0 : EXIT_OWN_FAILURE;
}

/* ---- exchange ---- */

static int exchange_main(const char *a, const char *b) {
    if (renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE) != 0) fail("can't exchange", b);
    return 0;
}

/* ---- send ---- */

static int send_main(char *text) {
    enum { SENT = 3 };
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec bytes = {.iov_base = text, .iov_len = strlen(text)};
    struct msghdr message = {.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control.room};
    int fd = SENT;
    control.header = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    if (sendmsg(STDIN_FILENO, &message, MSG_NOSIGNAL) != (ssize_t)bytes.iov_len) fail("sendmsg", NULL);
    return 0;
}

/* ---- pipes ---- */

static int pipes_main(long count) {
    printf("%d", (int)getpid());
    for (long n = 0; n < count; n++) {
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) != 0) fail("pipe", NULL);
        printf(" %d %d", ends[0], ends[1]);
    }
    printf("\n");
    if (fflush(stdout) != 0) return EXIT_OWN_FAILURE;
    char ignored[64];
    for (ssize_t got = 1; got > 0 || (got < 0 && errno == EINTR);) got = read(STDIN_FILENO, ignored, sizeof ignored);
    return 0;
}

/* ---- terminal ---- */

static bool same_modes(const struct termios *a, const struct termios *b) {
    return a->c_iflag == b->c_iflag && a->c_oflag == b->c_oflag && a->c_cflag == b->c_cflag && a->c_lflag == b->c_lflag &&
           memcmp(a->c_cc, b->c_cc, sizeof a->c_cc) == 0;
}

/*
 * Node's own raw mode leaves the processing of output on, which turns the bare line feeds of full-screen programs into new
 * lines. In a session of our own, as `keep` makes one, the kernel lets us set the modes from the background, too.
 */
static int terminal_main(void) {
    int signals = open_signals(NULL);
    struct termios before, raw, now;
    if (tcgetattr(STDIN_FILENO, &before) != 0) fail("standard input is no terminal", NULL);
    raw = before;
    cfmakeraw(&raw);
    if (tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) != 0 || tcgetattr(STDIN_FILENO, &raw) != 0) fail("tcsetattr", NULL);
    signal(SIGPIPE, SIG_IGN); /* whoever asked may be dead by now; the terminal is to be put back all the same */
    if (write(STDOUT_FILENO, "raw\n", 4) == 4) {
        struct pollfd wait = {.fd = signals, .events = POLLIN};
        while (!told_to_end(signals)) if (poll(&wait, 1, -1) < 0 && errno != EINTR) break;
    }
    /* A terminal that was hung up has no modes any more. */
    if (tcgetattr(STDIN_FILENO, &now) == 0 && same_modes(&now, &raw)) tcsetattr(STDIN_FILENO, TCSADRAIN, &before);
    return 0;
}

/* ---- tsc ---- */

#if defined(__x86_64__)
struct instant {
    uint64_t ticks;
    int64_t ns;
};

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_RAW, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* One moment on both clocks: of many readings the one whose two counter values are closest, so none that was interrupted. */
static struct instant read_instant(void) {
    struct instant best = {0, 0};
    uint64_t closest = UINT64_MAX;
    for (int n = 0; n < 200; n++) {
        uint64_t before = __builtin_ia32_rdtsc();
        int64_t ns = now_ns();
        uint64_t after = __builtin_ia32_rdtsc();
        if (after - before >= closest) continue;
        closest = after - before;
        best = (struct instant){before + closest / 2, ns};
    }
    return best;
}

static double measure_khz(void) {
    struct instant first = read_instant();
    nanosleep(&(struct timespec){.tv_nsec = 8000000}, NULL);
    struct instant last = read_instant();
    return (double)(last.ticks - first.ticks) * 1e6 / (double)(last.ns - first.ns);
}

static int tsc_main(void) {
    /* Three short measurements, the middle one; far apart, they say that the counter can't be trusted here. */
    for (int attempt = 0; attempt < 5; attempt++) {
        double a = measure_khz(), b = measure_khz(), c = measure_khz();
        double least = a < b ? a : b, most = a < b ? b : a;
        double middle = c < least ? least : c > most ? most : c;
        if (c < least) least = c;
        if (c > most) most = c;
        if (least < 100e3 || most > 20e6 || most - least > middle * 50e-6) continue;
        printf("%.0f\n", middle);
        return fflush(stdout) == 0 ? 0 : EXIT_OWN_FAILURE;
    }
    dprintf(STDERR_FILENO, "pyro-keeper: the time stamp counter does not tick evenly here\n");
    return EXIT_OWN_FAILURE;
}
#else
static int tsc_main(void) {
    dprintf(STDERR_FILENO, "pyro-keeper: this architecture has no time stamp counter\n");
    return EXIT_OWN_FAILURE;
}
#endif

int main(int argc, char **argv) {
    /* A descriptor of ours must never be 0, 1 or 2: the program would get it as its own. */
    int fd;
    do fd = open("/dev/null", O_RDWR); while (fd >= 0 && fd <= 2);
    if (fd < 0) fail("open", "/dev/null");
    close(fd);
    if (argc >= 2 && strcmp(argv[1], "keep") == 0) return keep_main(argc - 2, argv + 2);
    if (argc >= 2 && strcmp(argv[1], "lock") == 0) return lock_main(argc - 2, argv + 2);
    if (argc >= 2 && strcmp(argv[1], "limits") == 0) return limits_main(argc - 2, argv + 2);
    if (argc == 2 && strcmp(argv[1], "confinement") == 0) return confinement_main();
    if (argc == 3 && strcmp(argv[1], "send") == 0) return send_main(argv[2]);
    if (argc == 4 && strcmp(argv[1], "exchange") == 0) return exchange_main(argv[2], argv[3]);
    if (argc == 3 && strcmp(argv[1], "pipes") == 0) return pipes_main(parse_number(argv[2], 1, MAX_PIPES));
    if (argc == 2 && strcmp(argv[1], "terminal") == 0) return terminal_main();
    if (argc == 2 && strcmp(argv[1], "tsc") == 0) return tsc_main();
    usage("which of keep, lock, limits, confinement, send, exchange, pipes, terminal and tsc?");
}
