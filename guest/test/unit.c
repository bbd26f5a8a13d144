// Unit tests of the pure parts, and the vectors in protocol/vectors: `unit DIRECTORY`.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frame.h"
#include "message.h"
#include "output.h"
#include "ring.h"
#include "tree.h"
#include "users.h"

static int failures, checks;
static const char *where = "";

#define CHECK(condition)                                                        \
  do {                                                                          \
    checks++;                                                                   \
    if (!(condition)) {                                                         \
      failures++;                                                               \
      printf("%s:%d: %s: %s\n", __FILE__, __LINE__, where, #condition);         \
    }                                                                           \
  } while (0)

static struct decoder decoder;

struct bytes {
  uint8_t *at;
  size_t length;
};

static size_t run_vectors(const char *directory, const char *name);
static void run_frame(const struct bytes *input, bool accept, char *keys);
static void run_message(const struct bytes *input, bool accept, char *keys);
static void run_tree(const struct bytes *input, bool accept, const char *keys);
static struct bytes expand(const char *text);
static void test_splits(void);
static void test_lost(void);
static void test_limits(void);
static void test_output(void);
static void test_users(void);
static void test_tree_depth(void);
static void test_ring(void);

int main(int count, char **arguments) {
  if (count != 2) return 2;
  size_t vectors = run_vectors(arguments[1], "frames.txt") + run_vectors(arguments[1], "messages.txt") + run_vectors(arguments[1], "trees.txt");
  where = "unit";
  CHECK(vectors > 700);
  test_tree_depth();
  test_ring();
  test_splits();
  test_lost();
  test_limits();
  test_output();
  test_users();
  printf("%d checks, %zu vectors, %d failures\n", checks, vectors, failures);
  return failures == 0 ? 0 : 1;
}

// All lines but those whose direction is "guest": what this program decodes.
static size_t run_vectors(const char *directory, const char *name) {
  char path[4096], *line = NULL;
  size_t size = 0, ran = 0;
  snprintf(path, sizeof path, "%s/%s", directory, name);
  FILE *file = fopen(path, "r");
  if (file == NULL) {
    perror(path);
    exit(2);
  }
  while (getline(&line, &size, file) > 0) {
    line[strcspn(line, "\n")] = 0;
    if (line[0] == 0 || line[0] == '#') continue;
    char *rest = line, *title = strsep(&rest, " "), *direction = strsep(&rest, " "), *verdict = strsep(&rest, " "), *state = strsep(&rest, " "),
         *text = strsep(&rest, " ");
    if (text == NULL || strcmp(direction, "guest") == 0) continue;
    where = title;
    struct bytes input = expand(text);
    bool accept = strcmp(verdict, "accept") == 0;
    if (strcmp(state, "frame") == 0) run_frame(&input, accept, rest);
    else if (strcmp(state, "tree") == 0) run_tree(&input, accept, rest);
    else run_message(&input, accept, rest);
    free(input.at);
    ran++;
  }
  free(line);
  fclose(file);
  return ran;
}

static enum decoded feed(const uint8_t *bytes, size_t length, size_t *used, struct frame *frame) {
  enum decoded decoded = DECODE_MORE;
  while (*used < length && decoded == DECODE_MORE) {
    size_t room;
    uint8_t *at = decoder_space(&decoder, &room);
    size_t count = length - *used < room ? length - *used : room;
    memcpy(at, bytes + *used, count);
    decoder_filled(&decoder, count);
    *used += count;
    decoded = decoder_next(&decoder, frame);
  }
  return decoded;
}

static const char *value(const char *keys, const char *name, char *out, size_t size) {
  const char *at = strstr(keys, name);
  if (at == NULL) return "";
  at += strlen(name);
  snprintf(out, size, "%.*s", (int)strcspn(at, " "), at);
  return out;
}

static uint8_t type_named(const char *name) {
  static const struct { const char *name; uint8_t type; } types[] = {
      {"SYNC", 1}, {"REQUEST_PART", 2}, {"REQUEST", 3}, {"SIGNAL", 4}, {"RESIZE", 5}, {"CANCEL", 6}, {"DATA_0", 16}, {"END_0", 24}, {"CREDIT_1", 33}, {"CREDIT_2", 34}};
  for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
    if (strcmp(types[i].name, name) == 0) return types[i].type;
  return 0;
}

static void run_frame(const struct bytes *input, bool accept, char *keys) {
  char text[64];
  struct frame frame = {0};
  // Whole, and cut in two at every byte (long ones: at every 251st).
  for (size_t cut = 0; cut < input->length; cut += input->length > 4096 ? 251 : 1) {
    decoder_reset(&decoder);
    size_t used = 0;
    enum decoded decoded = feed(input->at, cut, &used, &frame);
    if (decoded == DECODE_MORE) decoded = feed(input->at, input->length, &used, &frame);
    CHECK(decoded == (accept ? DECODE_FRAME : DECODE_BAD));
    if (decoded != DECODE_FRAME || !accept) continue;
    CHECK(frame.type == type_named(value(keys, "type=", text, sizeof text)));
    CHECK(frame.stream == strtoul(value(keys, "stream=", text, sizeof text), NULL, 10));
    CHECK(frame.length == strtoul(value(keys, "length=", text, sizeof text), NULL, 10));
  }
}

static uint8_t tag_named(const char *name, size_t length) {
  static const struct { const char *name; uint8_t tag; } tags[] = {
      {"VERSION_MIN", 1}, {"VERSION_MAX", 2}, {"NONCE", 4}, {"KIND", 8}, {"ARG", 0x10}, {"SHELL", 0x11}, {"ENV", 0x12}, {"CWD", 0x13}, {"USER", 0x14},
      {"STDIN", 0x15}, {"TTY", 0x16}, {"JOB", 0x17}, {"SIGNAL", 0x18}, {"SCOPE", 0x19}, {"PATH", 0x20}, {"OFFSET", 0x21}, {"LENGTH", 0x22}, {"MODE", 0x23}, {"FLAGS", 0x24}, {"TO", 0x25}, {"UID", 0x26}, {"GID", 0x27}, {"MTIME", 0x28}, {"TARGET", 0x48}, {"VM_ID", 0x30},
      {"HOSTNAME", 0x31}, {"MACHINE_ID", 0x32}, {"CLOCK", 0x33}, {"ENTROPY", 0x34}, {"NETWORK", 0x35}};
  for (size_t i = 0; i < sizeof tags / sizeof tags[0]; i++)
    if (strlen(tags[i].name) == length && memcmp(tags[i].name, name, length) == 0) return tags[i].tag;
  return 0;
}

static void run_message(const struct bytes *input, bool accept, char *keys) {
  struct message message;
  bool sync = strncmp(keys, "what=SYNC", 9) == 0;
  const char *wrong = sync ? parse_sync(&message, input->at, input->length) : parse_request(&message, input->at, input->length);
  CHECK((wrong == NULL) == accept);
  if (wrong != NULL || !accept) return;
  // Every field the vector names, in its order.
  size_t at[TAG_LIMIT] = {0};
  char *rest = keys;
  strsep(&rest, " ");
  for (char *word; (word = strsep(&rest, " ")) != NULL;) {
    size_t length = strcspn(word, "=");
    if (strncmp(word, "count=", 6) == 0) {
      CHECK(1 + 1 + message.arguments == strtoul(word + 6, NULL, 10));  // KIND, STDIN and the arguments
      continue;
    }
    if (strncmp(word, "length=", 7) == 0) {
      CHECK(message.length == strtoul(word + 7, NULL, 10));
      continue;
    }
    uint8_t tag = tag_named(word, length);
    CHECK(tag != 0);
    if (tag == 0) continue;
    struct bytes wanted = expand(word + length + 1);
    struct field field;
    bool found = next_field(&message, tag, &at[tag], &field);
    CHECK(found && field.length == wanted.length && memcmp(field.bytes, wanted.at, wanted.length) == 0);
    free(wanted.at);
  }
}

// As unpack.c takes it: only whole records, and nothing behind the END.
static void run_tree(const struct bytes *input, bool accept, const char *keys) {
  static struct tree tree;
  char text[64];
  size_t at = 0, size = 0;
  const char *wrong = NULL;
  memset(&tree, 0, sizeof tree);
  while (!tree.is_over && wrong == NULL) {
    struct record record;
    unsigned level = 0;
    const char *name = NULL;
    // A record that is not all there is one that more is wanted of, at every length.
    for (size_t have = 0; have < input->length - at && have < 70; have++) {
      enum parsed part = record_next(input->at + at, have, &record, &size, &wrong);
      if (part != RECORD_MORE) CHECK(part == RECORD_BAD || size <= have);
    }
    enum parsed parsed = record_next(input->at + at, input->length - at, &record, &size, &wrong);
    if (parsed == RECORD_MORE) wrong = "broke off";
    if (parsed != RECORD_WHOLE) break;
    at += size;
    wrong = tree_take(&tree, &record, &level, &name);
  }
  bool right = wrong == NULL && tree.is_over && at == input->length;
  CHECK(right == accept);
  if (!right) return;
  CHECK(tree.entries == strtoull(value(keys, "entries=", text, sizeof text), NULL, 10));
  CHECK(tree.content == strtoull(value(keys, "content=", text, sizeof text), NULL, 10));
}

static int digit(char c) { return c >= 'a' ? c - 'a' + 10 : c - '0'; }

// protocol/vectors/README.md, "bytes". The result is exactly as long as its content, so that the sanitizer sees one byte too far.
static struct bytes expand(const char *text) {
  struct bytes bytes = {.at = malloc(4 * 1048576)};
  for (const char *at = text; *at != 0;) {
    size_t size = strcspn(at, ",*") / 2;
    uint8_t token[8192];
    if (*at == '-' || size > sizeof token) size = 0;
    for (size_t i = 0; i < size; i++) token[i] = (uint8_t)(digit(at[2 * i]) << 4 | digit(at[2 * i + 1]));
    at += strcspn(at, ",*");
    unsigned long times = 1;
    if (*at == '*') times = strtoul(at + 1, (char **)(uintptr_t)&at, 10);
    for (unsigned long i = 0; i < times; i++) {
      memcpy(bytes.at + bytes.length, token, size);
      bytes.length += size;
    }
    if (*at == ',') at++;
  }
  uint8_t *exact = malloc(bytes.length > 0 ? bytes.length : 1);
  memcpy(exact, bytes.at, bytes.length);
  free(bytes.at);
  bytes.at = exact;
  return bytes;
}

// Three frames and padding between them, cut at every pair of places.
static void test_splits(void) {
  static const uint8_t stream[] = {0, 0, 0x10, 3, 0, 0, 7, 0, 0, 0, 'a', 'b', 'c', 0, 0x18, 0, 0, 0, 7, 0, 0, 0, 0x06, 0, 0, 0, 9, 1, 0, 0};
  for (size_t first = 0; first <= sizeof stream; first++)
    for (size_t second = first; second <= sizeof stream; second++) {
      size_t ends[] = {first, second, sizeof stream}, used = 0, frames = 0;
      uint32_t streams = 0;
      decoder_reset(&decoder);
      for (int part = 0; part < 3; part++) {
        size_t room;
        memcpy(decoder_space(&decoder, &room), stream + used, ends[part] - used);
        decoder_filled(&decoder, ends[part] - used);
        used = ends[part];
        struct frame frame;
        while (decoder_next(&decoder, &frame) == DECODE_FRAME) {
          frames++;
          streams += frame.stream;
          if (frame.type == FRAME_DATA_0) CHECK(frame.length == 3 && memcmp(frame.payload, "abc", 3) == 0);
        }
      }
      CHECK(frames == 3 && streams == 7 + 7 + 265);
    }
}

// After an unknown type nothing is believed until 65,544 zeros went by; one less is not enough.
static void test_lost(void) {
  for (int missing = 0; missing < 2; missing++) {
    size_t zeros = PADDING_RUN - (size_t)missing, length = 8 + 16 + zeros + 8, used = 0;
    uint8_t *input = calloc(1, length);
    memset(input, 0x55, 24);
    input[length - 8] = FRAME_CANCEL;
    input[length - 4] = 1;
    struct frame frame;
    decoder_reset(&decoder);
    CHECK(feed(input, length, &used, &frame) == DECODE_BAD);
    enum decoded decoded = decoder_next(&decoder, &frame);
    if (decoded == DECODE_MORE) decoded = feed(input, length, &used, &frame);
    CHECK(decoded == (missing == 0 ? DECODE_FRAME : DECODE_MORE));
    free(input);
  }
}

// 8,192 fields pass, 8,193 don't; 1,048,576 bytes pass, one more doesn't.
static void test_limits(void) {
  uint8_t *bytes = calloc(1, MAX_MESSAGE + 64);
  struct message message;
  for (uint32_t arguments = MAX_FIELDS - 2; arguments <= MAX_FIELDS - 1; arguments++) {
    struct builder builder = {.bytes = bytes, .capacity = MAX_MESSAGE};
    add_u8(&builder, TAG_KIND, KIND_EXEC);
    add_u8(&builder, TAG_STDIN, 0);
    for (uint32_t i = 0; i < arguments; i++) add_bytes(&builder, TAG_ARG, "x", 1);
    add_end(&builder);
    CHECK((parse_request(&message, bytes, builder.length) == NULL) == (arguments == MAX_FIELDS - 2));
  }
  for (size_t over = 0; over < 2; over++) {
    struct builder builder = {.bytes = bytes, .capacity = MAX_MESSAGE + 64};
    add_u8(&builder, TAG_KIND, KIND_EXEC);
    add_u8(&builder, TAG_STDIN, 0);
    uint8_t *text = malloc(131071);
    memset(text, 'x', 131071);
    while (MAX_MESSAGE - builder.length > 131071 + 5 + 6) add_bytes(&builder, TAG_ARG, text, 131071);
    add_bytes(&builder, TAG_ARG, text, MAX_MESSAGE - builder.length - 6 + over);
    add_end(&builder);
    CHECK(builder.length == MAX_MESSAGE + over);
    CHECK((parse_request(&message, bytes, builder.length) == NULL) == (over == 0));
    free(text);
  }
  free(bytes);
}

// What is dropped keeps the rest of a half-written frame.
static void test_output(void) {
  for (size_t sent = 0; sent <= 24; sent++) {
    struct output output = {.bytes = malloc(OUTPUT_CAPACITY)};
    output_frame(&output, FRAME_DATA_1, 1, "abcd", 4);
    output_frame(&output, FRAME_DATA_2, 2, "efgh", 4);
    output_sent(&output, sent);
    output_drop(&output);
    CHECK(output_used(&output) == (sent == 0 || sent == 12 || sent == 24 ? 0 : sent < 12 ? 12 - sent : 24 - sent));
    free(output.bytes);
  }
}

static void test_users(void) {
  static const char passwd[] = "root:x:0:0:root:/root:/bin/bash\nbad\n:::\nann:x:1000:1001:A:/home/ann:/bin/sh\nbig:x:4294967295:1::/:\nlast:x:7:8";
  static const char group[] = "root:x:0:\nann:x:1001:\ndisk:x:6:bob,ann\nwheel:x:9:ann\nanna:x:10:anna";
  struct user user;
  CHECK(find_user(&user, "ann", passwd, group) == NULL && user.uid == 1000 && user.gid == 1001 && user.group_count == 3);
  CHECK(user.groups[1] == 6 && user.groups[2] == 9 && strcmp(user.home, "/home/ann") == 0 && strcmp(user.shell, "/bin/sh") == 0);
  CHECK(find_user(&user, "1000", passwd, group) == NULL && strcmp(user.name, "ann") == 0);
  CHECK(find_user(&user, "1000:6", passwd, group) == NULL && user.gid == 6 && user.group_count == 1);
  CHECK(find_user(&user, "ann:disk", passwd, group) == NULL && user.gid == 6);
  CHECK(find_user(&user, "4242", passwd, group) == NULL && user.uid == 4242 && user.gid == 0 && user.home[0] == 0);
  CHECK(find_user(&user, "last", passwd, group) == NULL && user.uid == 7 && user.gid == 8);
  CHECK(find_user(&user, "root", "", "") == NULL && user.uid == 0 && strcmp(user.name, "root") == 0);
  CHECK(find_user(&user, "eve", passwd, group) != NULL);
  CHECK(find_user(&user, "big", passwd, group) != NULL);
  CHECK(find_user(&user, "ann:", passwd, group) != NULL);
  CHECK(find_user(&user, ":6", passwd, group) != NULL);
  CHECK(find_user(&user, "ann:nope", passwd, group) != NULL);
  CHECK(find_user(&user, "4294967295", passwd, group) != NULL);
  CHECK(find_user(&user, "4294967296", passwd, group) != NULL);
}

// 1,024 levels pass, one more doesn't.
static void test_tree_depth(void) {
  static struct tree tree;
  static uint8_t stat[STAT_BYTES], path[MAX_PATH_BYTES];
  put_u32(stat, 0040755);
  for (unsigned levels = 1; levels <= MAX_TREE_DEPTH + 1; levels++) {
    unsigned level;
    const char *name;
    uint16_t length = (uint16_t)(levels == 1 ? 0 : 2 * levels - 3);
    struct record record = {.type = RECORD_ENTRY, .path = path, .path_length = length, .stat = stat};
    CHECK((tree_take(&tree, &record, &level, &name) == NULL) == (levels <= MAX_TREE_DEPTH));
    memcpy(path + length, levels == 1 ? "d" : "/d", levels == 1 ? 1 : 2);
  }
}

// Every byte is where it was written, whatever sizes it comes and goes in; what is gone is counted.
static void test_ring(void) {
  static uint8_t bytes[30000], out[7000];
  for (size_t step = 1; step < 30000; step = step * 3 + 1) {
    struct ring ring = {.most = 10000};
    uint64_t at = 0, skipped_all = 0, read_all = 0;
    for (uint64_t written = 0; written < 100000; written += step) {
      for (size_t i = 0; i < step; i++) bytes[i] = (uint8_t)((written + i) % 251);
      ring_write(&ring, bytes, step);
      uint64_t skipped;
      size_t count = ring_read(&ring, &at, out, sizeof out, &skipped);
      skipped_all += skipped;
      read_all += count;
      for (size_t i = 0; i < count; i++)
        if (out[i] != (uint8_t)((at - count + i) % 251)) CHECK(out[i] == (uint8_t)((at - count + i) % 251));
      CHECK(at == skipped_all + read_all && ring.written - ring_oldest(&ring) <= 10000);
    }
    CHECK((skipped_all > 0) == (step > sizeof out) && ring.capacity <= 10000);
    free(ring.bytes);
  }
  struct ring nothing = {.most = 0};
  uint64_t at = 0, skipped;
  ring_write(&nothing, bytes, 5);
  CHECK(ring_read(&nothing, &at, out, sizeof out, &skipped) == 0 && skipped == 5 && nothing.written == 5);
}
