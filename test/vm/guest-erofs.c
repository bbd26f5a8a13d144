// Prints every entry of the EROFS disk, as the kernel that mounted it has it, a line each; run as root in a guest.
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

static void show_name(const char *text) {
  for (const unsigned char *at = (const unsigned char *)text; *at; at++) printf(*at > 32 && *at < 127 && *at != '\\' ? "%c" : "\\%02x", *at);
}

static void show_content(const char *path, int64_t size) {
  uint64_t sum = 0xcbf29ce484222325u;
  static unsigned char bytes[65536];
  int fd = open(path, O_RDONLY);
  if (fd < 0 || size > 64 << 20) return;
  for (ssize_t count; (count = read(fd, bytes, sizeof bytes)) > 0;)
    for (ssize_t i = 0; i < count; i++) sum = (sum ^ bytes[i]) * 0x100000001b3u;
  close(fd);
  printf(" fnv=%016llx", (unsigned long long)sum);
}

static int compare(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void show_xattrs(const char *path) {
  static char list[65536], *names[256];
  int count = 0;
  ssize_t length = llistxattr(path, list, sizeof list);
  for (ssize_t at = 0; at < length; at += (ssize_t)strlen(list + at) + 1) names[count++] = list + at;
  qsort(names, count, sizeof names[0], compare);
  for (int i = 0; i < count; i++) {
    unsigned char value[65536];
    ssize_t size = lgetxattr(path, names[i], value, sizeof value);
    printf(" %s=", names[i]);
    for (ssize_t j = 0; j < size; j++) printf("%02x", value[j]);
  }
}

static void walk(const char *path, const char *shown) {
  struct stat info;
  if (lstat(path, &info) != 0) return perror(path);
  show_name(shown);
  printf(" %o %u:%u", info.st_mode, info.st_uid, info.st_gid);
  if (!S_ISDIR(info.st_mode)) printf(" links=%u size=%lld", (unsigned)info.st_nlink, (long long)info.st_size);
  printf(" %lld.%09ld", (long long)info.st_mtim.tv_sec, info.st_mtim.tv_nsec);
  if (S_ISCHR(info.st_mode) || S_ISBLK(info.st_mode)) printf(" %u,%u", major(info.st_rdev), minor(info.st_rdev));
  if (S_ISREG(info.st_mode)) show_content(path, info.st_size);
  if (S_ISLNK(info.st_mode)) {
    char target[4097];
    ssize_t length = readlink(path, target, 4096);
    target[length < 0 ? 0 : length] = 0;
    printf(" -> "), show_name(target);
  }
  show_xattrs(path);
  printf("\n");
  if (!S_ISDIR(info.st_mode) || strcmp(shown, "/many") == 0) return;
  struct dirent **entries;
  int count = scandir(path, &entries, NULL, NULL);
  char **names = calloc((size_t)count + 1, sizeof *names);
  for (int i = 0; i < count; i++) names[i] = entries[i]->d_name;
  qsort(names, (size_t)count, sizeof *names, compare);
  for (int i = 0; i < count; i++) {
    char *below, *name;
    if (strcmp(names[i], ".") == 0 || strcmp(names[i], "..") == 0) continue;
    if (asprintf(&below, "%s/%s", path, names[i]) < 0 || asprintf(&name, "%s/%s", strcmp(shown, "/") == 0 ? "" : shown, names[i]) < 0) exit(1);
    walk(below, name);
    free(below), free(name);
  }
}

int main(void) {
  mkdir("/mounted", 0700);
  if (mount("/dev/vda", "/mounted", "erofs", MS_RDONLY, NULL) != 0 && mount("/dev/vdb", "/mounted", "erofs", MS_RDONLY, NULL) != 0) return perror("mount"), 1;
  walk("/mounted", "/");
  return 0;
}
