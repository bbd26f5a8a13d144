#include "stream.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cgroup.h"
#include "drain.h"
#include "frame.h"

static struct stream *stream_attach(uint32_t id, const struct message *message, int *error, const char **stage);
static bool become_job(struct stream *stream, struct output *output);
static void read_report(struct stream *stream, bool *progress);
static void feed_input(struct stream *stream, struct output *output, bool *progress);
static void close_input(struct stream *stream);
static void read_output(struct stream *stream, int which, struct output *output, bool *progress);
static void limit_output(struct stream *stream, int which);
static bool finish(struct stream *stream, struct output *output);
static void send_result(struct stream *stream, struct output *output);
static void send_ends(struct stream *stream, struct output *output);
static void kill_all(struct stream *stream);

struct stream *stream_start(uint32_t id, const struct message *message, int *error, const char **stage) {
  if (message->kind == KIND_ATTACH) return stream_attach(id, message, error, stage);
  struct child child;
  struct job *job = NULL;
  *stage = "job";
  if (message->fields[TAG_JOB].bytes != NULL && (job = job_reserve(message, error)) == NULL) return NULL;
  *error = spawn(&child, message, stage);
  if (*error != 0) {
    if (job != NULL) job_abandon(job);
    return NULL;
  }
  struct stream *stream = must_allocate(NULL, sizeof *stream);
  *stream = (struct stream){.id = id, .kind = message->kind, .terminal = message->kind == KIND_EXEC && message->fields[TAG_TTY].bytes != NULL,
                            .pid = child.pid, .started_ns = now_ns(), .cgroup = child.cgroup, .cgroup_fd = child.cgroup_fd,
                            .control = child.control, .input_credit = WINDOW, .job = job};
  stream->report.fd = stream->input.fd = stream->outputs[0].source.fd = stream->outputs[1].source.fd = -1;
  source_open(&stream->report, child.report);
  stream->takes_input = takes_content(message->kind) || (message->kind == KIND_EXEC && message->fields[TAG_STDIN].bytes[0] == 1);
  if (child.input >= 0 && !stream->terminal) source_open(&stream->input, child.input);
  for (int i = 0; i < 2; i++) {
    stream->outputs[i].credit = WINDOW;
    if (child.output[i] >= 0) source_open(&stream->outputs[i].source, child.output[i]);
    else stream->outputs[i].at_end = true;
  }
  return stream;
}

static struct stream *stream_attach(uint32_t id, const struct message *message, int *error, const char **stage) {
  *stage = "job";
  struct attachment *attachment = attach(&message->fields[TAG_JOB], error);
  if (attachment == NULL) return NULL;
  struct stream *stream = must_allocate(NULL, sizeof *stream);
  *stream = (struct stream){.id = id, .kind = message->kind, .pid = -1, .cgroup_fd = -1, .control = -1, .attachment = attachment};
  stream->report.fd = stream->input.fd = -1;
  for (int i = 0; i < 2; i++) stream->outputs[i] = (struct stream_output){.source.fd = -1, .credit = WINDOW};
  return stream;
}

bool stream_step(struct stream *stream, struct output *output, bool *progress) {
  if (stream->attachment != NULL) return attachment_step(stream, output, progress);
  if (!stream->reported) read_report(stream, progress);
  if (stream->kind == KIND_EXEC && stream->reported && stream->report_length == 0 && !stream->began) {
    uint8_t pid[4];
    put_u32(pid, (uint32_t)stream->pid);
    output_frame(output, FRAME_STARTED, stream->id, pid, sizeof pid);
    stream->began = *progress = true;
    if (stream->job != NULL) return become_job(stream, output);
    if (stream->terminal) {
      stream->outputs[1].end_sent = true;
      output_frame(output, FRAME_END_2, stream->id, NULL, 0);
    }
  }
  feed_input(stream, output, progress);
  if (stream->kind != KIND_EXEC || stream->began)
    for (int i = 0; i < 2; i++) read_output(stream, i, output, progress);
  return finish(stream, output);
}

// The command runs: from here on it is nobody's, and its stream has nothing more to say.
static bool become_job(struct stream *stream, struct output *output) {
  struct job_parts parts = {.pid = stream->pid, .cgroup = stream->cgroup, .cgroup_fd = stream->cgroup_fd, .started_ns = stream->started_ns,
                            .outputs = {&stream->outputs[0].source, &stream->outputs[1].source}};
  job_take(stream->job, &parts, stream->exited, stream->status, stream->ended_ns);
  stream->job = NULL;
  stream->cgroup = 0;
  stream->cgroup_fd = -1;
  stream->exited = true;
  uint8_t end = TAG_END;
  output_frame(output, FRAME_RESULT, stream->id, &end, 1);
  return true;
}

