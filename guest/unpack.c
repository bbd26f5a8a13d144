// UNPACK, in the child: a stream becomes a tree of the guest's, protocol/PROTOCOL.md, "Trees".
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "frame.h"
#include "remove.h"
#include "request.h"
#include "spawn.h"

#define UNPACK_MERGE 1u
#define UNPACK_PARENTS 2u
#define UNPACK_OWNERS 4u

static bool owners;
// Where the root goes: built beside its place under another name, unless it is there and something is put into it.
static int parent = -1;
static char *root_name, built_name[64];
static bool merging, replacing, built;

static struct tree tree;
static struct {
  int fd;
  bool is_new;
  uint8_t stat[STAT_BYTES];
} levels[MAX_TREE_DEPTH];
static unsigned open_levels;

// The file that is being written: its directory, the name it has and the one it gets.
static struct {
  int fd, directory;
  char name[256], temporary[256];
  uint64_t position;
  uint8_t stat[STAT_BYTES];
} file = {.fd = -1};

static uint8_t buffer[2 * (MAX_PAYLOAD + 5)];

static void find_place(const struct message *message);
static void read_records(void);
static void take(const struct record *record);
static void take_entry(const struct record *record, unsigned level, const char *name);
static void make_level(int directory, const char *name, const uint8_t *stat);
static void make_file(const uint8_t *stat);
static void end_file(void);
static void write_chunk(const uint8_t *bytes, size_t length);
static void make_hard_link(const char *source);
static void move_into_place(void);
static void close_levels(unsigned keep);
static void apply_owner(int fd, const char *name, const uint8_t *stat);
static void apply_times(int fd, const char *name, const uint8_t *stat);
_Noreturn static void failed(int error, const char *text);

void unpack_tree(const struct message *message) {
  umask(0);
  owners = has_flag(message, UNPACK_OWNERS);
  find_place(message);
  read_records();
  close_levels(0);
  if (built && renameat2(parent, built_name, parent, root_name, replacing ? 0 : RENAME_NOREPLACE) != 0) failed(errno, "");
  uint8_t bytes[32];
  struct builder builder = {.bytes = bytes, .capacity = sizeof bytes};
  add_u64(&builder, TAG_ENTRIES, tree.entries);
  report_done(&builder);
}

static void find_place(const struct message *message) {
  char *path = path_field(message, TAG_PATH);
  struct stat info;
  if (has_flag(message, UNPACK_PARENTS)) make_parents(path);
  if (has_flag(message, UNPACK_MERGE)) {
    levels[0].fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    merging = levels[0].fd >= 0;
    if (merging) return;
  }
  parent = open_parent(path, &root_name);
  bool exists = fstatat(parent, root_name, &info, AT_SYMLINK_NOFOLLOW) == 0;
  replacing = exists && has_flag(message, UNPACK_MERGE);
  if (exists && !replacing) report_error("unpack", EEXIST, "");
  temporary_name(built_name, sizeof built_name);
}

static void read_records(void) {
  size_t begin = 0, end = 0;
  while (!tree.is_over) {
    struct record record;
    size_t size;
    const char *why = NULL;
    enum parsed parsed = record_next(buffer + begin, end - begin, &record, &size, &why);
    if (parsed == RECORD_BAD) failed(EBADMSG, why);
    if (parsed == RECORD_WHOLE) {
      take(&record);
      begin += size;
      continue;
    }
    memmove(buffer, buffer + begin, end - begin);
    end -= begin;
    begin = 0;
    ssize_t count = read(0, buffer + end, sizeof buffer - end);
    if (count < 0) failed(errno, "");
    if (count == 0) failed(content_is_whole() ? EBADMSG : ECANCELED, "the tree broke off");
    end += (size_t)count;
  }
  if (begin != end || read(0, buffer, 1) != 0) failed(EBADMSG, "bytes after the end of the tree");
  if (!content_is_whole()) failed(ECANCELED, "the tree broke off");
}

static void take(const struct record *record) {
  unsigned level = 0;
  const char *name = NULL, *wrong = tree_take(&tree, record, &level, &name);
  if (wrong != NULL) failed(EBADMSG, wrong);
  switch (record->type) {
    case RECORD_CHUNK: write_chunk(record->bytes, (size_t)record->length); return;
    case RECORD_HOLE:
      file.position += record->length;
      return;
    case RECORD_END_FILE: end_file(); return;
    case RECORD_END: return;
    default: take_entry(record, level, name);
  }
}

static void take_entry(const struct record *record, unsigned level, const char *name) {
  bool is_root = name[0] == 0;
  uint32_t mode = get_u32(record->stat);
  if (is_root && merging) {
    if (!S_ISDIR(mode)) failed(EISDIR, "");
    open_levels = 1;
    return;
  }
  if (is_root && replacing && S_ISDIR(mode)) failed(ENOTDIR, "");
  if (is_root) name = built_name, file.directory = parent;
  else close_levels(level + 1), file.directory = levels[level].fd;
  if (S_ISDIR(mode)) {
    make_level(file.directory, name, record->stat);
    built = built || is_root;
    return;
  }
  snprintf(file.name, sizeof file.name, "%s", name);
  if (merging) temporary_name(file.temporary, sizeof file.temporary);
  else snprintf(file.temporary, sizeof file.temporary, "%s", name);
  char target[MAX_PATH_BYTES + 1];
  if (record->target_length > 0) memcpy(target, record->target, record->target_length);
  target[record->target_length] = 0;
  if (record->type == RECORD_HARD_LINK) {
    make_hard_link(target);
  } else if (S_ISREG(mode)) {
    make_file(record->stat);
    built = built || is_root;
    return;
  } else if (S_ISLNK(mode) ? symlinkat(target, file.directory, file.temporary) != 0 : mknodat(file.directory, file.temporary, mode, 0) != 0) {
    failed(errno, "");
  }
  built = built || is_root;
  if (record->type != RECORD_HARD_LINK) {
    apply_owner(file.directory, file.temporary, record->stat);
    apply_times(file.directory, file.temporary, record->stat);
  }
  move_into_place();
}

