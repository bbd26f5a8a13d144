#include "log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void line(const char *prefix, const char *suffix, const char *format, va_list arguments) __attribute__((format(printf, 3, 0)));

void (*end_of_program)(void);

void say(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  line("pyro-guest: ", "", format, arguments);
  va_end(arguments);
}

void fatal(const char *format, ...) {
  char suffix[128] = "";
  if (errno != 0) snprintf(suffix, sizeof suffix, ": %s (errno %d)", strerror(errno), errno);
  va_list arguments;
  va_start(arguments, format);
  line("pyro-guest: fatal: ", suffix, format, arguments);
  va_end(arguments);
  if (end_of_program != NULL) end_of_program();
  _exit(70);
}

static void line(const char *prefix, const char *suffix, const char *format, va_list arguments) {
  char text[512];
  size_t length = (size_t)snprintf(text, sizeof text, "%s", prefix);
  int more = vsnprintf(text + length, sizeof text - length - 160, format, arguments);
  if (more > 0) length = strlen(text);
  length += (size_t)snprintf(text + length, sizeof text - length, "%s\n", suffix);
  // Standard error is the console. Nothing can be done if it fails.
  ssize_t written = write(2, text, length);
  (void)written;
}
