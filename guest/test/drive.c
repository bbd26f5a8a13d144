// Drives LLVMFuzzerTestOneInput without libFuzzer: mutations of right messages, always the same ones. `fuzz RUNS`
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frame.h"
#include "message.h"
#include "tree.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t state = 0x9e3779b97f4a7c15u;

// xorshift64 (Marsaglia 2003, "Xorshift RNGs")
static uint32_t chance(uint32_t below) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (uint32_t)(state >> 32) % below;
}

static size_t seed_entry(uint8_t *at, uint8_t type, const char *path, uint32_t mode, const char *target) {
  size_t length = strlen(path), target_length = strlen(target);
  at[0] = type;
  put_u16(at + 1, (uint16_t)length);
  memcpy(at + 3, path, length);
  memset(at + 3 + length, 0, STAT_BYTES);
  put_u32(at + 3 + length, mode);
  put_u16(at + 3 + length + STAT_BYTES, (uint16_t)target_length);
  memcpy(at + 3 + length + STAT_BYTES + 2, target, target_length);
  return 3 + length + STAT_BYTES + 2 + target_length;
}

static size_t seed_tree(uint8_t *bytes) {
  static const struct { uint8_t type; const char *path; uint32_t mode; const char *target; } entries[] = {
      {RECORD_ENTRY, "", 0040755, ""}, {RECORD_ENTRY, "a", 0100644, ""}, {RECORD_ENTRY, "d", 0040755, ""}, {RECORD_ENTRY, "d/l", 0120777, "../a"},
      {RECORD_HARD_LINK, "d/h", 0100644, "a"}, {RECORD_ENTRY, "d/e", 0040755, ""}, {RECORD_ENTRY, "d/e/f", 0100644, ""}, {RECORD_ENTRY, "p", 0010600, ""}};
  static const uint8_t content[] = {RECORD_CHUNK, 2, 0, 0, 0, 'x', 'y', RECORD_HOLE, 4, 0, 0, 0, 0, 0, 0, 0, RECORD_END_FILE};
  size_t length = 0;
  for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++) {
    length += seed_entry(bytes + length, entries[i].type, entries[i].path, entries[i].mode, entries[i].target);
    if (entries[i].mode != 0100644 || entries[i].type != RECORD_ENTRY) continue;
    memcpy(bytes + length, content, sizeof content);
    length += sizeof content;
  }
  bytes[length] = RECORD_END;
  put_u64(bytes + length + 1, 8);
  put_u64(bytes + length + 9, 12);
  return length + 17;
}

static size_t seed(uint8_t *bytes) {
  struct builder builder = {.bytes = bytes, .capacity = 4000};
  switch (chance(7)) {
    case 4: return seed_tree(bytes);
    case 5:
      add_u8(&builder, TAG_KIND, (uint8_t)(KIND_JOBS + chance(4)));
      add_bytes(&builder, TAG_JOB, "job-1", 5);
      if (chance(2)) add_u8(&builder, TAG_SIGNAL, 9), add_u8(&builder, TAG_SCOPE, (uint8_t)chance(4));
      break;
    case 0:
      add_u8(&builder, TAG_KIND, KIND_EXEC);
      for (uint32_t i = chance(5); i > 0; i--) add_bytes(&builder, TAG_ARG, "argument", chance(9));
      add_bytes(&builder, TAG_ENV, "A=B", 3);
      add_u8(&builder, TAG_STDIN, 1);
      if (chance(2)) add_u32(&builder, TAG_TTY, 0x00180050);
      if (chance(2)) add_bytes(&builder, TAG_JOB, "job-1", 5);
      break;
    case 1:
      add_u8(&builder, TAG_KIND, (uint8_t)(2 + chance(4)));
      add_bytes(&builder, TAG_PATH, "/etc/passwd", 11);
      add_u64(&builder, TAG_OFFSET, 5);
      break;
    case 3:
      add_u8(&builder, TAG_KIND, (uint8_t)(KIND_MAKE_DIRECTORY + chance(7)));
      add_bytes(&builder, TAG_PATH, "/etc/passwd", 11);
      if (chance(2)) add_bytes(&builder, TAG_TO, "/b", 2);
      if (chance(2)) add_u32(&builder, TAG_MODE, 0644);
      if (chance(2)) add_u32(&builder, TAG_UID, 0), add_u32(&builder, TAG_GID, 0);
      if (chance(2)) add_u64(&builder, TAG_MTIME, 1);
      if (chance(2)) add_bytes(&builder, TAG_TARGET, "../c", 4);
      add_u32(&builder, TAG_FLAGS, 1);
      break;
    case 2: {
      static const char text[] = "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\ndisk:x:6:ann,bob\n";
      memcpy(bytes, text, sizeof text - 1);
      return sizeof text - 1;
    }
    default:
      for (int i = 0; i < 4; i++) {
        frame_header(bytes + builder.length, (enum frame_type[]){FRAME_DATA_0, FRAME_SIGNAL, FRAME_CANCEL, FRAME_REQUEST}[i], 1 + chance(3), (uint32_t[]){40, 2, 0, 9}[i]);
        builder.length += 8 + (size_t)(int[]){40, 2, 0, 9}[i];
      }
      return builder.length;
  }
  add_end(&builder);
  return builder.length;
}

int main(int count, char **arguments) {
  long runs = count > 1 ? strtol(arguments[1], NULL, 10) : 1000;
  for (long run = 0; run < runs; run++) {
    uint8_t bytes[4096] = {0};
    size_t length = seed(bytes);
    for (uint32_t changes = chance(6); changes > 0 && length > 0; changes--) {
      uint32_t at = chance((uint32_t)length);
      switch (chance(5)) {
        case 0: bytes[at] = (uint8_t)chance(256); break;
        case 1: bytes[at] ^= (uint8_t)(1u << chance(8)); break;
        case 2: length = at; break;
        case 3: bytes[at] = (uint8_t[]){0, 0xff, 0x7f, 0x80}[chance(4)]; break;
        default:
          memmove(bytes + at + 1, bytes + at, length - at);
          length++;
      }
    }
    LLVMFuzzerTestOneInput(bytes, length);
  }
  printf("%ld inputs\n", runs);
  return 0;
}
