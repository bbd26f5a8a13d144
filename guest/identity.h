// What is the VM's own after a start or a fork: name, time, randomness.
#ifndef PYRO_IDENTITY_H
#define PYRO_IDENTITY_H

#include <stddef.h>
#include <stdint.h>

// Opens what the calls below need, before a guest could put something else in its place.
void identity_open(void);
// Before the disks are to become read-only.
void identity_close(void);
// Each gives 0 or an errno.
int set_clock(int64_t unix_ns);
int set_hostname(const void *name, size_t length);
int add_entropy(const void *bytes, size_t length);
// 32 hexadecimal digits, into /etc/machine-id as it was opened; nothing where the image has something else there.
int set_machine_id(const void *digits);
int64_t clock_ns(void);

#endif