// Open for nobody else until all is in it. One that was there stays as it is.
static void make_level(int directory, const char *name, const uint8_t *stat) {
  bool is_new = mkdirat(directory, name, 0700) == 0;
  if (!is_new && (errno != EEXIST || !merging)) failed(errno, "");
  int fd = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) failed(errno, "");
  levels[open_levels].fd = fd;
  levels[open_levels].is_new = is_new;
  memcpy(levels[open_levels++].stat, stat, STAT_BYTES);
}

static void make_file(const uint8_t *stat) {
  file.fd = openat(file.directory, file.temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (file.fd < 0) failed(errno, "");
  file.position = 0;
  memcpy(file.stat, stat, STAT_BYTES);
}

static void write_chunk(const uint8_t *bytes, size_t length) {
  while (length > 0) {
    if (file.position > INT64_MAX) failed(EFBIG, "");
    ssize_t written = pwrite(file.fd, bytes, length, (off_t)file.position);
    if (written < 0) failed(errno, "");
    bytes += written;
    length -= (size_t)written;
    file.position += (uint64_t)written;
  }
}

static void end_file(void) {
  struct stat info;
  if (fstat(file.fd, &info) != 0) failed(errno, "");
  // A hole at the end.
  if ((uint64_t)info.st_size != file.position && (file.position > INT64_MAX || ftruncate(file.fd, (off_t)file.position) != 0)) failed(errno, "");
  apply_owner(file.fd, "", file.stat);
  if (fchmod(file.fd, get_u32(file.stat) & 07777) != 0) failed(errno, "");
  apply_times(file.fd, NULL, file.stat);
  close(file.fd);
  file.fd = -1;
  move_into_place();
}

// The source is looked up from the root, by no link.
static void make_hard_link(const char *source) {
  char directory[MAX_PATH_BYTES + 1];
  snprintf(directory, sizeof directory, "%s", source);
  char *slash = strrchr(directory, '/');
  struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
  int fd = levels[0].fd;
  if (slash != NULL) {
    *slash = 0;
    fd = (int)syscall(SYS_openat2, levels[0].fd, directory, &how, sizeof how);
    if (fd < 0) failed(errno, "");
  }
  struct stat info;
  const char *name = slash == NULL ? source : slash + 1;
  if (fstatat(fd, name, &info, AT_SYMLINK_NOFOLLOW) != 0) failed(errno, "");
  if (!S_ISREG(info.st_mode)) failed(EBADMSG, "a HARD_LINK to what is no file");
  if (linkat(fd, name, file.directory, file.temporary, 0) != 0) failed(errno, "");
  if (slash != NULL) close(fd);
}

static void move_into_place(void) {
  if (merging) {
    if (renameat(file.directory, file.temporary, file.directory, file.name) != 0) failed(errno, "");
    // To rename does nothing where both are names of one file.
    unlinkat(file.directory, file.temporary, 0);
  }
  file.name[0] = 0;
}

// What is finished, deepest first, so that a directory's time and mode are the last that happens to it.
static void close_levels(unsigned keep) {
  while (open_levels > keep) {
    open_levels--;
    int fd = levels[open_levels].fd;
    if (levels[open_levels].is_new) {
      apply_owner(fd, "", levels[open_levels].stat);
      if (fchmod(fd, get_u32(levels[open_levels].stat) & 07777) != 0) failed(errno, "");
      apply_times(fd, NULL, levels[open_levels].stat);
    }
    if (open_levels > 0) close(fd);
  }
}

// Before the mode, as it takes set-user-id away.
static void apply_owner(int fd, const char *name, const uint8_t *stat) {
  if (owners && fchownat(fd, name, get_u32(stat + 4), get_u32(stat + 8), AT_SYMLINK_NOFOLLOW | (name[0] == 0 ? AT_EMPTY_PATH : 0)) != 0) failed(errno, "");
}

static void apply_times(int fd, const char *name, const uint8_t *stat) {
  struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = (time_t)get_u64(stat + 24), .tv_nsec = get_u32(stat + 32)}};
  if ((name == NULL ? futimens(fd, times) : utimensat(fd, name, times, AT_SYMLINK_NOFOLLOW)) != 0) failed(errno, "");
}

// Takes away what is not finished. What was merged before stays.
static void failed(int error, const char *text) {
  const char *about;
  if (merging && file.name[0] != 0) unlinkat(file.directory, file.temporary, 0);
  if (built) remove_entry(parent, built_name, true, &about);
  if (text[0] != 0 || tree.directory[0] == 0) report_error("unpack", error, text);
  report_error_of("unpack", error, tree.directory);
}
