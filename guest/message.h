// Messages of protocol/PROTOCOL.md, "Messages": lists of fields, checked against the table of their kind. Pure: no system call in here.
#ifndef PYRO_MESSAGE_H
#define PYRO_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "limits.h"

enum tag {
  TAG_VERSION_MIN = 0x01, TAG_VERSION_MAX = 0x02, TAG_VERSION = 0x03, TAG_NONCE = 0x04, TAG_KERNEL = 0x05,
  TAG_PROGRAM = 0x06, TAG_MESSAGE = 0x07, TAG_KIND = 0x08,
  TAG_ARG = 0x10, TAG_SHELL = 0x11, TAG_ENV = 0x12, TAG_CWD = 0x13, TAG_USER = 0x14, TAG_STDIN = 0x15, TAG_TTY = 0x16,
  TAG_JOB = 0x17, TAG_SIGNAL = 0x18, TAG_SCOPE = 0x19,
  TAG_PATH = 0x20, TAG_OFFSET = 0x21, TAG_LENGTH = 0x22, TAG_MODE = 0x23, TAG_FLAGS = 0x24,
  TAG_TO = 0x25, TAG_UID = 0x26, TAG_GID = 0x27, TAG_MTIME = 0x28,
  TAG_VM_ID = 0x30, TAG_HOSTNAME = 0x31, TAG_MACHINE_ID = 0x32, TAG_CLOCK = 0x33, TAG_ENTROPY = 0x34, TAG_NETWORK = 0x35,
  TAG_ERRNO = 0x40, TAG_STAGE = 0x41, TAG_EXIT_CODE = 0x42, TAG_EXIT_SIGNAL = 0x43, TAG_DURATION = 0x44,
  TAG_BYTES_1 = 0x45, TAG_BYTES_2 = 0x46, TAG_STAT = 0x47, TAG_TARGET = 0x48,
  TAG_DROPPED_1 = 0x49, TAG_DROPPED_2 = 0x4a, TAG_ENTRIES = 0x4b, TAG_SKIPPED = 0x4c, TAG_JOB_LIST = 0x4d,
  TAG_MEMORY_TOTAL = 0x50, TAG_MEMORY_AVAILABLE = 0x51, TAG_DISK_TOTAL = 0x52, TAG_DISK_FREE = 0x53, TAG_CPU_TIME = 0x54, TAG_PROCESSES = 0x55,
  TAG_LIMIT = 0x56, TAG_END = 0xff,
};

enum kind {
  KIND_EXEC = 1, KIND_READ_FILE = 2, KIND_WRITE_FILE = 3, KIND_STAT = 4, KIND_LIST = 5, KIND_IDENTIFY = 6,
  KIND_CLOCK = 7, KIND_ENTROPY = 8, KIND_PING = 9, KIND_POWER_OFF = 10,
  KIND_MAKE_DIRECTORY = 11, KIND_REMOVE = 12, KIND_RENAME = 13, KIND_CHANGE = 14, KIND_MAKE_LINK = 15,
  KIND_PACK = 16, KIND_UNPACK = 17,
  KIND_JOBS = 18, KIND_ATTACH = 19, KIND_KILL_JOB = 20, KIND_FORGET_JOB = 21, KIND_STATS = 22,
};

// Takes content as DATA_0, and gives content as DATA_1; EXEC is neither.
static inline bool takes_content(uint8_t kind) { return kind == KIND_WRITE_FILE || kind == KIND_UNPACK; }
static inline bool gives_content(uint8_t kind) { return kind == KIND_READ_FILE || kind == KIND_LIST || kind == KIND_PACK; }

struct field {
  const uint8_t *bytes;
  uint32_t length;
};

// A checked message. Fields point into the bytes it was parsed from. A tag that may repeat holds its first one in `fields`.
struct message {
  const uint8_t *bytes;
  size_t length;
  uint8_t kind;                     // of a request
  struct field fields[TAG_LIMIT];   // bytes == NULL: absent
  uint32_t arguments, environment;  // how many ARG and ENV
};

// Checks a request against the table "Requests". NULL if it is right, else what is wrong with it.
const char *parse_request(struct message *message, const uint8_t *bytes, size_t length);
const char *parse_sync(struct message *message, const uint8_t *bytes, size_t length);

// Of SIGNAL and KILL_JOB.
const char *wrong_signal(uint8_t number, uint8_t scope);

// NETWORK: address, gateway and name server (4 bytes each, as they are sent), prefix, MTU.
#define NETWORK_BYTES 15u
const char *wrong_network(const uint8_t *network);

// Walks the fields of a checked message: the next one with this tag at or after *at, false when there is none.
bool next_field(const struct message *message, enum tag tag, size_t *at, struct field *field);

// Building a message into a buffer the caller made large enough (5 bytes a field, 1 at the end).
struct builder {
  uint8_t *bytes;
  size_t length, capacity;
};
void add_bytes(struct builder *builder, enum tag tag, const void *bytes, size_t length);
void add_u8(struct builder *builder, enum tag tag, uint8_t value);
void add_u16(struct builder *builder, enum tag tag, uint16_t value);
void add_u32(struct builder *builder, enum tag tag, uint32_t value);
void add_u64(struct builder *builder, enum tag tag, uint64_t value);
void add_end(struct builder *builder);

#endif
