#include "network.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "frame.h"
#include "log.h"

#ifdef PYRO_HOSTED
// The test build runs on the host and leaves its network alone.
int network_up(const uint8_t *network) { return network == NULL ? EINVAL : 0; }
#else

#define CARD "eth0"
#define RESOLV_CONF "/etc/resolv.conf"

static int name_server_is(const uint8_t *address);

void network_open(void) {
  int fd = open("/proc/sys/net/ipv6/conf/" CARD "/disable_ipv6", O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;  // a kernel without IPv6, or no card
  if (write(fd, "1", 1) != 1) say(CARD " may get an IPv6 address: errno %d", errno);
  close(fd);
}

static struct sockaddr address_of(const uint8_t *bytes) {
  struct sockaddr_in address = {.sin_family = AF_INET};
  memcpy(&address.sin_addr, bytes, 4);
  struct sockaddr any;
  memcpy(&any, &address, sizeof any);
  return any;
}

static struct sockaddr mask_of(uint8_t prefix) {
  uint32_t mask = htonl(UINT32_MAX << (32 - prefix));
  return address_of((const uint8_t *)&mask);
}

int network_up(const uint8_t *network) {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno;
  const uint8_t nowhere[4] = {0};
  struct ifreq mtu = {.ifr_name = CARD, .ifr_mtu = get_u16(network + 13)}, address = {.ifr_name = CARD}, mask = {.ifr_name = CARD};
  struct ifreq up = {.ifr_name = CARD, .ifr_flags = IFF_UP | IFF_RUNNING | IFF_BROADCAST | IFF_MULTICAST};
  address.ifr_addr = address_of(network);
  mask.ifr_netmask = mask_of(network[12]);
  struct rtentry route = {.rt_dst = address_of(nowhere), .rt_genmask = address_of(nowhere), .rt_gateway = address_of(network + 4), .rt_flags = RTF_UP | RTF_GATEWAY};
  bool done = ioctl(fd, SIOCSIFMTU, &mtu) == 0 && ioctl(fd, SIOCSIFADDR, &address) == 0 && ioctl(fd, SIOCSIFNETMASK, &mask) == 0 &&
              ioctl(fd, SIOCSIFFLAGS, &up) == 0 && (ioctl(fd, SIOCADDRT, &route) == 0 || errno == EEXIST);
  int error = done ? 0 : errno;
  close(fd);
  return error == 0 ? name_server_is(network + 8) : error;
}

// In place of what the image has there, which may be a link to what a service would have made.
static int name_server_is(const uint8_t *address) {
  char text[64];
  int length = snprintf(text, sizeof text, "nameserver %u.%u.%u.%u\n", address[0], address[1], address[2], address[3]);
  if (unlink(RESOLV_CONF) != 0 && errno != ENOENT) return errno;
  int fd = open(RESOLV_CONF, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
  if (fd < 0) return errno;
  int error = write(fd, text, (size_t)length) == length ? 0 : errno;
  close(fd);
  return error;
}
#endif
