"""Which connection a call goes over: one at a time for each ``Pyro`` in each process, started when it is needed."""

from __future__ import annotations

import atexit
import os
import threading
from typing import Any, Callable, Dict, Mapping, Optional, Set

from ._connection import Connection, Ended
from ._error import PyroError
from ._executable import find_executable

_lock = threading.RLock()
"""Held while a process is started, and across a fork: so a child knows of every pipe that it inherited."""
_live: Set[Connection] = set()


class Connections:
    def __init__(self, executable: Optional[str]) -> None:
        self._executable = executable
        self._current: Optional[Connection] = None
        self._closed = False

    def call(self, method: str, params: Mapping[str, object], progress: Optional[Callable[[Dict[str, Any]], None]]) -> object:
        for _ in range(3):
            connection = self._open()
            with connection.slots:
                try:
                    return connection.call(method, params, progress)
                except Ended:
                    pass  # just now; nothing was sent
        raise PyroError("INTERNAL", "`pyro pipe` ends as soon as it is started.", "`pyro doctor` tells what this host lacks.")

    def hang_up(self) -> None:
        connection = self._current
        if connection is not None and not connection.ended and connection.pid == os.getpid():
            connection.hang_up()

    def close(self) -> None:
        with _lock:
            self._closed = True
            connection = self._current
        self.hang_up()
        if connection is not None and connection.pid == os.getpid():
            connection.join()

    def _open(self) -> Connection:
        with _lock:
            if self._closed:
                raise PyroError("INVALID_STATE", "This Pyro was closed.", "Make another one.")
            current = self._current
            if current is None or current.ended or current.pid != os.getpid():
                current = Connection(find_executable(self._executable), _forget)
                self._current = current
                _live.add(current)
            return current


def _forget(connection: Connection) -> None:
    with _lock:
        _live.discard(connection)


def _close_all() -> None:
    with _lock:
        connections = list(_live)
    for connection in connections:
        connection.hang_up()
    for connection in connections:
        connection.join()


def _abandon_all() -> None:
    """In a child after a fork. Would it keep the parent's pipes open, pyro would not see the parent's end."""
    for connection in _live:
        connection.abandon()
    _live.clear()
    _lock.release()


atexit.register(_close_all)
os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_abandon_all)
