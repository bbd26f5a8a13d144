#include "connection.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "identity.h"
#include "jobs.h"
#include "message.h"
#include "network.h"

#ifndef PYRO_VERSION
#define PYRO_VERSION "0.0.0"
#endif

bool power_off_wanted;

static bool write_output(struct connection *connection);
static bool read_input(struct connection *connection);
static bool host_gone(struct connection *connection);
static void end_connection(struct connection *connection);
static void take_frame(struct connection *connection, const struct frame *frame);
static void begin(struct connection *connection, const struct frame *frame);
static void request_part(struct connection *connection, const struct frame *frame);
static void request(struct connection *connection, uint32_t id, const uint8_t *bytes, size_t length);
static void answer(struct connection *connection, uint32_t id, const struct message *message);
static void fail(struct connection *connection, uint32_t id, const char *stage, int error);
static void identify(struct connection *connection, uint32_t id, const struct message *message);
static void answer_about_jobs(struct connection *connection, uint32_t id, const struct message *message);
static void start(struct connection *connection, uint32_t id, const struct message *message);
static const char *stream_frame(struct stream *stream, const struct frame *frame);
static void fault(struct connection *connection, const char *why);
static void drop_all(struct connection *connection);

struct connection *connection_open(int fd, bool connected) {
  struct connection *connection = must_allocate(NULL, sizeof *connection);
  memset(connection, 0, sizeof *connection);
  connection->output.bytes = must_allocate(NULL, OUTPUT_CAPACITY);
  connection->connected = connected;
  decoder_reset(&connection->decoder);
  source_open(&connection->source, fd);
  return connection;
}

void connection_close(struct connection *connection) {
  drop_all(connection);
  source_close(&connection->source);
  free(connection->output.bytes);
  free(connection);
}

bool connection_step(struct connection *connection) {
  bool progress = write_output(connection);
  // Is it still gone?
  if (connection->zero_ns != 0 && now_ns() - connection->zero_ns > GONE_MS * 1000000LL) connection->source.readable = true;
  if (connection->early_ns != 0 && now_ns() - connection->early_ns > EARLY_MS * 1000000LL) {
    // The notice came and went unseen, or the host side was gone again before it.
    connection->source.readable = true;
    connection->connected = true;
    connection->early_ns = 0;
  }
  progress = read_input(connection) || progress;
  for (unsigned i = 0; i < connection->stream_count;) {
    struct stream *stream = connection->streams[i];
    if (!stream_step(stream, &connection->output, &progress)) {
      i++;
      continue;
    }
    write_output(connection);  // nobody waits for what it left to be cleared away
    stream_free(stream);
    connection->streams[i] = connection->streams[--connection->stream_count];
    progress = true;
  }
  return write_output(connection) || progress;
}

static bool write_output(struct connection *connection) {
  struct output *output = &connection->output;
  bool progress = false;
  while (connection->source.writable && output_used(output) > 0) {
    ssize_t count = write(connection->source.fd, output->bytes + output->begin, output_used(output));
    if (count <= 0) {
      // Gone is said by read; here it only means later.
      connection->source.writable = false;
      break;
    }
    output_sent(output, (size_t)count);
    progress = true;
  }
  return progress;
}

static bool read_input(struct connection *connection) {
  bool progress = false;
  for (int reads = 0; reads < 4; reads++) {
    struct frame frame;
    enum decoded decoded;
    // What was read already comes first; while the output is nearly full it waits.
    while (output_used(&connection->output) < OUTPUT_TAKE && (decoded = decoder_next(&connection->decoder, &frame)) != DECODE_MORE) {
      progress = true;
      if (decoded == DECODE_FRAME) take_frame(connection, &frame);
      else if (connection->state != FAULTED) fault(connection, connection->decoder.why);
    }
    if (output_used(&connection->output) >= OUTPUT_TAKE || !connection->source.readable) break;
    size_t room;
    uint8_t *at = decoder_space(&connection->decoder, &room);
    ssize_t count = read(connection->source.fd, at, room);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      connection->source.readable = false;
      if (count < 0 && errno == EAGAIN) {
        connection->connected = true;
        connection->early_ns = connection->zero_ns = 0;
      } else if (connection->connected) {
        progress = host_gone(connection) || progress;
      } else {
        connection->gone = true;
      }
      break;
    }
    connection->gone = false;
    connection->zero_ns = 0;
    if (!connection->connected && connection->early_ns == 0) connection->early_ns = now_ns();
    decoder_filled(&connection->decoder, (size_t)count);
    progress = true;
  }
  return progress;
}

