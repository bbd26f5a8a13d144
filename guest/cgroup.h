// One cgroup (version 2) for each command, below "pyro", so that all it started can be killed at once.
// Source: Linux Documentation/admin-guide/cgroup-v2.rst, "cgroup.kill" and "PID".
#ifndef PYRO_CGROUP_H
#define PYRO_CGROUP_H

#include <stdint.h>

// Takes the cgroup2 mount at `path` and limits the number of processes below it, which PID 1 and its file requests are not. Without this call (hosted build) there are no cgroups: make gives 0.
void cgroups_open(const char *path);
// A new cgroup: its number, and a descriptor for CLONE_INTO_CGROUP in *fd; 0 with *fd -1 where there are none; -errno in *fd if it failed.
uint32_t cgroup_make(int *fd);
// Makes the next one ahead, for when there is nothing else to do.
void cgroups_prepare(void);
// SIGKILL to all that is in it.
void cgroup_kill(int fd);
// Removes it now or, while processes live in it, later.
void cgroup_leave(uint32_t number);
// Another try for some of those that were left.
void cgroups_sweep(void);

#endif
