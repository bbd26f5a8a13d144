// Descriptors that the program waits for. Edge-triggered: an event only sets flags, work is done afterwards, so nothing is freed
// while events of the same round still point at it.
#ifndef PYRO_LOOP_H
#define PYRO_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct source {
  int fd;         // -1: closed
  bool readable;  // may have something to read: until a read says EAGAIN
  bool writable;
  bool hung_up;
};

void loop_open(void);
// Takes a descriptor that is non-blocking already. Both flags begin as true: try first.
void source_open(struct source *source, int fd);
void source_close(struct source *source);
// Takes the descriptor out of the loop without closing it.
int source_release(struct source *source);
// Waits at most `timeout_ms` (-1: for ever) and sets flags.
void loop_wait(int timeout_ms);

int64_t now_ns(void);  // monotonic
void pause_ms(int ms);  // under a second
void *must_allocate(void *old, size_t size);

#endif
