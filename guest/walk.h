// A walk through a tree of the guest's, for PACK and LAYER: a directory, then what is in it. Nothing is followed and no other mount entered; what is gone, or something
// else, between two calls is left out by whoever visits it, as if it had been gone before.
#ifndef PYRO_WALK_H
#define PYRO_WALK_H

#include <stddef.h>
#include <sys/stat.h>

#include "tree.h"

// Relative to where the walk began, of what is being visited; one name longer than may be sent.
extern char walk_path[MAX_PATH_BYTES + 1 + 256];
extern size_t walk_path_length;

// `verb` is what failures are told of.
void walk_begin(const char *verb);
// `fd`, a directory, is at `walk_path`: what is in it is visited next. Takes the descriptor.
void walk_into(int fd);
// Visits, until no directory is open: `name` in `parent` is at `walk_path`.
void walk(void (*visit)(int parent, const char *name));
// Of a file with several names the one that was visited first. NULL: this is its first name; when there are too many to remember, it becomes a file with one name.
const char *walk_earlier_name(struct stat *info);
// Says what failed, with the path if there is one, and ends.
_Noreturn void walk_failed(int error, const char *text);

#endif
