// One request that is being served: its child, its pipes, its credits.
#ifndef PYRO_STREAM_H
#define PYRO_STREAM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "attach.h"
#include "loop.h"
#include "message.h"
#include "output.h"
#include "spawn.h"

struct stream_output {
  struct source source;
  uint32_t credit;
  uint64_t bytes;
  bool limited;      // the command has ended: only `remaining` more bytes count
  uint64_t remaining;
  bool at_end, end_sent;
};

struct stream {
  uint32_t id;
  uint8_t kind;
  bool terminal, began, cancelled, exited;
  pid_t pid;
  int status;
  int64_t started_ns, ended_ns;
  uint32_t cgroup;
  int cgroup_fd;

  struct source report;
  bool reported;
  uint8_t report_bytes[MAX_REPORT];
  size_t report_length;

  struct source input;  // with a terminal fd is -1: input goes to outputs[0].source
  bool takes_input, input_ended, input_closed;
  int control;
  uint8_t *input_bytes;
  size_t input_begin, input_end, input_capacity;
  uint32_t input_credit;    // what the host may still send
  uint32_t input_consumed;  // taken but not given back yet

  struct stream_output outputs[2];

  struct job *job;                // of an EXEC with JOB until it runs
  struct attachment *attachment;  // of an ATTACH: then there is no child
};

// Starts a request that takes time. NULL: it failed, and *error and *stage say why.
struct stream *stream_start(uint32_t id, const struct message *message, int *error, const char **stage);
// Does what can be done without waiting. *progress is set if anything was. True when the RESULT was sent: the stream is to be freed.
bool stream_step(struct stream *stream, struct output *output, bool *progress);
// The child was reaped.
void stream_exited(struct stream *stream, int status);
// Frames for it. NULL or what is wrong with them.
const char *stream_data(struct stream *stream, const uint8_t *bytes, uint32_t length);
const char *stream_end_input(struct stream *stream);
const char *stream_credit(struct stream *stream, int which, uint32_t bytes);
const char *stream_signal(struct stream *stream, uint8_t number, uint8_t scope);
const char *stream_resize(struct stream *stream, uint16_t rows, uint16_t columns);
void stream_cancel(struct stream *stream);
// Kills what still runs and frees all; after RESULT, what a command left behind lives on.
void stream_free(struct stream *stream);

#endif
