// Removing a directory with all that is in it.
#ifndef PYRO_REMOVE_H
#define PYRO_REMOVE_H

#include <stdbool.h>

// Removes `name` in the directory `parent`: a file, a link, an empty directory or, `recursive`, a directory with everything below it. Follows
// no link and enters no other mount. 0, or an errno with the name it is about in `about`, which stays valid.
int remove_entry(int parent, const char *name, bool recursive, const char **about);
// Opens `name` in the directory `parent` to be read as a directory, by no link and into no other mount. -1 with errno.
int open_below(int parent, const char *name);

#endif
