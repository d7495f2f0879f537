"""How a session ends: its phase, what was said and heard of its end, and what an end reports.

An end that is *done* says BYE, and leaves when its own is written and the peer's has come. One
that fails says ABORT, and leaves when that is answered by BYE, or when it has waited for long
enough. One that hears an ABORT answers BYE, and leaves.
"""

from __future__ import annotations

import enum
import re
import unicodedata
from typing import Final

from bpipe.errors import (
    BpipeError,
    LocalAbort,
    NotConnected,
    PeerAborted,
    PipeClosed,
    ProtocolError,
    SessionEnded,
    SessionLost,
)
from bpipe.protocol.wire import LARGEST_MESSAGE, Reason

INTERRUPT_LINGER: Final = 2.0  # seconds that somebody who presses ^C is kept waiting, at most

LONGEST: Final = 200  # columns of the other end's words that are repeated

_BLANKS: Final = "\u115f\u1160\u2800\u3164\uffa0"  # printable, says Unicode, and not seen
_QUICK: Final = (Reason.INTERRUPTED, Reason.PROTOCOL)


class Phase(enum.Enum):
    """How far an end has come."""

    UP = "up"  # there are streams to move
    DONE = "done"  # both are delivered to their ends, and this end knows it
    ABORTING = "aborting"  # this end has failed, and the peer is to know
    ANSWERING = "answering"  # the peer has failed: say BYE, and leave
    OVER = "over"  # this end has left: it needs no link any more


NEXT: Final = {
    Phase.UP: {Phase.DONE, Phase.ABORTING, Phase.ANSWERING, Phase.OVER},
    Phase.DONE: {Phase.ANSWERING, Phase.OVER},
    Phase.ABORTING: {Phase.ANSWERING, Phase.OVER},
    Phase.ANSWERING: {Phase.OVER},
    Phase.OVER: set[Phase](),
}
MOVING: Final = (Phase.UP, Phase.DONE)  # in any other no more of either stream is moved


class Ending:
    """The state of a session's end."""

    def __init__(self) -> None:
        self.phase = Phase.UP
        self.failure: SessionEnded | None = None  # once over: None is success
        self.abort: tuple[Reason, str] | None = None  # what this end's says
        self.abort_until = 0.0  # how long that waits for its answer
        self.parting = False  # all that is left to say is BYE
        self.peer_bye = False
        self._bye_written = False

    def enter(self, phase: Phase) -> None:
        """Go on to this phase, which has to be one of those that may come next."""
        assert phase in NEXT[self.phase], f"{self.phase} and then {phase}"
        self.phase = phase

    @property
    def due(self) -> bool:
        """Whether everything is said and heard that has to be."""
        if self.phase is Phase.ABORTING:
            return self.peer_bye
        return self._bye_written and (self.peer_bye or self.phase is Phase.ANSWERING)

    def part(self) -> None:
        """Nothing is left to say but BYE."""
        self.parting = True

    def wrote_bye(self) -> None:
        """This end's BYE is on the link."""
        self._bye_written = True

    def hear_bye(self) -> None:
        """The peer is done, or has answered an ABORT. ProtocolError if that cannot be."""
        if self.phase is Phase.UP:
            raise ProtocolError("a BYE before the end")
        self.peer_bye = True

    def verdict(self, *, done: bool, cut_short: bool) -> SessionEnded | None:
        """How an end that has nothing left to do reports."""
        if self.abort or not done:
            return self.failure
        return PipeClosed("the far side stopped reading") if cut_short else None

    def leave(self, failure: SessionEnded | None) -> None:
        """This end is over, with this failure or with success."""
        self.enter(Phase.OVER)
        self.failure = failure

    def begin_abort(self, reason: Reason, message: str, now: float, linger: float) -> None:
        """This end fails."""
        self.enter(Phase.ABORTING)
        failure = PipeClosed if reason is Reason.BROKEN_PIPE else LocalAbort
        self.failure = failure(message)
        self.abort = reason, message
        self.abort_until = now + (INTERRUPT_LINGER if reason in _QUICK else linger)

    def give_up_abort(self) -> None:
        """The peer has not answered this end's ABORT: whoever reads the reason has to know that."""
        if self.phase is Phase.ANSWERING:
            return  # it has failed as well
        assert self.failure is not None
        self.failure = type(self.failure)(unanswered(str(self.failure)))

    def abort_message(self) -> tuple[Reason, bytes]:
        """What an ABORT frame says."""
        assert self.abort is not None
        reason, message = self.abort
        text = message.encode(errors="backslashreplace")[:LARGEST_MESSAGE]
        return reason, text.decode(errors="ignore").encode()

    def hear_abort(self, reason: int, message: bytes) -> None:
        """The peer fails; an end that is done has nothing to report of it."""
        before = self.phase
        if before in (Phase.ANSWERING, Phase.OVER):
            return
        self.enter(Phase.ANSWERING)
        self.part()
        if before is not Phase.UP:
            return
        text = quoted(message.decode(errors="replace"))
        failure = PipeClosed if reason == Reason.BROKEN_PIPE else PeerAborted
        self.failure = failure(f"the other end: {text if message else 'aborted'}")


def not_connected(cause: BpipeError | None) -> NotConnected:
    """The failure of a session that never had a link, for this cause."""
    return NotConnected(str(cause), cause.code) if cause else NotConnected("nobody answered")


def lost(why: str, written: int, confirmed: int, *, all_but_end: bool) -> SessionLost:
    """The failure of a session that cannot go on, of whose bytes so many are confirmed.

    ``all_but_end``: if all of them are, it is only their end that is not.
    """
    if all_but_end and written == confirmed:
        return SessionLost(
            f"{why}; delivery not confirmed: all {confirmed} bytes are, but not their end"
        )
    if not written:
        return SessionLost(why)
    return SessionLost(
        f"{why}; {confirmed} bytes are confirmed, {written - confirmed} more are not"
    )


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
