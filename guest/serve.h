// The main loop.
#ifndef PYRO_SERVE_H
#define PYRO_SERVE_H

// Blocks the signals that the loop takes as events; before anything forks.
void serve_open(void);
// Serves these ports; returns when POWER_OFF was asked for (or, with `until_gone`, when no host side is left).
void serve(const int *ports, unsigned count, int until_gone);

#endif
