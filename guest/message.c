#include "message.h"

#include <stdlib.h>
#include <string.h>

#include "frame.h"

// What a field must look like, by tag.
enum shape { SHAPE_NONE, SHAPE_BYTES, SHAPE_TEXT, SHAPE_NAME, SHAPE_HEX, SHAPE_ENV };
static const struct {
  uint32_t least, most;
  enum shape shape;
} shapes[TAG_LIMIT] = {
    [TAG_VERSION_MIN] = {2, 2, SHAPE_BYTES},      [TAG_VERSION_MAX] = {2, 2, SHAPE_BYTES},
    [TAG_NONCE] = {16, 16, SHAPE_BYTES},          [TAG_KIND] = {1, 1, SHAPE_BYTES},
    [TAG_ARG] = {0, 131071, SHAPE_TEXT},          [TAG_SHELL] = {1, 131071, SHAPE_TEXT},
    [TAG_ENV] = {2, 131071, SHAPE_ENV},           [TAG_CWD] = {1, 4095, SHAPE_TEXT},
    [TAG_USER] = {1, 255, SHAPE_TEXT},            [TAG_STDIN] = {1, 1, SHAPE_BYTES},
    [TAG_TTY] = {4, 4, SHAPE_BYTES},              [TAG_JOB] = {1, MAX_JOB_NAME, SHAPE_NAME},
    [TAG_SIGNAL] = {1, 1, SHAPE_BYTES},           [TAG_SCOPE] = {1, 1, SHAPE_BYTES},
    [TAG_PATH] = {1, 4095, SHAPE_TEXT},
    [TAG_OFFSET] = {8, 8, SHAPE_BYTES},           [TAG_LENGTH] = {8, 8, SHAPE_BYTES},
    [TAG_MODE] = {4, 4, SHAPE_BYTES},             [TAG_FLAGS] = {4, 4, SHAPE_BYTES},
    [TAG_TO] = {1, 4095, SHAPE_TEXT},             [TAG_UID] = {4, 4, SHAPE_BYTES},
    [TAG_GID] = {4, 4, SHAPE_BYTES},              [TAG_MTIME] = {8, 8, SHAPE_BYTES},
    [TAG_VM_ID] = {1, 64, SHAPE_NAME},            [TAG_HOSTNAME] = {1, 63, SHAPE_NAME},
    [TAG_MACHINE_ID] = {32, 32, SHAPE_HEX},       [TAG_CLOCK] = {8, 8, SHAPE_BYTES},
    [TAG_ENTROPY] = {32, 4096, SHAPE_BYTES},      [TAG_TARGET] = {0, 4095, SHAPE_TEXT},
    [TAG_NETWORK] = {NETWORK_BYTES, NETWORK_BYTES, SHAPE_BYTES},
};

enum need { MAY = 1, MUST = 2, MANY = 3 };
struct rule {
  uint8_t tag, need;
};

static const struct rule sync_rules[] = {{TAG_VERSION_MIN, MUST}, {TAG_VERSION_MAX, MUST}, {TAG_NONCE, MUST}, {0, 0}};
static const struct rule exec_rules[] = {{TAG_ARG, MANY},  {TAG_SHELL, MAY},  {TAG_ENV, MANY}, {TAG_CWD, MAY},
                                         {TAG_USER, MAY}, {TAG_STDIN, MUST}, {TAG_TTY, MAY},  {TAG_JOB, MAY}, {0, 0}};
static const struct rule read_rules[] = {{TAG_PATH, MUST}, {TAG_OFFSET, MAY}, {TAG_LENGTH, MAY}, {0, 0}};
static const struct rule write_rules[] = {{TAG_PATH, MUST}, {TAG_MODE, MAY}, {TAG_FLAGS, MAY}, {0, 0}};
static const struct rule stat_rules[] = {{TAG_PATH, MUST}, {TAG_FLAGS, MAY}, {0, 0}};
static const struct rule list_rules[] = {{TAG_PATH, MUST}, {0, 0}};
static const struct rule identify_rules[] = {{TAG_VM_ID, MUST}, {TAG_HOSTNAME, MUST}, {TAG_MACHINE_ID, MUST},
                                             {TAG_CLOCK, MUST}, {TAG_ENTROPY, MUST},  {TAG_NETWORK, MAY}, {0, 0}};
