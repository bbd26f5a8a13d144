#include "network.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <net/route.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "frame.h"
#include "log.h"

#ifdef PYRO_HOSTED
// The test build runs on the host and leaves its network alone.
int network_set(const uint8_t *network) { return network != NULL && network[12] > 32 ? EINVAL : 0; }
#else

#define CARD "eth0"
#define RESOLV_CONF "/etc/resolv.conf"
#define UP (IFF_UP | IFF_RUNNING | IFF_BROADCAST | IFF_MULTICAST)

static int ioctls = -1;
static bool is_up;

// What the image has there, as far as it is kept. A plain file stays open: it is written in place, which costs a tenth of making another one. A link,
// to what a service would have made, gives way to a file.
static struct {
  int fd;
  ssize_t length;  // -1: no plain file that could be put back
  char content[4096];
  char target[PATH_MAX];  // empty: no link
} resolv = {.fd = -1, .length = -1};

static int card_up(const uint8_t *network);
static int card_down(void);
static struct sockaddr address_of(const uint8_t *bytes);
static struct sockaddr mask_of(uint8_t prefix);
static int name_server_is(const uint8_t *address);
static int name_server_was(void);
static int rewrite(const char *text, size_t length);

void network_open(void) {
  ioctls = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  int fd = open("/proc/sys/net/ipv6/conf/" CARD "/disable_ipv6", O_WRONLY | O_CLOEXEC);  // not there: a kernel without IPv6, or no card
  if (fd >= 0 && write(fd, "1", 1) != 1) say(CARD " may get an IPv6 address: errno %d", errno);
  if (fd >= 0) close(fd);
  struct stat info;
  if (lstat(RESOLV_CONF, &info) != 0) return;
  if (S_ISLNK(info.st_mode)) {
    ssize_t length = readlink(RESOLV_CONF, resolv.target, sizeof resolv.target - 1);
    resolv.target[length > 0 ? length : 0] = 0;
  } else if (S_ISREG(info.st_mode)) {
    resolv.fd = open(RESOLV_CONF, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (resolv.fd >= 0 && info.st_size <= (off_t)sizeof resolv.content) resolv.length = pread(resolv.fd, resolv.content, sizeof resolv.content, 0);
  }
}

void network_close(void) {
  if (resolv.fd >= 0) close(resolv.fd);
  resolv.fd = -1;
}

// Whatever is so already costs next to nothing: in a fork all of it was so once.
int network_set(const uint8_t *network) {
  if (network == NULL && !is_up) return 0;
  int error = network == NULL ? card_down() : card_up(network);
  if (error == 0) error = network == NULL ? name_server_was() : name_server_is(network + 8);
  is_up = network != NULL;
  return error;
}

static int card_up(const uint8_t *network) {
  const uint8_t everywhere[4] = {0};
  struct ifreq mtu = {.ifr_name = CARD, .ifr_mtu = get_u16(network + 13)}, address = {.ifr_name = CARD}, mask = {.ifr_name = CARD}, up = {.ifr_name = CARD, .ifr_flags = UP};
  address.ifr_addr = address_of(network);
  mask.ifr_netmask = mask_of(network[12]);
  struct rtentry route = {.rt_dst = address_of(everywhere), .rt_genmask = address_of(everywhere), .rt_gateway = address_of(network + 4), .rt_flags = RTF_UP | RTF_GATEWAY};
  bool done = ioctl(ioctls, SIOCSIFMTU, &mtu) == 0 && ioctl(ioctls, SIOCSIFADDR, &address) == 0 && ioctl(ioctls, SIOCSIFNETMASK, &mask) == 0 &&
              ioctl(ioctls, SIOCSIFFLAGS, &up) == 0 && (ioctl(ioctls, SIOCADDRT, &route) == 0 || errno == EEXIST);
  return done ? 0 : errno;
}

// Its address stays, and with it down no route leads there. One that is not there is down.
static int card_down(void) {
  struct ifreq down = {.ifr_name = CARD, .ifr_flags = UP & ~IFF_UP};
  return ioctl(ioctls, SIOCSIFFLAGS, &down) == 0 || errno == ENODEV ? 0 : errno;
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

static int name_server_is(const uint8_t *address) {
  char text[64];
  int length = snprintf(text, sizeof text, "nameserver %u.%u.%u.%u\n", address[0], address[1], address[2], address[3]);
  if (resolv.fd < 0) {
    if (unlink(RESOLV_CONF) != 0 && errno != ENOENT) return errno;
    resolv.fd = open(RESOLV_CONF, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (resolv.fd < 0) return errno;
  }
  return rewrite(text, (size_t)length);
}

static int name_server_was(void) {
  if (resolv.length >= 0) return rewrite(resolv.content, (size_t)resolv.length);
  network_close();
  if (unlink(RESOLV_CONF) != 0 && errno != ENOENT) return errno;
  return resolv.target[0] == 0 || symlink(resolv.target, RESOLV_CONF) == 0 ? 0 : errno;
}

static int rewrite(const char *text, size_t length) {
  return pwrite(resolv.fd, text, length, 0) == (ssize_t)length && ftruncate(resolv.fd, (off_t)length) == 0 ? 0 : errno;
}
#endif
