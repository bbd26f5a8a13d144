"""One ``pyro pipe`` process, and the calls that wait for its answers.

Two threads serve it. One writes, as a signal that interrupts a write in the main thread would leave half a line behind; one
reads, and hands each call what is its own.
"""

from __future__ import annotations

import itertools
import json
import os
import queue
import selectors
import subprocess
import threading
import time
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

from ._error import PyroError

#: pyro takes no longer line, and no more requests at once (docs/pipe.md).
MAX_LINE_BYTES = 8 << 20
MAX_CALLS = 256
#: An answer is two streams of at most 64 MiB, each byte of which JSON may spell with six.
MAX_ANSWER_BYTES = 1 << 30
#: News that a slow ``progress`` has not taken yet.
MAX_NEWS = 256
#: How long an interrupted call waits for the end of its VM, seconds.
CANCEL_SECONDS = 15.0
#: How long pyro has to end after its input did, seconds.
CLOSE_SECONDS = 30.0
#: What is kept of its standard error, bytes.
MAX_COMPLAINT_BYTES = 8192

#: A process that ends in the middle of these takes a guest with it.
_WITH_A_GUEST = ("run_in_vm", "exec_vm", "start_vm")


class Ended(Exception):
    """The connection ended before the request was sent."""


class Connection:
    """Raises HOST_MISSING if there is no such program to be executed."""

    def __init__(self, executable: str, on_end: Callable[["Connection"], None]) -> None:
        self.pid = os.getpid()
        #: Whoever calls holds one of them.
        self.slots = threading.BoundedSemaphore(MAX_CALLS)
        self.ended = False
        self._closing = False
        self._on_end = on_end
        self._lock = threading.RLock()  # as a signal's handler may call in the middle of a call
        self._ids = itertools.count(1)
        self._calls: Dict[int, _Call] = {}
        self._outgoing: "queue.SimpleQueue[Optional[bytes]]" = queue.SimpleQueue()
        try:
            self._process = subprocess.Popen(
                [executable, "pipe"],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None if os.environ.get("PYRO_LOG") else subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for us, who cancel the call that it interrupts and no other
            )
        except OSError as error:
            raise PyroError("HOST_MISSING", f"{executable} could not be started: {error.strerror}.") from error
        self._threads = [threading.Thread(target=work, name=f"pyro-{name}", daemon=True) for name, work in (("reader", self._read), ("writer", self._write))]
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError as error:
            self._process.kill()
            raise PyroError("INTERNAL", f"No thread could be started: {error}.") from error

    def call(self, method: str, params: Mapping[str, object], progress: Optional[Callable[[Dict[str, Any]], None]]) -> object:
        """The result of a request. Raises PyroError, Ended, and whatever interrupts it; then the request is cancelled."""
        call = _Call(method, next(self._ids), progress is not None)
        line = _line({"id": call.id, "method": method, "params": params})
        try:
            with self._lock:
                if self.ended or self._closing:
                    raise Ended
                self._calls[call.id] = call
                self._outgoing.put(line)
            while True:
                kind, value = call.received.get()
                if kind == "result":
                    return value
                if kind == "error":
                    raise _raisable(value)
                if progress is not None:
                    progress(value)
        finally:
            if not call.over and call.id in self._calls:
                self._cancel(call)

    def hang_up(self) -> None:
        """Ends pyro's input, and with it pyro; waits for nothing. Safe in a finalizer."""
        self._closing = True
        self._outgoing.put(None)

    def join(self) -> None:
        """Waits until pyro has ended; kills it if it doesn't."""
        reader, writer = self._threads
        if threading.current_thread() in (reader, writer):
            return
        reader.join(CLOSE_SECONDS)
        if reader.is_alive():
            self._process.kill()
            reader.join(CLOSE_SECONDS)
        writer.join(CLOSE_SECONDS)

    def abandon(self) -> None:
        """In a child after a fork: lets go of the pipe, which is the parent's. Its locks may be held by threads that are not here."""
        self.ended = True
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        self._process.returncode = 0  # it is no child of this process

    def _cancel(self, call: "_Call") -> None:
        self._outgoing.put(_line({"method": "cancel", "params": {"id": call.id}}))
        end = time.monotonic() + CANCEL_SECONDS
        while not call.over:
            try:
                call.received.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                return

    def _write(self) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        try:
            for line in iter(self._outgoing.get, None):
                rest = memoryview(line)
                while rest:
                    rest = rest[stdin.write(rest) :]
        except OSError:
            pass  # it has ended, and the reader finds out
        finally:
            try:
                stdin.close()
            except OSError:
                pass

    def _read(self) -> None:
        complaint = bytearray()
        breach: Optional[str] = None
        try:
            self._read_answers(complaint)
        except Exception as error:  # whatever it is, nobody may wait for ever
            breach = str(error)
            self._process.kill()
        self._outgoing.put(None)
        try:
            self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        with self._lock:
            self.ended = True
            calls, self._calls = self._calls, {}
        for call in calls.values():
            call.end("error", self._loss(call, breach, complaint.decode("utf-8", "replace").strip()))
        self._on_end(self)

    def _read_answers(self, complaint: bytearray) -> None:
        stdout, stderr = self._process.stdout, self._process.stderr
        assert stdout is not None
        parts: list[bytes] = []
        total = 0
        with selectors.PollSelector() as selector:  # it has no descriptor that a child could inherit
            selector.register(stdout, selectors.EVENT_READ)
            if stderr is not None:
                selector.register(stderr, selectors.EVENT_READ)
            wait: Optional[float] = None
            while selector.get_map():
                events = selector.select(wait)
                if not events:
                    return  # standard output ended, and somebody else holds standard error
                for key, _ in events:
                    chunk = os.read(key.fd, 65536)
                    if not chunk:
                        selector.unregister(key.fileobj)
                        wait = 1.0
                    elif key.fileobj is stderr:
                        complaint += chunk
                        del complaint[:-MAX_COMPLAINT_BYTES]
                    else:
                        *lines, rest = chunk.split(b"\n")
                        for line in lines:
                            self._take(b"".join([*parts, line]))
                            parts, total = [], 0
                        parts.append(rest)
                        total += len(rest)
                        if total > MAX_ANSWER_BYTES:
                            raise ValueError(f"an answer is longer than {MAX_ANSWER_BYTES} bytes")

    def _take(self, line: bytes) -> None:
        message = json.loads(line)
        if not isinstance(message, dict):
            raise ValueError("an answer is not an object")
        if message.get("method") == "progress":
            news = dict(message["params"])
            call = self._calls.get(news.pop("id"))
            if call is not None and call.wants_news and call.received.qsize() < MAX_NEWS:
                call.received.put(("progress", news))
            return
        if message.get("id") is None and "error" in message:
            raise ValueError(str(message["error"].get("message")))
        with self._lock:
            call = self._calls.pop(message["id"], None)
        if call is None:
            return
        if "error" in message:
            error = message["error"]
            data = error.get("data") or {}
            call.end("error", PyroError(data.get("code", "PROTOCOL"), error["message"], data.get("hint")))
        else:
            call.end("result", message["result"])

    def _loss(self, call: "_Call", breach: Optional[str], complaint: str) -> PyroError:
        if breach is not None:
            return PyroError("PROTOCOL", f"`pyro pipe` answered wrongly: {breach}.", "Are pyro and this client of one version?")
        if self._closing:
            return PyroError("CANCELLED", "The connection to pyro was closed.")
        status = self._process.returncode
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        code = "GUEST_LOST" if call.method in _WITH_A_GUEST else "INTERNAL"
        return PyroError(code, f"`pyro pipe` {how} before it answered {call.method}." + (f" It said: {complaint}" if complaint else ""), "The next call starts another one.")


