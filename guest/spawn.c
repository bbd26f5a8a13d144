#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cgroup.h"
#include "frame.h"
#include "log.h"

// Their ends, as the child gets them.
struct ends {
  int fd[5];
  bool terminal;
};

int changes_fd = -1;

static bool open_pipe(int *ours, int *theirs, bool we_write);
static bool open_terminal(struct child *child, struct ends *ends, const struct field *size);
static pid_t fork_into(int cgroup_fd);
_Noreturn static void begin_child(const struct ends *ends, const struct message *message);
_Noreturn static void run_file_request(const struct message *message);

int spawn(struct child *child, const struct message *message, const char **stage) {
  *child = (struct child){.pid = -1, .input = -1, .output = {-1, -1}, .report = -1, .control = -1, .cgroup_fd = -1};
  struct ends ends = {.fd = {-1, -1, -1, -1, -1}};
  bool command = message->kind == KIND_EXEC, writes = takes_content(message->kind);
  const struct field *size = &message->fields[TAG_TTY];
  bool input = writes || (command && message->fields[TAG_STDIN].bytes[0] == 1);
  bool fine = open_pipe(&child->report, &ends.fd[CHILD_REPORT], false);
  *stage = "pipe";
  if (fine && command && size->bytes != NULL) {
    *stage = "tty";
    fine = open_terminal(child, &ends, size);
  } else if (fine) {
    fine = (!input || open_pipe(&child->input, &ends.fd[0], true)) && open_pipe(&child->output[0], &ends.fd[1], false) &&
           (!command || open_pipe(&child->output[1], &ends.fd[2], false)) && (!writes || open_pipe(&child->control, &ends.fd[CHILD_CONTROL], true));
  }
  if (fine && message->kind == KIND_LAYER && changes_fd >= 0) {
    // Opened anew, as reading a directory moves in it.
    ends.fd[0] = openat(changes_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    fine = ends.fd[0] >= 0;
  }
  int error = fine ? 0 : errno;
  if (error == 0 && command) {
    *stage = "cgroup";
    child->cgroup = cgroup_make(&child->cgroup_fd);
    if (child->cgroup != 0 && child->cgroup_fd < 0) error = -child->cgroup_fd, child->cgroup_fd = -1;
  }
  if (error == 0) {
    *stage = "fork";
    child->pid = fork_into(child->cgroup_fd);
    if (child->pid == 0) begin_child(&ends, message);
    if (child->pid < 0) error = errno;
  }
  for (int i = 0; i < 5; i++)
    if (ends.fd[i] >= 0 && !(ends.terminal && i > 0 && i < 3)) close(ends.fd[i]);
  if (error != 0) {
    int ours[] = {child->input, child->output[0], child->output[1], child->report, child->control, child->cgroup_fd};
    for (int i = ends.terminal ? 1 : 0; i < 6; i++)
      if (ours[i] >= 0) close(ours[i]);
    cgroup_leave(child->cgroup);
  }
  return error;
}

static bool open_pipe(int *ours, int *theirs, bool we_write) {
  int fd[2];
  if (pipe2(fd, O_CLOEXEC) != 0) return false;
  *ours = fd[we_write ? 1 : 0];
  *theirs = fd[we_write ? 0 : 1];
  // Larger than the usual 64 KiB, so that this program and a command that writes much take turns less often. Pages are taken as
  // they are filled; where it is refused the usual size does.
  fcntl(*ours, F_SETPIPE_SZ, PIPE_BYTES);
  return fcntl(*ours, F_SETFL, O_NONBLOCK) == 0;
}

static bool open_terminal(struct child *child, struct ends *ends, const struct field *size) {
  int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
  if (master < 0) return false;
  int unlock = 0, slave = -1;
  struct winsize window = {.ws_row = get_u16(size->bytes), .ws_col = get_u16(size->bytes + 2)};
  // TIOCGPTPEER: the peer of this very master, whatever the guest has mounted at /dev/pts.
  if (ioctl(master, TIOCSPTLCK, &unlock) != 0 || ioctl(master, TIOCSWINSZ, &window) != 0 ||
      (slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC)) < 0) {
    int error = errno;
    close(master);
    errno = error;
    return false;
  }
  child->input = child->output[0] = master;
  ends->fd[0] = ends->fd[1] = ends->fd[2] = slave;
  ends->terminal = true;
  return true;
}

