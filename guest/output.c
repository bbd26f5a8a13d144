#include "output.h"

#include <string.h>

uint8_t *output_payload(struct output *output, size_t want) {
  if (output->begin == output->end) output_clear(output);
  size_t need = FRAME_HEADER + want;
  if (OUTPUT_CAPACITY - output->end < need) {
    if (OUTPUT_CAPACITY - output_used(output) < need) return NULL;
    memmove(output->bytes, output->bytes + output->begin, output_used(output));
    output->end -= output->begin;
    output->boundary -= output->begin;
    output->begin = 0;
  }
  return output->bytes + output->end + FRAME_HEADER;
}

void output_commit(struct output *output, enum frame_type type, uint32_t stream, size_t length) {
  frame_header(output->bytes + output->end, type, stream, (uint32_t)length);
  output->end += FRAME_HEADER + length;
}

int output_frame(struct output *output, enum frame_type type, uint32_t stream, const void *payload, size_t length) {
  uint8_t *at = output_payload(output, length);
  if (at == NULL) return 0;
  if (length > 0) memcpy(at, payload, length);
  output_commit(output, type, stream, length);
  return 1;
}

void output_sent(struct output *output, size_t count) {
  output->begin += count;
  while (output->boundary < output->begin) output->boundary += FRAME_HEADER + (get_u32(output->bytes + output->boundary) >> 8);
}

void output_drop(struct output *output) { output->end = output->boundary; }

void output_clear(struct output *output) { output->begin = output->end = output->boundary = 0; }
