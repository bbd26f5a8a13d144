// The guest's network card: made up and taken down as IDENTIFY says.
#ifndef PYRO_NETWORK_H
#define PYRO_NETWORK_H

#include <stdint.h>

// When the root file system is complete. From now on the card never has an IPv6 address, as nothing answers there and programs would wait for it.
void network_open(void);
// Before the root file system is sealed.
void network_close(void);

// `network` is the field NETWORK, checked. Gives the card its address and route and writes /etc/resolv.conf; NULL takes the card down and puts
// /etc/resolv.conf back, if that was done before. 0 or errno.
int network_set(const uint8_t *network);

#endif
