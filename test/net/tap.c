/* A real Linux guest for the gateway without a machine: a network namespace of its own whose only card is a TAP device; its frames go over
   descriptor 3 as QEMU's would. Runs a command in it and ends as that does. Usage: tap [-r RESOLV_CONF] [-m MTU] COMMAND [ARGUMENT...].
   Needs /dev/net/tun and either root or user namespaces; exits with 77 and says why where that is not to be had. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <net/route.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CABLE = 3, MAX_FRAME = 69632, SKIP = 77 };

static void skip(const char *what) {
  fprintf(stderr, "tap: %s: %s\n", what, strerror(errno));
  exit(SKIP);
}

static void write_file(const char *path, const char *text) {
  int fd = open(path, O_WRONLY);
  if (fd < 0 || write(fd, text, strlen(text)) < 0) skip(path);
  close(fd);
}

static void enter_namespaces(void) {
  char map[64];
  uid_t uid = getuid();
  gid_t gid = getgid();
  if (uid == 0) {
    if (unshare(CLONE_NEWNET | CLONE_NEWNS) < 0) skip("unshare");
    return;
  }
  if (unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS) < 0) skip("unshare");
  write_file("/proc/self/setgroups", "deny");
  snprintf(map, sizeof map, "0 %u 1", uid);
  write_file("/proc/self/uid_map", map);
  snprintf(map, sizeof map, "0 %u 1", gid);
  write_file("/proc/self/gid_map", map);
}

static void set(int control, unsigned long request, struct ifreq *card, const char *what) {
  if (ioctl(control, request, card) < 0) skip(what);
}

static void address(struct sockaddr *to, const char *text) {
  struct sockaddr_in *in = (struct sockaddr_in *)to;
  in->sin_family = AF_INET;
  inet_pton(AF_INET, text, &in->sin_addr);
}

static int open_card(int mtu) {
  static const unsigned char mac[6] = {0x52, 0x54, 0x00, 0x70, 0x79, 0x72};
  struct ifreq card = {.ifr_flags = IFF_TAP | IFF_NO_PI};
  struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY};
  int tun = open("/dev/net/tun", O_RDWR);
  if (tun < 0) skip("/dev/net/tun");
  strcpy(card.ifr_name, "eth0");
  set(tun, TUNSETIFF, &card, "TUNSETIFF");
  int control = socket(AF_INET, SOCK_DGRAM, 0);
  write_file("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
  card.ifr_hwaddr.sa_family = ARPHRD_ETHER;
  memcpy(card.ifr_hwaddr.sa_data, mac, sizeof mac);
  set(control, SIOCSIFHWADDR, &card, "SIOCSIFHWADDR");
  address(&card.ifr_addr, "100.96.0.2");
  set(control, SIOCSIFADDR, &card, "SIOCSIFADDR");
  address(&card.ifr_netmask, "255.255.255.0");
  set(control, SIOCSIFNETMASK, &card, "SIOCSIFNETMASK");
  card.ifr_mtu = mtu;
  set(control, SIOCSIFMTU, &card, "SIOCSIFMTU");
  card.ifr_flags = IFF_UP | IFF_RUNNING;
  set(control, SIOCSIFFLAGS, &card, "SIOCSIFFLAGS");
  address(&route.rt_dst, "0.0.0.0");
  address(&route.rt_genmask, "0.0.0.0");
  address(&route.rt_gateway, "100.96.0.1");
  if (ioctl(control, SIOCADDRT, &route) < 0) skip("SIOCADDRT");
  strcpy(card.ifr_name, "lo");
  card.ifr_flags = IFF_UP | IFF_RUNNING;
  set(control, SIOCSIFFLAGS, &card, "lo");
  close(control);
  return tun;
}

static int read_all(void *to, size_t length) {
  for (char *at = to; length > 0;) {
    ssize_t got = read(CABLE, at, length);
    if (got <= 0) return -1;
    at += got;
    length -= (size_t)got;
  }
  return 0;
}

static int write_all(struct iovec *parts) {
  while (parts[1].iov_len > 0) {
    ssize_t put = writev(CABLE, parts, 2);
    if (put < 0) return -1;
    for (int i = 0; i < 2; i++) {
      size_t of_this = (size_t)put < parts[i].iov_len ? (size_t)put : parts[i].iov_len;
      parts[i].iov_base = (char *)parts[i].iov_base + of_this;
      parts[i].iov_len -= of_this;
      put -= (ssize_t)of_this;
    }
  }
  return 0;
}

static volatile sig_atomic_t is_over;

static void on_end(int signal) {
  (void)signal;
  is_over = 1;
}

/* Up to its end, and then what the kernel still has to say for the command that has ended. */
static void to_cable(int tun) {
  static char frame[MAX_FRAME];
  for (;;) {
    struct pollfd said = {.fd = tun, .events = POLLIN};
    int ready = poll(&said, 1, is_over ? 0 : 100); /* the signal may come right before */
    if (ready < 0 && errno != EINTR) _exit(1);
    if (ready == 0 && is_over) _exit(0);
    if (ready <= 0) continue;
    ssize_t length = read(tun, frame, sizeof frame);
    if (length <= 0) _exit(0);
    uint32_t header = htonl((uint32_t)length);
    struct iovec parts[2] = {{&header, sizeof header}, {frame, (size_t)length}};
    if (write_all(parts) < 0) _exit(0);
  }
}

static void from_cable(int tun) {
  static char frame[MAX_FRAME];
  uint32_t length;
  while (read_all(&length, sizeof length) == 0 && ntohl(length) <= sizeof frame && read_all(frame, ntohl(length)) == 0) {
    if (write(tun, frame, ntohl(length)) < 0 && errno != EIO) break;
  }
  _exit(0);
}

static pid_t start(void (*copy)(int), int tun) {
  pid_t pid = fork();
  if (pid != 0) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  copy(tun);
  _exit(0);
}

int main(int argc, char **argv) {
  const char *resolv = NULL;
  int mtu = 9000, option, status;
  while ((option = getopt(argc, argv, "+r:m:")) != -1) {
    if (option == 'r') resolv = optarg;
    else if (option == 'm') mtu = atoi(optarg);
    else return 2;
  }
  if (optind == argc) return 2;
  fcntl(CABLE, F_SETFL, fcntl(CABLE, F_GETFL) & ~O_NONBLOCK); // its maker may have used it before
  enter_namespaces();
  mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
  if (resolv != NULL && mount(resolv, "/etc/resolv.conf", NULL, MS_BIND, NULL) < 0) skip("/etc/resolv.conf");
  int tun = open_card(mtu);
  signal(SIGTERM, on_end);
  pid_t copiers[2] = {start(to_cable, tun), start(from_cable, tun)};
  signal(SIGTERM, SIG_DFL);
  pid_t command = fork();
  if (command == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(CABLE);
    close(tun);
    execvp(argv[optind], argv + optind);
    _exit(127);
  }
  close(CABLE);
  waitpid(command, &status, 0);
  kill(copiers[0], SIGTERM);
  waitpid(copiers[0], NULL, 0);
  kill(copiers[1], SIGKILL);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
