/*
 * PID 1 of a guest that lies: on the real console and the real serial port, to all of pyro. Linked with what the guest program has for its beginning
 * (guest/modules.c, ports.c …). The word behind `LIE=`, put there by the test, says how it begins; when it begins well it answers all requests as the guest program
 * would, and the first word of a command says what to do instead of running it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/reboot.h>
#include <unistd.h>

#include "limits.h"
#include "log.h"
#include "loop.h"
#include "modules.h"
#include "mounts.h"
#include "ports.h"

enum { SYNC = 0x01, REQUEST = 0x03, DATA_1 = 0x11, END_1 = 0x19, END_2 = 0x1a, CREDIT_0 = 0x20, HELLO = 0x81, STARTED = 0x82, RESULT = 0x83, FAULT = 0x84 };
enum { IDENTIFY = 6, CLOCK = 7, EXEC = 1 };

static volatile char lie[32] = "LIE=none";
static uint8_t nonce[16];
static int port;

static void power_off(void) {
  reboot(RB_POWER_OFF);
  for (;;) pause_ms(900);
}

/* ---- bytes ---- */

static void put(const void *bytes, size_t length) {
  for (const uint8_t *at = bytes; length > 0;) {
    ssize_t wrote = write(port, at, length);
    if (wrote < 0 && errno == EAGAIN) pause_ms(1);
    else if (wrote < 0 && errno != EINTR) return;
    else if (wrote > 0) at += wrote, length -= (size_t)wrote;
  }
}

static void put_header(uint8_t type, uint32_t stream, uint32_t length) {
  uint8_t header[8] = {type, (uint8_t)length, (uint8_t)(length >> 8), (uint8_t)(length >> 16), (uint8_t)stream, (uint8_t)(stream >> 8), (uint8_t)(stream >> 16), (uint8_t)(stream >> 24)};
  put(header, sizeof header);
}

static void frame(uint8_t type, uint32_t stream, const void *payload, uint32_t length) {
  put_header(type, stream, length);
  put(payload, length);
}

static bool take(void *bytes, size_t length) {
  for (uint8_t *at = bytes; length > 0;) {
    ssize_t got = read(port, at, length);
    if (got > 0) at += got, length -= (size_t)got;
    else pause_ms(1); /* 0 while nobody is at the other end */
  }
  return true;
}

struct message {
  uint8_t bytes[4096];
  uint32_t length;
};

static void add(struct message *message, uint8_t tag, const void *value, uint32_t length) {
  uint8_t *at = message->bytes + message->length;
  at[0] = tag;
  memcpy(at + 1, &length, 4);
  memcpy(at + 5, value, length);
  message->length += 5 + length;
}

static void send(uint8_t type, uint32_t stream, struct message *message) {
  message->bytes[message->length++] = 0xff;
  frame(type, stream, message->bytes, message->length);
}

/* ---- lies ---- */

static void hello(uint16_t version) {
  struct message message = {.length = 0};
  add(&message, 0x03, &version, 2);
  add(&message, 0x04, nonce, 16);
  add(&message, 0x05, "6.1", 3);
  add(&message, 0x06, "liar", 4);
  send(HELLO, 0, &message);
}

static const char escapes[] = "\033]0;owned\007\033[2J\033[31m\033]52;c;b3duZWQ=\007\x9b" "5nall of your terminal are belong to us\r\n";

static void fill_console(int lines) {
  for (int n = 0; n < lines; n++) if (write(1, escapes, sizeof escapes - 1) < 0) return;
}

static void flood(void) {
  static uint8_t noise[65536];
  memset(noise, 0x55, sizeof noise);
  for (;;) put(noise, sizeof noise);
}

static void exits(uint32_t stream, uint8_t code, uint64_t bytes_1) {
  struct message message = {.length = 0};
  uint64_t duration = 1000, none = 0;
  add(&message, 0x42, &code, 1);
  add(&message, 0x44, &duration, 8);
  add(&message, 0x45, &bytes_1, 8);
  add(&message, 0x46, &none, 8);
  send(RESULT, stream, &message);
}

