#include "remove.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "limits.h"

// A directory above the one that is being emptied. Not its descriptor: a tree may be deeper than there can be descriptors.
struct place {
  dev_t device;
  ino_t inode;
};

static int remove_flat(int parent, const char *name);
static int empty(int fd, const char **about);
static struct dirent *next_entry(DIR *directory);
static int go_down(DIR **directory, const char *name, struct place **above, size_t *depth);
static int go_up(DIR **directory, const struct place *above);
static int move_to(DIR **directory, int fd);

int remove_entry(int parent, const char *name, bool recursive, const char **about) {
  *about = name;
  int error = remove_flat(parent, name);
  // More than once only where somebody puts things in at the same time.
  for (int tries = 0; error == ENOTEMPTY && recursive && tries < 100; tries++) {
    int fd = open_below(parent, name);
    if (fd < 0) return errno;
    error = empty(fd, about);
    if (error == 0) error = remove_flat(parent, name);
  }
  return error;
}

int open_below(int parent, const char *name) {
  struct open_how how = {.flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV};
  return (int)syscall(SYS_openat2, parent, name, &how, sizeof how);
}

static int remove_flat(int parent, const char *name) {
  if (unlinkat(parent, name, 0) == 0) return 0;
  if (errno != EISDIR && errno != EPERM) return errno;
  int error = errno;
  if (unlinkat(parent, name, AT_REMOVEDIR) == 0) return 0;
  if (errno == ENOTDIR) return error;
  return errno == EEXIST ? ENOTEMPTY : errno;
}

// Goes down into what is not empty, and up again where nothing is left; from above it is seen anew, as an empty directory. So nothing has
// to be remembered but the way up.
static int empty(int fd, const char **about) {
  static char failed[NAME_MAX + 1];
  DIR *directory = NULL;
  struct place *above = NULL;
  size_t depth = 0;
  int error = move_to(&directory, fd);
  while (error == 0) {
    struct dirent *entry = next_entry(directory);
    if (entry != NULL) {
      error = remove_flat(dirfd(directory), entry->d_name);
      if (error == ENOENT) error = 0;
      snprintf(failed, sizeof failed, "%s", entry->d_name);
      *about = failed;
      if (error == ENOTEMPTY) error = go_down(&directory, failed, &above, &depth);
    } else if (errno != 0) {
      error = errno;
    } else if (depth == 0) {
      break;
    } else {
      error = go_up(&directory, &above[--depth]);
    }
  }
  if (directory != NULL) closedir(directory);
  free(above);
  return error;
}

static struct dirent *next_entry(DIR *directory) {
  struct dirent *entry;
  do {
    errno = 0;
    entry = readdir(directory);
  } while (entry != NULL && (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0));
  return entry;
}

static int go_down(DIR **directory, const char *name, struct place **above, size_t *depth) {
  struct stat info;
  if (*depth >= MAX_REMOVE_DEPTH) return ENAMETOOLONG;
  if (fstat(dirfd(*directory), &info) != 0) return errno;
  if ((*depth & (*depth + 1)) == 0) {  // twice as many at 1, 3, 7, …
    struct place *more = realloc(*above, (2 * *depth + 2) * sizeof **above);
    if (more == NULL) return ENOMEM;
    *above = more;
  }
  (*above)[(*depth)++] = (struct place){.device = info.st_dev, .inode = info.st_ino};
  int fd = open_below(dirfd(*directory), name);
  return fd < 0 ? errno : move_to(directory, fd);
}

// Where a directory was moved while we were in it, `..` is somewhere else: nothing may be removed there.
static int go_up(DIR **directory, const struct place *above) {
  struct stat info;
  int fd = openat(dirfd(*directory), "..", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return errno;
  if (fstat(fd, &info) != 0 || info.st_dev != above->device || info.st_ino != above->inode) {
    close(fd);
    return ESTALE;
  }
  return move_to(directory, fd);
}

static int move_to(DIR **directory, int fd) {
  DIR *next = fdopendir(fd);
  int error = next == NULL ? errno : 0;
  if (next == NULL) close(fd);
  if (*directory != NULL) closedir(*directory);
  *directory = next;
  return error;
}
