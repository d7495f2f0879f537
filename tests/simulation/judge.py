"""What must hold in every world, at every step and at its end, whatever the seed contains."""

from __future__ import annotations

from bpipe.errors import LocalAbort, PeerAborted, PipeClosed, SessionLost
from bpipe.protocol.liveness import SILENCE
from bpipe.protocol.patience import UNCONFIRMED_LINGERS, UNKNOWN_FOR, UNKNOWN_LINGER
from bpipe.protocol.reader import BackedReader
from bpipe.protocol.wire import Reason
from bpipe.protocol.writer import BackedWriter
from tests.simulation.ends import End
from tests.simulation.loop import World

NOTICED_WITHIN = 0.1  # seconds: that it is time to give up
ABORTED_WITHIN = 8.0  # seconds: an abort over a good link is answered
PATIENCE = 100.0  # seconds: after the faults, an abort that was not answered has so long


class Wrong(Exception):
    """Something that must never happen has happened."""


class Judge:
    """Looks at both ends after every step, and at what they report."""

    def __init__(self, world: World, caller: End, callee: End) -> None:
        # What the seed contains, as far as it excuses anything.
        self.patient = True  # nobody gives up soon
        self.peaceful = True  # no connection fails, and no process pauses
        self.quick = True  # the path is not slow
        self.smooth = True  # nor is anything late on a connection that does not fail
        self.stopped = False  # somebody takes no more
        self.broken = False  # somebody aborts, or is killed
        self.astray = False  # for a while, somebody answers who does not know the session
        self.paused = False  # a process is stopped for a while, and hears of nothing meanwhile
        self.successor: End | None = None  # it does not know the session that was there
        self.former: End | None = None  # a caller that was killed before this one came
        self.callee = callee
        self._world = world
        self._callee = callee
        self._ends = (caller, callee)
        self._directions = (self._ends, self._ends[::-1])
        self._streams = [
            (near, far, near.session.writer, far.session.reader) for near, far in self._directions
        ]
        self._aborter: End | None = None
        self._reason: Reason | None = None
        self._aborted_at = 0.0
        self._known = False  # the other end knew of the session, as far as the aborter knows
        self._heard_by: float | None = None  # when the abort has to be answered
        self._answerable: bool | None = None  # who heard it had a link to say so; None: not yet
        self._admitted: tuple[int, bytes | None, int] = (0, None, 0)
        self._epochs: dict[int, int] = {}  # by slot, where there are several

    def join(self) -> None:
        """It begins to look when the caller was let in already."""
        session = self._callee.session
        self._admitted = session.history.links, session.id, session.epoch

    @property
    def steady(self) -> bool:
        """Whether no link has any reason to be lost."""
        return self.peaceful and self.quick

    # --- what happens ---

    def aborted(self, end: End, reason: Reason, *, attached: bool) -> None:
        """This end aborts; ``attached``: over a link that both ends have."""
        self._aborter, self._reason, self._aborted_at = end, reason, self._world.now
        self._known = end.session.history.links > 0
        if attached and self.steady:
            self._heard_by = self._world.now + ABORTED_WITHIN

    def _is_leaving(self, end: End) -> bool:
        """Whether it has left, or gives up in this very moment."""
        until = end.session.waits_until
        return end.session.over or end.killed or (until is not None and until <= self._world.now)

    def calm(self) -> None:
        """Nothing fails any more: an abort that was not answered will be."""
        if any(self._is_leaving(end) for end in self._ends) or self._aborter is None:
            return
        if self.astray:
            return
        if all(end.session.established for end in self._ends):
            self._heard_by = self._heard_by or self._world.now + PATIENCE
            self._aborter.session.ending.abort_until = self._world.now + PATIENCE
            for end in self._ends:
                end.session.patience.limits = end.session.patience.limits._replace(
                    give_up_after=400.0
                )

    # --- at every step ---

    def look(self) -> None:
        """Raises Wrong if anything is not as it must be now."""
        for near, far, writer, reader in self._streams:
            if far.wrong:
                raise Wrong(far.wrong)
            if far.loop.errors:
                raise Wrong(f"{far.name}: {far.loop.errors[0]!r}")
            _look_at_cursors(near, far, writer, reader)
            self._look_for_silence(near)
        if (self._callee.session.history.links, self._callee.session.id) != self._admitted[:2]:
            self._look_who_came()
        if self._heard_by is not None and self._answerable is None:
            self._look_who_hears()

    def _look_for_silence(self, end: End) -> None:
        """A link over which nothing comes is given up in time."""
        if end.gone or end.session.over or end.loop.paused or self.paused:
            return
        limit = SILENCE * end.session.patience.limits.heartbeat + NOTICED_WITHIN
        for link in end.engine.links.values():
            liveness = link.liveness
            if liveness is not None and self._world.now > liveness.heard_at + limit:
                raise Wrong(f"{end.name} has kept a silent link")

    def _look_who_came(self) -> None:
        """Who was let in by the listener had a later greeting, or nobody was there before."""
        session = self._callee.session
        links, was, epoch = self._admitted
        if session.id == was and session.terms.slots == 1 and session.epoch <= epoch:
            raise Wrong(f"an old greeting was let in: epoch {session.epoch} after {epoch}")
        if session.terms.slots > 1:
            self._look_at_epochs(same=session.id == was)
        if session.id != was and session.established:
            raise Wrong("a session that was up gave way to another one")
        if session.id != was and session.attached and session.patience.outage_since is not None:
            raise Wrong("a session begins with the outage of another one")
        if self.former is not None and (self.former.taken or self.former.session.reader.done):
            raise Wrong("a stream that somebody has begun to take was given to another one")
        if links >= session.terms.slots and self.steady:
            raise Wrong("a good link was lost")
        self._admitted = session.history.links, session.id, session.epoch

    def _look_at_epochs(self, *, same: bool) -> None:
        """The same for several slots: each has later ones only."""
        session, before = self._callee.session, self._epochs if same else {}
        now = {slot: session.slots.epoch(slot) for slot in range(session.terms.slots)}
        fell = [slot for slot, epoch in now.items() if epoch < before.get(slot, 0)]
        if fell or now == before:
            raise Wrong(f"an old greeting was let in: epochs {now} after {before}")
        self._epochs = now

    def _look_who_hears(self) -> None:
        """Who hears of the abort answers over the link that brought it, and leaves.

        The aborter may have lost that link to a silence that began before the faults were over,
        or will when it wakes.
        """
        aborter = self._aborter
        assert aborter is not None
        if self._other(aborter).session.over:
            listens = aborter.session.attached and not aborter.loop.paused
            self._answerable = aborter.session.over or listens

    def _other(self, end: End) -> End:
        return self._ends[self._ends[0] is end]

    # --- at the end ---

    def finish(self) -> None:
        """Both ends have left. Raises Wrong if they had no reason to report what they report."""
        caller, successor = self._ends[0], self.successor
        if successor is not None and successor.session.id == caller.session.id:
            raise Wrong("a session that was lost was continued with somebody else")
        if self._aborter is not None:
            self._judge_abort(self._aborter)
        for near, far in self._directions:
            if near.over_at is None:
                continue
            if near.pipe.failure is None:
                self._judge_success(near, far)
            else:
                self._judge_failure(near, far)

    def _judge_abort(self, end: End) -> None:
        """Who aborts is heard where that is possible, and waits for it as long as it has to."""
        other = self._other(end)
        heard = other.session.done or isinstance(other.pipe.failure, PeerAborted | PipeClosed)
        if self._heard_by is not None:
            late = (end.over_at or self._heard_by) > self._heard_by
            if late and self._answerable:
                raise Wrong(f"{end.name} learned too late that its abort was heard")
            if not heard:
                raise Wrong(f"{other.name} never heard of the abort")
        waited = (end.over_at or self._world.now) - self._aborted_at
        limit = 2.0 if self._reason is Reason.INTERRUPTED else end.session.patience.limits.linger
        gone = other.killed or (other.over_at or end.over_at or 0) < (end.over_at or 0)
        if end.over_at is None or heard or gone or not self._known:
            return
        if self.astray and _waited(end, UNKNOWN_LINGER):
            return  # it was told for long enough that nobody knows it
        if waited < limit - 0.001:
            raise Wrong(f"{end.name} left {waited:.1f} s after its abort, which nobody heard")

    def _judge_success(self, near: End, far: End) -> None:
        """An end reports success only if all of it is true."""
        stopped = far.session.reader.stopped
        if stopped is None:
            if not far.closed or far.taken != near.pipe.writer.written:
                raise Wrong(f"{near.name} reports success, but {far.name} has {far.taken} bytes")
        elif near.total > stopped:
            raise Wrong(f"{near.name} reports success, but {far.name} stopped at {stopped}")
        if near.session.reader.stopped is None and not (
            near.closed and near.taken == far.pipe.writer.written
        ):
            raise Wrong(f"{near.name} reports success with {near.taken} bytes taken")
        if near.left and near.taken < far.total:
            raise Wrong(f"{near.name} reports success, and its consumer has left before the end")
        if far.has_more and near.session.reader.stopped is None:
            raise Wrong(f"{near.name} reports success, but {far.name} had more to send")

    def _judge_failure(self, near: End, far: End) -> None:
        """An end reports a failure only if there was a reason."""
        failure, session = near.pipe.failure, near.session
        wrong = Wrong(f"{near.name} reports: {failure!r}")
        text = str(failure)
        if "stands elsewhere" in text or "protocol" in text or "bpipe failed" in text:
            raise wrong
        cut_short = self._is_cut_short(near, far)
        if session.done and session.ending.abort is None and not cut_short:
            raise wrong  # all is delivered, and it knows
        if isinstance(failure, PipeClosed):
            reasonable = cut_short or self._reason is Reason.BROKEN_PIPE or self._left_early()
        elif isinstance(failure, LocalAbort | PeerAborted):
            aborter = near if isinstance(failure, LocalAbort) else far
            reasonable = aborter is self._aborter and self._reason is not Reason.BROKEN_PIPE
        elif isinstance(failure, SessionLost):
            reasonable = self._is_lost(near, far)
        else:
            reasonable = self.broken or not self.patient
        if not reasonable:
            raise wrong

    def _is_cut_short(self, near: End, far: End) -> bool:
        """Whether the other end has not wanted all of its stream."""
        stopped = far.session.reader.stopped
        return stopped is not None and near.total > stopped

    def _is_lost(self, near: End, far: End) -> bool:
        """Whether it has waited for long enough, and the other end as well, if it has left."""
        gave_up = "gave up" in str(near.pipe.failure) and not self.paused  # else it is seen late
        if gave_up and not _waited(near, _patience(near)):
            return False
        if gave_up and near.session.patience.limits.give_up_after < 100:
            return True  # as one does who holds a command
        if _is_forgotten(near) and not _waited(near, UNKNOWN_FOR):
            return False
        if self.astray and (_is_forgotten(near) or _is_forgotten(far)):
            return True
        if self.broken or not self.patient or self._left_early():
            return True
        left = far.over_at is not None and far.over_at <= (near.over_at or 0)
        linger = far.session.patience.limits.linger * (
            1 if far.session.history.told else UNCONFIRMED_LINGERS
        )
        linger = min(linger, UNKNOWN_LINGER) if self.astray else linger
        return left and far.session.done and _waited(far, linger)

    def _left_early(self) -> bool:
        """Whether a consumer has gone before it had everything, or before that could be told."""
        return any(
            near.left
            and (
                self.paused
                or near.taken < far.total
                or _waited(near, near.session.patience.limits.linger)  # nobody could be asked
            )
            for near, far in self._directions
        )


