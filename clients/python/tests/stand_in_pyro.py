#!/usr/bin/env python3
"""A stand-in for ``pyro``: answers as ``pyro pipe`` would where the command says what to answer, and starts no VM.

What it was told is appended to the file that STAND_IN_LOG names.
"""

import json
import os
import sys
import threading
import time

lock = threading.Lock()
held = {}


def note(text: str) -> None:
    path = os.environ.get("STAND_IN_LOG")
    if path:
        with lock, open(path, "a") as log:
            log.write(text + "\n")


def send(**message: object) -> None:
    text = json.dumps({"jsonrpc": "2.0", **message}) + "\n"
    with lock:
        sys.stdout.write(text)
        sys.stdout.flush()


def answer(request: dict) -> None:
    id, params = request["id"], request.get("params", {})
    command = params.get("command")
    word = command if isinstance(command, str) else ""
    if word == "wait":
        return  # held, for a cancel
    elif word == "die":
        sys.stderr.write("stand-in: the last words\n")
        os._exit(7)
    elif word.startswith("sleep "):
        time.sleep(float(word[6:]))
        send(id=id, result=params)
    elif word == "refuse":
        send(id=id, error={"code": -32000, "message": "no", "data": {"code": "NOT_FOUND", "hint": "look"}})
    elif word == "garbage":
        with lock:
            sys.stdout.write("this is not JSON\n")
            sys.stdout.flush()
    elif word == "nobody":
        send(id=None, error={"code": -32700, "message": "what?"})
    elif word == "stranger":
        send(id=987654, result="somebody else's")
        send(method="progress", params={"id": 987654, "phase": "start"})
        send(id=id, result="mine")
    elif word == "news":
        for phase in ("pull", "start", "exec"):
            send(method="progress", params={"id": id, "phase": phase})
        send(id=id, result="done")
    elif word == "halves":
        text = json.dumps({"jsonrpc": "2.0", "id": id, "result": "é" * 1000}, ensure_ascii=False).encode() + b"\n"
        for at in range(0, len(text), 7):
            os.write(1, text[at : at + 7])
    elif word == "big":
        send(id=id, result="x" * 20_000_000)
    elif request["method"] == "status_vm":
        send(id=id, result={"pid": os.getpid(), "session": os.getsid(0)})
    else:
        send(id=id, result={"method": request["method"], "params": params})


def main() -> None:
    note("start " + " ".join(sys.argv[1:]))
    if sys.argv[1:] == ["mcp", "serve"]:
        print("stand-in serves MCP:", sys.stdin.read(), flush=True)
        sys.exit(5)
    for line in sys.stdin:
        request = json.loads(line)
        if request["method"] == "cancel":
            id = request["params"]["id"]
            note("cancel")
            if held.pop(id, None) is not None:
                send(id=id, error={"code": -32000, "message": "Cancelled by the client.", "data": {"code": "CANCELLED"}})
            continue
        if request.get("params", {}).get("command") == "wait":
            held[request["id"]] = request["params"]
        note(request["method"])
        threading.Thread(target=answer, args=(request,), daemon=True).start()
    note("end")


main()
