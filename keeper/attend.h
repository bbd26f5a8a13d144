/*
 * A program whose maker attends to it over the lifeline, because an exit status alone can't say what became of it: 137 may be
 * its own, or mean SIGKILL; 127 may be its own, or mean that there is no such program.
 *
 * The keeper tells, a line each: `started PID` or `failed STAGE ERRNO TEXT` (STAGE is `chdir` or `exec`), and after the end of
 * the program and its descendants `exit STATUS` or `signal NUMBER`. The maker sends a byte from 1 to 64: that signal, to the
 * program's process group.
 */
#ifndef PYRO_ATTEND_H
#define PYRO_ATTEND_H

#include <stddef.h>
#include <sys/types.h>

enum { FAILURE_TEXT_BYTES = 384 };

/* Why a program was not executed. */
struct failure {
    int error;
    char stage[8], text[FAILURE_TEXT_BYTES];
};

/* In the program's process: enters the directory, looks the program up in PATH if it has no slash, as a guest does, and executes it. Returns if that fails. */
void attend_execute(const char *directory, char **program, struct failure *failure);

void attend_started(int lifeline, pid_t program);
void attend_failed(int lifeline, const struct failure *failure);
void attend_ended(int lifeline, int status);

/* What was read from the lifeline. */
void attend_signals(const char *bytes, size_t count, pid_t program);

#endif
