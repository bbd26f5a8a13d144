/*
 * Has the keeper's side of the confinement (keeper/confine.c) answer questions whose askers are killed just before, and then one of an asker who lives.
 * It ends with 0, or hangs.
 */
#define _GNU_SOURCE
#include "../../keeper/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* creat(2) is what nobody here calls but who asks. */
static int listen_to_creat(void) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_creat, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -1;
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
}

static pid_t ask(int listener) {
    pid_t asker = fork();
    if (asker == 0) _exit(syscall(SYS_creat, "/nowhere/made", 0600) < 0 && errno == EACCES ? 0 : 1);
    struct pollfd asked = {.fd = listener, .events = POLLIN};
    while (poll(&asked, 1, -1) < 0 && errno == EINTR) {}
    return asker;
}

int main(void) {
    struct confine confine = {.wanted = true, .reopen = -1, .copy = -1, .listener = listen_to_creat()};
    if (confine.listener < 0) return 77;
    int listener = confine.listener, status;
    for (int round = 0; round < 20; round++) {
        pid_t asker = ask(listener);
        kill(asker, SIGKILL);
        siginfo_t died;
        waitid(P_PID, (id_t)asker, &died, WEXITED | WNOWAIT);
        if (round % 2 == 0) waitpid(asker, NULL, 0);
        confine_answer(&confine, POLLIN); /* what poll said, a moment ago */
        if (round % 2 != 0) waitpid(asker, NULL, 0);
        if (confine.listener != listener) return 2;
    }
    pid_t asker = ask(listener);
    confine_answer(&confine, POLLIN);
    if (waitpid(asker, &status, 0) != asker || status != 0) return 3;
    puts("answered");
    return 0;
}
