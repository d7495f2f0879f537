"""What must hold where many are served at one address, at every step and at its end."""

from __future__ import annotations

from bpipe.errors import LocalAbort, NotConnected, PeerAborted, PipeClosed, SessionLost
from bpipe.protocol.session import Session
from tests.simulation.host import Guest, Host
from tests.simulation.judge import Wrong
from tests.simulation.loop import World
from tests.simulation.visitors import Caller, Mistake, Visit

LET_IN_WITHIN = 20.0  # seconds, once there is room and the faults are over
SERVED_WITHIN = 100.0  # seconds, once it was let in and the faults are over
SWIFTLY = 20.0  # seconds: the same, where no connection has ever failed
AT_ONCE = 2.0  # seconds for who comes where there is room for everybody, and nothing fails
SLOW = ("stall",)  # manners that take as long as they like


class CrowdJudge:
    """Looks at all callers, and at whoever serves them; ``hosts``: the present one is the last."""

    def __init__(self, world: World, callers: list[Caller], hosts: list[Host]) -> None:
        self.patient = True  # nobody gives up soon
        self.peaceful = False  # no connection fails
        self.roomy = False  # there is room for everybody who comes, always
        self.calm_at: float | None = None  # the faults are over
        self._world = world
        self._callers = callers
        self._hosts = hosts

    # --- at every step ---

    def look(self) -> None:
        """Raises Wrong if anything is not as it must be now."""
        host = self._hosts[-1]
        host.look()
        self._require(host.wrong)
        for error in host.loop.errors:
            if not isinstance(error, Mistake):
                raise Wrong(f"{host.name}: {error!r}")
        guests = {}
        for guest in host.guests:
            guests[guest.id] = guest
            for visit in guest.visits:
                self._require(visit.wrong)
        for caller in self._callers:
            self._require(caller.wrong)
            if caller.loop.errors:
                raise Wrong(f"{caller.name}: {caller.loop.errors[0]!r}")
            if caller.session.id in guests and not caller.gone:
                _look_at_both(caller, guests[caller.session.id])
            self._look_at_the_clock(caller, host)

    def _require(self, wrong: str | None) -> None:
        if wrong is not None:
            raise Wrong(wrong)

    def _look_at_the_clock(self, caller: Caller, host: Host) -> None:
        """Who waits for room gets it, and who is served is done, whatever the others do."""
        now, order = self._world.now, caller.order
        if caller.gone or not caller.came:
            return
        if caller.established_at is None:
            if self.calm_at is None or host.room_since is None:
                return
            if now > max(host.room_since, self.calm_at, order.comes_at) + LET_IN_WITHIN:
                raise Wrong(f"{caller.name} is not let in, and there is room")
            return
        since = caller.established_at
        if order.manner in SLOW or host.gone:
            return
        if self.peaceful and not self._disturbed and now > since + SWIFTLY:
            raise Wrong(f"{caller.name} is not served in time, and nothing fails")
        if self.calm_at is not None and now > max(since, self.calm_at) + SERVED_WITHIN:
            raise Wrong(f"{caller.name} is not served in time")

    # --- at the end ---

    def finish(self) -> None:
        """All have left. Raises Wrong if one had no reason to report what it reports."""
        for caller in self._callers:
            if caller.over_at is not None:
                self._judge_caller(caller)
            if caller.visit is not None:
                self._judge_visit(caller, caller.visit)
        for host in self._hosts:
            if not host.killed:
                self._require(host.left_behind())

    def _judge_caller(self, caller: Caller) -> None:
        if self.roomy and caller.established_at is not None and not caller.disturbed:
            late = caller.established_at - caller.order.comes_at > AT_ONCE
            if late or caller.attempts > 1:
                raise Wrong(f"{caller.name} was let in after {caller.attempts} attempts")
        links, most = caller.session.history.links, caller.session.terms.slots
        if self.peaceful and links > most and not caller.disturbed and not self._disturbed:
            raise Wrong(f"{caller.name} had {links} links, and nothing fails")
        if caller.error is None:
            self._judge_success(caller)
        elif not self._is_reasonable(caller):
            raise Wrong(f"{caller.name} reports: {caller.error!r}")

    @property
    def _disturbed(self) -> bool:
        """Whether something was done to a listener, before all was over."""
        return len(self._hosts) > 1 or self._hosts[-1].left

    def _judge_success(self, caller: Caller) -> None:
        visit = caller.visit
        if visit is None or not visit.finished or visit.taken != caller.order.length:
            taken = None if visit is None else visit.taken
            raise Wrong(f"{caller.name} reports success, and {taken} bytes were taken")
        if caller.taken != len(visit.said):
            raise Wrong(f"{caller.name} reports success, and has not read all of the answer")

    def _is_reasonable(self, caller: Caller) -> bool:
        """Whether a caller had a reason for the failure that it reports."""
        error, visit = caller.error, caller.visit
        assert caller.over_at is not None
        text = str(error)
        if "stands elsewhere" in text or "protocol" in text or "bpipe failed" in text:
            return False
        if isinstance(error, LocalAbort):
            return caller.aborted
        if isinstance(error, NotConnected):
            waited = caller.over_at - caller.order.comes_at
            return waited >= caller.order.limits.connect_timeout - 0.001 and visit is None
        if isinstance(error, PipeClosed):
            return visit is not None and visit.manner == "return_early"
        if isinstance(error, PeerAborted):
            failed = visit is not None and (visit.failed or not visit.running)
            return failed or any(host.left for host in self._hosts)
        return isinstance(error, SessionLost) and self._may_be_lost(caller)

    def _may_be_lost(self, caller: Caller) -> bool:
        """Whether its session can have been lost."""
        if not self.patient or self._disturbed:
            return True
        if caller.visit is None:  # nobody was ever heard in it
            return any(caller.session.id in host.gave_way for host in self._hosts)
        session = caller.visit.pipe.engine.session  # which may have left before
        return session.over and not isinstance(session.failure, SessionLost)

    def _judge_visit(self, caller: Caller, visit: Visit) -> None:
        """What the server reports of a session."""
        session = visit.pipe.engine.session
        if not session.over or any(host.killed and visit in host.visits for host in self._hosts):
            return
        if session.failure is None:
            if caller.taken != len(visit.said):
                raise Wrong(f"success for {caller.name}, which has not read all of the answer")
            if visit.taken != caller.order.length and visit.manner != "return_early":
                raise Wrong(f"success for {caller.name}, of which not all was read")
            return
        text = str(session.failure)
        if "stands elsewhere" in text or "protocol" in text or "bpipe failed" in text:
            raise Wrong(f"the session of {caller.name} has failed: {session.failure!r}")
        left = any(host.left for host in self._hosts)
        reasons = caller.killed or caller.aborted or visit.failed or left
        early = visit.manner == "return_early" and isinstance(session.failure, PipeClosed)
        lost = isinstance(session.failure, SessionLost) and caller.gone
        if not (reasons or early or lost or not self.patient):
            raise Wrong(f"the session of {caller.name} has failed: {session.failure!r}")


def _look_at_both(caller: Caller, guest: Guest) -> None:
    """Raises Wrong if the cursors of the two ends of one session cannot be."""
    for near, far in ((caller.session, guest.session), (guest.session, caller.session)):
        _look_at_cursors(caller.name, near, far)


def _look_at_cursors(name: str, near: Session, far: Session) -> None:
    writer, reader = near.writer, far.reader
    delivered = reader.delivered
    if not writer.acked <= delivered <= reader.received <= writer.high <= writer.end:
        raise Wrong(
            f"{name}: acked {writer.acked}, high {writer.high}, end {writer.end};"
            f" delivered {delivered}, received {reader.received}"
        )
