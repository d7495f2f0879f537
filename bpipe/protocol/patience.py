"""How long an end without a link waits for the next one."""

from __future__ import annotations

from typing import Final, NamedTuple

DESERTED: Final = 10.0  # seconds without a link, after which a sender is not waited for alone
GRACE: Final = 10.0  # seconds that a limit is extended by if it ran out while the machine slept
LATE: Final = 1.0  # seconds: a limit noticed later than this ran out while the machine slept
UNCONFIRMED_LINGERS: Final = 10  # for an end that lacks only the acknowledgement of its end mark,
# and for an end that has it to say: it has to be there as long as the other waits
UNKNOWN_FOR: Final = 30.0  # seconds of hearing that nobody knows the session: then it is believed
UNKNOWN_LINGER: Final = 2.0  # the same, by an end to which it makes no difference any more
QUESTION: Final = 2.0  # seconds for a producer to end where the far consumer has gone


class Limits(NamedTuple):
    """How long an end waits for what, in seconds."""

    heartbeat: float = 2.0
    connect_timeout: float = 30.0  # for the first link of a caller; 0: one try
    give_up_after: float = 86400.0  # for an outage
    linger: float = 30.0  # for a peer that may not know yet that all is done
    retry_max: float | None = None  # of a caller between two tries; None: 1, or 15 for a command


class Patience:
    """Since when an end waits, and until when it will."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.outage_since: float | None = None  # no progress was made from here on
        self._asked_at = 0.0  # when it was heard that the far consumer has gone
        self._calling_since: float | None = None  # a caller's first attempt
        self._asking = False  # somebody may be typing a password
        self._asked_until = 0.0  # when that was over, the last time
        self._done_at: float | None = None
        self._grace: float | None = None

    @property
    def one_try(self) -> bool:
        """Whether a caller gives up when its first attempt has failed."""
        return self.limits.connect_timeout <= 0

    def calling(self, now: float) -> None:
        """A caller looks for a link; only the first time counts."""
        if self._calling_since is None:
            self._calling_since = now

    def asking(self, now: float, on: bool) -> None:
        """Whether an attempt is under way that may ask its user: no limit ends that."""
        if self._asking and not on:
            self._asked_until = now
        self._asking = on

    def done(self, now: float) -> None:
        """Both streams are delivered to their ends."""
        self._done_at = now

    def outage_began(self, now: float) -> None:
        """The link is lost; one that was without progress prolongs the outage."""
        if self.outage_since is None:
            self.outage_since, self._grace = now, None

    def outage_ended(self) -> None:
        """Something has moved."""
        self.outage_since = None

    def asked(self, now: float) -> None:
        """The far consumer has gone, it was heard; only the first time counts."""
        self._asked_at = self._asked_at or now

    @property
    def answer_until(self) -> float:
        """When the producer must have ended, for a consumer that has gone."""
        return self._asked_at + QUESTION

    def until(
        self, *, established: bool, done: bool, told: bool, only_asks: bool, only_mark: bool
    ) -> float | None:
        """When the wait ends; None: never.

        ``told``: the peer may know that its stream was delivered to its end. ``only_asks``: all
        that is missing is whether there was more for a consumer that has gone. ``only_mark``: the
        ACK of this end's own mark.
        """
        limits = self.limits
        unconfirmed = min(UNCONFIRMED_LINGERS * limits.linger, limits.give_up_after)
        if not established:
            if self._calling_since is None or not limits.connect_timeout or self._asking:
                return None  # an answerer, a caller with one try, or with one who is asked
            until = max(self._calling_since + limits.connect_timeout, self._asked_until)
        elif self.outage_since is None:
            return None
        elif done:
            assert self._done_at is not None
            linger = limits.linger if told else max(limits.linger, unconfirmed)
            until = max(self.outage_since, self._done_at) + linger
        elif only_asks:
            until = self.outage_since + limits.linger
        elif only_mark:
            until = self.outage_since + unconfirmed
        else:
            until = self.outage_since + limits.give_up_after
        return until if self._grace is None else max(until, self._grace)

    def extend(self, until: float, now: float) -> bool:
        """The wait is over; returns whether it goes on because the machine slept through it."""
        if now - until <= LATE or self._grace is not None:
            return False
        self._grace = now + GRACE
        return True