static pid_t fork_into(int cgroup_fd) {
  if (cgroup_fd < 0) return fork();
  struct clone_args arguments = {.flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = (uint64_t)cgroup_fd};
  return (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
}

static void begin_child(const struct ends *ends, const struct message *message) {
  int at[5];
  for (int i = 0; i < 5; i++) {
    at[i] = ends->fd[i];
    if (at[i] < 0 && i < 3) at[i] = open("/dev/null", O_RDWR | O_CLOEXEC);
    // First out of the way of 0 to 4, then into place.
    if (at[i] >= 0) at[i] = fcntl(at[i], F_DUPFD_CLOEXEC, 16);
  }
  for (int i = 0; i < 5; i++) {
    close(i);
    if (at[i] >= 0) dup2(at[i], i);
  }
  fcntl(CHILD_REPORT, F_SETFD, FD_CLOEXEC);
  // Nothing else of this program, above all no end of another command's pipe, may be in the child.
  bool file_request = message->kind != KIND_EXEC;
  syscall(SYS_close_range, file_request ? 5u : 4u, ~0u, 0u);
  if (setsid() < 0) report_error("fork", errno, "");
  if (ends->terminal && ioctl(0, TIOCSCTTY, 0) != 0) report_error("tty", errno, "");
  struct sigaction action = {.sa_handler = SIG_DFL};
  for (int number = 1; number < 65; number++)
    if (number != SIGPIPE || !file_request) sigaction(number, &action, NULL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  umask(022);
  if (file_request) run_file_request(message);
  int oom = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (oom >= 0) {
    ssize_t written = write(oom, "0", 1);
    (void)written;
    close(oom);
  }
  struct rlimit files = {.rlim_cur = 65536, .rlim_max = 1048576};
  setrlimit(RLIMIT_NOFILE, &files);
  run_command(message);
}

static void run_file_request(const struct message *message) {
  switch (message->kind) {
    case KIND_READ_FILE: read_file(message);
    case KIND_WRITE_FILE: write_file(message);
    case KIND_STAT: stat_file(message);
    case KIND_LIST: list_directory(message);
    case KIND_MAKE_DIRECTORY: make_directory(message);
    case KIND_REMOVE: remove_path(message);
    case KIND_RENAME: rename_path(message);
    case KIND_CHANGE: change_path(message);
    case KIND_MAKE_LINK: make_link(message);
    case KIND_PACK: pack_tree(message);
    case KIND_UNPACK: unpack_tree(message);
    case KIND_LAYER: write_layer(message);
    case KIND_STATS: report_stats(message);
    default: _exit(70);
  }
}

void report_error(const char *stage, int error, const char *text) {
  uint8_t bytes[2048];
  struct builder builder = {.bytes = bytes, .capacity = sizeof bytes};
  char message[1025];
  snprintf(message, sizeof message, "%s", text[0] != 0 ? text : strerror(error));
  add_u32(&builder, TAG_ERRNO, (uint32_t)error);
  add_bytes(&builder, TAG_STAGE, stage, strlen(stage));
  add_bytes(&builder, TAG_MESSAGE, message, strlen(message));
  report_done(&builder);
}

void report_done(const struct builder *fields) {
  uint8_t bytes[MAX_REPORT];
  if (fields->length + 1 > sizeof bytes) _exit(70);
  // The end mark tells a whole report from one whose writer was killed.
  memcpy(bytes, fields->bytes, fields->length);
  bytes[fields->length] = TAG_END;
  ssize_t written = write(CHILD_REPORT, bytes, fields->length + 1);
  _exit(written > 0 ? 0 : 70);
}
