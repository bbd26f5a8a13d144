// The guest's network card: made up as IDENTIFY says.
#ifndef PYRO_NETWORK_H
#define PYRO_NETWORK_H

#include <stdint.h>

// Before anything is made of the card: it never has an IPv6 address, as nothing answers there and programs would wait for it.
void network_open(void);

// `network` is the field NETWORK, checked. Gives the card its address and route and writes /etc/resolv.conf. 0 or errno.
int network_up(const uint8_t *network);

#endif
