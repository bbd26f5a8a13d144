#include "walk.h"

#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "request.h"
#include "spawn.h"

#define LINK_SLOTS (2 * MAX_TREE_LINKS)

char walk_path[MAX_PATH_BYTES + 1 + 256];
size_t walk_path_length;

static const char *told_of;

static struct {
  DIR *directory;
  size_t path_length;
} levels[MAX_TREE_DEPTH];
static unsigned depth;

// Files with several names, by device and inode.
static struct link {
  dev_t device;
  ino_t inode;
  char *path;
} *links;
static size_t link_count, link_bytes;

void walk_begin(const char *verb) {
  told_of = verb;
}

void walk_into(int fd) {
  if (depth == MAX_TREE_DEPTH) walk_failed(ENAMETOOLONG, "over 1024 levels (MAX_TREE_DEPTH)");
  levels[depth].path_length = walk_path_length;
  levels[depth].directory = fdopendir(fd);
  if (levels[depth++].directory == NULL) walk_failed(errno, "");
}

void walk(void (*visit)(int parent, const char *name)) {
  while (depth > 0) {
    DIR *directory = levels[depth - 1].directory;
    walk_path_length = levels[depth - 1].path_length;
    walk_path[walk_path_length] = 0;
    errno = 0;
    struct dirent *entry = readdir(directory);
    if (entry == NULL) {
      if (errno != 0) walk_failed(errno, "");
      closedir(directory);
      depth--;
      continue;
    }
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    walk_path_length += (size_t)sprintf(walk_path + walk_path_length, "%s%.255s", walk_path_length > 0 ? "/" : "", entry->d_name);
    if (walk_path_length > MAX_PATH_BYTES) walk_failed(ENAMETOOLONG, "");
    visit(dirfd(directory), entry->d_name);
  }
}

const char *walk_earlier_name(struct stat *info) {
  if (links == NULL) links = calloc(LINK_SLOTS, sizeof *links);
  if (links == NULL) walk_failed(ENOMEM, "");
  size_t at = (size_t)((info->st_ino * 0x9e3779b97f4a7c15u ^ info->st_dev) % LINK_SLOTS);
  for (; links[at].path != NULL; at = (at + 1) % LINK_SLOTS)
    if (links[at].inode == info->st_ino && links[at].device == info->st_dev) return links[at].path;
  if (link_count == MAX_TREE_LINKS || link_bytes + walk_path_length > MAX_TREE_LINK_BYTES || walk_path_length == 0) {
    info->st_nlink = 1;
    return NULL;
  }
  links[at] = (struct link){.device = info->st_dev, .inode = info->st_ino, .path = strdup(walk_path)};
  if (links[at].path == NULL) walk_failed(ENOMEM, "");
  link_count++;
  link_bytes += walk_path_length;
  return NULL;
}

void walk_failed(int error, const char *text) {
  char message[800];
  if (walk_path[0] == 0) report_error(told_of, error, text);
  if (text[0] == 0) report_error_of(told_of, error, walk_path);
  snprintf(message, sizeof message, "%.600s: %s", walk_path, text);
  report_error(told_of, error, message);
}
