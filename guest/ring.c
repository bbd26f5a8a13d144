#include "ring.h"

#include <stdlib.h>
#include <string.h>

#define LEAST 4096u

static void grow(struct ring *ring, uint64_t want);

uint64_t ring_oldest(const struct ring *ring) { return ring->written > ring->capacity ? ring->written - ring->capacity : 0; }

void ring_write(struct ring *ring, const uint8_t *bytes, size_t length) {
  if (ring->written + length > ring->capacity && ring->capacity < ring->most) grow(ring, ring->written + length);
  size_t skip = length > ring->capacity ? length - ring->capacity : 0;
  ring->written += skip;
  for (size_t at = skip; at < length;) {
    size_t place = (size_t)(ring->written % ring->capacity), count = length - at;
    if (count > ring->capacity - place) count = ring->capacity - place;
    memcpy(ring->bytes + place, bytes + at, count);
    ring->written += count;
    at += count;
  }
}

// While it can still grow nothing has been written over, so every byte stands at its position and stays there.
static void grow(struct ring *ring, uint64_t want) {
  size_t capacity = ring->capacity > 0 ? ring->capacity : LEAST;
  while (capacity < want && capacity < ring->most) capacity *= 2;
  if (capacity > ring->most) capacity = ring->most;
  uint8_t *more = realloc(ring->bytes, capacity);
  // Memory is short: what there is must do.
  if (more == NULL) {
    ring->most = ring->capacity;
    return;
  }
  ring->bytes = more;
  ring->capacity = capacity;
}

size_t ring_read(const struct ring *ring, uint64_t *at, uint8_t *to, size_t most, uint64_t *skipped) {
  uint64_t oldest = ring_oldest(ring);
  *skipped = *at < oldest ? oldest - *at : 0;
  *at += *skipped;
  uint64_t left = ring->written - *at;
  size_t length = left < most ? (size_t)left : most;
  for (size_t done = 0; done < length;) {
    size_t place = (size_t)(*at % ring->capacity), count = length - done;
    if (count > ring->capacity - place) count = ring->capacity - place;
    memcpy(to + done, ring->bytes + place, count);
    *at += count;
    done += count;
  }
  return length;
}