static const struct rule clock_rules[] = {{TAG_CLOCK, MUST}, {0, 0}};
static const struct rule entropy_rules[] = {{TAG_ENTROPY, MUST}, {0, 0}};
static const struct rule make_directory_rules[] = {{TAG_PATH, MUST}, {TAG_MODE, MAY}, {TAG_FLAGS, MAY}, {0, 0}};
static const struct rule remove_rules[] = {{TAG_PATH, MUST}, {TAG_FLAGS, MAY}, {0, 0}};
static const struct rule rename_rules[] = {{TAG_PATH, MUST}, {TAG_TO, MUST}, {TAG_FLAGS, MAY}, {0, 0}};
static const struct rule change_rules[] = {{TAG_PATH, MUST}, {TAG_MODE, MAY}, {TAG_UID, MAY}, {TAG_GID, MAY}, {TAG_MTIME, MAY}, {TAG_FLAGS, MAY}, {0, 0}};
static const struct rule make_link_rules[] = {{TAG_PATH, MUST}, {TAG_TARGET, MUST}, {TAG_FLAGS, MAY}, {0, 0}};
static const struct rule pack_rules[] = {{TAG_PATH, MUST}, {0, 0}};
static const struct rule unpack_rules[] = {{TAG_PATH, MUST}, {TAG_FLAGS, MAY}, {0, 0}};
static const struct rule job_rules[] = {{TAG_JOB, MUST}, {0, 0}};
static const struct rule kill_job_rules[] = {{TAG_JOB, MUST}, {TAG_SIGNAL, MUST}, {TAG_SCOPE, MUST}, {0, 0}};
static const struct rule no_rules[] = {{0, 0}};

static const struct {
  const struct rule *rules;
  uint32_t flags;  // the FLAGS bits this kind knows
} kinds[] = {
    [KIND_EXEC] = {exec_rules, 0},         [KIND_READ_FILE] = {read_rules, 0}, [KIND_WRITE_FILE] = {write_rules, 7},
    [KIND_STAT] = {stat_rules, 1},         [KIND_LIST] = {list_rules, 0},      [KIND_IDENTIFY] = {identify_rules, 0},
    [KIND_CLOCK] = {clock_rules, 0},       [KIND_ENTROPY] = {entropy_rules, 0}, [KIND_PING] = {no_rules, 0},
    [KIND_POWER_OFF] = {no_rules, 0},      [KIND_MAKE_DIRECTORY] = {make_directory_rules, 1},
    [KIND_REMOVE] = {remove_rules, 1},     [KIND_RENAME] = {rename_rules, 1},  [KIND_CHANGE] = {change_rules, 1},
    [KIND_MAKE_LINK] = {make_link_rules, 1}, [KIND_PACK] = {pack_rules, 0},    [KIND_UNPACK] = {unpack_rules, 7},
    [KIND_JOBS] = {no_rules, 0},           [KIND_ATTACH] = {job_rules, 0},     [KIND_KILL_JOB] = {kill_job_rules, 0},
    [KIND_FORGET_JOB] = {job_rules, 0},    [KIND_STATS] = {no_rules, 0},
};

static const char *parse_fields(struct message *message, const struct rule *rules, size_t at, uint32_t fields);
static const char *wrong_field(uint8_t tag, struct field field);
static const char *wrong_exec(const struct message *message);
static const char *wrong_change(const struct message *message);
static bool read_field(const uint8_t *bytes, size_t length, size_t *at, uint8_t *tag, struct field *field);