// Not at once: where one client follows another, the next one's SYNC can be here before the notices of the end and the new beginning are, and
// between the two read says 0. That one is over in a moment; this one, whose end this is, can wait for it.
static bool host_gone(struct connection *connection) {
  if (connection->zero_ns == 0) connection->zero_ns = now_ns();
  if (now_ns() - connection->zero_ns <= GONE_MS * 1000000LL) return false;
  end_connection(connection);
  return true;
}

// A serial port without a host side: the next host begins anew.
static void end_connection(struct connection *connection) {
  drop_all(connection);
  output_clear(&connection->output);
  decoder_reset(&connection->decoder);
  connection->state = WAITING;
  connection->connected = false;
  connection->zero_ns = 0;
  connection->gone = true;
}

static void take_frame(struct connection *connection, const struct frame *frame) {
  if (frame->type == FRAME_SYNC) {
    begin(connection, frame);
    return;
  }
  if (connection->state == FAULTED) return;
  if (connection->state == WAITING) {
    fault(connection, "a frame before SYNC");
    return;
  }
  if (frame->type == FRAME_REQUEST_PART || frame->type == FRAME_REQUEST) {
    request_part(connection, frame);
    return;
  }
  if (frame->stream > connection->last_id || frame->stream == connection->parts_id) {
    fault(connection, "a frame for a stream that was never opened");
    return;
  }
  const char *wrong = NULL;
  for (unsigned i = 0; i < connection->stream_count; i++)
    if (connection->streams[i]->id == frame->stream) wrong = stream_frame(connection->streams[i], frame);
  if (wrong != NULL) fault(connection, wrong);
}

static void begin(struct connection *connection, const struct frame *frame) {
  struct message message;
  const char *wrong = parse_sync(&message, frame->payload, frame->length);
  drop_all(connection);
  output_drop(&connection->output);
  if (wrong == NULL) {
    uint16_t least = get_u16(message.fields[TAG_VERSION_MIN].bytes), most = get_u16(message.fields[TAG_VERSION_MAX].bytes);
    if (least > most) wrong = "VERSION_MIN over VERSION_MAX";
    else if (least > PROTOCOL_VERSION || most < PROTOCOL_VERSION) wrong = "no version in common: this guest speaks version 1";
  }
  if (wrong != NULL) {
    fault(connection, wrong);
    return;
  }
  struct utsname name;
  uname(&name);
  uint8_t bytes[256];
  struct builder builder = {.bytes = bytes, .capacity = sizeof bytes};
  add_u16(&builder, TAG_VERSION, PROTOCOL_VERSION);
  add_bytes(&builder, TAG_NONCE, message.fields[TAG_NONCE].bytes, 16);
  add_bytes(&builder, TAG_KERNEL, name.release, strnlen(name.release, 64));
  add_bytes(&builder, TAG_PROGRAM, PYRO_VERSION, strnlen(PYRO_VERSION, 64));
  add_end(&builder);
  output_frame(&connection->output, FRAME_HELLO, 0, builder.bytes, builder.length);
  connection->state = OPEN;
}

