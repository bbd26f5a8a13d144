#include "frame.h"

#include <string.h>

static const char *wrong_frame(uint8_t type, uint32_t stream, uint32_t length);
static bool known_from_host(uint8_t type);
static bool skip_to_padding(struct decoder *decoder);

void decoder_reset(struct decoder *decoder) {
  decoder->begin = decoder->end = 0;
  decoder->lost = false;
  decoder->zeros = 0;
  decoder->why = NULL;
}

uint8_t *decoder_space(struct decoder *decoder, size_t *room) {
  if (decoder->begin == decoder->end) {
    decoder->begin = decoder->end = 0;
  } else if (decoder->begin > 0 && sizeof decoder->bytes - decoder->begin < MAX_PAYLOAD + FRAME_HEADER + 4096) {
    // Moves at most one unfinished frame, and only after a buffer's worth of them was read.
    memmove(decoder->bytes, decoder->bytes + decoder->begin, decoder->end - decoder->begin);
    decoder->end -= decoder->begin;
    decoder->begin = 0;
  }
  *room = sizeof decoder->bytes - decoder->end;
  return decoder->bytes + decoder->end;
}

void decoder_filled(struct decoder *decoder, size_t count) { decoder->end += count; }

enum decoded decoder_next(struct decoder *decoder, struct frame *frame) {
  if (decoder->lost && !skip_to_padding(decoder)) return DECODE_MORE;
  while (decoder->begin < decoder->end && decoder->bytes[decoder->begin] == 0) decoder->begin++;
  const uint8_t *at = decoder->bytes + decoder->begin;
  size_t have = decoder->end - decoder->begin;
  if (have < FRAME_HEADER) return DECODE_MORE;
  uint8_t type = at[0];
  uint32_t length = (uint32_t)at[1] | (uint32_t)at[2] << 8 | (uint32_t)at[3] << 16;
  uint32_t stream = get_u32(at + 4);
  if (!known_from_host(type) || length > MAX_PAYLOAD) {
    decoder->why = length > MAX_PAYLOAD ? "a payload over 65536 bytes (MAX_PAYLOAD)" : "a frame type the host may not send";
    decoder->lost = true;
    decoder->zeros = 0;
    return DECODE_BAD;
  }
  // Also a frame that is wrong is waited for: its end is known, so what comes after it can still be told apart.
  if (have < FRAME_HEADER + length) return DECODE_MORE;
  decoder->begin += FRAME_HEADER + length;
  decoder->why = wrong_frame(type, stream, length);
  if (decoder->why != NULL) return DECODE_BAD;
  *frame = (struct frame){.type = type, .stream = stream, .payload = at + FRAME_HEADER, .length = length};
  return DECODE_FRAME;
}

// In the table's order: stream 0 or not, and the sizes that a type fixes.
static const char *wrong_frame(uint8_t type, uint32_t stream, uint32_t length) {
  if ((type == FRAME_SYNC) != (stream == 0)) return "a stream id that does not fit the frame type";
  switch (type) {
    case FRAME_SIGNAL: return length == 2 ? NULL : "a SIGNAL whose payload is not 2 bytes";
    case FRAME_RESIZE: return length == 4 ? NULL : "a RESIZE whose payload is not 4 bytes";
    case FRAME_CANCEL: return length == 0 ? NULL : "a CANCEL with a payload";
    case FRAME_END_0: return length == 0 ? NULL : "an END_0 with a payload";
    case FRAME_DATA_0: return length > 0 ? NULL : "an empty DATA_0";
    case FRAME_CREDIT_1:
    case FRAME_CREDIT_2: return length == 4 ? NULL : "a CREDIT whose payload is not 4 bytes";
    default: return NULL;
  }
}

static bool known_from_host(uint8_t type) {
  switch (type) {
    case FRAME_SYNC:
    case FRAME_REQUEST_PART:
    case FRAME_REQUEST:
    case FRAME_SIGNAL:
    case FRAME_RESIZE:
    case FRAME_CANCEL:
    case FRAME_DATA_0:
    case FRAME_END_0:
    case FRAME_CREDIT_1:
    case FRAME_CREDIT_2: return true;
    default: return false;
  }
}

// True when a run of PADDING_RUN zeros has gone by, which no valid frame can contain.
static bool skip_to_padding(struct decoder *decoder) {
  while (decoder->begin < decoder->end) {
    uint8_t byte = decoder->bytes[decoder->begin++];
    decoder->zeros = byte == 0 ? decoder->zeros + 1 : 0;
    if (decoder->zeros >= PADDING_RUN) {
      decoder->lost = false;
      return true;
    }
  }
  return false;
}

void frame_header(uint8_t header[FRAME_HEADER], enum frame_type type, uint32_t stream, uint32_t length) {
  put_u32(header, (uint32_t)type | length << 8);
  put_u32(header + 4, stream);
}

uint16_t get_u16(const uint8_t *b) { return (uint16_t)(b[0] | b[1] << 8); }

uint32_t get_u32(const uint8_t *b) {
  return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

uint64_t get_u64(const uint8_t *b) { return (uint64_t)get_u32(b) | (uint64_t)get_u32(b + 4) << 32; }

void put_u16(uint8_t *b, uint16_t value) {
  b[0] = (uint8_t)value;
  b[1] = (uint8_t)(value >> 8);
}

void put_u32(uint8_t *b, uint32_t value) {
  put_u16(b, (uint16_t)value);
  put_u16(b + 2, (uint16_t)(value >> 16));
}

void put_u64(uint8_t *b, uint64_t value) {
  put_u32(b, (uint32_t)value);
  put_u32(b + 4, (uint32_t)(value >> 32));
}
