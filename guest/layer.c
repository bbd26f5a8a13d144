// LAYER, in the child: what has been written over the root disk, as the tar stream of an image's layer (OCI image specification, layer.md; POSIX.1-2017, pax). Standard
// input is the directory that the overlay keeps it in.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "frame.h"
#include "remove.h"
#include "request.h"
#include "spawn.h"
#include "walk.h"

#define BLOCK 512u
#define MOST_OCTAL_7 07777777ull
#define MOST_OCTAL_11 077777777777ull

static uint8_t buffer[2 * MAX_PAYLOAD];
static size_t buffered;
static uint64_t entries, skipped;

// The records of one extended header.
static char records[MAX_LAYER_RECORDS];
static size_t records_length;

// What each VM has of its own, or mounts: in no layer.
static const char *const own[] = {"dev", "proc", "sys", "run", "etc/hosts", "etc/resolv.conf", "etc/machine-id"};

static bool is_own(void);
static void write_entry(int parent, const char *name);
static void write_directory(int parent, const char *name, const struct stat *info);
static void write_file_entry(int parent, const char *name);
static void write_whiteout(const char *name);
static void write_content(int fd, uint64_t size);
static void put_header(char type, const struct stat *info, const char *name, const char *target, uint64_t size);
static void add_number(const char *key, uint64_t value, uint64_t most);
static void add_time(const struct timespec *time);
static void add_attributes(const char *name);
static void add_record(const char *key, const void *value, size_t length);
static void put_block(char type, const struct stat *info, const char *name, const char *target, uint64_t size);
static void octal(char *at, size_t length, uint64_t value);
static void put(const void *bytes, size_t length);
static void pad(uint64_t size);

void write_layer(const struct message *message) {
  (void)message;
  walk_begin("layer");
  struct stat upper;
  if (fstat(0, &upper) != 0 || !S_ISDIR(upper.st_mode)) walk_failed(ENODEV, "there is no disk that changes are kept on");
  walk_into(0);
  walk(write_entry);
  static const uint8_t end[2 * BLOCK];
  put(end, sizeof end);
  put_content(buffer, buffered);
  uint8_t bytes[64];
  struct builder builder = {.bytes = bytes, .capacity = sizeof bytes};
  add_u64(&builder, TAG_ENTRIES, entries);
  add_u64(&builder, TAG_SKIPPED, skipped);
  report_done(&builder);
}

static bool is_own(void) {
  for (size_t i = 0; i < sizeof own / sizeof *own; i++)
    if (strcmp(walk_path, own[i]) == 0) return true;
  return false;
}

// What is gone, or something else, between two calls is left out, as if it had been gone before.
static void write_entry(int parent, const char *name) {
  struct stat info;
  if (is_own()) return;
  // Attributes are asked for by name, so that nothing has to be opened for them.
  if (fchdir(parent) != 0) walk_failed(errno, "");
  if (fstatat(parent, name, &info, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno != ENOENT) walk_failed(errno, "");
    return;
  }
  if (S_ISCHR(info.st_mode) && info.st_rdev == 0) {
    write_whiteout(name);
    return;
  }
  if (strncmp(name, ".wh.", 4) == 0) walk_failed(EINVAL, "a name that begins with .wh. means in a layer that something was removed");
  switch (info.st_mode & S_IFMT) {
    case S_IFDIR: write_directory(parent, name, &info); return;
    case S_IFREG: write_file_entry(parent, name); return;
    case S_IFLNK: {
      char target[MAX_PATH_BYTES + 1];
      ssize_t length = readlinkat(parent, name, target, sizeof target - 1);
      if (length <= 0) return;
      target[length] = 0;
      put_header('2', &info, walk_path, target, 0);
      return;
    }
    case S_IFCHR: put_header('3', &info, walk_path, "", 0); return;
    case S_IFBLK: put_header('4', &info, walk_path, "", 0); return;
    case S_IFIFO: put_header('6', &info, walk_path, "", 0); return;
    default: skipped++;
  }
}

