"""How a session ends: what was said and heard of it, and what an end reports.

An end that is *done* says BYE, and leaves when its own is written and the peer's has come. One
that fails says ABORT, and leaves when that is answered by BYE, or when it has waited for long
enough. One that hears an ABORT answers BYE, and leaves.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from bpipe.errors import LocalAbort, PeerAborted, PipeClosed, SessionEnded
from bpipe.protocol.wire import LARGEST_MESSAGE, Reason

INTERRUPT_LINGER: Final = 2.0  # seconds that somebody who presses ^C is kept waiting, at most

LONGEST: Final = 200  # columns of the other end's words that are repeated

_BLANKS: Final = "\u115f\u1160\u2800\u3164\uffa0"  # printable, says Unicode, and not seen
_QUICK: Final = (Reason.INTERRUPTED, Reason.PROTOCOL)


class Ending:
    """The state of a session's end."""

    def __init__(self) -> None:
        self.over = False
        self.failure: SessionEnded | None = None  # once over: None is success
        self.abort: tuple[Reason, str] | None = None  # this end's
        self.abort_until = 0.0  # how long it waits for the answer
        self.answering = False  # the peer has aborted: say BYE, and leave
        self.peer_bye = False
        self.bye_written = False

    @property
    def aborting(self) -> bool:
        """Whether the session has failed, here or there: no more of either stream is moved."""
        return self.abort is not None or self.answering

    def due(self, *, done: bool) -> bool:
        """Whether everything is said and heard that has to be."""
        if self.answering:
            return self.bye_written
        if self.abort:
            return self.peer_bye
        return done and self.bye_written and self.peer_bye

    def verdict(self, *, done: bool, cut_short: bool) -> SessionEnded | None:
        """How an end that has nothing left to do reports."""
        if self.abort or not done:
            return self.failure
        return PipeClosed("the far side stopped reading") if cut_short else None

    def begin_abort(self, reason: Reason, message: str, now: float, linger: float) -> None:
        """This end fails."""
        failure = PipeClosed if reason is Reason.BROKEN_PIPE else LocalAbort
        self.failure = failure(message)
        self.abort = reason, message
        self.abort_until = now + (INTERRUPT_LINGER if reason in _QUICK else linger)

    def give_up_abort(self) -> None:
        """The peer has not answered this end's ABORT: whoever reads the reason has to know that."""
        if self.answering:
            return  # it has failed as well
        assert self.failure is not None
        self.failure = type(self.failure)(unanswered(str(self.failure)))

    def abort_message(self) -> tuple[Reason, bytes]:
        """What an ABORT frame says."""
        assert self.abort is not None
        reason, message = self.abort
        text = message.encode(errors="backslashreplace")[:LARGEST_MESSAGE]
        return reason, text.decode(errors="ignore").encode()

    def hear_abort(self, reason: int, message: bytes, *, done: bool) -> None:
        """The peer fails; one that is done has nothing to report of it."""
        self.answering = True
        if done or self.abort:
            return
        text = quoted(message.decode(errors="replace"))
        failure = PipeClosed if reason == Reason.BROKEN_PIPE else PeerAborted
        self.failure = failure(f"the other end: {text if message else 'aborted'}")


def unanswered(reason: str) -> str:
    """What is said of a failure of which the peer may know nothing."""
    return f"{reason}; the other end did not answer: end it, too"


def quoted(text: str) -> str:
    """What somebody else says, so that it cannot be taken for what we say, on any terminal."""
    text = re.sub(" +", " ", text.replace('"', "'").replace("bpipe:", "bpipe"))
    shown, width = "", 0
    for c in text:
        plain = c.isprintable() and c not in _BLANKS
        piece = c if plain else f"\\x{ord(c):02x}"
        shown += piece
        width += len(piece) + (plain and unicodedata.east_asian_width(c) in "WF")
        if width >= LONGEST:
            return f'"{shown}..."'
    return f'"{shown}"'
