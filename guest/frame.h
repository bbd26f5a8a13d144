// Frames of protocol/PROTOCOL.md, "Frames": bytes to frames and back. Pure: no system call in here.
#ifndef PYRO_FRAME_H
#define PYRO_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "limits.h"

enum frame_type {
  FRAME_SYNC = 0x01,
  FRAME_REQUEST_PART = 0x02,
  FRAME_REQUEST = 0x03,
  FRAME_SIGNAL = 0x04,
  FRAME_RESIZE = 0x05,
  FRAME_CANCEL = 0x06,
  FRAME_DATA_0 = 0x10,
  FRAME_DATA_1 = 0x11,
  FRAME_DATA_2 = 0x12,
  FRAME_END_0 = 0x18,
  FRAME_END_1 = 0x19,
  FRAME_END_2 = 0x1a,
  FRAME_CREDIT_0 = 0x20,
  FRAME_CREDIT_1 = 0x21,
  FRAME_CREDIT_2 = 0x22,
  FRAME_HELLO = 0x81,
  FRAME_STARTED = 0x82,
  FRAME_RESULT = 0x83,
  FRAME_FAULT = 0x84,
};

struct frame {
  uint8_t type;
  uint32_t stream;
  const uint8_t *payload;  // inside the decoder, valid until decoder_space()
  uint32_t length;
};

// Bytes from the host, cut into frames. `lost` means that frame boundaries are unknown until a run of PADDING_RUN zeros.
struct decoder {
  uint8_t bytes[2 * (MAX_PAYLOAD + FRAME_HEADER)];
  size_t begin, end;
  bool lost;
  uint32_t zeros;
  const char *why;  // what was wrong, after DECODE_BAD
};

enum decoded { DECODE_MORE, DECODE_FRAME, DECODE_BAD };

// Forgets everything: the next byte begins a frame.
void decoder_reset(struct decoder *decoder);

// Where the next bytes from the host go; at least one whole frame fits. Moves what is unread, so frames handed out end here.
uint8_t *decoder_space(struct decoder *decoder, size_t *room);
void decoder_filled(struct decoder *decoder, size_t count);

// The next frame. DECODE_BAD: a frame the host may not send; if even its boundary can't be trusted the decoder is lost
// from then on and hands out nothing until padding was seen.
enum decoded decoder_next(struct decoder *decoder, struct frame *frame);

void frame_header(uint8_t header[FRAME_HEADER], enum frame_type type, uint32_t stream, uint32_t length);

uint16_t get_u16(const uint8_t *bytes);
uint32_t get_u32(const uint8_t *bytes);
uint64_t get_u64(const uint8_t *bytes);
void put_u16(uint8_t *bytes, uint16_t value);
void put_u32(uint8_t *bytes, uint32_t value);
void put_u64(uint8_t *bytes, uint64_t value);

#endif
