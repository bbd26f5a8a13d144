// EXEC, in the child: becomes the user, then the command.
#include <errno.h>
#include <grp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "spawn.h"
#include "users.h"

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

extern char **environ;

static char *text_of(struct field field);
static void become(const struct message *message, struct user *user);
static void set_environment(const struct message *message, const struct user *user);
static void enter_directory(const struct message *message, const struct user *user);
static bool is_directory(const char *path);
_Noreturn static void execute_shell(char *command);
_Noreturn static void execute(char **arguments);
_Noreturn static void execute_from_path(char **arguments);
_Noreturn static void not_executed(const char *path, int error);

void run_command(const struct message *message) {
  static struct user user;
  become(message, &user);
  set_environment(message, &user);
  enter_directory(message, &user);
  if (message->fields[TAG_SHELL].bytes != NULL) execute_shell(text_of(message->fields[TAG_SHELL]));
  char **arguments = calloc(message->arguments + 1, sizeof *arguments);
  if (arguments == NULL) report_error("exec", ENOMEM, "");
  size_t at = 0, count = 0;
  for (struct field field; next_field(message, TAG_ARG, &at, &field);) arguments[count++] = text_of(field);
  execute(arguments);
}

static char *text_of(struct field field) {
  char *text = malloc((size_t)field.length + 1);
  if (text == NULL) report_error("exec", ENOMEM, "");
  memcpy(text, field.bytes, field.length);
  text[field.length] = 0;
  return text;
}

static void become(const struct message *message, struct user *user) {
  const char *spec = message->fields[TAG_USER].bytes == NULL ? "root" : text_of(message->fields[TAG_USER]);
  const char *wrong = find_user(user, spec, read_small_file("/etc/passwd"), read_small_file("/etc/group"));
  char text[512];
  snprintf(text, sizeof text, "%s: %.255s", wrong == NULL ? "" : wrong, spec);
  if (wrong != NULL) report_error("user", ENOENT, text);
  // The hosted build can be run by anybody: then there is nobody else to become.
  if (geteuid() != 0 && message->fields[TAG_USER].bytes == NULL) return;
  if (setgroups(user->group_count, user->groups) != 0 || setresgid(user->gid, user->gid, user->gid) != 0 ||
      setresuid(user->uid, user->uid, user->uid) != 0)
    report_error("user", errno, "");
}

static void set_environment(const struct message *message, const struct user *user) {
  clearenv();
  const char *home = user->home[0] != 0 ? user->home : user->uid == 0 && is_directory("/root") ? "/root" : "/";
  const char *shell = user->shell[0] != 0 ? user->shell : access("/bin/bash", X_OK) == 0 ? "/bin/bash" : "/bin/sh";
  setenv("PATH", DEFAULT_PATH, 1);
  setenv("HOME", home, 1);
  setenv("USER", user->name, 1);
  setenv("LOGNAME", user->name, 1);
  setenv("SHELL", shell, 1);
  setenv("LANG", "C.UTF-8", 1);
  if (message->fields[TAG_TTY].bytes != NULL) setenv("TERM", "xterm-256color", 1);
  size_t at = 0;
  for (struct field field; next_field(message, TAG_ENV, &at, &field);)
    if (putenv(text_of(field)) != 0) report_error("exec", errno, "");
}

static void enter_directory(const struct message *message, const struct user *user) {
  if (message->fields[TAG_CWD].bytes != NULL) {
    char *path = text_of(message->fields[TAG_CWD]);
    if (chdir(path) != 0) {
      int error = errno;
      char text[512];
      snprintf(text, sizeof text, "%.300s: %s", path, strerror(error));
      report_error("chdir", error, text);
    }
    return;
  }
  const char *home = user->home[0] != 0 ? user->home : user->uid == 0 ? "/root" : "/";
  if (chdir(home) != 0 && chdir("/") != 0) report_error("chdir", errno, "");
}

static bool is_directory(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

static void execute_shell(char *command) {
  char *bash[] = {"bash", "-lc", command, NULL}, *sh[] = {"sh", "-lc", command, NULL};
  execve("/bin/bash", bash, environ);
  if (errno != ENOENT && errno != EACCES) not_executed("/bin/bash", errno);
  execve("/bin/sh", sh, environ);
  if (errno == ENOENT && access("/bin/sh", F_OK) != 0) report_error("exec", ENOENT, "the image has no shell (/bin/bash, /bin/sh): give the command as a list of arguments");
  not_executed("/bin/sh", errno);
}

static void execute(char **arguments) {
  if (strchr(arguments[0], '/') == NULL) execute_from_path(arguments);
  execve(arguments[0], arguments, environ);
  not_executed(arguments[0], errno);
}

static void execute_from_path(char **arguments) {
  const char *path = getenv("PATH");
  bool refused = false;
  char text[512], file[8192];
  snprintf(text, sizeof text, "%.300s: command not found", arguments[0]);
  if (arguments[0][0] == 0) report_error("exec", ENOENT, "the command's name is empty");
  for (const char *at = path == NULL ? DEFAULT_PATH : path;;) {
    size_t length = strcspn(at, ":");
    int size = snprintf(file, sizeof file, "%.*s%s%s", (int)(length > 4096 ? 4096 : length), at, length > 0 ? "/" : "", arguments[0]);
    if (size > 0 && (size_t)size < sizeof file) {
      execve(file, arguments, environ);
      if (errno == EACCES) refused = true;
      else if (errno != ENOENT && errno != ENOTDIR && errno != ENAMETOOLONG && errno != ELOOP) not_executed(file, errno);
      else if (errno == ENOENT && access(file, F_OK) == 0) not_executed(file, ENOENT);
    }
    if (at[length] == 0) break;
    at += length + 1;
  }
  if (refused) snprintf(text, sizeof text, "%.300s: found, but permission to execute it is denied", arguments[0]);
  report_error("exec", refused ? EACCES : ENOENT, text);
}

// ENOENT has two meanings: no such file, or a file whose interpreter or dynamic loader is not there.
static void not_executed(const char *path, int error) {
  char text[512];
  if (error == ENOENT && access(path, F_OK) == 0) snprintf(text, sizeof text, "%.300s: exists, but its interpreter or loader does not", path);
  else if (error == ENOENT) snprintf(text, sizeof text, "%.300s: command not found", path);
  else snprintf(text, sizeof text, "%.300s: %s", path, strerror(error));
  report_error("exec", error, text);
}
