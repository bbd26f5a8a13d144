// PACK, in the child: a tree of the guest's as a stream, protocol/PROTOCOL.md, "Trees".
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "frame.h"
#include "remove.h"
#include "request.h"
#include "spawn.h"
#include "walk.h"

static uint8_t buffer[2 * (MAX_PAYLOAD + 5)];
static size_t buffered;
static uint64_t entries, content, skipped;

static void pack_entry(int parent, const char *name);
static void pack_directory(int parent, const char *name, const struct stat *seen);
static void pack_file(int parent, const char *name);
static void pack_content(int fd, uint64_t size, bool sparse);
static uint64_t pack_data(int fd, uint64_t length);
static void put_entry(uint8_t type, const struct stat *info, const char *target, size_t target_length);
static uint8_t *space(size_t length);

void pack_tree(const struct message *message) {
  walk_begin("pack");
  pack_entry(AT_FDCWD, path_field(message, TAG_PATH));
  if (entries + skipped == 0) walk_failed(ENOENT, "");
  walk(pack_entry);
  uint8_t *end = space(17);
  end[0] = RECORD_END;
  put_u64(end + 1, entries);
  put_u64(end + 9, content);
  put_content(buffer, buffered);
  uint8_t bytes[64];
  struct builder builder = {.bytes = bytes, .capacity = sizeof bytes};
  add_u64(&builder, TAG_ENTRIES, entries);
  add_u64(&builder, TAG_SKIPPED, skipped);
  report_done(&builder);
}

// What is gone, or something else, between two calls is left out, as if it had been gone before.
static void pack_entry(int parent, const char *name) {
  struct stat info;
  if (fstatat(parent, name, &info, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno != ENOENT || parent == AT_FDCWD) walk_failed(errno, "");
    return;
  }
  switch (info.st_mode & S_IFMT) {
    case S_IFDIR: pack_directory(parent, name, &info); return;
    case S_IFREG: pack_file(parent, name); return;
    case S_IFLNK: {
      char target[MAX_PATH_BYTES + 1];
      ssize_t length = readlinkat(parent, name, target, sizeof target);
      if (length > 0 && length <= (ssize_t)MAX_PATH_BYTES) put_entry(RECORD_ENTRY, &info, target, (size_t)length);
      return;
    }
    case S_IFIFO: put_entry(RECORD_ENTRY, &info, NULL, 0); return;
    default: skipped++;
  }
}

static void pack_directory(int parent, const char *name, const struct stat *seen) {
  struct stat info;
  int fd = parent == AT_FDCWD ? open(name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : open_below(parent, name);
  if (fd < 0 && errno == EXDEV) {
    // Another file system is mounted there: the place it is mounted on, and no more.
    put_entry(RECORD_ENTRY, seen, NULL, 0);
    skipped++;
    return;
  }
  if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP) && parent != AT_FDCWD) return;
  if (fd < 0 || fstat(fd, &info) != 0) walk_failed(errno, "");
  put_entry(RECORD_ENTRY, &info, NULL, 0);
  walk_into(fd);
}

static void pack_file(int parent, const char *name) {
  struct stat info;
  int fd = openat(parent, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (fd < 0 && (errno == ENOENT || errno == ELOOP || errno == ENXIO) && parent != AT_FDCWD) return;
  if (fd < 0 || fstat(fd, &info) != 0) walk_failed(errno, "");
  if (S_ISREG(info.st_mode)) {
    const char *earlier = info.st_nlink > 1 ? walk_earlier_name(&info) : NULL;
    put_entry(earlier == NULL ? RECORD_ENTRY : RECORD_HARD_LINK, &info, earlier, earlier == NULL ? 0 : strlen(earlier));
    if (earlier == NULL) {
      pack_content(fd, (uint64_t)info.st_size, (uint64_t)info.st_blocks * 512 < (uint64_t)info.st_size);
      *space(1) = RECORD_END_FILE;
    }
  }
  close(fd);
}

// Never more than the file's size when it was opened: a log that grows as fast as it is read has an end all the same.
static void pack_content(int fd, uint64_t size, bool sparse) {
  for (uint64_t at = 0; at < size;) {
    off_t data = sparse ? lseek(fd, (off_t)at, SEEK_DATA) : (off_t)at;
    if (data < 0 && errno != ENXIO) sparse = false, data = lseek(fd, (off_t)at, SEEK_SET);
    uint64_t begin = data < 0 || (uint64_t)data > size ? size : (uint64_t)data, end = size;
    if (begin > at) {
      uint8_t *hole = space(9);
      hole[0] = RECORD_HOLE;
      put_u64(hole + 1, begin - at);
      content += begin - at;
    }
    if (begin == size) return;
    if (sparse) {
      off_t hole = lseek(fd, (off_t)begin, SEEK_HOLE);
      if (hole > (off_t)begin && (uint64_t)hole < size) end = (uint64_t)hole;
      if (lseek(fd, (off_t)begin, SEEK_SET) < 0) walk_failed(errno, "");
    }
    if (pack_data(fd, end - begin) < end - begin) return;
    at = end;
  }
}

static uint64_t pack_data(int fd, uint64_t length) {
  uint64_t done = 0;
  while (done < length) {
    uint8_t *chunk = space(5 + MAX_PAYLOAD);
    buffered -= 5 + MAX_PAYLOAD;
    ssize_t count = read(fd, chunk + 5, length - done < MAX_PAYLOAD ? (size_t)(length - done) : MAX_PAYLOAD);
    if (count < 0) walk_failed(errno, "");
    if (count == 0) break;
    chunk[0] = RECORD_CHUNK;
    put_u32(chunk + 1, (uint32_t)count);
    buffered += 5 + (size_t)count;
    done += (uint64_t)count;
    content += (uint64_t)count;
  }
  return done;
}

static void put_entry(uint8_t type, const struct stat *info, const char *target, size_t target_length) {
  if (entries++ == MAX_TREE_ENTRIES) walk_failed(E2BIG, "over 1000000 entries (MAX_TREE_ENTRIES)");
  uint8_t *at = space(1 + 2 + walk_path_length + STAT_BYTES + 2 + target_length);
  *at++ = type;
  put_u16(at, (uint16_t)walk_path_length);
  memcpy(at + 2, walk_path, walk_path_length);
  at += 2 + walk_path_length;
  put_stat(at, info);
  put_u16(at + STAT_BYTES, (uint16_t)target_length);
  if (target_length > 0) memcpy(at + STAT_BYTES + 2, target, target_length);
}

static uint8_t *space(size_t length) {
  if (sizeof buffer - buffered < length) {
    put_content(buffer, buffered);
    buffered = 0;
  }
  buffered += length;
  return buffer + buffered - length;
}
