// A connection's unsent frames: one bounded buffer that remembers where the frame being written ends. Pure: no system call in here.
#ifndef PYRO_OUTPUT_H
#define PYRO_OUTPUT_H

#include <stddef.h>
#include <stdint.h>

#include "frame.h"

struct output {
  uint8_t *bytes;     // OUTPUT_CAPACITY
  size_t begin, end;  // unsent
  size_t boundary;    // end of the frame that `begin` is in (== begin: between two frames)
};

static inline size_t output_used(const struct output *output) { return output->end - output->begin; }

// Room for another RESULT and its END frames. Whoever ends a stream waits for it: a host may have asked for 256 large ones and read none.
static inline int output_takes_result(const struct output *output) { return OUTPUT_CAPACITY - output_used(output) > 2 * MAX_PAYLOAD; }

// Where a frame's payload may be put so that nothing is copied again; at least `want` bytes (want <= MAX_PAYLOAD), NULL if full.
uint8_t *output_payload(struct output *output, size_t want);
// Turns `length` bytes put there into a frame.
void output_commit(struct output *output, enum frame_type type, uint32_t stream, size_t length);
// Copies a frame in. False if the buffer is full.
int output_frame(struct output *output, enum frame_type type, uint32_t stream, const void *payload, size_t length);
// `count` bytes were written.
void output_sent(struct output *output, size_t count);
// Drops all but the rest of the frame that is half written: without that rest the host would misread what follows.
void output_drop(struct output *output);
void output_clear(struct output *output);

#endif
