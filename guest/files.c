// READ_FILE, WRITE_FILE, STAT and LIST, each in a child of its own: content goes through the pipes 0 and 1,
// the outcome through CHILD_REPORT.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "frame.h"
#include "spawn.h"

#define WRITE_APPEND 1u
#define WRITE_PARENTS 2u
#define WRITE_NEW 4u
#define STAT_FOLLOW 1u

static uint8_t buffer[65536];

static char *path_of(const struct message *message);
static uint32_t number(const struct message *message, enum tag tag, uint32_t otherwise);
_Noreturn static void read_file(const struct message *message);
_Noreturn static void write_file(const struct message *message);
_Noreturn static void stat_file(const struct message *message);
_Noreturn static void list_directory(const struct message *message);
_Noreturn static void done(void);
static void put(const uint8_t *bytes, size_t length);
static void put_stat(uint8_t record[48], const struct stat *info);
static int take(int fd);
static void make_parents(char *path);

void run_file_request(const struct message *message) {
  switch (message->kind) {
    case KIND_READ_FILE: read_file(message);
    case KIND_WRITE_FILE: write_file(message);
    case KIND_STAT: stat_file(message);
    case KIND_LIST: list_directory(message);
    default: _exit(70);
  }
}

static char *path_of(const struct message *message) {
  char *path = calloc(1, PATH_MAX);
  if (path == NULL) report_error("open", ENOMEM, "");
  memcpy(path, message->fields[TAG_PATH].bytes, message->fields[TAG_PATH].length);
  return path;
}

static uint32_t number(const struct message *message, enum tag tag, uint32_t otherwise) {
  return message->fields[tag].bytes == NULL ? otherwise : get_u32(message->fields[tag].bytes);
}

static void read_file(const struct message *message) {
  const struct field *fields = message->fields;
  uint64_t offset = fields[TAG_OFFSET].bytes == NULL ? 0 : get_u64(fields[TAG_OFFSET].bytes);
  uint64_t left = fields[TAG_LENGTH].bytes == NULL ? UINT64_MAX : get_u64(fields[TAG_LENGTH].bytes);
  int fd = open(path_of(message), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (fd < 0) report_error("open", errno, "");
  struct stat info;
  if (fstat(fd, &info) == 0 && S_ISDIR(info.st_mode)) report_error("open", EISDIR, "");
  if (offset > INT64_MAX) report_error("read", EINVAL, "OFFSET is over 2^63 - 1");
  if (offset > 0 && lseek(fd, (off_t)offset, SEEK_SET) < 0) report_error("read", errno, "");
  while (left > 0) {
    ssize_t count = read(fd, buffer, left < sizeof buffer ? (size_t)left : sizeof buffer);
    if (count < 0) report_error("read", errno, "");
    if (count == 0) break;
    put(buffer, (size_t)count);
    left -= (uint64_t)count;
  }
  done();
}

static void write_file(const struct message *message) {
  char *path = path_of(message);
  uint32_t flags = number(message, TAG_FLAGS, 0);
  struct stat old;
  bool existed = lstat(path, &old) == 0;
  uint32_t mode = number(message, TAG_MODE, existed && S_ISREG(old.st_mode) ? old.st_mode & 07777 : 0644);
  if (existed && (flags & WRITE_NEW)) report_error("open", EEXIST, "");
  if (existed && S_ISDIR(old.st_mode)) report_error("open", EISDIR, "");
  if (flags & WRITE_PARENTS) make_parents(path);
  if (flags & WRITE_APPEND) {
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | (flags & WRITE_NEW ? O_EXCL : 0), mode);
    if (fd < 0) report_error("open", errno, "");
    if (message->fields[TAG_MODE].bytes != NULL && fchmod(fd, mode) != 0) report_error("write", errno, "");
    int error = take(fd);
    if (error != 0) report_error("write", error, "");
    done();
  }
  char temporary[PATH_MAX + 32];
  const char *slash = strrchr(path, '/');
  int directory = slash == NULL ? 0 : (int)(slash - path) + 1;
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  snprintf(temporary, sizeof temporary, "%.*s.pyro-%d-%lx", directory, path, (int)getpid(), (unsigned long)now.tv_nsec);
  int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) report_error("open", errno, "");
  int error = take(fd);
  const char *stage = "write";
  // The old file's owner stays; that can fail only where the file system knows no owners.
  if (error == 0 && existed && S_ISREG(old.st_mode) && fchown(fd, old.st_uid, old.st_gid) != 0 && errno != EPERM) error = errno;
  if (error == 0 && fchmod(fd, mode) != 0) error = errno;
  if (error == 0 && renameat2(AT_FDCWD, temporary, AT_FDCWD, path, flags & WRITE_NEW ? RENAME_NOREPLACE : 0) != 0) error = errno, stage = "rename";
  if (error == 0) done();
  unlink(temporary);
  report_error(stage, error, "");
}

static void stat_file(const struct message *message) {
  char *path = path_of(message);
  bool follow = (number(message, TAG_FLAGS, 0) & STAT_FOLLOW) != 0;
  struct stat info;
  if (fstatat(AT_FDCWD, path, &info, follow ? 0 : AT_SYMLINK_NOFOLLOW) != 0) report_error("stat", errno, "");
  uint8_t bytes[MAX_REPORT - 1], record[48];
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

static void list_directory(const struct message *message) {
  int fd = open(path_of(message), O_RDONLY | O_DIRECTORY | O_NONBLOCK | O_CLOEXEC);
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
    if (used + 2 + length + 48 > sizeof buffer) {
      put(buffer, used);
      used = 0;
    }
    put_u16(buffer + used, (uint16_t)length);
    memcpy(buffer + used + 2, entry->d_name, length);
    put_stat(buffer + used + 2 + length, &info);
    used += 2 + length + 48;
  }
  put(buffer, used);
  done();
}

// Only the file; host name, clock and entropy are set by PID 1 itself. A machine id that is a link or anything but a file is the image's own affair.
static void done(void) {
  uint8_t bytes[8];
  struct builder nothing = {.bytes = bytes, .capacity = sizeof bytes};
  report_done(&nothing);
}

static void put(const uint8_t *bytes, size_t length) {
  while (length > 0) {
    ssize_t count = write(1, bytes, length);
    if (count < 0) _exit(70);  // nobody wants it any more
    bytes += count;
    length -= (size_t)count;
  }
}

// protocol/PROTOCOL.md, field STAT.
static void put_stat(uint8_t record[48], const struct stat *info) {
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

// Takes the content from the input pipe. 0 when PID 1 said that this was all of it (a mere end of file may be a host that
// went away), else an errno.
static int take(int fd) {
  for (ssize_t count; (count = read(0, buffer, sizeof buffer)) != 0;) {
    if (count < 0) return errno;
    for (ssize_t at = 0; at < count;) {
      ssize_t written = write(fd, buffer + at, (size_t)(count - at));
      if (written < 0) return errno;
      at += written;
    }
  }
  char commit;
  return read(CHILD_CONTROL, &commit, 1) == 1 ? 0 : ECANCELED;
}

static void make_parents(char *path) {
  for (char *at = path + 1; (at = strchr(at, '/')) != NULL; at++) {
    *at = 0;
    int error = mkdir(path, 0755) == 0 ? 0 : errno;
    *at = '/';
    if (error != 0 && error != EEXIST) report_error("mkdir", error, "");
  }
}