static void read_report(struct stream *stream, bool *progress) {
  while (stream->report.readable) {
    ssize_t count = read(stream->report.fd, stream->report_bytes + stream->report_length, MAX_REPORT - stream->report_length);
    if (count < 0 && errno == EAGAIN) {
      stream->report.readable = false;
    } else if (count <= 0) {
      stream->reported = *progress = true;
      source_close(&stream->report);
    } else {
      stream->report_length += (size_t)count;
    }
  }
}

static void feed_input(struct stream *stream, struct output *output, bool *progress) {
  if (!stream->takes_input) return;
  struct source *source = stream->terminal ? &stream->outputs[0].source : &stream->input;
  while (stream->input_begin < stream->input_end && source->fd >= 0 && source->writable && !stream->input_closed) {
    ssize_t count = write(source->fd, stream->input_bytes + stream->input_begin, stream->input_end - stream->input_begin);
    if (count < 0 && errno == EAGAIN) {
      source->writable = false;
      break;
    }
    if (count <= 0) {
      close_input(stream);
      break;
    }
    stream->input_begin += (size_t)count;
    stream->input_consumed += (uint32_t)count;
    *progress = true;
  }
  if (stream->input_closed || source->fd < 0) {
    // Nobody reads it any more: taken to nowhere, so that the host isn't left with a window that never opens.
    stream->input_consumed += (uint32_t)(stream->input_end - stream->input_begin);
    stream->input_begin = stream->input_end;
  }
  if (stream->input_begin == stream->input_end) {
    stream->input_begin = stream->input_end = 0;
    if (stream->input_ended && !stream->input_closed) close_input(stream);
  }
  // Given back in halves of the window, so that small writes don't each cost a frame.
  if (!stream->input_ended && stream->input_consumed >= WINDOW / 2) {
    uint8_t credit[4];
    put_u32(credit, stream->input_consumed);
    output_frame(output, FRAME_CREDIT_0, stream->id, credit, sizeof credit);
    stream->input_credit += stream->input_consumed;
    stream->input_consumed = 0;
    *progress = true;
  }
}

static void close_input(struct stream *stream) {
  bool whole = stream->input_ended && stream->input_begin == stream->input_end;
  stream->input_closed = true;
  if (stream->terminal) {
    // A terminal has no end of file of its own; its end-of-file character (^D) is what a program reads as one.
    ssize_t written = stream->outputs[0].source.fd >= 0 ? write(stream->outputs[0].source.fd, "\x04", 1) : 0;
    (void)written;
    return;
  }
  if (stream->control >= 0) {
    if (whole) {
      ssize_t written = write(stream->control, "c", 1);
      (void)written;
    }
    close(stream->control);
    stream->control = -1;
  }
  source_close(&stream->input);
}

static void read_output(struct stream *stream, int which, struct output *output, bool *progress) {
  struct stream_output *side = &stream->outputs[which];
  // A few frames a turn: other streams of the connection want their share.
  for (int frames = 0; frames < 4 && !side->at_end && side->source.readable; frames++) {
    if (side->limited && side->remaining == 0) {
      side->at_end = true;
      break;
    }
    if (side->credit == 0 && stream->cancelled && stream->exited) side->at_end = true;
    if (side->at_end || side->credit == 0 || output_used(output) >= OUTPUT_DATA) break;
    size_t want = side->credit < MAX_PAYLOAD ? side->credit : MAX_PAYLOAD;
    if (side->limited && side->remaining < want) want = (size_t)side->remaining;
    uint8_t *at = output_payload(output, want);
    if (at == NULL) break;
    ssize_t count = read(side->source.fd, at, want);
    if (count < 0 && errno == EAGAIN) {
      side->source.readable = false;
      if (side->limited) side->at_end = true;  // a child took some of it, or it is a terminal that is empty now
      break;
    }
    *progress = true;
    if (count <= 0) {  // the end; EIO: a terminal that no process has open
      side->at_end = true;
      if (!stream->terminal || stream->exited) source_close(&side->source);
      break;
    }
    output_commit(output, which == 0 ? FRAME_DATA_1 : FRAME_DATA_2, stream->id, (size_t)count);
    side->credit -= (uint32_t)count;
    side->bytes += (uint64_t)count;
    if (side->limited) side->remaining -= (uint64_t)count;
  }
  if (side->limited && side->remaining == 0) side->at_end = true;
}

