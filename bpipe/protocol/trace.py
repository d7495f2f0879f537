"""Trace: what a session does, for who looks at every frame."""

from __future__ import annotations

from collections.abc import Callable


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