static void request_part(struct connection *connection, const struct frame *frame) {
  if (connection->parts_id != 0 && frame->stream != connection->parts_id) {
    fault(connection, "a request in the middle of another stream's");
    return;
  }
  if (connection->parts_id == 0) {
    if (frame->stream <= connection->last_id) {
      fault(connection, "a stream id that does not grow");
      return;
    }
    if (connection->stream_count >= MAX_STREAMS) {
      fault(connection, "over 256 open streams (MAX_STREAMS)");
      return;
    }
    connection->last_id = frame->stream;
    if (frame->type == FRAME_REQUEST) {
      request(connection, frame->stream, frame->payload, frame->length);
      return;
    }
    connection->parts_id = frame->stream;
    connection->parts_length = 0;
  }
  size_t length = connection->parts_length + frame->length;
  if (length > MAX_MESSAGE) {
    fault(connection, "a message over 1048576 bytes (MAX_MESSAGE)");
    return;
  }
  if (length > connection->parts_capacity) {
    connection->parts_capacity = length * 2 < MAX_MESSAGE ? length * 2 : MAX_MESSAGE;
    connection->parts = must_allocate(connection->parts, connection->parts_capacity);
  }
  if (frame->length > 0) memcpy(connection->parts + connection->parts_length, frame->payload, frame->length);
  connection->parts_length = length;
  if (frame->type != FRAME_REQUEST) return;
  connection->parts_id = 0;
  request(connection, frame->stream, connection->parts, length);
  free(connection->parts);
  connection->parts = NULL;
  connection->parts_length = connection->parts_capacity = 0;
}

static void request(struct connection *connection, uint32_t id, const uint8_t *bytes, size_t length) {
  static struct message message;
  const char *wrong = parse_request(&message, bytes, length);
  if (wrong != NULL) {
    fault(connection, wrong);
    return;
  }
  int error = 0;
  const struct field *fields = message.fields;
  switch (message.kind) {
    case KIND_CLOCK:
      error = set_clock((int64_t)get_u64(fields[TAG_CLOCK].bytes));
      break;
    case KIND_ENTROPY:
      error = add_entropy(fields[TAG_ENTROPY].bytes, fields[TAG_ENTROPY].length);
      break;
    case KIND_IDENTIFY: identify(connection, id, &message); return;
    case KIND_PING: break;
    case KIND_POWER_OFF:
      power_off_wanted = true;
      break;
    case KIND_JOBS:
    case KIND_KILL_JOB:
    case KIND_FORGET_JOB: answer_about_jobs(connection, id, &message); return;
    default: start(connection, id, &message); return;
  }
  if (error != 0) fail(connection, id, message.kind == KIND_CLOCK ? "clock" : "entropy", error);
  else answer(connection, id, &message);
}

static void answer(struct connection *connection, uint32_t id, const struct message *message) {
  uint8_t bytes[64];
  struct builder builder = {.bytes = bytes, .capacity = sizeof bytes};
  if (message->kind == KIND_CLOCK || message->kind == KIND_IDENTIFY) add_u64(&builder, TAG_CLOCK, (uint64_t)clock_ns());
  if (message->kind == KIND_PING) add_u64(&builder, TAG_DURATION, (uint64_t)now_ns());
  add_end(&builder);
  output_frame(&connection->output, FRAME_RESULT, id, builder.bytes, builder.length);
}

static void fail(struct connection *connection, uint32_t id, const char *stage, int error) {
  uint8_t bytes[512];
  struct builder builder = {.bytes = bytes, .capacity = sizeof bytes};
  const char *text = strerror(error);
  add_u32(&builder, TAG_ERRNO, (uint32_t)error);
  add_bytes(&builder, TAG_STAGE, stage, strlen(stage));
  add_bytes(&builder, TAG_MESSAGE, text, strlen(text));
  add_end(&builder);
  output_frame(&connection->output, FRAME_RESULT, id, builder.bytes, builder.length);
}

