#include "users.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FIELDS 7

struct line {
  const char *field[FIELDS];
  size_t length[FIELDS];
  int count;
};

static bool next_line(const char **at, struct line *line);
static bool is(const struct line *line, int field, const char *text);
static bool parse_id(const char *text, size_t length, uint32_t *id);
static void copy(char *to, size_t size, const struct line *line, int field);
static bool lists(const char *members, size_t length, const char *name);

const char *find_user(struct user *user, const char *spec, const char *passwd, const char *group) {
  *user = (struct user){0};
  char who[256];
  snprintf(who, sizeof who, "%s", spec);
  char *wanted_group = strchr(who, ':');
  if (wanted_group != NULL) *wanted_group++ = 0;
  if (who[0] == 0 || (wanted_group != NULL && wanted_group[0] == 0)) return "USER has an empty part";
  uint32_t wanted_uid = 0, uid = 0, gid = 0;
  bool by_number = parse_id(who, strlen(who), &wanted_uid), known = false;
  struct line line;
  for (const char *at = passwd; !known && next_line(&at, &line);) {
    if (line.count < 4 || !parse_id(line.field[2], line.length[2], &uid) || !parse_id(line.field[3], line.length[3], &gid)) continue;
    if (by_number ? uid != wanted_uid : !is(&line, 0, who)) continue;
    known = true;
    user->uid = uid;
    user->gid = gid;
    copy(user->name, sizeof user->name, &line, 0);
    copy(user->home, sizeof user->home, &line, 5);
    copy(user->shell, sizeof user->shell, &line, 6);
  }
  if (!known) {
    if (!by_number && strcmp(who, "root") != 0) return "no such user in /etc/passwd";
    user->uid = by_number ? wanted_uid : 0;
    snprintf(user->name, sizeof user->name, "%s", user->uid == 0 ? "root" : who);
  }
  if (wanted_group == NULL) {
    user->groups[user->group_count++] = user->gid;
    for (const char *at = group; known && next_line(&at, &line);) {
      if (line.count < 4 || !parse_id(line.field[2], line.length[2], &gid) || gid == user->gid) continue;
      if (user->group_count < MAX_GROUPS && lists(line.field[3], line.length[3], user->name)) user->groups[user->group_count++] = gid;
    }
    return NULL;
  }
  bool found = parse_id(wanted_group, strlen(wanted_group), &gid);
  for (const char *at = group; !found && next_line(&at, &line);)
    found = line.count >= 3 && is(&line, 0, wanted_group) && parse_id(line.field[2], line.length[2], &gid);
  if (!found) return "no such group in /etc/group";
  user->gid = gid;
  user->groups[user->group_count++] = gid;
  return NULL;
}

// Cuts one line at its colons; what comes after the seventh field is ignored.
static bool next_line(const char **at, struct line *line) {
  if (**at == 0) return false;
  const char *end = *at + strcspn(*at, "\n");
  line->count = 0;
  for (const char *field = *at; line->count < FIELDS;) {
    size_t length = strcspn(field, ":\n");
    line->field[line->count] = field;
    line->length[line->count++] = length;
    if (field + length >= end) break;
    field += length + 1;
  }
  *at = *end == 0 ? end : end + 1;
  return true;
}

static bool is(const struct line *line, int field, const char *text) {
  return line->length[field] == strlen(text) && memcmp(line->field[field], text, line->length[field]) == 0;
}

// 4294967295 is "no id" to the kernel (setuid(-1)), so it isn't one here.
static bool parse_id(const char *text, size_t length, uint32_t *id) {
  if (length == 0 || length > 10) return false;
  uint64_t value = 0;
  for (size_t i = 0; i < length; i++) {
    if (text[i] < '0' || text[i] > '9') return false;
    value = value * 10 + (uint64_t)(text[i] - '0');
  }
  *id = (uint32_t)value;
  return value < UINT32_MAX;
}

static void copy(char *to, size_t size, const struct line *line, int field) {
  if (field < line->count && line->length[field] < size) memcpy(to, line->field[field], line->length[field]);
}

static bool lists(const char *members, size_t length, const char *name) {
  size_t size = strlen(name);
  for (size_t at = 0; at < length;) {
    size_t end = at;
    while (end < length && members[end] != ',') end++;
    if (end - at == size && memcmp(members + at, name, size) == 0) return true;
    at = end + 1;
  }
  return false;
}

char *read_small_file(const char *path) {
  char *text = calloc(1, MAX_PASSWD_BYTES + 1);
  if (text == NULL) return "";
  int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  struct stat info;
  if (fd >= 0 && fstat(fd, &info) == 0 && S_ISREG(info.st_mode)) {
    size_t have = 0;
    for (ssize_t n; have < MAX_PASSWD_BYTES && (n = read(fd, text + have, MAX_PASSWD_BYTES - have)) > 0;) have += (size_t)n;
  }
  if (fd >= 0) close(fd);
  return text;
}
