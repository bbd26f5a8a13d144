// MAKE_DIRECTORY, REMOVE, RENAME, CHANGE and MAKE_LINK, in the child.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "frame.h"
#include "remove.h"
#include "request.h"
#include "spawn.h"

#define MAKE_PARENTS 1u
#define REMOVE_RECURSIVE 1u
#define RENAME_NEW 1u
#define CHANGE_FOLLOW 1u
#define LINK_HARD 1u

// With parents it may be there already, as long as it is a directory; a MODE is the new one's alone.
void make_directory(const struct message *message) {
  char *path = path_field(message, TAG_PATH);
  struct stat info;
  bool parents = has_flag(message, MAKE_PARENTS);
  if (parents) make_parents(path);
  if (mkdir(path, 0777) != 0) {
    int error = errno;
    if (error == EEXIST && parents && stat(path, &info) == 0 && S_ISDIR(info.st_mode)) report_nothing();
    report_error("mkdir", error, "");
  }
  // Not left to mkdir: that takes the umask off and knows no set-group-id.
  if (message->fields[TAG_MODE].bytes != NULL && chmod(path, number_field(message, TAG_MODE, 0)) != 0) report_error("chmod", errno, "");
  report_nothing();
}

void remove_path(const struct message *message) {
  const char *about;
  char *name;
  int parent = open_parent(path_field(message, TAG_PATH), &name);
  int error = remove_entry(parent, name, has_flag(message, REMOVE_RECURSIVE), &about);
  if (error != 0) report_error_of("remove", error, about);
  report_nothing();
}

void rename_path(const struct message *message) {
  char *from = path_field(message, TAG_PATH), *to = path_field(message, TAG_TO);
  if (renameat2(AT_FDCWD, from, AT_FDCWD, to, has_flag(message, RENAME_NEW) ? RENAME_NOREPLACE : 0) != 0) report_error("rename", errno, "");
  report_nothing();
}

// All through one descriptor, so that all of it is about the same file. The owner first: that takes set-user-id away.
void change_path(const struct message *message) {
  const struct field *fields = message->fields;
  int fd = open(path_field(message, TAG_PATH), O_PATH | O_CLOEXEC | (has_flag(message, CHANGE_FOLLOW) ? 0 : O_NOFOLLOW));
  struct stat info;
  if (fd < 0 || fstat(fd, &info) != 0) report_error("open", errno, "");
  if (fields[TAG_UID].bytes != NULL && fchownat(fd, "", get_u32(fields[TAG_UID].bytes), get_u32(fields[TAG_GID].bytes), AT_EMPTY_PATH) != 0)
    report_error("chown", errno, "");
  if (fields[TAG_MODE].bytes != NULL) {
    char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (S_ISLNK(info.st_mode)) report_error("chmod", EOPNOTSUPP, "a symbolic link has no mode of its own");
    if (chmod(path, get_u32(fields[TAG_MODE].bytes)) != 0) report_error("chmod", errno, "");
  }
  if (fields[TAG_MTIME].bytes != NULL) {
    int64_t ns = (int64_t)get_u64(fields[TAG_MTIME].bytes), second = 1000000000;
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = ns / second, .tv_nsec = ns % second}};
    if (times[1].tv_nsec < 0) times[1].tv_nsec += second, times[1].tv_sec--;
    if (utimensat(fd, "", times, AT_EMPTY_PATH) != 0) report_error("utime", errno, "");
  }
  report_nothing();
}

// A hard link to a symbolic link is one to the link itself.
void make_link(const struct message *message) {
  char *path = path_field(message, TAG_PATH), *target = path_field(message, TAG_TARGET);
  bool hard = has_flag(message, LINK_HARD);
  if ((hard ? linkat(AT_FDCWD, target, AT_FDCWD, path, 0) : symlink(target, path)) != 0) report_error("link", errno, "");
  report_nothing();
}
