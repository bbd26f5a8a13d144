// One port and the conversation on it.
#ifndef PYRO_CONNECTION_H
#define PYRO_CONNECTION_H

#include <stdbool.h>
#include <sys/types.h>

#include "frame.h"
#include "loop.h"
#include "output.h"
#include "stream.h"

struct connection {
  struct source source;
  enum { WAITING, OPEN, FAULTED } state;  // WAITING: for SYNC as the first frame. FAULTED: everything but SYNC is ignored
  // The host side is known to be there. A serial port's data can overtake the kernel's notice that the host side is open; then read gives
  // the data first and 0 after it, as if the host had gone away in the middle of its SYNC.
  bool connected;
  bool gone;          // read said 0
  int64_t early_ns;   // when data came before that notice; 0: it didn't
  int64_t zero_ns;    // since when read has said 0 of a host side that was there; 0: it doesn't
  struct decoder decoder;
  struct output output;
  struct stream *streams[MAX_STREAMS];
  unsigned stream_count;
  uint32_t last_id;
  uint8_t *parts;  // a message that goes on
  uint32_t parts_id;
  size_t parts_length, parts_capacity;
};

struct connection *connection_open(int fd, bool connected);
// Ends all it began and frees it.
void connection_close(struct connection *connection);
// Reads, serves and writes what can be done without waiting. True if anything was.
bool connection_step(struct connection *connection);
// Milliseconds until it wants to be stepped again without an event, -1: not at all.
int connection_timeout(const struct connection *connection);
// A child was reaped. True if it was this connection's.
bool connection_reaped(struct connection *connection, pid_t pid, int status);
// Writes what is there, for at most `timeout_ms`.
void connection_flush(struct connection *connection, int timeout_ms);

// Set by POWER_OFF; the main loop acts on it once the RESULT was written.
extern bool power_off_wanted;

#endif