static void begin_badly(void) {
  char word[sizeof lie];
  for (size_t n = 0; n < sizeof lie; n++) word[n] = lie[n];
  const char *is = word + 4;
  if (strcmp(is, "console") == 0) {
    fill_console(400);
    power_off();
  } else if (strcmp(is, "flood") == 0) flood();
  else if (strcmp(is, "version") == 0) hello(9);
  else if (strcmp(is, "fault") == 0) {
    struct message message = {.length = 0};
    add(&message, 0x07, escapes, sizeof escapes - 1);
    send(FAULT, 0, &message);
  } else if (strcmp(is, "twice") == 0) {
    hello(1);
    hello(1);
  } else {
    hello(1);
    return;
  }
  for (;;) pause_ms(900);
}

static void run(uint32_t stream, const char *is) {
  static uint8_t output[65536];
  uint32_t pid = 7;
  frame(STARTED, stream, &pid, 4);
  if (strcmp(is, "length") == 0) put_header(DATA_1, stream, 0xffffff);
  else if (strcmp(is, "type") == 0) put_header(0x7f, stream, 0);
  else if (strcmp(is, "hello") == 0) hello(1);
  else if (strcmp(is, "stranger") == 0) frame(DATA_1, stream + 1000, "x", 1);
  else if (strcmp(is, "early") == 0) exits(stream, 0, 0);
  else if (strcmp(is, "credit") == 0) for (int n = 0; n < 400; n++) frame(DATA_1, stream, output, sizeof output);
  else if (strcmp(is, "generous") == 0) for (uint32_t n = 0, most = 16777216; n < 2; n++) frame(CREDIT_0, stream, &most, 4);
  else if (strcmp(is, "off") == 0) power_off();
  else if (strcmp(is, "close") == 0) {
    close(port);
    for (;;) pause_ms(900);
  } else {
    if (strcmp(is, "console") == 0) fill_console(400);
    if (strcmp(is, "output") == 0) frame(DATA_1, stream, "said", 4);
    frame(END_1, stream, NULL, 0);
    frame(END_2, stream, NULL, 0);
    exits(stream, strcmp(is, "truth") == 0 ? 42 : 0, strcmp(is, "more") == 0 ? 1 : strcmp(is, "output") == 0 ? 4 : 0);
  }
}

/* ---- what is asked ---- */

static void answer(uint32_t stream, const uint8_t *request, uint32_t length) {
  uint8_t kind = length > 5 && request[0] == 0x08 ? request[5] : 0;
  if (kind == EXEC) {
    char word[64] = "";
    for (uint32_t at = 0, size; at + 5 <= length && request[at] != 0xff; at += 5 + size) {
      memcpy(&size, request + at + 1, 4);
      if (request[at] != 0x10 || size >= sizeof word) continue;
      memcpy(word, request + at + 5, size);
      word[size] = '\0';
      break;
    }
    run(stream, word);
    return;
  }
  struct message message = {.length = 0};
  int64_t clock = 1800000000000000000;
  if (kind == IDENTIFY || kind == CLOCK) add(&message, 0x33, &clock, 8);
  send(RESULT, stream, &message);
}

int main(void) {
  static uint8_t payload[65536];
  end_of_program = power_off;
  must_mount("dev", "/dev", "devtmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755");
  int console = open("/dev/console", O_RDWR | O_NOCTTY);
  for (int fd = 0; fd < 3; fd++) dup2(console, fd);
  must_mount("proc", "/proc", "proc", STRICT, NULL);
  must_mount("sys", "/sys", "sysfs", STRICT, NULL);
  modules_insert();
  int ports[MAX_PORTS];
  ports_open(ports);
  port = ports[0];
  for (;;) {
    uint8_t header[8];
    do take(header, 1); while (header[0] == 0);
    take(header + 1, 7);
    uint32_t length = header[1] | (uint32_t)header[2] << 8 | (uint32_t)header[3] << 16, stream;
    memcpy(&stream, header + 4, 4);
    if (length > sizeof payload) power_off();
    take(payload, length);
    if (header[0] == SYNC) {
      for (uint32_t at = 0, size; at + 5 <= length && payload[at] != 0xff; at += 5 + size) {
        memcpy(&size, payload + at + 1, 4);
        if (payload[at] == 0x04) memcpy(nonce, payload + at + 5, sizeof nonce);
      }
      begin_badly();
    } else if (header[0] == REQUEST) answer(stream, payload, length);
  }
}
