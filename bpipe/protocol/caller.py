"""Caller: by what the end that connects is known to its peer, and what it makes of a refusal.

The first greeting is an OPEN under a fresh id. Once a CONFIRM for it was sent, the answerer may
know the session, and every later greeting is a RESUME. The other side is in ``sessions.py``.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

from bpipe.errors import BpipeError, Busy, NobodyListens, NotConnected
from bpipe.protocol.ending import Phase, not_connected
from bpipe.protocol.session import Session
from bpipe.protocol.wire import Admission, Hello, Opening

BUSY: Final = (
    "busy: the listener is serving another session; if that one is dead, press ^C there,"
    " or have it give up sooner (--give-up-after)"
)
ELSEWHERE: Final = "the peer stands elsewhere in the stream"


class Caller:
    """Calls for one session, whose id ``new_id`` makes."""

    def __init__(
        self, session: Session, new_id: Callable[[], bytes] = lambda: secrets.token_bytes(16)
    ) -> None:
        self.session = session
        self._new_id = new_id
        self._opened = False  # a CONFIRM for this id may have arrived: RESUME from now on
        self._may_be_ours = False  # who is served there: an id was given up after its CONFIRM

    def hello(self) -> Hello:
        """The first message of the next greeting."""
        session = self.session
        if session.id is None:
            session.identify(self._new_id())
            session.advance(0)
            self._opened = False
        session.advance(session.epoch + 1)
        assert session.id is not None
        opening = Opening.RESUME if self._opened else Opening.OPEN
        return Hello(opening, session.id, session.epoch, session.position)

    def confirming(self, resume_secret: bytes) -> None:
        """CONFIRM goes out: the answerer may know the session from now on."""
        if not self._opened:
            self._opened = True
            self.session.identify(self.session.id, resume_secret)

    def attempt_failed(self, cause: BpipeError) -> None:
        """An attempt to get a link has failed."""
        session = self.session
        if session.over:
            return
        session.note(cause)
        if session.done and isinstance(cause, NobodyListens):
            session.leave(session.verdict())
        elif not session.established and session.patience.one_try:
            session.leave(not_connected(cause))

    def refused(self, admission: Admission) -> None:
        """The answerer said no.

        STALE means nothing: the next attempt has a higher epoch. Nor does anything while there is a
        link, which may still be good: a name can lead to somebody else.
        """
        session = self.session
        if session.over or session.attached or admission is Admission.STALE:
            return
        if not session.established:
            self._refused_early(admission)
        elif admission is Admission.BUSY:
            pass  # somebody else answers there now
        elif session.phase is not Phase.UP:
            session.leave(session.verdict())
        elif admission is Admission.UNKNOWN:
            session.leave(session.lost("the peer no longer knows this session"))
        else:
            session.leave(session.lost(ELSEWHERE))

    def _refused_early(self, admission: Admission) -> None:
        if admission is Admission.UNKNOWN:
            self.session.identify(None)  # nothing was consumed there: a new OPEN is safe
            self._may_be_ours = True
        elif admission is Admission.BUSY and self._may_be_ours:
            pass  # its link is dead, then: it gives way when that is noticed
        elif admission is Admission.BUSY:
            self.session.leave(Busy(BUSY))
        else:
            self.session.leave(NotConnected(ELSEWHERE))
