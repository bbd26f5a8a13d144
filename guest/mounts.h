// Mounting what the system can't be without.
#ifndef PYRO_MOUNTS_H
#define PYRO_MOUNTS_H

#include <sys/mount.h>

#define STRICT (MS_NOSUID | MS_NODEV | MS_NOEXEC)

// Makes the directory too. What the kernel has mounted there itself is fine.
void must_mount(const char *what, const char *where, const char *type, unsigned long flags, const char *options);

#endif
