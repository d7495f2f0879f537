"""What must hold where one sender comes after the other, at every step and at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bpipe.errors import Busy, NotConnected, SessionEnded, SessionLost
from bpipe.protocol.session import Session
from bpipe.protocol.sessions import SUPERSEDED
from tests.simulation.judge import Wrong
from tests.simulation.turn_ends import Sender, Taker

if TYPE_CHECKING:
    from tests.simulation.turns import Turns

AWAY = 10.0  # seconds without a link, before another one may begin anew
LET_IN_WITHIN = 45.0  # seconds, where nobody has a link: who calls then
ARRIVES_WITHIN = 5.0  # seconds: what a process has said before its end
RECENTLY = 6.0  # seconds that it takes, at most, to hear BUSY


class TurnJudge:
    """Looks at who has the file, and at what the senders report."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._away_since: dict[Session, float | None] = {}  # None: there is a link
        self._given_way: set[Session] = set()
        self._free_since: float | None = turns.world.now  # nobody has a link
        self._linked_at = -1e9  # somebody had one
        self._judged: set[Sender] = set()
        self._usurped = False

    def usurped(self) -> None:
        """A stranger was let in as a sender: plain links cannot tell."""
        self._usurped = True

    # --- at every step ---

    def look(self) -> None:
        """Raises Wrong if anything is not as it must be now."""
        turns, now = self._turns, self._turns.world.now
        receiver = turns.receiver
        if receiver.loop.errors:
            raise Wrong(f"the receiver: {receiver.loop.errors[0]!r}")
        for taker, session in receiver.sessions:
            self._look_at_session(taker, session, now)
        living = [each for each, session in receiver.sessions if not session.over]
        if len(living) > 1:
            raise Wrong("there are two sessions at once")
        if receiver.linked:
            self._linked_at, self._free_since = now, None
        elif self._free_since is None:
            self._free_since = now
        for sender in turns.senders:
            if sender.loop.errors:
                raise Wrong(f"{sender.name}: {sender.loop.errors[0]!r}")
            if sender.gone and sender not in self._judged:
                self._judged.add(sender)
                self._judge_sender(sender)
            elif not sender.gone and not sender.session.established:
                self._look_at_the_clock(sender, now)

    def _look_at_session(self, taker: Taker, session: Session, now: float) -> None:
        before = self._away_since.get(session, now)
        self._away_since[session] = None if session.attached else now if before is None else before
        sender = self._sender(session)
        if sender is not None and not sender.stream.startswith(taker.taken):
            raise Wrong(f"what {sender.name} has not sent was taken as its stream")
        if session.over and session not in self._given_way and _superseded(session):
            self._given_way.add(session)
            self._turns.counts["gave way"] += 1
            if before is None:
                raise Wrong("a session gave way while it had a link")
            if now - before < AWAY - 0.001:
                raise Wrong(f"a session gave way after {now - before:.1f} s")
            if not (self._usurped or self._calls(session, now)):
                raise Wrong("a session gave way to nobody")

    def _calls(self, session: Session, now: float) -> bool:
        """Whether another sender may have confirmed that it wants the place of this one."""
        others = (each for each in self._turns.senders if each.session.id != session.id)
        return any(each.over_at is None or now < each.over_at + ARRIVES_WITHIN for each in others)

    def _sender(self, session: Session) -> Sender | None:
        found = [each for each in self._turns.senders if each.session.id == session.id]
        return found[0] if found else None

    def _look_at_the_clock(self, sender: Sender, now: float) -> None:
        turns = self._turns
        if not turns.calm or self._free_since is None or turns.receiver.over:
            return
        if now > max(self._free_since, turns.faults_until, sender.came_at) + LET_IN_WITHIN:
            raise Wrong(f"{sender.name} is not let in, and nobody else is there")

    # --- who has ended ---

    def _judge_sender(self, sender: Sender) -> None:
        if sender.killed:
            return
        found = [
            (taker, session)
            for taker, session in self._turns.receiver.sessions
            if session.id == sender.session.id
        ]
        if sender.error is None:
            if not found or not found[0][0].whole or found[0][0].taken != sender.stream:
                raise Wrong(f"{sender.name} reports success, and not all was taken")
        elif not self._is_reasonable(sender, sender.error, found):
            raise Wrong(f"{sender.name} reports: {sender.error!r}")

    def _is_reasonable(
        self, sender: Sender, error: SessionEnded, found: list[tuple[Taker, Session]]
    ) -> bool:
        turns = self._turns
        text = str(error)
        assert sender.over_at is not None
        if "stands elsewhere" in text or "protocol" in text or "bpipe failed" in text:
            return False
        if isinstance(error, Busy):
            return sender.over_at - self._linked_at < RECENTLY
        if isinstance(error, NotConnected):
            return (
                sender.over_at - sender.came_at > sender.session.patience.limits.connect_timeout - 1
            )
        if not isinstance(error, SessionLost):
            return False
        impatient = sender.session.patience.limits.give_up_after < 100
        return impatient or not found or found[0][1].over or turns.receiver.over

    def finish(self) -> None:
        """The receiver has ended. Raises Wrong."""
        turns = self._turns
        for taker, session in turns.receiver.sessions:
            sender = self._sender(session)
            if session.failure is None and sender is not None and taker.taken != sender.stream:
                raise Wrong("the receiver reports success, and not all was taken")
            if session.failure is not None and not _superseded(session):
                if sender is not None and not sender.killed:
                    raise Wrong(f"the receiver reports: {session.failure!r}")
        outcome = turns.receiver.outcome
        if outcome is not None and outcome.failure is not None:
            raise Wrong(f"the receiver ends: {outcome.failure!r}")


def _superseded(session: Session) -> bool:
    return session.failure is not None and session.failure.code == SUPERSEDED
