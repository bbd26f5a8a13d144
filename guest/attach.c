#include "attach.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "frame.h"
#include "stream.h"

static void give(struct stream *stream, int which, struct output *output, bool *progress);
static void send_result(struct stream *stream, struct output *output);

struct attachment *attach(const struct field *name, int *error) {
  struct job *job = job_hold(name, error);
  if (job == NULL) return NULL;
  struct attachment *attachment = must_allocate(NULL, sizeof *attachment);
  *attachment = (struct attachment){.job = job};
  return attachment;
}

bool attachment_step(struct stream *stream, struct output *output, bool *progress) {
  struct attachment *attachment = stream->attachment;
  if (!stream->began) {
    uint8_t pid[4];
    put_u32(pid, (uint32_t)attachment->job->pid);
    output_frame(output, FRAME_STARTED, stream->id, pid, sizeof pid);
    stream->began = *progress = true;
  }
  for (int i = 0; i < 2 && !stream->cancelled; i++) give(stream, i, output, progress);
  bool all = job_is_over(attachment->job);
  for (int i = 0; i < 2; i++) all = all && attachment->at[i] == attachment->job->outputs[i].ring.written;
  if ((!all && !stream->cancelled) || !output_takes_result(output)) return false;
  send_result(stream, output);
  return true;
}

static void give(struct stream *stream, int which, struct output *output, bool *progress) {
  struct attachment *attachment = stream->attachment;
  struct stream_output *side = &stream->outputs[which];
  const struct ring *ring = &attachment->job->outputs[which].ring;
  for (int frames = 0; frames < 4 && side->credit > 0 && attachment->at[which] < ring->written && output_used(output) < OUTPUT_DATA; frames++) {
    size_t want = side->credit < MAX_PAYLOAD ? side->credit : MAX_PAYLOAD;
    uint8_t *to = output_payload(output, want);
    uint64_t skipped;
    if (to == NULL) break;
    size_t count = ring_read(ring, &attachment->at[which], to, want, &skipped);
    attachment->dropped[which] += skipped;
    *progress = true;
    if (count == 0) break;
    output_commit(output, which == 0 ? FRAME_DATA_1 : FRAME_DATA_2, stream->id, count);
    side->credit -= (uint32_t)count;
    side->bytes += count;
  }
}

static void send_result(struct stream *stream, struct output *output) {
  const struct attachment *attachment = stream->attachment;
  const struct job *job = attachment->job;
  uint8_t bytes[256];
  struct builder builder = {.bytes = bytes, .capacity = sizeof bytes};
  output_frame(output, FRAME_END_1, stream->id, NULL, 0);
  output_frame(output, FRAME_END_2, stream->id, NULL, 0);
  if (stream->cancelled) {
    add_u32(&builder, TAG_ERRNO, ECANCELED);
    add_bytes(&builder, TAG_STAGE, "cancel", 6);
    add_bytes(&builder, TAG_MESSAGE, "detached", 8);
  } else {
    if (WIFSIGNALED(job->status)) add_u8(&builder, TAG_EXIT_SIGNAL, (uint8_t)WTERMSIG(job->status));
    else add_u8(&builder, TAG_EXIT_CODE, (uint8_t)WEXITSTATUS(job->status));
    add_u64(&builder, TAG_DURATION, (uint64_t)(job->ended_ns - job->started_ns));
    add_u64(&builder, TAG_BYTES_1, stream->outputs[0].bytes);
    add_u64(&builder, TAG_BYTES_2, stream->outputs[1].bytes);
    add_u64(&builder, TAG_DROPPED_1, attachment->dropped[0]);
    add_u64(&builder, TAG_DROPPED_2, attachment->dropped[1]);
  }
  add_end(&builder);
  output_frame(output, FRAME_RESULT, stream->id, builder.bytes, builder.length);
}

void attachment_free(struct attachment *attachment) {
  job_release(attachment->job);
  free(attachment);
}