class _Call:
    """``received`` gets ``("progress", news)`` any number of times and then ``("result", value)`` or ``("error", PyroError)``."""

    def __init__(self, method: str, id: int, wants_news: bool) -> None:
        self.method = method
        self.id = id
        self.wants_news = wants_news
        self.over = False
        self.received: "queue.SimpleQueue[Tuple[str, Any]]" = queue.SimpleQueue()

    def end(self, kind: str, value: object) -> None:
        self.over = True
        self.received.put((kind, value))


def _line(message: Mapping[str, object]) -> bytes:
    """Raises INVALID_ARGUMENT for what JSON can't say, and for what is too long."""
    method = message["method"]
    try:
        line = json.dumps({"jsonrpc": "2.0", **message}, allow_nan=False, default=_plain, separators=(",", ":")).encode("ascii") + b"\n"
    except (TypeError, ValueError) as error:
        raise PyroError("INVALID_ARGUMENT", f"An argument of {method} is nothing that JSON can say: {error}.") from None
    if len(line) > MAX_LINE_BYTES:
        raise PyroError("INVALID_ARGUMENT", f"The arguments of {method} take {len(line)} bytes; at most {MAX_LINE_BYTES} are allowed.")
    return line


def _plain(value: object) -> object:
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__}")


def _raisable(error: PyroError) -> PyroError:
    """Each caller gets an exception of its own, as raising one writes its trace into it."""
    return PyroError(error.code, error.message, error.hint)
