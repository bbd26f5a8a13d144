// Lines on the console, which the host keeps as the VM's log. The serial line is slow: only what an operator needs.
#ifndef PYRO_LOG_H
#define PYRO_LOG_H

// One line "pyro-guest: …".
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
// One line "pyro-guest: fatal: WHAT: errno's text", then the VM is powered off, so that the host sees its VMM end.
_Noreturn void fatal(const char *format, ...) __attribute__((format(printf, 1, 2)));
// What fatal() does in the end; set by init (power off) and by the hosted build (exit).
extern void (*end_of_program)(void);

#endif
