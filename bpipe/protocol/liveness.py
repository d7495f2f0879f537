"""Whether the link is alive: when to say something, and when to believe no more in the peer."""

from __future__ import annotations

import math
from typing import Final

from bpipe.errors import LinkLost

SILENCE: Final = 3  # heartbeats without a byte from the peer that end a link
UNVERIFIED: Final = 10  # heartbeats without anything whole from the peer that do, or
UNVERIFIED_FOR: Final = 30.0  # seconds, if that is more
ACK_AFTER: Final = 1.0  # seconds of hearing bytes without having sent any: then an ACK is due
KEPT: Final = 8  # PINGs whose answers are waited for: more are forgotten
OWED: Final = ACK_AFTER + 0.25  # seconds without an answer that put a link in doubt


class Liveness:
    """The heartbeat of one link; ``heartbeat`` and all times are in seconds.

    A PING is due when nothing was sent, or nothing heard, for one heartbeat, so the heartbeats
    of the two ends need not agree.
    """

    def __init__(self, heartbeat: float, now: float) -> None:
        self._heartbeat = heartbeat
        self._sent_at = now
        self.heard_at = now  # a byte from the peer, or the greeting
        self._verified_at = now  # a whole frame, or a byte of the stream that counts
        self._pinged_at = now
        self._unanswered_since: float | None = None  # bytes heard since this end last sent any
        self._asked_at: float | None = None  # bytes sent since the peer was last heard
        self._suspected_at = -math.inf  # the path was away then, so the system has said
        self.away = False  # it still is
        self._token = 0
        self._pings: dict[int, float] = {}  # that are not answered: their tokens, and when
        self.ping_due = False
        self.round_trip: float | None = None

    def sent(self, now: float) -> None:
        """Bytes were put on the link."""
        self._sent_at = now
        self._unanswered_since = None
        if self._asked_at is None:
            self._asked_at = now

    def heard(self, now: float) -> None:
        """Bytes came from the link."""
        self.heard_at = now
        self._asked_at = None
        if self._unanswered_since is None:
            self._unanswered_since = now

    def verified(self, now: float) -> None:
        """What came was something that the peer has said, and not only bytes."""
        self._verified_at = now

    def suspect(self, now: float, *, away: bool) -> None:
        """The system says that there is no way to the peer; or, not ``away``, that one is back.

        Then the link is in doubt until something is heard; and while there is none, in any case.
        """
        self._suspected_at, self.away = now, away
        self.ping_due |= not away

    def ask(self) -> None:
        """A PING is due now."""
        self.ping_due = True

    def ping(self, now: float) -> int:
        """The token for the PING that is sent now."""
        self.ping_due = False
        self._pinged_at = now
        self._token += 1
        self._pings[self._token] = now
        self._pings.pop(self._token - KEPT, None)
        return self._token

    def pong(self, token: int, now: float) -> None:
        """The answer to a PING came, and those before it were passed over."""
        if token in self._pings:
            self.round_trip = now - self._pings[token]
            self._pings = {each: at for each, at in self._pings.items() if each > token}

    def tick(self, now: float) -> bool:
        """Look at the clock; returns whether an ACK is due as a sign of life.

        Raises LinkLost when the peer was silent for too long, or a frame does not end.
        """
        if now >= self.heard_at + SILENCE * self._heartbeat:
            raise LinkLost(f"nothing was heard for {now - self.heard_at:.1f} s", "silent")
        if now >= self._verified_at + max(UNVERIFIED * self._heartbeat, UNVERIFIED_FOR):
            raise LinkLost(f"nothing whole was heard for {now - self._verified_at:.1f} s", "silent")
        if now >= max(min(self._sent_at, self.heard_at), self._pinged_at) + self._heartbeat:
            self.ping_due = True
            self._pinged_at = now
        if self._unanswered_since is not None and now >= self._unanswered_since + ACK_AFTER:
            self._unanswered_since = None
            return True
        return False

    def deadline(self) -> float:
        """When ``tick`` has to be called next."""
        quiet_since = min(self._sent_at, self.heard_at)
        ping_at = max(quiet_since, self._pinged_at) + self._heartbeat
        deadline = min(self.heard_at + SILENCE * self._heartbeat, ping_at)
        if self._unanswered_since is not None:
            deadline = min(deadline, self._unanswered_since + ACK_AFTER)
        return deadline

    @property
    def suspected(self) -> bool:
        """Whether the system has said that the path was away, and nothing was heard since then."""
        return self.away or self._suspected_at >= self.heard_at

    def why(self, now: float) -> str:
        """Why it is in doubt, for people."""
        silence = f"nothing was heard for {now - self.heard_at:.1f} s"
        return "the path was gone for a while" if self.suspected else silence

    def doubted_at(self, now: float) -> float:
        """From when on the link is in doubt, if nothing is heard until then.

        The peer owes an answer to what was sent. What is still unsent cannot be answered before
        now. Or the system has said that the path was away.
        """
        if self.suspected:
            return self._suspected_at
        return (now if self._asked_at is None else self._asked_at) + OWED
