// What the children that serve file requests have in common: the fields of the request, the pipes 0 and 1, the report.
#ifndef PYRO_REQUEST_H
#define PYRO_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "message.h"
#include "tree.h"

// The field as text with a NUL behind it.
char *path_field(const struct message *message, enum tag tag);
uint32_t number_field(const struct message *message, enum tag tag, uint32_t otherwise);
bool has_flag(const struct message *message, uint32_t flag);
// Success without a field.
_Noreturn void report_nothing(void);
// As report_error, with the name of what it was about before errno's text.
_Noreturn void report_error_of(const char *stage, int error, const char *name);
// Content towards the host; ends the program when nobody wants it any more.
void put_content(const void *bytes, size_t length);
// Content from the host. True when PID 1 said that this was all of it: a mere end of file may be a host that went away.
bool content_is_whole(void);
// protocol/PROTOCOL.md, field STAT.
void put_stat(uint8_t record[STAT_BYTES], const struct stat *info);
// Opens the directory that `path`, which is cut, is in, and gives its name there; reports where that is none. Links on the way are followed,
// the name itself never is, also with a slash behind it.
int open_parent(char *path, char **name);
// Makes the directories above `path`; reports what fails.
void make_parents(char *path);
// A name beside `name` that nothing else uses. At least 64 bytes.
void temporary_name(char *name, size_t size);

#endif