// All of it before the next request is looked at, so a host need not wait for the answer. No child: what a fork costs comes before
// every VM's first command.
static void identify(struct connection *connection, uint32_t id, const struct message *message) {
  const struct field *fields = message->fields;
  const char *stage = "hostname";
  int error = set_hostname(fields[TAG_HOSTNAME].bytes, fields[TAG_HOSTNAME].length);
  if (error == 0) stage = "clock", error = set_clock((int64_t)get_u64(fields[TAG_CLOCK].bytes));
  if (error == 0) stage = "entropy", error = add_entropy(fields[TAG_ENTROPY].bytes, fields[TAG_ENTROPY].length);
  if (error == 0) stage = "machine-id", error = set_machine_id(fields[TAG_MACHINE_ID].bytes);
  if (error == 0) stage = "network", error = network_set(fields[TAG_NETWORK].bytes);
  if (error != 0) fail(connection, id, stage, error);
  else answer(connection, id, message);
}

static void answer_about_jobs(struct connection *connection, uint32_t id, const struct message *message) {
  static uint8_t bytes[MAX_JOBS * MAX_JOB_RECORD + 16];
  struct builder builder = {.bytes = bytes, .capacity = sizeof bytes};
  const char *stage;
  int error = jobs_answer(message, &builder, &stage);
  if (error != 0) {
    fail(connection, id, stage, error);
    return;
  }
  add_end(&builder);
  output_frame(&connection->output, FRAME_RESULT, id, builder.bytes, builder.length);
}

static void start(struct connection *connection, uint32_t id, const struct message *message) {
  int error = 0;
  const char *stage;
  struct stream *stream = stream_start(id, message, &error, &stage);
  if (stream == NULL) {
    fail(connection, id, stage, error);
    return;
  }
  connection->streams[connection->stream_count++] = stream;
}

static const char *stream_frame(struct stream *stream, const struct frame *frame) {
  switch (frame->type) {
    case FRAME_DATA_0: return stream_data(stream, frame->payload, frame->length);
    case FRAME_END_0: return stream_end_input(stream);
    case FRAME_CREDIT_1: return stream_credit(stream, 0, get_u32(frame->payload));
    case FRAME_CREDIT_2: return stream_credit(stream, 1, get_u32(frame->payload));
    case FRAME_SIGNAL: return stream_signal(stream, frame->payload[0], frame->payload[1]);
    case FRAME_RESIZE: return stream_resize(stream, get_u16(frame->payload), get_u16(frame->payload + 2));
    case FRAME_CANCEL: stream_cancel(stream); return NULL;
    default: return "a frame type that no stream takes";
  }
}

static void fault(struct connection *connection, const char *why) {
  drop_all(connection);
  output_drop(&connection->output);
  uint8_t bytes[1100];
  struct builder builder = {.bytes = bytes, .capacity = sizeof bytes};
  add_bytes(&builder, TAG_MESSAGE, why, strnlen(why, 1024));
  add_end(&builder);
  output_frame(&connection->output, FRAME_FAULT, 0, builder.bytes, builder.length);
  connection->state = FAULTED;
}

static void drop_all(struct connection *connection) {
  for (unsigned i = 0; i < connection->stream_count; i++) stream_free(connection->streams[i]);
  connection->stream_count = 0;
  connection->last_id = connection->parts_id = 0;
  free(connection->parts);
  connection->parts = NULL;
  connection->parts_length = connection->parts_capacity = 0;
}

int connection_timeout(const struct connection *connection) {
  if (connection->zero_ns != 0) return GONE_MS / 2;
  return connection->early_ns == 0 ? -1 : EARLY_MS / 2;
}

bool connection_reaped(struct connection *connection, pid_t pid, int status) {
  for (unsigned i = 0; i < connection->stream_count; i++) {
    if (connection->streams[i]->pid != pid || connection->streams[i]->exited) continue;
    stream_exited(connection->streams[i], status);
    return true;
  }
  return false;
}

void connection_flush(struct connection *connection, int timeout_ms) {
  int64_t deadline = now_ns() + (int64_t)timeout_ms * 1000000;
  while (output_used(&connection->output) > 0 && now_ns() < deadline) {
    struct pollfd poll_fd = {.fd = connection->source.fd, .events = POLLOUT};
    poll(&poll_fd, 1, 10);
    connection->source.writable = true;
    write_output(connection);
  }
}
