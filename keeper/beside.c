#define _GNU_SOURCE
#include "beside.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_DESCRIPTOR = 1024 };

static bool parse_pair(const char *what, int *first, int *second) {
    char *end = NULL;
    long a = what[0] >= '0' && what[0] <= '9' ? strtol(what, &end, 10) : -1;
    if (end == NULL || *end != '=' || a < 0 || a > MAX_DESCRIPTOR) return false;
    const char *rest = end + 1;
    long b = rest[0] >= '0' && rest[0] <= '9' ? strtol(rest, &end, 10) : -1;
    if (b < 0 || b > MAX_DESCRIPTOR || *end != '\0') return false;
    *first = (int)a;
    *second = (int)b;
    return true;
}

bool beside_set_cable(struct beside *beside, const char *what) { return beside->cable < 0 && parse_pair(what, &beside->cable, &beside->cable_theirs); }

bool beside_give(struct beside *beside, const char *what) {
    if (beside->given_count == BESIDE_MAX_GIVEN) return false;
    int at = beside->given_count++;
    return parse_pair(what, &beside->given[at].from, &beside->given[at].to);
}

bool beside_is_below(const struct beside *beside, int limit) {
    if (beside->cable >= limit || beside->cable_theirs >= limit) return false;
    for (int n = 0; n < beside->given_count; n++)
        if (beside->given[n].from >= limit || beside->given[n].to >= limit) return false;
    return true;
}

bool beside_open(struct beside *beside) {
    for (int n = 0; n < beside->given_count; n++)
        if (fcntl(beside->given[n].from, F_SETFD, FD_CLOEXEC) != 0) return false; /* the kept program does not get it */
    return beside->cable < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, beside->ends) == 0;
}

void beside_connect(const struct beside *beside) {
    if (beside->cable >= 0) dup2(beside->ends[0], beside->cable);
}

/* First out of the way, as one's new number may be another's old one. */
static int aside(int fd, int limit) {
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, limit);
    if (copy < 0) _exit(125);
    return copy;
}

void beside_enter(const struct beside *beside, const struct place *place, int limit) {
    struct {
        int fd, to;
    } own[3 + 1 + BESIDE_MAX_GIVEN + PLACE_MAX_SOCKETS + PLACE_MAX_LOGS];
    int count = 0;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0) _exit(125);
    for (int fd = 0; fd <= 2; fd++) own[count].fd = null, own[count++].to = fd;
    if (beside->cable >= 0) own[count].fd = aside(beside->ends[1], limit), own[count++].to = beside->cable_theirs;
    for (int n = 0; n < beside->given_count; n++) own[count].fd = aside(beside->given[n].from, limit), own[count++].to = beside->given[n].to;
    if (place->directory >= 0) {
        for (int n = 0; n < place->socket_count; n++)
            if (place->sockets[n].beside) own[count].fd = aside(place->sockets[n].fd, limit), own[count++].to = place->sockets[n].target;
        for (int n = 0; n < place->log_count; n++)
            if (place->logs[n].beside) own[count].fd = aside(place->logs[n].theirs, limit), own[count++].to = place->logs[n].target;
    }
    for (int fd = 3; fd < limit; fd++) fcntl(fd, F_SETFD, FD_CLOEXEC);
    for (int n = 0; n < count; n++) dup2(own[n].fd, own[n].to);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}
