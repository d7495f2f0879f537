"""Caller: by what the end that connects is known to its peer, and what it makes of a refusal.

The first greeting is an OPEN under a fresh id. Once a CONFIRM for it was sent, the answerer may
know the session, and every later greeting is a RESUME. The other side is in ``sessions.py``.

One caller calls for all links of a session: the attempts are counted over all slots.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Final

from bpipe.errors import BpipeError, Busy, NobodyListens, NotConnected, SessionEnded
from bpipe.protocol.ending import Phase, not_connected
from bpipe.protocol.patience import DESERTED, UNKNOWN_FOR, UNKNOWN_LINGER
from bpipe.protocol.session import Session
from bpipe.protocol.terms import SMALLEST_WINDOW
from bpipe.protocol.wire import FILE, Admission, Hello, Opening, Verdict

BUSY: Final = "busy: the listener is serving another session, heard {} s ago"
DEAD: Final = "; if that one is dead, press ^C there, or have it give up sooner (--give-up-after)"
ALIVE: Final = 5  # seconds: who was heard later than that ago may be dead
ELSEWHERE: Final = "the peer stands elsewhere in the stream"
TWO_FILES: Final = "the listener has --output, too, so that nobody sends; or a --buffer below 1K"
SMALL: Final = "the listener has --output, which needs a --buffer of at least 1K at both ends"
OTHER_VERSION: Final = "the listener speaks another version of bpipe's protocol"
FORGOTTEN: Final = "the peer no longer knows this session"

_REFUSALS: Final = {
    Admission.UNKNOWN: "the listener does not know this session",
    Admission.STALE: "the listener has seen a later greeting",
    Admission.RANGE: "the listener stands at another place in the stream",
    Admission.BUSY: "the listener is busy",
    Admission.VERSION: OTHER_VERSION,
    Admission.FULL: (
        f"the listener takes no more callers for now, or waits {DESERTED:.0f} s for a sender"
        " that is away"
    ),
}

_FOREIGN: Final = (Admission.UNKNOWN, Admission.VERSION)  # what somebody else would say, too
_PASSING: Final = (Admission.STALE, Admission.FULL)  # the next attempt may be answered otherwise


class Caller:
    """Calls for one session, whose id ``new_id`` makes."""

    def __init__(
        self, session: Session, new_id: Callable[[], bytes] = lambda: os.urandom(16)
    ) -> None:
        self.session = session
        self._new_id = new_id
        self._opened = False  # a CONFIRM for this id may have arrived: RESUME from now on
        self._may_be_ours = False  # who is served there: an id was given up after its CONFIRM
        self._undecided: Counter[int] = Counter()  # greetings by slot, which may become links there
        self._row: tuple[int, float] | None = None  # of such refusals: after which link, since when

    def hello(self, slot: int = 0) -> Hello:
        """The first message of the next greeting, for a link in this slot.

        In any but 0, once there was a link.
        """
        session = self.session
        if session.id is None:
            session.identify(self._new_id())
            session.advance(0)
            self._opened = False
        session.advance(session.epoch + 1)
        assert session.id is not None
        opening = Opening.RESUME if self._opened else Opening.OPEN
        assert opening is Opening.RESUME or slot == 0
        others = session.slots.live | sum(1 << each for each in +self._undecided)
        self._undecided[slot] += 1
        live = others & ~(1 << slot)
        return Hello(opening, session.id, session.epoch, session.position, slot, live)

    def decided(self, slot: int) -> None:
        """A greeting there has become a link, or never will be one."""
        self._undecided[slot] -= 1

    def confirming(self, resume_secret: bytes) -> None:
        """CONFIRM goes out: the answerer may know the session from now on."""
        if not self._opened:
            self._opened = True
            self.session.identify(self.session.id, resume_secret)

    def attempt_failed(self, cause: BpipeError, slot: int = 0) -> None:
        """An attempt to get a link in this slot has failed; if there are others, that is all."""
        session = self.session
        if session.over:
            return
        session.note(cause, slot)
        if session.attached:
            return
        if session.done and isinstance(cause, NobodyListens):
            session.leave(session.verdict())
        elif not session.established and session.patience.one_try:
            session.leave(not_connected(cause))

    def hopeless(self, failure: SessionEnded) -> None:
        """No attempt can succeed any more; beside a link that means nothing."""
        session = self.session
        if session.over or session.attached:
            return
        if session.established or session.phase is not Phase.UP:
            self._leave(str(failure))
        else:
            session.leave(failure)

    def refused(self, verdict: Verdict, now: float) -> None:
        """The answerer said no.

        That means nothing while there is a link, which may still be good: a name can lead to
        somebody else. So can a call, where somebody is in the way; hence the right one is called
        for a while, although another one says that it does not know this session.
        """
        session, admission = self.session, verdict.admission
        if session.over or session.attached or admission in _PASSING:
            return
        if not session.established:
            self._refused_early(verdict)
        elif admission is Admission.RANGE:
            self._leave(ELSEWHERE)
        elif admission in _FOREIGN and self._row_lasts(now):
            self._leave(FORGOTTEN)

    def why(self, admission: Admission) -> str:
        """A refusal in words."""
        return _REFUSALS[admission]

    def _leave(self, why: str) -> None:
        """The session cannot go on; that makes no difference to an end that is done, or fails."""
        session = self.session
        session.leave(session.lost(why) if session.phase is Phase.UP else session.verdict())

    def _row_lasts(self, now: float) -> bool:
        """Whether it was heard for long enough, since the last link, that nobody knows us."""
        session = self.session
        if self._row is None or self._row[0] != session.history.links:
            self._row = session.history.links, now
        patience = UNKNOWN_FOR if session.phase is Phase.UP else UNKNOWN_LINGER
        return now - self._row[1] >= patience

    def _refused_early(self, verdict: Verdict) -> None:
        admission = verdict.admission
        if admission is Admission.UNKNOWN:
            self.session.identify(None)  # nothing was consumed there: a new OPEN is safe
            self._may_be_ours = True
        elif admission is Admission.BUSY and self._may_be_ours:
            pass  # its link is dead, then: it gives way when that is noticed
        elif admission is Admission.BUSY:
            silence = verdict.position.received
            advice = DEAD if silence >= ALIVE else ""
            self.session.leave(Busy(BUSY.format(silence) + advice))
        elif admission is Admission.VERSION:
            self.session.leave(NotConnected(OTHER_VERSION, "version"))
        else:
            self.session.leave(NotConnected(self._why_not()))

    def _why_not(self) -> str:
        """What is known of a listener whom we do not suit, although we begin."""
        if self.session.terms.needs & FILE:
            return TWO_FILES
        return SMALL if self.session.reader.capacity < SMALLEST_WINDOW else ELSEWHERE
