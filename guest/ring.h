// The last bytes of an output that has no reader, or a slow one. Pure: no system call in here.
#ifndef PYRO_RING_H
#define PYRO_RING_H

#include <stddef.h>
#include <stdint.h>

struct ring {
  uint8_t *bytes;
  size_t capacity;   // grows with what comes
  size_t most;       // up to this; 0: nothing is kept
  uint64_t written;  // since the beginning; the last of them, at most `capacity`, are here
};

// Where the oldest byte that is kept stands in all that was written.
uint64_t ring_oldest(const struct ring *ring);
void ring_write(struct ring *ring, const uint8_t *bytes, size_t length);
// Copies up to `most` bytes from position *at on, which moves past them; what is kept no more is skipped first. Gives how many, and in *skipped the others.
size_t ring_read(const struct ring *ring, uint64_t *at, uint8_t *to, size_t most, uint64_t *skipped);

#endif
