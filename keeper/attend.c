#define _GNU_SOURCE
#include "attend.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void failed(struct failure *failure, const char *stage, int error, const char *name, const char *why) {
    failure->error = error;
    snprintf(failure->stage, sizeof failure->stage, "%s", stage);
    snprintf(failure->text, sizeof failure->text, "%.300s: %s", name, why);
}

/* ENOENT has two meanings: no such file, or a file whose interpreter or dynamic loader is not there. */
static void not_executed(struct failure *failure, const char *file, int error) {
    const char *why = strerror(error);
    if (error == ENOENT) why = access(file, F_OK) == 0 ? "exists, but its interpreter or loader does not" : "command not found";
    failed(failure, "exec", error, file, why);
}

static void execute_from_path(char **program, struct failure *failure) {
    const char *path = getenv("PATH");
    bool refused = false;
    char file[8192];
    for (const char *at = path == NULL ? "/usr/bin:/bin" : path;;) {
        size_t length = strcspn(at, ":");
        int size = snprintf(file, sizeof file, "%.*s%s%s", (int)(length > 4096 ? 4096 : length), at, length > 0 ? "/" : "", program[0]);
        if (size > 0 && (size_t)size < sizeof file) {
            execv(file, program);
            if (errno == EACCES) refused = true;
            else if ((errno != ENOENT && errno != ENOTDIR && errno != ENAMETOOLONG && errno != ELOOP) || (errno == ENOENT && access(file, F_OK) == 0)) {
                not_executed(failure, file, errno);
                return;
            }
        }
        if (at[length] == '\0') break;
        at += length + 1;
    }
    if (refused) failed(failure, "exec", EACCES, program[0], "found, but permission to execute it is denied");
    else failed(failure, "exec", ENOENT, program[0], "command not found");
}

void attend_execute(const char *directory, char **program, struct failure *failure) {
    if (chdir(directory) != 0) {
        failed(failure, "chdir", errno, directory, strerror(errno));
    } else if (program[0][0] == '\0') {
        failed(failure, "exec", ENOENT, "", "the command's name is empty");
    } else if (strchr(program[0], '/') == NULL) {
        execute_from_path(program, failure);
    } else {
        execv(program[0], program);
        not_executed(failure, program[0], errno);
    }
}

/* Who does not listen does not hear: the lifeline's end says the rest. */
static void tell(int lifeline, const char *format, ...) {
    char line[FAILURE_TEXT_BYTES + 64];
    va_list values;
    va_start(values, format);
    int length = vsnprintf(line, sizeof line - 1, format, values);
    va_end(values);
    if (length > (int)sizeof line - 2) length = (int)sizeof line - 2;
    for (int n = 0; n < length; n++) if (line[n] == '\n') line[n] = ' '; /* a program's name may hold anything */
    line[length++] = '\n';
    ssize_t written = send(lifeline, line, (size_t)length, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)written;
}

void attend_started(int lifeline, pid_t program) {
    tell(lifeline, "started %d", (int)program);
}

void attend_failed(int lifeline, const struct failure *failure) {
    tell(lifeline, "failed %s %d %s", failure->stage, failure->error, failure->text);
}

void attend_ended(int lifeline, int status) {
    if (WIFSIGNALED(status)) tell(lifeline, "signal %d", WTERMSIG(status));
    else tell(lifeline, "exit %d", WEXITSTATUS(status));
}

void attend_signals(const char *bytes, size_t count, pid_t program) {
    for (size_t n = 0; n < count; n++)
        if (bytes[n] >= 1 && bytes[n] <= 64) kill(-program, bytes[n]);
}
