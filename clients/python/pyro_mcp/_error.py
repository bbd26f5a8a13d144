"""The one class of error that leaves this package."""

from __future__ import annotations

from typing import Optional


class PyroError(Exception):
    """What happened, to what, and the next step.

    ``code`` is one of the closed set in docs/errors.md and is for programs; ``message`` and ``hint`` (``None`` where there is
    no next step) are for people.
    """

    def __init__(self, code: str, message: str, hint: Optional[str] = None) -> None:
        super().__init__(code, message, hint)
        self.code = code
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" + ("" if self.hint is None else f" {self.hint}")