def _look_at_cursors(near: End, far: End, writer: BackedWriter, reader: BackedReader) -> None:
    """Raises Wrong if those of one stream, from ``near`` to ``far``, cannot be."""
    delivered = reader.delivered
    if not writer.acked <= delivered <= reader.received <= writer.high <= writer.end:
        raise Wrong(
            f"{near.name}: acked {writer.acked}, high {writer.high}, end {writer.end};"
            f" {far.name}: delivered {delivered}, received {reader.received}"
        )
    if reader.stopped is None:
        if delivered > far.accepted + far.closed:
            raise Wrong(f"{far.name} acknowledges what was not taken")
    elif not far.may_have_stopped(reader.stopped):
        raise Wrong(f"{far.name} stopped at {far.taken}, and says {reader.stopped}")
    if writer.written - writer.confirmed > near.plan.buffer_size:
        raise Wrong(f"{near.name} holds more than its buffer")
    if reader.buffered > far.plan.buffer_size:
        raise Wrong(f"{far.name} holds more than its buffer")


def _is_forgotten(end: End) -> bool:
    """Whether it reports that its peer does not know it any more."""
    return "no longer knows" in str(end.pipe.failure)


def _patience(end: End) -> float:
    """The seconds without a link after which an end gives up, at the earliest."""
    limits, writer = end.session.patience.limits, end.session.writer
    only_mark = end.session.reader.done and writer.acked == writer.mark
    return min(limits.give_up_after, 10 * limits.linger if only_mark else limits.give_up_after)


def _waited(end: End, seconds: float) -> bool:
    """Whether an end that has left was without a link for so long before it did."""
    if end.outage_at is None or end.over_at is None:
        return False
    return end.over_at - end.outage_at >= seconds - 0.001
