// READ_FILE, WRITE_FILE, STAT and LIST, in the child.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "frame.h"
#include "request.h"
#include "spawn.h"

#define WRITE_APPEND 1u
#define WRITE_PARENTS 2u
#define WRITE_NEW 4u
#define STAT_FOLLOW 1u

static uint8_t buffer[65536];

static int take(int fd);

void read_file(const struct message *message) {
  const struct field *fields = message->fields;
  uint64_t offset = fields[TAG_OFFSET].bytes == NULL ? 0 : get_u64(fields[TAG_OFFSET].bytes);
  uint64_t left = fields[TAG_LENGTH].bytes == NULL ? UINT64_MAX : get_u64(fields[TAG_LENGTH].bytes);
  int fd = open(path_field(message, TAG_PATH), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (fd < 0) report_error("open", errno, "");
  struct stat info;
  if (fstat(fd, &info) == 0 && S_ISDIR(info.st_mode)) report_error("open", EISDIR, "");
  if (offset > INT64_MAX) report_error("read", EINVAL, "OFFSET is over 2^63 - 1");
  if (offset > 0 && lseek(fd, (off_t)offset, SEEK_SET) < 0) report_error("read", errno, "");
  while (left > 0) {
    ssize_t count = read(fd, buffer, left < sizeof buffer ? (size_t)left : sizeof buffer);
    if (count < 0) report_error("read", errno, "");
    if (count == 0) break;
    put_content(buffer, (size_t)count);
    left -= (uint64_t)count;
  }
  report_nothing();
}

void write_file(const struct message *message) {
  char *path = path_field(message, TAG_PATH);
  uint32_t flags = number_field(message, TAG_FLAGS, 0);
  struct stat old;
  bool existed = lstat(path, &old) == 0;
  uint32_t mode = number_field(message, TAG_MODE, existed && S_ISREG(old.st_mode) ? old.st_mode & 07777 : 0644);
  if (existed && (flags & WRITE_NEW)) report_error("open", EEXIST, "");
  if (existed && S_ISDIR(old.st_mode)) report_error("open", EISDIR, "");
  if (flags & WRITE_PARENTS) make_parents(path);
  if (flags & WRITE_APPEND) {
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | (flags & WRITE_NEW ? O_EXCL : 0), mode);
    if (fd < 0) report_error("open", errno, "");
    if (message->fields[TAG_MODE].bytes != NULL && fchmod(fd, mode) != 0) report_error("write", errno, "");
    int error = take(fd);
    if (error != 0) report_error("write", error, "");
    report_nothing();
  }
  char temporary[PATH_MAX + 64], name[64];
  const char *slash = strrchr(path, '/');
  int directory = slash == NULL ? 0 : (int)(slash - path) + 1;
  temporary_name(name, sizeof name);
  snprintf(temporary, sizeof temporary, "%.*s%s", directory, path, name);
  int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) report_error("open", errno, "");
  int error = take(fd);
  const char *stage = "write";
  // The old file's owner stays; that can fail only where the file system knows no owners.
  if (error == 0 && existed && S_ISREG(old.st_mode) && fchown(fd, old.st_uid, old.st_gid) != 0 && errno != EPERM) error = errno;
  if (error == 0 && fchmod(fd, mode) != 0) error = errno;
  if (error == 0 && renameat2(AT_FDCWD, temporary, AT_FDCWD, path, flags & WRITE_NEW ? RENAME_NOREPLACE : 0) != 0) error = errno, stage = "rename";
  if (error == 0) report_nothing();
  unlink(temporary);
  report_error(stage, error, "");
}

void stat_file(const struct message *message) {
  char *path = path_field(message, TAG_PATH);
  bool follow = has_flag(message, STAT_FOLLOW);
  struct stat info;
  if (fstatat(AT_FDCWD, path, &info, follow ? 0 : AT_SYMLINK_NOFOLLOW) != 0) report_error("stat", errno, "");
  uint8_t bytes[MAX_REPORT - 1], record[STAT_BYTES];
  struct builder builder = {.bytes = bytes, .capacity = sizeof bytes};
  put_stat(record, &info);
  add_bytes(&builder, TAG_STAT, record, sizeof record);
  if (S_ISLNK(info.st_mode)) {
    char target[4096];
    ssize_t length = readlink(path, target, sizeof target - 1);
    if (length < 0) report_error("stat", errno, "");
    add_bytes(&builder, TAG_TARGET, target, (size_t)length);
  }
  report_done(&builder);
}

void list_directory(const struct message *message) {
  int fd = open(path_field(message, TAG_PATH), O_RDONLY | O_DIRECTORY | O_NONBLOCK | O_CLOEXEC);
  DIR *directory = fd < 0 ? NULL : fdopendir(fd);
  if (directory == NULL) report_error("open", errno, "");
  size_t used = 0;
  for (;;) {
    errno = 0;
    struct dirent *entry = readdir(directory);
    if (entry == NULL && errno != 0) report_error("read", errno, "");
    if (entry == NULL) break;
    size_t length = strlen(entry->d_name);
    struct stat info;
    // Gone between the two calls: as if it had been gone before.
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 || fstatat(fd, entry->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0) continue;
    if (used + 2 + length + STAT_BYTES > sizeof buffer) {
      put_content(buffer, used);
      used = 0;
    }
    put_u16(buffer + used, (uint16_t)length);
    memcpy(buffer + used + 2, entry->d_name, length);
    put_stat(buffer + used + 2 + length, &info);
    used += 2 + length + STAT_BYTES;
  }
  put_content(buffer, used);
  report_nothing();
}

// Takes the content from the input pipe into `fd`. 0 when that was all of it, else an errno.
static int take(int fd) {
  for (ssize_t count; (count = read(0, buffer, sizeof buffer)) != 0;) {
    if (count < 0) return errno;
    for (ssize_t at = 0; at < count;) {
      ssize_t written = write(fd, buffer + at, (size_t)(count - at));
      if (written < 0) return errno;
      at += written;
    }
  }
  return content_is_whole() ? 0 : ECANCELED;
}
