// Pipes of commands that have ended, still held open by what they left behind: read to nowhere, so that those children neither block nor
// die of SIGPIPE. At most MAX_DRAINS; the oldest is closed for a new one.
#ifndef PYRO_DRAIN_H
#define PYRO_DRAIN_H

#include <stdbool.h>

#include "loop.h"

// Takes the descriptor out of `source`.
void drain(struct source *source);
// One read of each that has something. True if there was any.
bool drains_step(void);

#endif
