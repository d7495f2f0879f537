"""Whom an answerer knows: sessions by their id, and what it makes of a greeting.

A session is here from ``add`` to ``remove``. One that nobody was ever heard in waits for a caller:
the next OPEN gets it. Where ``more`` makes sessions, each caller gets a new one, or one that is
given up. Nobody who comes back is refused for want of room. The other side is in ``caller.py``.

One that receives a file is for one sender at a time. When there was no link for ``DESERTED``
seconds, another one may begin anew, as what the file has is not lost. Their streams are never
joined: the old session ends with the CONFIRM of the new sender, who has to call once more then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from bpipe.errors import Forged, LinkLost, SessionLost
from bpipe.protocol.ending import MOVING, Phase
from bpipe.protocol.patience import DESERTED
from bpipe.protocol.session import Session
from bpipe.protocol.wire import FILE, MOST_LINKS, NEEDS, Admission, Hello, Opening

if TYPE_CHECKING:
    from bpipe.protocol.secret import Secret

REMEMBERED: Final = 4096  # sealed M1s: the last ones that were right
SURE: Final = 1.5  # heartbeats in which a sender was heard that is there
SUPERSEDED: Final = "superseded"  # the code of the failure of a session that has given way


class Sessions:
    """A table of sessions that share a ``secret``, or do without.

    ``drop_link`` closes the live link of a session, or all that it has, and detaches it;
    ``drop_slot`` that of one of its slots. ``more`` adds one more session, and returns it; or one
    that may give way, or None if there is no room.
    """

    def __init__(
        self,
        drop_link: Callable[[Session], None],
        secret: Secret | None = None,
        more: Callable[[], Session | None] | None = None,
        drop_slot: Callable[[Session, int], None] = lambda *_: None,
    ) -> None:
        self.secret = secret
        self._drop_link = drop_link
        self._drop_slot = drop_slot
        self._more = more
        self._sessions: list[Session] = []
        self._remembered: dict[bytes, None] = {}  # oldest first

    def add(self, session: Session) -> None:
        """From now on a caller may have this one."""
        self._sessions.append(session)

    def remove(self, session: Session) -> None:
        """Nobody may have it any more."""
        if session in self._sessions:
            self._sessions.remove(session)

    def recognize(self, message: bytes) -> None:
        """Forged if this sealed M1 has been right before: somebody repeats what was overheard.

        No caller says the same twice; and to find that out costs less than to answer.
        """
        if message in self._remembered:
            raise Forged("a greeting that has come before")

    def remember(self, message: bytes) -> None:
        """This sealed M1 was right."""
        self._remembered[message] = None
        if len(self._remembered) > REMEMBERED:
            del self._remembered[next(iter(self._remembered))]

    def judge(self, hello: Hello, now: float) -> tuple[Admission, Session | None]:
        """Whether this caller may come in, as things stand now, and which session it gets.

        Changes nothing, but that there may be one more session that waits for a caller.
        """
        if hello.position.needs & ~NEEDS:
            return Admission.VERSION, None
        known = next((each for each in self._sessions if each.id == hello.session), None)
        if hello.opening is Opening.OPEN:
            if known is not None or hello.slot:
                return Admission.STALE, None
            return self._judge_open(hello, now)
        if hello.slot >= MOST_LINKS:
            return Admission.STALE, None
        if known is None or known.over:
            return Admission.UNKNOWN, None
        if hello.slot >= known.terms.slots or hello.epoch <= known.slots.epoch(hello.slot):
            return Admission.STALE, None
        return (Admission.OK, known) if known.fits(hello.position) else (Admission.RANGE, None)

    def _judge_open(self, hello: Hello, now: float) -> tuple[Admission, Session | None]:
        session = self._vacant(now)
        if session is None:
            return self._refusal(now), None
        fresh = hello.position[:2] == (0, 0) and session.terms.suit(hello.position)
        return (Admission.OK, session) if fresh else (Admission.RANGE, None)

    def _refusal(self, now: float) -> Admission:
        """FULL where there may soon be room for one more, else BUSY."""
        receivers = [each for each in self._sessions if each.terms.needs & FILE]
        if receivers:
            busy = any(_has_sender(each, now) for each in receivers)
        else:
            busy = self._more is None and bool(self._sessions)
        return Admission.BUSY if busy else Admission.FULL

    def _vacant(self, now: float) -> Session | None:
        """One for a new caller: at best one that nobody has had."""
        free = [each for each in self._sessions if each.replaceable]
        untouched = next((each for each in free if not each.history.links), None)
        if untouched is not None:
            return untouched
        if self._more is not None:
            return self._more()
        free += [each for each in self._sessions if deserted(each, now)]
        return next(iter(free), None)

    def silence(self, now: float) -> int:
        """For how many seconds those were not heard who have the sessions."""
        quiet = [now - each.heard_at for each in self._sessions if each.history.links]
        return int(max(0.0, min(quiet, default=0.0)))

    def admit(self, hello: Hello, resume_secret: bytes, now: float) -> Session:
        """CONFIRM has come: judge again, and close the old link of the session that it gets.

        Of one with several slots that is the link of the same slot, and those that are dead.
        Raises LinkLost if somebody else was faster, or if there is going to be room only now.
        """
        admission, session = self.judge(hello, now)
        if admission is Admission.OK and session is not None:
            if hello.opening is Opening.OPEN and session.established:
                _supersede(session)
            self._drop(session, hello)  # which may end it, or be what it needs to give way
            admission, session = self.judge(hello, now)
        if admission is not Admission.OK or session is None:
            raise LinkLost("the session has moved on during the greeting")
        if hello.opening is Opening.OPEN:
            session.restart()
            session.identify(hello.session, resume_secret)
        session.advance(hello.epoch, hello.slot)
        return session

    def _drop(self, session: Session, hello: Hello) -> None:
        """Close what this link replaces."""
        if session.terms.slots == 1 or hello.opening is Opening.OPEN:
            self._drop_link(session)
            return
        for slot in {hello.slot, *session.slots.dead(hello.live, hello.epoch)}:
            self._drop_slot(session, slot)


def _has_sender(session: Session, now: float) -> bool:
    """Whether one sends what this one receives: who only has a link may be dead, or done."""
    sending = session.attached and session.phase is Phase.UP
    return sending and now < session.heard_at + SURE * session.patience.limits.heartbeat


def deserted(session: Session, now: float) -> bool:
    """Whether a session that receives a file may end because another sender begins anew."""
    waits = session.established and not session.attached and session.phase in MOVING
    since = session.history.lost_at
    return session.terms.needs & FILE > 0 and waits and now >= since + DESERTED


def _supersede(session: Session) -> None:
    """Another sender begins anew; that makes no difference to an end that is done."""
    lost = SessionLost("another sender has begun anew", SUPERSEDED)
    session.leave(lost if session.phase is Phase.UP else session.verdict())
