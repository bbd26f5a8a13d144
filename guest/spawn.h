// Children. All that may block on the guest's file systems happens in a child: commands, and file requests as well, so that a hostile
// mount or a FIFO never stops this program.
#ifndef PYRO_SPAWN_H
#define PYRO_SPAWN_H

#include <stdint.h>
#include <sys/types.h>

#include "message.h"

// What a child that did not become another program, or could not, writes to its report pipe; fields of a RESULT without the end mark.
#define MAX_REPORT 8192u

// The child's descriptors: 0 input, 1 output, 2 errors, and these.
#define CHILD_REPORT 3
#define CHILD_CONTROL 4

struct child {
  pid_t pid;
  int input, output[2], report, control;  // our ends, non-blocking; -1 where there is none. With a terminal input == output[0]
  uint32_t cgroup;
  int cgroup_fd;
};

// The directory that the overlay keeps all changes in, which no path of the guest leads to; -1 where there is none. The child that serves LAYER gets it as its input.
extern int changes_fd;

// Forks a child that serves this request (EXEC and all that concern files). 0, or an errno with the stage.
int spawn(struct child *child, const struct message *message, const char **stage);

// Run in the child; they write a report and end. Content goes through the pipes 0 and 1.
_Noreturn void run_command(const struct message *message);
_Noreturn void read_file(const struct message *message);
_Noreturn void write_file(const struct message *message);
_Noreturn void stat_file(const struct message *message);
_Noreturn void list_directory(const struct message *message);
_Noreturn void make_directory(const struct message *message);
_Noreturn void remove_path(const struct message *message);
_Noreturn void rename_path(const struct message *message);
_Noreturn void change_path(const struct message *message);
_Noreturn void make_link(const struct message *message);
_Noreturn void pack_tree(const struct message *message);
_Noreturn void unpack_tree(const struct message *message);
_Noreturn void write_layer(const struct message *message);
_Noreturn void report_stats(const struct message *message);
_Noreturn void report_error(const char *stage, int error, const char *text);
_Noreturn void report_done(const struct builder *fields);

#endif