static void write_directory(int parent, const char *name, const struct stat *info) {
  char opaque[2];
  int fd = open_below(parent, name);
  if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP)) return;
  if (fd < 0) walk_failed(errno, "");
  bool hides = fgetxattr(fd, "trusted.overlay.opaque", opaque, sizeof opaque) == 1 && opaque[0] == 'y';
  char text[MAX_PATH_BYTES + 32];
  snprintf(text, sizeof text, "%.4095s/", walk_path);
  put_header('5', info, text, "", 0);
  if (hides) {
    snprintf(text, sizeof text, "%.4095s/.wh..wh..opq", walk_path);
    struct stat marker = {.st_mode = S_IFREG, .st_mtim = info->st_mtim};
    put_header('0', &marker, text, "", 0);
  }
  walk_into(fd);
}

static void write_file_entry(int parent, const char *name) {
  struct stat info;
  int fd = openat(parent, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (fd < 0 && (errno == ENOENT || errno == ELOOP || errno == ENXIO)) return;
  if (fd < 0 || fstat(fd, &info) != 0) walk_failed(errno, "");
  if (S_ISREG(info.st_mode)) {
    const char *earlier = info.st_nlink > 1 ? walk_earlier_name(&info) : NULL;
    put_header(earlier == NULL ? '0' : '1', &info, walk_path, earlier == NULL ? "" : earlier, earlier == NULL ? (uint64_t)info.st_size : 0);
    if (earlier == NULL) write_content(fd, (uint64_t)info.st_size);
  }
  close(fd);
}

static void write_whiteout(const char *name) {
  char text[MAX_PATH_BYTES + 8];
  struct stat marker = {.st_mode = S_IFREG};
  snprintf(text, sizeof text, "%.*s.wh.%.255s", (int)(walk_path_length - strlen(name)), walk_path, name);
  put_header('0', &marker, text, "", 0);
}

// As many bytes as its header says, whatever becomes of the file meanwhile.
static void write_content(int fd, uint64_t size) {
  static uint8_t chunk[MAX_PAYLOAD];
  for (uint64_t left = size; left > 0;) {
    size_t most = left < sizeof chunk ? (size_t)left : sizeof chunk;
    ssize_t count = read(fd, chunk, most);
    if (count < 0) walk_failed(errno, "");
    if (count == 0) memset(chunk, 0, most), count = (ssize_t)most;
    put(chunk, (size_t)count);
    left -= (uint64_t)count;
  }
  pad(size);
}

// An extended header for whatever does not fit into the plain one, and that.
static void put_header(char type, const struct stat *info, const char *name, const char *target, uint64_t size) {
  if (entries++ == MAX_TREE_ENTRIES) walk_failed(E2BIG, "over 1000000 entries (MAX_TREE_ENTRIES)");
  records_length = 0;
  if (strlen(name) > 100) add_record("path", name, strlen(name));
  if (strlen(target) > 100) add_record("linkpath", target, strlen(target));
  add_number("uid", info->st_uid, MOST_OCTAL_7);
  add_number("gid", info->st_gid, MOST_OCTAL_7);
  add_number("size", size, MOST_OCTAL_11);
  add_time(&info->st_mtim);
  // A marker is none of the guest's files, and the attributes of a hard link are its target's.
  if (info->st_nlink > 0 && type != '1') add_attributes(strrchr(walk_path, '/') == NULL ? walk_path : strrchr(walk_path, '/') + 1);
  if (records_length > 0) {
    struct stat plain = {.st_mode = 0644};
    put_block('x', &plain, "pax", "", records_length);
    put(records, records_length);
    pad(records_length);
  }
  put_block(type, info, name, target, size);
}

static void add_number(const char *key, uint64_t value, uint64_t most) {
  char text[24];
  if (value > most) add_record(key, text, (size_t)sprintf(text, "%llu", (unsigned long long)value));
}

static void add_time(const struct timespec *time) {
  if (time->tv_sec >= 0 && (uint64_t)time->tv_sec <= MOST_OCTAL_11 && time->tv_nsec == 0) return;
  char text[48];
  bool before = time->tv_sec < 0;
  // The nanoseconds count upwards from the second, also before 1970.
  long long seconds = before && time->tv_nsec > 0 ? time->tv_sec + 1 : time->tv_sec;
  long nanoseconds = before && time->tv_nsec > 0 ? 1000000000 - time->tv_nsec : time->tv_nsec;
  add_record("mtime", text, (size_t)sprintf(text, "%s%lld.%09ld", before ? "-" : "", before ? -seconds : seconds, nanoseconds));
}

static void add_attributes(const char *name) {
  static char list[65536], value[65536];
  ssize_t length = llistxattr(name, list, sizeof list);
  if (length < 0 && errno != ENOTSUP && errno != ENOENT) walk_failed(errno, "");
  for (const char *at = list; length > 0 && at < list + length; at += strlen(at) + 1) {
    char key[16 + 256];
    // The overlay's own say where a file came from, which is over; one with an equals sign has no way to be written.
    if (strncmp(at, "trusted.overlay.", 16) == 0) continue;
    ssize_t bytes = lgetxattr(name, at, value, sizeof value);
    if (bytes < 0 && (errno == ENODATA || errno == ENOENT)) continue;
    if (bytes < 0) walk_failed(errno, "");
    if (strchr(at, '=') != NULL) {
      skipped++;
      continue;
    }
    snprintf(key, sizeof key, "SCHILY.xattr.%.255s", at);
    add_record(key, value, (size_t)bytes);
  }
}

// The length that a record begins with counts its own digits.
static void add_record(const char *key, const void *value, size_t length) {
  size_t rest = 1 + strlen(key) + 1 + length + 1, digits = 1;
  for (size_t most = 10; rest + digits >= most; most *= 10) digits++;
  if (rest + digits > sizeof records - records_length) walk_failed(E2BIG, "over 1 MiB of attributes (MAX_LAYER_RECORDS)");
  records_length += (size_t)sprintf(records + records_length, "%zu %s=", rest + digits, key);
  memcpy(records + records_length, value, length);
  records_length += length;
  records[records_length++] = '\n';
}

// What is too large for its field stands in the records.
static void put_block(char type, const struct stat *info, const char *name, const char *target, uint64_t size) {
  char block[BLOCK] = {0};
  size_t name_length = strlen(name), target_length = strlen(target);
  memcpy(block, name, name_length < 100 ? name_length : 100);
  octal(block + 100, 8, info->st_mode & 07777);
  octal(block + 108, 8, info->st_uid <= MOST_OCTAL_7 ? info->st_uid : 0);
  octal(block + 116, 8, info->st_gid <= MOST_OCTAL_7 ? info->st_gid : 0);
  octal(block + 124, 12, size <= MOST_OCTAL_11 ? size : 0);
  octal(block + 136, 12, info->st_mtim.tv_sec >= 0 && (uint64_t)info->st_mtim.tv_sec <= MOST_OCTAL_11 ? (uint64_t)info->st_mtim.tv_sec : 0);
  block[156] = type;
  memcpy(block + 157, target, target_length < 100 ? target_length : 100);
  memcpy(block + 257, "ustar\00000", 8);
  octal(block + 329, 8, major(info->st_rdev));
  octal(block + 337, 8, minor(info->st_rdev));
  unsigned sum = 8 * ' ';
  for (size_t i = 0; i < BLOCK; i++) sum += (uint8_t)block[i];
  octal(block + 148, 7, sum);
  block[155] = ' ';
  put(block, BLOCK);
}

static void octal(char *at, size_t length, uint64_t value) {
  at[--length] = 0;
  for (; length > 0; value >>= 3) at[--length] = (char)('0' + (value & 7));
}

static void put(const void *bytes, size_t length) {
  for (const uint8_t *at = bytes; length > 0;) {
    if (buffered == sizeof buffer) {
      put_content(buffer, buffered);
      buffered = 0;
    }
    size_t room = sizeof buffer - buffered, part = length < room ? length : room;
    memcpy(buffer + buffered, at, part);
    buffered += part;
    at += part;
    length -= part;
  }
}

static void pad(uint64_t size) {
  static const uint8_t zeros[BLOCK];
  put(zeros, (size_t)(-size & (BLOCK - 1)));
}
