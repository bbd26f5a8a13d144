"""Where the ``pyro`` command is."""

from __future__ import annotations

import os
import shutil
from typing import Optional

from ._error import PyroError

_HINT = "Install it with `npm install -g pyro-mcp`, or name it: Pyro(executable=...) or PYRO_EXECUTABLE."


def find_executable(given: Optional[str]) -> str:
    """The path of ``given``, else of ``PYRO_EXECUTABLE``, else of ``pyro`` in PATH. Raises HOST_MISSING."""
    named = given or os.environ.get("PYRO_EXECUTABLE") or None
    found = shutil.which(named or "pyro")
    if found is not None:
        return os.path.abspath(found)  # so that a later change of directory makes no difference
    if named is None:
        raise PyroError("HOST_MISSING", "There is no command `pyro` in PATH.", _HINT)
    source = "executable" if given else "PYRO_EXECUTABLE"
    what = "can't be executed" if os.path.exists(named) else "does not exist"
    raise PyroError("HOST_MISSING", f"{source} is {named!r}, which {what}.", _HINT)