void stream_exited(struct stream *stream, int status) {
  stream->exited = true;
  stream->status = status;
  stream->ended_ns = now_ns();
  stream->report.readable = stream->report.fd >= 0;
  for (int i = 0; i < 2 && stream->kind == KIND_EXEC; i++) limit_output(stream, i);
}

// What was written up to now still counts, what a child that was left behind writes later doesn't.
static void limit_output(struct stream *stream, int which) {
  struct stream_output *side = &stream->outputs[which];
  if (side->source.fd < 0) return;
  int waiting = 0;
  side->limited = true;
  // FIONREAD of a terminal doesn't count what is on its way from the other end: read until it is empty, up to a limit.
  if (stream->terminal) side->remaining = TTY_TAIL_BYTES;
  else if (ioctl(side->source.fd, FIONREAD, &waiting) == 0 && waiting > 0) side->remaining = (uint64_t)waiting;
  side->source.readable = true;
  if (stream->terminal && side->at_end) side->remaining = 0;
}

static bool finish(struct stream *stream, struct output *output) {
  if (!stream->exited || !stream->reported || !output_takes_result(output)) return false;
  bool failed_start = stream->kind == KIND_EXEC && stream->report_length > 0;
  if (failed_start) {
    for (int i = 0; i < 2; i++) stream->outputs[i].at_end = true;
  } else if (stream->kind == KIND_EXEC && !stream->began) {
    return false;
  }
  if (stream->cancelled && stream->kind != KIND_EXEC) stream->outputs[0].at_end = true;
  for (int i = 0; i < 2; i++) {
    struct stream_output *side = &stream->outputs[i];
    if (side->limited && side->remaining == 0) side->at_end = true;
    if (stream->cancelled && side->credit == 0) side->at_end = true;
    if (!side->at_end) return false;
  }
  send_result(stream, output);
  return true;
}

static void send_result(struct stream *stream, struct output *output) {
  uint8_t bytes[MAX_REPORT + 64];
  struct builder builder = {.bytes = bytes, .capacity = sizeof bytes};
  // The last byte of a whole report is an end mark; a child that was killed wrote none.
  bool whole = stream->report_length > 0 && stream->report_bytes[stream->report_length - 1] == TAG_END;
  bool failed = whole && stream->report_bytes[0] == TAG_ERRNO;
  bool reads = gives_content(stream->kind);
  if (stream->kind == KIND_EXEC && !failed) {
    send_ends(stream, output);
    if (WIFSIGNALED(stream->status)) add_u8(&builder, TAG_EXIT_SIGNAL, (uint8_t)WTERMSIG(stream->status));
    else add_u8(&builder, TAG_EXIT_CODE, (uint8_t)WEXITSTATUS(stream->status));
    add_u64(&builder, TAG_DURATION, (uint64_t)(stream->ended_ns - stream->started_ns));
    add_u64(&builder, TAG_BYTES_1, stream->outputs[0].bytes);
    add_u64(&builder, TAG_BYTES_2, stream->outputs[1].bytes);
  } else if (whole && !(stream->cancelled && reads && !failed)) {
    if (reads && (!failed || stream->outputs[0].bytes > 0)) send_ends(stream, output);
    memcpy(bytes, stream->report_bytes, stream->report_length - 1);
    builder.length = stream->report_length - 1;
    if (reads && !failed) add_u64(&builder, TAG_BYTES_1, stream->outputs[0].bytes);
  } else {
    if (reads && stream->outputs[0].bytes > 0) send_ends(stream, output);
    int error = stream->cancelled ? ECANCELED : EIO;
    const char *stage = stream->cancelled ? "cancel" : "child", *text = stream->cancelled ? "cancelled" : "the process that served the request was killed";
    add_u32(&builder, TAG_ERRNO, (uint32_t)error);
    add_bytes(&builder, TAG_STAGE, stage, strlen(stage));
    add_bytes(&builder, TAG_MESSAGE, text, strlen(text));
  }
  add_end(&builder);
  output_frame(output, FRAME_RESULT, stream->id, builder.bytes, builder.length);
}

static void send_ends(struct stream *stream, struct output *output) {
  int sides = stream->kind == KIND_EXEC ? 2 : 1;
  for (int i = 0; i < sides; i++) {
    if (!stream->outputs[i].end_sent) output_frame(output, i == 0 ? FRAME_END_1 : FRAME_END_2, stream->id, NULL, 0);
    stream->outputs[i].end_sent = true;
  }
}

