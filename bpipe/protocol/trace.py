"""Trace: what a session does, for who looks at every frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Trace(Protocol):
    """Where a link tells what it does."""

    @property
    def trace(self) -> Callable[[str, str], None] | None:
        """Whom it is told; None: nobody."""

    def log(self, sign: str, text: str) -> None:
        """A sign and a text."""


class Traced:
    """Something that tells what it does. Who tells much asks first whether there is a ``trace``."""

    def __init__(self) -> None:
        self.trace: Callable[[str, str], None] | None = None  # see `log`
        self.change = 0  # is raised with everything but counts of bytes

    def changed(self) -> None:
        """More than a count of bytes has changed."""
        self.change += 1

    def trace_to(self, trace: Callable[[str, str], None]) -> None:
        """Call this for every frame and change of state: a sign (``< > = !``), and a text."""
        self.trace = trace

    def log(self, sign: str, text: str) -> None:
        """Something for ``trace``: ``<`` heard, ``>`` said, ``=`` a change, ``!`` an error."""
        if self.trace is not None:
            self.trace(sign, text)


class OfLink:
    """The same of one of several links, whose ``slot`` is told as well."""

    def __init__(self, traced: Traced, slot: int) -> None:
        self._traced = traced
        self._slot = slot

    @property
    def trace(self) -> Callable[[str, str], None] | None:
        """Whom it is told; None: nobody."""
        return self._traced.trace

    def log(self, sign: str, text: str) -> None:
        """Something for ``trace``."""
        self._traced.log(sign, f"link {self._slot}: {text}")
