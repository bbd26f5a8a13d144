// Background jobs: commands that belong to no connection. Their last output is kept here, for whoever attaches.
#ifndef PYRO_JOBS_H
#define PYRO_JOBS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "loop.h"
#include "message.h"
#include "ring.h"

struct job_output {
  struct source source;
  struct ring ring;
  bool limited;  // the command has ended: only `remaining` more bytes count
  uint64_t remaining;
  bool at_end;
};

struct job {
  char name[MAX_JOB_NAME + 1];
  uint8_t command[MAX_JOB_COMMAND];  // its words, a NUL between them, cut
  uint16_t command_length;
  enum { JOB_STARTING, JOB_RUNNING, JOB_ENDED } state;
  bool forgotten;
  unsigned holders;  // streams that are attached
  pid_t pid;
  int status;
  int64_t started_clock_ns, started_ns, ended_ns;
  uint32_t cgroup;
  int cgroup_fd;
  struct job_output outputs[2];
};

// What a started command consists of, to be taken over by its job; the sources are empty afterwards.
struct job_parts {
  pid_t pid;
  uint32_t cgroup;
  int cgroup_fd;
  int64_t started_ns;
  struct source *outputs[2];
};

// Takes the name of an EXEC with JOB. NULL with an errno: EEXIST, or EAGAIN where MAX_JOBS run already.
struct job *job_reserve(const struct message *message, int *error);
// The command never ran: the name is free again.
void job_abandon(struct job *job);
// The command runs. With `ended` it has been reaped already.
void job_take(struct job *job, const struct job_parts *parts, bool ended, int status, int64_t ended_ns);

// By name; NULL with ENOENT.
struct job *job_hold(const struct field *name, int *error);
void job_release(struct job *job);
// All of its output is in the rings.
bool job_is_over(const struct job *job);
// As SIGNAL, but says what came of it: 0 or an errno.
int job_signal(struct job *job, uint8_t number, uint8_t scope);

// JOBS, KILL_JOB and FORGET_JOB: adds the fields of the RESULT. 0, or an errno with the stage.
int jobs_answer(const struct message *message, struct builder *builder, const char **stage);
// Takes what the jobs have written. True if there was any.
bool jobs_step(void);
// A child was reaped. True if it was a job.
bool jobs_reaped(pid_t pid, int status);
// Ends them all: this program ends.
void jobs_close(void);

#endif
