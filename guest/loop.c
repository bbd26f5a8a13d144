#include "loop.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "log.h"

static int epoll_fd = -1;

void loop_open(void) {
  epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  if (epoll_fd < 0) fatal("epoll_create1");
}

void source_open(struct source *source, int fd) {
  *source = (struct source){.fd = fd, .readable = true, .writable = true};
  struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = source};
  if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) fatal("epoll_ctl");
}

void source_close(struct source *source) {
  int fd = source_release(source);
  if (fd >= 0) close(fd);
}

// Removed by hand, not by close(): a child that was just forked still holds a copy, and the registration would live on
// with a pointer to memory that is gone.
int source_release(struct source *source) {
  int fd = source->fd;
  if (fd >= 0) epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL);
  *source = (struct source){.fd = -1};
  return fd;
}

void loop_wait(int timeout_ms) {
  struct epoll_event events[64];
  int count = epoll_wait(epoll_fd, events, 64, timeout_ms);
  if (count < 0 && errno != EINTR) fatal("epoll_wait");
  for (int i = 0; i < count; i++) {
    struct source *source = events[i].data.ptr;
    uint32_t what = events[i].events;
    if (what & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP)) source->readable = true;
    if (what & (EPOLLOUT | EPOLLHUP | EPOLLERR)) source->writable = true;
    source->hung_up = (what & EPOLLHUP) != 0;
  }
}

int64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

void pause_ms(int ms) {
  struct timespec time = {.tv_nsec = ms * 1000000L};
  nanosleep(&time, NULL);
}

void *must_allocate(void *old, size_t size) {
  void *memory = realloc(old, size);
  if (memory == NULL) fatal("out of memory");
  return memory;
}
