"""stderr: lines of text, and below them, while it is a terminal, the status line.

Theory of operation. One thread writes to stderr, so lines and the status line never meet within
one another. A line takes the place of the status line, which is drawn again below it. Of the
pictures that come while the terminal does not take any (^S), the last is drawn.

The cursor rests at the beginning of an empty row above the status line. So what another program
writes to the same terminal, for example a producer's warning, can be read, and moves the cursor
onto the status line, which is erased then. A terminal that is made narrower wraps the line into
more rows, or cuts it off, each in its own way; but its cursor stays where it is, so what has to be
erased is everything from there on, and nothing depends on a width that may just be changing. While
the line is drawn, wrapping is off: if the terminal has become narrower a moment ago, it cuts off
the rest. The cursor is never hidden, and wrapping is off only within one write: whatever ends this
process leaves the terminal usable.
"""

from __future__ import annotations

import io
import locale
import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Final

from bpipe.protocol.ring import Views
from bpipe.report.output import LineThread, write_all
from bpipe.report.segments import ASCII, FINE, Glyphs, Span, columns, printable
from bpipe.report.settings import Level, Settings, When

STDERR: Final = 2
REDRAW: Final = 0.25  # seconds between two pictures
SUSPENSION: Final = 0.2  # seconds that ^Z waits for the status line to be erased
WIDTH: Final = 80  # columns where nothing says how many there are
LEAST_ROWS: Final = 3  # of a terminal that has room for an empty one
NEWLINE: Final = 10

# First the row itself: some terminals take it for the continuation of a wrapped line. Then from the
# second cell on: some keep in their history what is erased from the first.
_ERASE: Final = "\r\x1b[2K \x1b[J\r"
_WRAP, _NO_WRAP, _UP = "\x1b[?7h", "\x1b[?7l", "\x1b[A"

# The status line for so many columns, of these characters. Called in another thread.
Picture = Callable[[int, Glyphs], list[Span]]


class Terminal:
    """Writes lines, and the status line, to stderr. Does not wait for it."""

    def __init__(self) -> None:
        self._thread = LineThread("Reporter")
        self._encoding = (sys.stderr and sys.stderr.encoding) or "utf-8"
        self._glyphs = FINE if has_glyphs(self._encoding) else ASCII
        self._picture: Picture | None = None
        self._paint: Callable[[list[Span]], str] | None = None
        self._due = False  # a redraw was asked for
        self._drawn = 0  # columns that the status line takes on the screen now
        self._midway = False  # the row of the cursor has the beginning of a line of data
        self._dumb = is_dumb()

    def say(self, line: str, *, last: bool = False) -> bool:
        """One line, without its end; returns whether it was not dropped."""
        return self._thread.do(partial(self._say, line), last=last)

    def show(self, picture: Picture) -> None:
        """Draw this as the status line, as soon as may be."""
        self._picture = picture
        if not self._due:
            self._due = True  # before the thread says otherwise
            if not self._thread.do(self._show):
                self._due = False

    def hide(self) -> None:
        """Erase the status line until the next ``show``; does not wait."""
        if self._picture is not None:
            self._picture = None
            self._thread.do(self._show)

    def make_way(self, data: Views) -> None:
        """This is about to be written to the same terminal, by the thread that calls."""
        if self._picture is not None or self._drawn:
            self.clear()
        self._midway = data[-1][-1] != NEWLINE

    def clear(self) -> None:
        """Erase the status line, and wait a moment for that; the next ``show`` draws it again."""
        erased = threading.Event()
        if self._thread.do(partial(self._clear, erased)):
            erased.wait(SUSPENSION)

    def turn_to(self, descriptor: int) -> None:
        """Let stderr be this, for what is said from now on; closes it."""
        self._thread.do(partial(self._turn_to, descriptor), last=True)

    def close(self) -> None:
        """Erase the status line, and wait a moment for everything to be written."""
        self._thread.do(partial(self._clear, threading.Event()), last=True)
        self._thread.close()

    # --- in the thread ---

    def _say(self, line: str) -> None:
        self._write(f"{self._erase()}{printable(line)}\n{self._draw()}")

    def _show(self) -> None:
        self._due = False
        self._write(self._erase() + self._draw())

    def _clear(self, erased: threading.Event) -> None:
        self._picture = None
        self._write(self._erase())
        erased.set()

    def _turn_to(self, descriptor: int) -> None:
        self._clear(threading.Event())
        os.dup2(descriptor, STDERR)
        os.close(descriptor)

    def _write(self, text: str) -> None:
        if text and self._midway:
            self._midway, text = False, f"\n{text}"
        write_all(STDERR, text.encode(self._encoding, errors="replace"))

    def _draw(self) -> str:
        """The codes that draw the status line; none in the background."""
        picture = self._picture  # the event loop may change it meanwhile
        if picture is None or not in_foreground():
            return ""
        if self._paint is None:
            self._paint = plain if self._dumb else colourful()
        rows, width = size()
        spans = picture(width - 1, self._glyphs)  # in the last column, terminals differ
        self._drawn = sum(columns(piece.text) for piece in spans)
        drawn = self._paint(spans) + "\r"
        if self._dumb:
            return drawn
        below, back = ("\n", _UP) if rows >= LEAST_ROWS else ("", "")
        return f"{_NO_WRAP}{below}{drawn}{back}{_WRAP}"

    def _erase(self) -> str:
        """The codes that remove the status line, and what was typed over it."""
        drawn, self._drawn = self._drawn, 0
        if not drawn:
            return ""
        return "\r" + " " * drawn + "\r" if self._dumb else _ERASE