const char *parse_request(struct message *message, const uint8_t *bytes, size_t length) {
  *message = (struct message){.bytes = bytes, .length = length};
  if (length > MAX_MESSAGE) return "a message over 1048576 bytes (MAX_MESSAGE)";
  size_t at = 0;
  uint8_t tag = 0;
  struct field kind;
  if (!read_field(bytes, length, &at, &tag, &kind) || tag != TAG_KIND || kind.length != 1) return "a request that does not begin with KIND";
  message->kind = kind.bytes[0];
  if (message->kind == 0 || message->kind >= sizeof kinds / sizeof kinds[0]) return "an unknown KIND";
  message->fields[TAG_KIND] = kind;
  const char *wrong = parse_fields(message, kinds[message->kind].rules, at, 1);
  if (wrong != NULL) return wrong;
  const struct field *fields = message->fields;
  if (fields[TAG_FLAGS].bytes != NULL && (get_u32(fields[TAG_FLAGS].bytes) & ~kinds[message->kind].flags) != 0) return "unknown FLAGS";
  if (fields[TAG_MODE].bytes != NULL && get_u32(fields[TAG_MODE].bytes) > 07777) return "a MODE over 07777";
  switch (message->kind) {
    case KIND_EXEC: return wrong_exec(message);
    case KIND_CHANGE: return wrong_change(message);
    case KIND_IDENTIFY: return fields[TAG_NETWORK].bytes == NULL ? NULL : wrong_network(fields[TAG_NETWORK].bytes);
    case KIND_KILL_JOB: return wrong_signal(fields[TAG_SIGNAL].bytes[0], fields[TAG_SCOPE].bytes[0]);
    default: return NULL;
  }
}

const char *parse_sync(struct message *message, const uint8_t *bytes, size_t length) {
  *message = (struct message){.bytes = bytes, .length = length};
  return parse_fields(message, sync_rules, 0, 0);
}

static const char *parse_fields(struct message *message, const struct rule *rules, size_t at, uint32_t fields) {
  uint8_t needs[TAG_LIMIT] = {0};
  for (const struct rule *rule = rules; rule->tag != 0; rule++) needs[rule->tag] = rule->need;
  for (;; fields++) {
    uint8_t tag = 0;
    struct field field;
    if (at < message->length && message->bytes[at] == TAG_END) {
      if (at + 1 != message->length) return "bytes after a message's end mark";
      break;
    }
    if (fields >= MAX_FIELDS) return "a message of over 8192 fields (MAX_FIELDS)";
    if (!read_field(message->bytes, message->length, &at, &tag, &field)) return "a message that breaks off";
    if (tag >= TAG_LIMIT || needs[tag] == 0) return "a field that does not belong to its message";
    if (message->fields[tag].bytes != NULL && needs[tag] != MANY) return "a field given twice";
    const char *wrong = wrong_field(tag, field);
    if (wrong != NULL) return wrong;
    if (message->fields[tag].bytes == NULL) message->fields[tag] = field;
    if (tag == TAG_ARG) message->arguments++;
    if (tag == TAG_ENV) message->environment++;
  }
  for (const struct rule *rule = rules; rule->tag != 0; rule++)
    if (rule->need == MUST && message->fields[rule->tag].bytes == NULL) return "a required field is missing";
  return NULL;
}

static const char *wrong_field(uint8_t tag, struct field field) {
  if (field.length < shapes[tag].least || field.length > shapes[tag].most) return "a field of a wrong length";
  enum shape shape = shapes[tag].shape;
  if (shape == SHAPE_BYTES) return NULL;
  if (memchr(field.bytes, 0, field.length) != NULL) return "a NUL byte in a text field";
  if (shape == SHAPE_ENV) {
    const uint8_t *equals = memchr(field.bytes, '=', field.length);
    return equals == NULL || equals == field.bytes ? "an ENV that is not NAME=VALUE" : NULL;
  }
  for (uint32_t i = 0; (shape == SHAPE_NAME || shape == SHAPE_HEX) && i < field.length; i++) {
    uint8_t c = field.bytes[i];
    bool right = (c >= '0' && c <= '9') || (c >= 'a' && c <= (shape == SHAPE_HEX ? 'f' : 'z')) || (shape == SHAPE_NAME && c == '-');
    if (!right) return "a character that its field does not allow";
  }
  return NULL;
}