const char *stream_data(struct stream *stream, const uint8_t *bytes, uint32_t length) {
  if (!stream->takes_input) return "DATA_0 for a stream that takes none";
  if (stream->input_ended) return "DATA_0 after END_0";
  if (length > stream->input_credit) return "DATA_0 over its credit";
  stream->input_credit -= length;
  size_t used = stream->input_end - stream->input_begin;
  if (stream->input_end + length > stream->input_capacity) {
    if (used > 0) memmove(stream->input_bytes, stream->input_bytes + stream->input_begin, used);
    stream->input_begin = 0;
    stream->input_end = used;
    if (used + length > stream->input_capacity) {
      // Never over the window: the credit bounds it.
      stream->input_capacity = used + length <= MAX_PAYLOAD ? MAX_PAYLOAD : WINDOW;
      stream->input_bytes = must_allocate(stream->input_bytes, stream->input_capacity);
    }
  }
  memcpy(stream->input_bytes + stream->input_end, bytes, length);
  stream->input_end += length;
  return NULL;
}

const char *stream_end_input(struct stream *stream) {
  if (!stream->takes_input) return "END_0 for a stream that takes no DATA_0";
  if (stream->input_ended) return "END_0 twice";
  stream->input_ended = true;
  return NULL;
}

const char *stream_credit(struct stream *stream, int which, uint32_t bytes) {
  struct stream_output *side = &stream->outputs[which];
  if (bytes == 0 || bytes > MAX_CREDIT || side->credit > MAX_CREDIT - bytes) return "credit outside 1 to 16777216 (MAX_CREDIT)";
  side->credit += bytes;
  return NULL;
}

const char *stream_signal(struct stream *stream, uint8_t number, uint8_t scope) {
  if (stream->kind != KIND_EXEC && stream->kind != KIND_ATTACH) return "SIGNAL for a stream that is no EXEC or ATTACH";
  const char *wrong = wrong_signal(number, scope);
  if (wrong != NULL) return wrong;
  if (stream->attachment != NULL) {
    job_signal(stream->attachment->job, number, scope);
    return NULL;
  }
  // Once reaped, its process id may be another's.
  if (scope == 2) kill_all(stream);
  else if (!stream->exited && (scope == 0 || kill(-stream->pid, number) != 0)) kill(stream->pid, number);
  return NULL;
}

const char *stream_resize(struct stream *stream, uint16_t rows, uint16_t columns) {
  if (!stream->terminal) return "RESIZE for a stream without a terminal";
  if (rows < 1 || rows > 4096 || columns < 1 || columns > 4096) return "a terminal size outside 1 to 4096";
  struct winsize window = {.ws_row = rows, .ws_col = columns};
  if (stream->outputs[0].source.fd >= 0) ioctl(stream->outputs[0].source.fd, TIOCSWINSZ, &window);
  return NULL;
}

void stream_cancel(struct stream *stream) {
  stream->cancelled = true;
  if (stream->attachment != NULL) return;  // let go; the job is not its
  // What writes ends by itself when its pipes close without the word that it is whole, and removes what it has made.
  if (takes_content(stream->kind)) {
    if (!stream->input_closed) {
      stream->input_ended = false;
      close_input(stream);
    }
    return;
  }
  kill_all(stream);
}

static void kill_all(struct stream *stream) {
  if (stream->cgroup_fd >= 0) cgroup_kill(stream->cgroup_fd);
  if (stream->exited) return;
  if (kill(-stream->pid, SIGKILL) != 0) kill(stream->pid, SIGKILL);
  kill(stream->pid, SIGKILL);
}

void stream_free(struct stream *stream) {
  if (stream->attachment != NULL) {
    attachment_free(stream->attachment);
    free(stream);
    return;
  }
  if (!stream->exited) stream_cancel(stream);
  source_close(&stream->report);
  source_close(&stream->input);
  for (int i = 0; i < 2; i++) {
    if (stream->exited) drain(&stream->outputs[i].source);
    else source_close(&stream->outputs[i].source);
  }
  if (stream->control >= 0) close(stream->control);
  if (stream->cgroup_fd >= 0) close(stream->cgroup_fd);
  cgroup_leave(stream->cgroup);
  if (stream->job != NULL) job_abandon(stream->job);
  free(stream->input_bytes);
  free(stream);
}