def plain(spans: list[Span]) -> str:
    """The line without its styles."""
    return "".join(piece.text for piece in spans)


def colourful() -> Callable[[list[Span]], str]:
    """What puts the styles into codes that the terminal knows; rich heeds TERM and NO_COLOR."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=io.StringIO(), force_terminal=True, highlight=False)

    def paint(spans: list[Span]) -> str:
        with console.capture() as capture:
            console.print(Text.assemble(*spans), end="", soft_wrap=True)
        return capture.get()

    return paint


def wants_status(settings: Settings) -> bool:
    """Whether there is to be a status line."""
    if settings.log == "-" or settings.status_line is When.NEVER:
        return False
    if settings.status_line is When.ALWAYS:
        return True
    return settings.level > Level.QUIET and os.isatty(STDERR) and not is_dumb()


def is_dumb() -> bool:
    """Whether stderr is a terminal without escape codes, or none that is known."""
    return os.environ.get("TERM", "dumb") in ("", "dumb", "unknown")


def same_terminal(descriptor: int) -> bool:
    """Whether this descriptor is the terminal that stderr is."""
    if not os.isatty(descriptor) or not os.isatty(STDERR):
        return False
    return os.fstat(descriptor).st_rdev == os.fstat(STDERR).st_rdev


def in_foreground() -> bool:
    """Whether this process may draw on the terminal; also where there is no job control."""
    try:
        return os.tcgetpgrp(STDERR) == os.getpgrp()
    except OSError:
        return True


def has_glyphs(encoding: str) -> bool:
    """Whether more than ASCII is shown: Python says UTF-8 also where the locale does not."""
    utf8 = all(
        name.lower() in ("utf-8", "utf8") for name in (encoding, locale.nl_langinfo(locale.CODESET))
    )
    return utf8 and not os.environ.get("TERM", "").startswith(("linux", "vt"))


def size() -> tuple[int, int]:
    """The rows and columns of the terminal now; no rows if there are none."""
    try:
        columns, rows = os.get_terminal_size(STDERR)
        return rows, columns or WIDTH
    except OSError:
        given = os.environ.get("COLUMNS", "")
        return 0, int(given) if given.isdecimal() and int(given) else WIDTH
