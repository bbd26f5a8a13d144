/*
 * A control group (cgroup v2) of a program's own, with limits, where the host lets us make one; where it does not, there is none, and that
 * is no failure. Ours to make groups in are
 *   - the hierarchy's root, if we are in it (it alone may have processes as well as groups with limits), and the parent of our group, unless
 *     systemd manages them;
 *   - any of them that systemd delegated (its extended attribute `delegate`), and our own group if it was: then all that is in it moves into a
 *     group `pyro` in it first, as no group but the root may have both.
 * Nothing that systemd manages itself is touched: there may be one writer only (systemd's CGROUP_DELEGATION.md).
 */
#ifndef PYRO_GROUP_H
#define PYRO_GROUP_H

#include <stdbool.h>
#include <sys/types.h>

enum { GROUP_MAX_LIMITS = 8 };

struct group {
    const char *limits[GROUP_MAX_LIMITS]; /* FILE=VALUE */
    int limit_count;
    int parent, fd; /* directories, -1: there is no group */
    char name[32];
};

/* `what` is FILE=VALUE; false if it is anything else, or one too many. */
bool group_add_limit(struct group *group, const char *what);

/* Makes the group. Returns why there is none, or NULL. Which limits could not be set because a controller is missing is for group_say. */
const char *group_open(struct group *group);

/* fork(2) into the group and into new namespaces. -1 if these can't be had; without the group if only that can't be. */
pid_t group_fork(const struct group *group, unsigned long namespaces);

/* Removes it, and those of dead keepers. All that was in it is gone. */
void group_close(struct group *group);

/* `limits FILE... in PATH`, or `none: WHY`. */
void group_say(const struct group *group, const char *why);

#endif
