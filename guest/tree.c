#include "tree.h"

#include <string.h>
#include <sys/stat.h>

#include "frame.h"

static bool counted(const uint8_t *bytes, size_t have, size_t *at, const uint8_t **text, uint16_t *length);
static const char *wrong_text(const uint8_t *text, uint16_t length);
static const char *take_entry(struct tree *tree, const struct record *record, unsigned *level, const char **name);
static const char *wrong_name(const uint8_t *name, size_t length);
static bool is_open(const struct tree *tree, const uint8_t *path, size_t length, unsigned *level);
static const char *add_content(struct tree *tree, uint64_t length);

enum parsed record_next(const uint8_t *bytes, size_t have, struct record *record, size_t *size, const char **why) {
  if (have == 0) return RECORD_MORE;
  *record = (struct record){.type = bytes[0]};
  size_t at = 1;
  switch (record->type) {
    case RECORD_ENTRY:
    case RECORD_HARD_LINK:
      *why = "a path over 4095 bytes";
      if (have >= 3 && get_u16(bytes + 1) > MAX_PATH_BYTES) return RECORD_BAD;
      if (!counted(bytes, have, &at, &record->path, &record->path_length)) return RECORD_MORE;
      if (have - at < STAT_BYTES + 2) return RECORD_MORE;
      record->stat = bytes + at;
      at += STAT_BYTES;
      if (get_u16(bytes + at) > MAX_PATH_BYTES) return RECORD_BAD;
      if (!counted(bytes, have, &at, &record->target, &record->target_length)) return RECORD_MORE;
      if ((*why = wrong_text(record->path, record->path_length)) != NULL || (*why = wrong_text(record->target, record->target_length)) != NULL) return RECORD_BAD;
      *why = "a STAT that is none";
      if (get_u32(record->stat + 32) > 999999999 || get_u32(record->stat + 44) != 0) return RECORD_BAD;
      break;
    case RECORD_CHUNK:
      if (have < 5) return RECORD_MORE;
      record->length = get_u32(bytes + 1);
      *why = "a CHUNK outside 1 to 65536 bytes";
      if (record->length < 1 || record->length > MAX_PAYLOAD) return RECORD_BAD;
      record->bytes = bytes + 5;
      at = 5 + (size_t)record->length;
      if (have < at) return RECORD_MORE;
      break;
    case RECORD_HOLE:
      if (have < 9) return RECORD_MORE;
      record->length = get_u64(bytes + 1);
      *why = "a HOLE outside 1 to 2^63 - 1 bytes";
      if (record->length < 1 || record->length > INT64_MAX) return RECORD_BAD;
      at = 9;
      break;
    case RECORD_END_FILE: break;
    case RECORD_END:
      if (have < 17) return RECORD_MORE;
      record->entries = get_u64(bytes + 1);
      record->length = get_u64(bytes + 9);
      at = 17;
      break;
    default: *why = "an unknown record"; return RECORD_BAD;
  }
  *size = at;
  return RECORD_WHOLE;
}

static bool counted(const uint8_t *bytes, size_t have, size_t *at, const uint8_t **text, uint16_t *length) {
  if (have - *at < 2) return false;
  *length = get_u16(bytes + *at);
  if (have - *at - 2 < *length) return false;
  *text = bytes + *at + 2;
  *at += 2 + (size_t)*length;
  return true;
}

static const char *wrong_text(const uint8_t *text, uint16_t length) { return memchr(text, 0, length) != NULL ? "a NUL byte in a path" : NULL; }

const char *tree_take(struct tree *tree, const struct record *record, unsigned *level, const char **name) {
  if (tree->is_over) return "a record after END";
  bool content = record->type == RECORD_CHUNK || record->type == RECORD_HOLE || record->type == RECORD_END_FILE;
  if (content != tree->in_file) return content ? "content outside a file" : "a file without its end";
  switch (record->type) {
    case RECORD_CHUNK:
    case RECORD_HOLE: return add_content(tree, record->length);
    case RECORD_END_FILE: tree->in_file = false; return NULL;
    case RECORD_END:
      if (tree->entries == 0) return "a tree without an entry";
      if (record->entries != tree->entries || record->length != tree->content) return "an END with other totals";
      tree->is_over = true;
      return NULL;
    default: return take_entry(tree, record, level, name);
  }
}

static const char *take_entry(struct tree *tree, const struct record *record, unsigned *level, const char **name) {
  uint32_t type = get_u32(record->stat) & S_IFMT;
  size_t length = record->path_length, cut = length;
  if ((get_u32(record->stat) & ~(uint32_t)(S_IFMT | 07777)) != 0) return "a mode with unknown bits";
  if (type != S_IFREG && type != S_IFDIR && type != S_IFLNK && type != S_IFIFO) return "an entry that is no file, directory, link or fifo";
  if (record->type == RECORD_HARD_LINK && (type != S_IFREG || record->target_length == 0)) return "a HARD_LINK that is no file or has no source";
  if (record->type == RECORD_ENTRY && (type == S_IFLNK) != (record->target_length > 0)) return "a target that does not fit the entry's type";
  if (++tree->entries > MAX_TREE_ENTRIES) return "over 1000000 entries (MAX_TREE_ENTRIES)";
  if (tree->entries == 1) {
    if (length > 0 || record->type == RECORD_HARD_LINK) return "a tree that does not begin with its root";
    *level = 0;
    *name = "";
    if (type == S_IFDIR) tree->levels = 1;
  } else {
    while (cut > 0 && record->path[cut - 1] != '/') cut--;
    const char *wrong = wrong_name(record->path + cut, length - cut);
    if (wrong != NULL) return wrong;
    if (!is_open(tree, record->path, cut > 0 ? cut - 1 : 0, level)) return "an entry outside the directories that are open";
    tree->levels = *level + 1;
    memcpy(tree->directory, record->path, length);
    tree->directory[length] = 0;
    *name = tree->directory + cut;
    if (type == S_IFDIR) {
      if (tree->levels == MAX_TREE_DEPTH) return "over 1024 levels (MAX_TREE_DEPTH)";
      tree->ends[tree->levels++] = (uint16_t)length;
    }
  }
  tree->in_file = type == S_IFREG && record->type == RECORD_ENTRY;
  return NULL;
}

static const char *wrong_name(const uint8_t *name, size_t length) {
  bool dots = (length == 1 && name[0] == '.') || (length == 2 && name[0] == '.' && name[1] == '.');
  return length < 1 || length > 255 || dots ? "a name that no file can have" : NULL;
}

// Whatever is above it was checked when it came itself, so that no path can go up or begin with a slash.
static bool is_open(const struct tree *tree, const uint8_t *path, size_t length, unsigned *level) {
  if (path[0] == '/') return false;
  for (unsigned at = tree->levels; at > 0; at--) {
    if (tree->ends[at - 1] != length) continue;
    *level = at - 1;
    return memcmp(tree->directory, path, length) == 0;
  }
  return false;
}

static const char *add_content(struct tree *tree, uint64_t length) {
  if (length > INT64_MAX - tree->content) return "over 2^63 - 1 bytes of content";
  tree->content += length;
  return NULL;
}
