// PACK, in the child: a tree of the guest's as a stream, protocol/PROTOCOL.md, "Trees".
#include <dirent.h>
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

#define LINK_SLOTS (2 * MAX_TREE_LINKS)

static struct {
  DIR *directory;
  size_t path_length;
} levels[MAX_TREE_DEPTH];
static unsigned depth;

// Relative to the root, of what is being packed; one name longer than may be sent.
static char path[MAX_PATH_BYTES + 1 + 256];
static size_t path_length;

static uint8_t buffer[2 * (MAX_PAYLOAD + 5)];
static size_t buffered;
static uint64_t entries, content, skipped;

// Files with several names, by device and inode.
static struct link {
  dev_t device;
  ino_t inode;
  char *path;
} *links;
static size_t link_count, link_bytes;

static void pack_next(void);
static void pack_entry(int parent, const char *name);
static void pack_directory(int parent, const char *name, const struct stat *seen);
static void pack_file(int parent, const char *name);
static const char *earlier_name(struct stat *info);
static void pack_content(int fd, uint64_t size, bool sparse);
static uint64_t pack_data(int fd, uint64_t length);
static void put_entry(uint8_t type, const struct stat *info, const char *target, size_t target_length);
static uint8_t *space(size_t length);
_Noreturn static void failed(int error, const char *text);

void pack_tree(const struct message *message) {
  pack_entry(AT_FDCWD, path_field(message, TAG_PATH));
  if (entries + skipped == 0) failed(ENOENT, "");
  while (depth > 0) pack_next();
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

// One more of the directory that is open, or up again.
static void pack_next(void) {
  DIR *directory = levels[depth - 1].directory;
  path_length = levels[depth - 1].path_length;
  path[path_length] = 0;
  errno = 0;
  struct dirent *entry = readdir(directory);
  if (entry == NULL) {
    if (errno != 0) failed(errno, "");
    closedir(directory);
    depth--;
    return;
  }
  if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) return;
  path_length += (size_t)sprintf(path + path_length, "%s%.255s", path_length > 0 ? "/" : "", entry->d_name);
  if (path_length > MAX_PATH_BYTES) failed(ENAMETOOLONG, "");
  pack_entry(dirfd(directory), entry->d_name);
}

// What is gone, or something else, between two calls is left out, as if it had been gone before.
static void pack_entry(int parent, const char *name) {
  struct stat info;
  if (fstatat(parent, name, &info, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno != ENOENT || parent == AT_FDCWD) failed(errno, "");
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
  if (fd < 0 || fstat(fd, &info) != 0) failed(errno, "");
  if (depth == MAX_TREE_DEPTH) failed(ENAMETOOLONG, "over 1024 levels (MAX_TREE_DEPTH)");
  put_entry(RECORD_ENTRY, &info, NULL, 0);
  levels[depth].path_length = path_length;
  levels[depth].directory = fdopendir(fd);
  if (levels[depth++].directory == NULL) failed(errno, "");
}

static void pack_file(int parent, const char *name) {
  struct stat info;
  int fd = openat(parent, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (fd < 0 && (errno == ENOENT || errno == ELOOP || errno == ENXIO) && parent != AT_FDCWD) return;
  if (fd < 0 || fstat(fd, &info) != 0) failed(errno, "");
  if (S_ISREG(info.st_mode)) {
    const char *earlier = info.st_nlink > 1 ? earlier_name(&info) : NULL;
    put_entry(earlier == NULL ? RECORD_ENTRY : RECORD_HARD_LINK, &info, earlier, earlier == NULL ? 0 : strlen(earlier));
    if (earlier == NULL) {
      pack_content(fd, (uint64_t)info.st_size, (uint64_t)info.st_blocks * 512 < (uint64_t)info.st_size);
      *space(1) = RECORD_END_FILE;
    }
  }
  close(fd);
}

// NULL: this is its first name. When there are too many to remember, it is a file with one name.
static const char *earlier_name(struct stat *info) {
  if (links == NULL) links = calloc(LINK_SLOTS, sizeof *links);
  if (links == NULL) failed(ENOMEM, "");
  size_t at = (size_t)((info->st_ino * 0x9e3779b97f4a7c15u ^ info->st_dev) % LINK_SLOTS);
  for (; links[at].path != NULL; at = (at + 1) % LINK_SLOTS)
    if (links[at].inode == info->st_ino && links[at].device == info->st_dev) return links[at].path;
  if (link_count == MAX_TREE_LINKS || link_bytes + path_length > MAX_TREE_LINK_BYTES || path_length == 0) {
    info->st_nlink = 1;
    return NULL;
  }
  links[at] = (struct link){.device = info->st_dev, .inode = info->st_ino, .path = strdup(path)};
  if (links[at].path == NULL) failed(ENOMEM, "");
  link_count++;
  link_bytes += path_length;
  return NULL;
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
      if (lseek(fd, (off_t)begin, SEEK_SET) < 0) failed(errno, "");
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
    if (count < 0) failed(errno, "");
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
  if (entries++ == MAX_TREE_ENTRIES) failed(E2BIG, "over 1000000 entries (MAX_TREE_ENTRIES)");
  uint8_t *at = space(1 + 2 + path_length + STAT_BYTES + 2 + target_length);
  *at++ = type;
  put_u16(at, (uint16_t)path_length);
  memcpy(at + 2, path, path_length);
  at += 2 + path_length;
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

static void failed(int error, const char *text) {
  if (path[0] == 0 || text[0] != 0) report_error("pack", error, text);
  report_error_of("pack", error, path);
}
