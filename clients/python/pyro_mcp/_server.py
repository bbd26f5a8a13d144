"""The MCP server, which is ``pyro mcp serve``."""

from __future__ import annotations

import os
import sys
from typing import NoReturn, Optional, Union

from ._error import PyroError
from ._executable import find_executable


class Server:
    """An MCP server that is ready to run. Made by ``create_server``."""

    def __init__(self, executable: Optional[str] = None) -> None:
        self._executable = executable

    def run(self, transport: str = "stdio") -> NoReturn:
        """Hands standard input and output over to ``pyro mcp serve``.

        This process becomes it, so that whoever started this one ends, and is told by, the server itself. Does not return;
        what was registered with ``atexit`` does not run. Raises INVALID_ARGUMENT, HOST_MISSING.
        """
        if transport != "stdio":
            raise PyroError("INVALID_ARGUMENT", f"transport is {transport!r}; the only one is 'stdio'.", "Leave it out.")
        executable = find_executable(self._executable)
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        try:
            os.execv(executable, [executable, "mcp", "serve"])
        except OSError as error:
            raise PyroError("HOST_MISSING", f"{executable} could not be started: {error.strerror}.") from error


def create_server(*, executable: Union[str, "os.PathLike[str]", None] = None) -> Server:
    """An MCP server with the tools of pyro; ``create_server().run()`` serves on standard input and output."""
    return Server(None if executable is None else os.fspath(executable))
