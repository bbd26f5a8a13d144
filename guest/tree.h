// The stream of a copied tree, protocol/PROTOCOL.md, "Trees": bytes to records, and whether each may come where it does. Pure: no system call in here.
#ifndef PYRO_TREE_H
#define PYRO_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "limits.h"

#define STAT_BYTES 48
#define MAX_PATH_BYTES 4095u
// Type, two counted texts and STAT.
#define MAX_ENTRY_BYTES (1 + 2 + MAX_PATH_BYTES + STAT_BYTES + 2 + MAX_PATH_BYTES)

enum record_type { RECORD_ENTRY = 0x01, RECORD_HARD_LINK = 0x02, RECORD_CHUNK = 0x03, RECORD_HOLE = 0x04, RECORD_END_FILE = 0x05, RECORD_END = 0xff };

// Points into the bytes it was parsed from.
struct record {
  uint8_t type;
  const uint8_t *path, *stat, *target;  // ENTRY and HARD_LINK; STAT has STAT_BYTES
  uint16_t path_length, target_length;
  const uint8_t *bytes;                 // CHUNK
  uint64_t length;                      // CHUNK and HOLE; of END the bytes of content
  uint64_t entries;                     // END
};

enum parsed { RECORD_MORE, RECORD_WHOLE, RECORD_BAD };

// The record that begins at `bytes`, and its size. RECORD_MORE: not all of it is there.
enum parsed record_next(const uint8_t *bytes, size_t have, struct record *record, size_t *size, const char **why);

// What came so far: the directory that is being filled, and the totals.
struct tree {
  char directory[MAX_PATH_BYTES + 1];
  uint16_t ends[MAX_TREE_DEPTH];  // ends[level] bytes of `directory` are the path of the directory on that level; 0 is the root
  unsigned levels;                    // how many directories are open
  bool in_file, is_over;
  uint64_t entries, content;
};

// Takes one record. NULL or what is wrong with it. Of an ENTRY or HARD_LINK gives the level of the directory it is in (those below it are
// finished) and its name there, "" of the root.
const char *tree_take(struct tree *tree, const struct record *record, unsigned *level, const char **name);

#endif
