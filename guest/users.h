// Who a command runs as. /etc/passwd and /etc/group are read by hand, with limits: no NSS, and their content is the guest's.
#ifndef PYRO_USERS_H
#define PYRO_USERS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "limits.h"

struct user {
  uid_t uid;
  gid_t gid;
  gid_t groups[MAX_GROUPS];
  size_t group_count;
  char name[256], home[4096], shell[4096];  // "" where /etc/passwd has no entry
};

// Looks up `name`, `uid`, `name:group`, `uid:gid`. NULL if found, else a sentence; fills the fields from the two texts.
const char *find_user(struct user *user, const char *spec, const char *passwd, const char *group);
// Reads at most MAX_PASSWD_BYTES of a regular file; "" if it can't be. The caller is a short-lived child: never freed.
char *read_small_file(const char *path);

#endif