static const char *wrong_exec(const struct message *message) {
  const struct field *fields = message->fields;
  if ((message->arguments > 0) == (fields[TAG_SHELL].bytes != NULL)) return "an EXEC needs either ARG or SHELL";
  if (fields[TAG_STDIN].bytes[0] > 1) return "a STDIN that is neither 0 nor 1";
  if (fields[TAG_JOB].bytes != NULL && (fields[TAG_STDIN].bytes[0] != 0 || fields[TAG_TTY].bytes != NULL)) return "a JOB with STDIN 1 or TTY";
  if (fields[TAG_TTY].bytes != NULL)
    for (int i = 0; i < 4; i += 2) {
      uint16_t size = get_u16(fields[TAG_TTY].bytes + i);
      if (size < 1 || size > 4096) return "a TTY size outside 1 to 4096";
    }
  return NULL;
}

static const char *wrong_change(const struct message *message) {
  const struct field *fields = message->fields;
  if ((fields[TAG_UID].bytes == NULL) != (fields[TAG_GID].bytes == NULL)) return "a CHANGE with only one of UID and GID";
  if (fields[TAG_MODE].bytes == NULL && fields[TAG_UID].bytes == NULL && fields[TAG_MTIME].bytes == NULL) return "a CHANGE of nothing";
  // To the kernel it means "leave it as it is".
  for (enum tag tag = TAG_UID; tag <= TAG_GID; tag++)
    if (fields[tag].bytes != NULL && get_u32(fields[tag].bytes) == UINT32_MAX) return "a UID or GID of 4294967295, which is none";
  return NULL;
}

const char *wrong_signal(uint8_t number, uint8_t scope) {
  if (number < 1 || number > 64) return "a signal outside 1 to 64";
  return scope > 2 || (scope == 2 && number != 9) ? "an unknown scope of a signal" : NULL;
}

const char *wrong_network(const uint8_t *network) {
  if (network[12] < 8 || network[12] > 30) return "a NETWORK with a prefix outside 8 to 30";
  return get_u16(network + 13) < 576 ? "a NETWORK with an MTU below 576" : NULL;
}

static bool read_field(const uint8_t *bytes, size_t length, size_t *at, uint8_t *tag, struct field *field) {
  if (length - *at < 5) return false;
  uint32_t size = get_u32(bytes + *at + 1);
  if (size > length - *at - 5) return false;
  *tag = bytes[*at];
  *field = (struct field){.bytes = bytes + *at + 5, .length = size};
  *at += 5 + (size_t)size;
  return true;
}

bool next_field(const struct message *message, enum tag tag, size_t *at, struct field *field) {
  uint8_t found = 0;
  while (*at < message->length && message->bytes[*at] != TAG_END && read_field(message->bytes, message->length, at, &found, field))
    if (found == tag) return true;
  return false;
}

void add_bytes(struct builder *builder, enum tag tag, const void *bytes, size_t length) {
  if (builder->capacity - builder->length < 6 + length) abort();  // one byte more than needed: room for the end mark
  uint8_t *at = builder->bytes + builder->length;
  at[0] = (uint8_t)tag;
  put_u32(at + 1, (uint32_t)length);
  if (length > 0) memcpy(at + 5, bytes, length);
  builder->length += 5 + length;
}

void add_u8(struct builder *builder, enum tag tag, uint8_t value) { add_bytes(builder, tag, &value, 1); }

void add_u16(struct builder *builder, enum tag tag, uint16_t value) {
  uint8_t bytes[2];
  put_u16(bytes, value);
  add_bytes(builder, tag, bytes, sizeof bytes);
}

void add_u32(struct builder *builder, enum tag tag, uint32_t value) {
  uint8_t bytes[4];
  put_u32(bytes, value);
  add_bytes(builder, tag, bytes, sizeof bytes);
}

void add_u64(struct builder *builder, enum tag tag, uint64_t value) {
  uint8_t bytes[8];
  put_u64(bytes, value);
  add_bytes(builder, tag, bytes, sizeof bytes);
}

void add_end(struct builder *builder) { builder->bytes[builder->length++] = TAG_END; }
