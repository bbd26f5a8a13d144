// One input through every parser of foreign bytes. Works with libFuzzer (clang -fsanitize=fuzzer, without drive.c) as well.
#include <stdlib.h>
#include <string.h>

#include "frame.h"
#include "message.h"
#include "tree.h"
#include "users.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct decoder decoder;

static void take_tree(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static struct message message;
  static struct user user;
  struct frame frame;
  decoder_reset(&decoder);
  for (size_t used = 0; used < size;) {
    size_t room, part = 1 + data[used] % 97;
    uint8_t *at = decoder_space(&decoder, &room);
    if (part > size - used) part = size - used;
    if (part > room) abort();
    memcpy(at, data + used, part);
    decoder_filled(&decoder, part);
    used += part;
    for (enum decoded decoded; (decoded = decoder_next(&decoder, &frame)) != DECODE_MORE;)
      if (decoded == DECODE_FRAME && (frame.length > MAX_PAYLOAD || (frame.stream == 0) != (frame.type == FRAME_SYNC))) abort();
  }
  // A copy of the exact size, so that one byte too far is seen.
  uint8_t *copy = malloc(size > 0 ? size : 1);
  if (size > 0) memcpy(copy, data, size);
  if (parse_request(&message, copy, size) == NULL) {
    struct field field;
    size_t at = 0;
    uint32_t arguments = 0;
    while (next_field(&message, TAG_ARG, &at, &field)) arguments++;
    if (arguments != message.arguments || copy[size - 1] != TAG_END) abort();
  }
  parse_sync(&message, copy, size);
  take_tree(copy, size);
  char *text = malloc(size + 1);
  if (size > 0) memcpy(text, data, size);
  text[size] = 0;
  find_user(&user, "ann:disk", text, text);
  find_user(&user, "1000", text, text);
  if (user.group_count > MAX_GROUPS) abort();
  free(text);
  free(copy);
  return 0;
}

// Whatever is taken stays inside: a name is one name, its directory is open, and the totals hold.
static void take_tree(const uint8_t *bytes, size_t length) {
  static struct tree tree;
  memset(&tree, 0, sizeof tree);
  struct record record;
  size_t size = 0;
  const char *wrong = NULL;
  for (size_t at = 0; at < length && record_next(bytes + at, length - at, &record, &size, &wrong) == RECORD_WHOLE; at += size) {
    unsigned level = 0;
    const char *name = NULL;
    if (size == 0 || size > length - at) abort();
    if (tree_take(&tree, &record, &level, &name) != NULL) break;
    if (tree.levels > MAX_TREE_DEPTH || level > tree.levels) abort();
    if (name != NULL && (strchr(name, '/') != NULL || strcmp(name, "..") == 0 || (name[0] == 0) != (tree.entries == 1))) abort();
  }
}
