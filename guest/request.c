#include "request.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "frame.h"
#include "spawn.h"

char *path_field(const struct message *message, enum tag tag) {
  char *path = calloc(1, PATH_MAX);
  if (path == NULL) report_error("open", ENOMEM, "");
  memcpy(path, message->fields[tag].bytes, message->fields[tag].length);
  return path;
}

uint32_t number_field(const struct message *message, enum tag tag, uint32_t otherwise) {
  return message->fields[tag].bytes == NULL ? otherwise : get_u32(message->fields[tag].bytes);
}

bool has_flag(const struct message *message, uint32_t flag) { return (number_field(message, TAG_FLAGS, 0) & flag) != 0; }

void report_nothing(void) {
  uint8_t bytes[8];
  struct builder nothing = {.bytes = bytes, .capacity = sizeof bytes};
  report_done(&nothing);
}

void report_error_of(const char *stage, int error, const char *name) {
  char text[1024];
  snprintf(text, sizeof text, "%.800s: %s", name, strerror(error));
  report_error(stage, error, text);
}

void put_content(const void *bytes, size_t length) {
  for (const uint8_t *at = bytes; length > 0;) {
    ssize_t count = write(1, at, length);
    if (count < 0) _exit(70);
    at += count;
    length -= (size_t)count;
  }
}

bool content_is_whole(void) {
  char commit;
  return read(CHILD_CONTROL, &commit, 1) == 1;
}

void put_stat(uint8_t record[STAT_BYTES], const struct stat *info) {
  put_u32(record, info->st_mode);
  put_u32(record + 4, info->st_uid);
  put_u32(record + 8, info->st_gid);
  put_u32(record + 12, (uint32_t)info->st_nlink);
  put_u64(record + 16, (uint64_t)info->st_size);
  put_u64(record + 24, (uint64_t)info->st_mtim.tv_sec);
  put_u32(record + 32, (uint32_t)info->st_mtim.tv_nsec);
  put_u32(record + 36, major(info->st_rdev));
  put_u32(record + 40, minor(info->st_rdev));
  put_u32(record + 44, 0);
}

int open_parent(char *path, char **name) {
  size_t length = strlen(path);
  while (length > 1 && path[length - 1] == '/') path[--length] = 0;
  char *slash = strrchr(path, '/');
  *name = slash == NULL ? path : slash + 1;
  if (**name == 0 || strcmp(*name, ".") == 0 || strcmp(*name, "..") == 0) report_error("open", EINVAL, "PATH does not end in a name");
  const char *directory = slash == NULL ? "." : slash == path ? "/" : path;
  if (slash != NULL) *slash = 0;
  int fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) report_error("open", errno, "");
  return fd;
}

void make_parents(char *path) {
  for (char *at = path + 1; (at = strchr(at, '/')) != NULL; at++) {
    *at = 0;
    int error = mkdir(path, 0755) == 0 ? 0 : errno;
    *at = '/';
    if (error != 0 && error != EEXIST) report_error("mkdir", error, "");
  }
}

void temporary_name(char *name, size_t size) {
  static unsigned count;
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  snprintf(name, size, ".pyro-%d-%lx-%x", (int)getpid(), (unsigned long)now.tv_nsec, count++);
}
