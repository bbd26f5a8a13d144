"""Runs a command in a pseudo-terminal of its own, for pty.ts.

Usage: terminal-driver.py ROWS COLUMNS COMMAND [ARG...]. One JSON object a line, in: {"type": BASE64}, {"resize": [ROWS, COLUMNS]}, {"modes": true};
out: {"pid": PID, "modes": [...]} with the modes that the command finds, {"output": BASE64}, {"modes": [...]}, {"exit": STATUS}. Ends with its standard input, and ends the command then.
"""
import base64, fcntl, json, os, pty, select, signal, struct, sys, termios

rows, columns, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
master, slave = pty.openpty()  # the slave stays open here: its modes can be asked for when all others have closed it


def resize(rows, columns):
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def say(**message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def modes():
    flags = termios.tcgetattr(master)  # Linux gives the slave's
    return flags[:4] + [value if isinstance(value, int) else value[0] for value in flags[6]]


resize(rows, columns)
before = modes()
child = os.fork()
if child == 0:
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for fd in 0, 1, 2:
        os.dup2(slave, fd)
    os.closerange(3, 256)
    os.execvp(command[0], command)
say(pid=child, modes=before)
ended, pending = os.pidfd_open(child), b""
watched = [0, master, ended]
while True:
    ready, _, _ = select.select(watched, [], [])
    if master in ready:
        say(output=base64.b64encode(os.read(master, 65536)).decode())
    elif ended in ready:  # after all that it wrote
        watched.remove(ended)
        _, status = os.waitpid(child, 0)
        say(exit=os.waitstatus_to_exitcode(status))
    if 0 in ready:
        given = os.read(0, 65536)
        if given == b"":
            break
        pending += given
        *lines, pending = pending.split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "type" in message:
                os.write(master, base64.b64decode(message["type"]))
            if "resize" in message:
                resize(*message["resize"])
            if "modes" in message:
                say(modes=modes())
if ended in watched:
    os.kill(child, signal.SIGKILL)
