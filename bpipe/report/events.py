"""What happens in a run, as values: the words for people and the JSON are both made of them.

Each event is one class. Its name (``peer-finished`` for PeerFinished) and its fields, those of
``Totals`` among them, are those of the JSON object; the manual page describes them all. Counts
are bytes, times are seconds.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple, Protocol

from bpipe.report.format import format_duration, format_size
from bpipe.report.totals import Totals, count
from bpipe.status import State

_FOR_PEOPLE: Final = ("advice", "where")
_OF_SEVERAL: Final = ("slot", "slots", "up", "used")  # links: not there where there is only one


class Event(Protocol):
    """Something that has happened: a named tuple."""

    def words(self) -> str:
        """One line for people."""

    def _asdict(self) -> dict[str, Any]: ...


def name(event: type) -> str:
    """What programs call this kind of event."""
    return re.sub("(?<=.)(?=[A-Z])", "-", event.__name__).lower()


def to_json(event: Event, run: str, now: float) -> str:
    """One line for programs; ``run`` tells runs apart, ``now`` is in seconds since 1970."""
    import json  # most runs have no log

    fields: dict[str, Any] = {"time": now, "run": run}
    if isinstance(event, OfSession):
        fields["session"], event = event.session, event.event
    fields |= {"event": name(type(event)), **event._asdict()}
    if isinstance(totals := fields.pop("totals", None), Totals):
        fields.update(totals._asdict())
    return json.dumps(
        {
            key.rstrip("_"): round(value, 3) if isinstance(value, float) else value
            for key, value in fields.items()
            if key not in _FOR_PEOPLE and (value is not None or key not in _OF_SEVERAL)
        }
    )


class OfSession(NamedTuple):
    """Another event, of one session of several."""

    event: Event
    number: int  # for people, from 1
    session: str | None  # for programs: its ID, once there is one

    def words(self) -> str:
        return f"session {self.number}: {self.event.words()}"


class Started(NamedTuple):
    """A run begins."""

    role: str  # connect, or listen
    version: str
    pid: int
    address: str
    size: int | None  # what is expected to be moved
    limit: int | None  # bytes a second that each end may send

    def words(self) -> str:
        rate = f", at most {format_size(self.limit)}/s" if self.limit else ""
        return f"bpipe {self.version}, process {self.pid}: {self.role} {self.address}{rate}"


class Listening(NamedTuple):
    """A listener can be called."""

    address: str
    port: int | None  # None: a Unix socket
    reach: str  # who can call: user (of this machine), machine, or network
    sealed: bool  # there is a secret

    def words(self) -> str:
        if self.reach == "network":
            return f"listening on {self.address}"
        others = "" if self.sealed or self.port is None else "; others need --secret (bpipe keygen)"
        return f"listening on {self.address}, for this {self.reach} only{others}"


class Invitation(NamedTuple):
    """What is to be typed at the other end, where that can be another machine."""

    command: str

    def words(self) -> str:
        return f"on the other machine: {self.command}"


class Exposed(NamedTuple):
    """Other machines can reach this listener, and there is no secret."""

    address: str

    def words(self) -> str:
        return f"without a secret: whoever reaches {self.address} gets in; --secret FILE helps"


class Forwarding(NamedTuple):
    """Local connections are taken, and each has a session of its own."""

    address: str  # where they are taken
    peer: str  # whom the sessions are with
    reach: str  # who can connect: user (of this machine), machine, or network

    def words(self) -> str:
        others = ", those of other machines too," if self.reach == "network" else ""
        return f"connections to {self.address}{others} go to {self.peer}"


class Refused(NamedTuple):
    """Callers were refused; told at once, and then once a minute at most."""

    callers: int  # since the last of these events

    def words(self) -> str:
        callers = count(self.callers, "caller")
        return (
            f"{callers} refused: another secret or name, or none, or not bpipe, or another user"
            " (without a secret, --insecure lets in every user)"
        )


class Connected(NamedTuple):
    """The first connection is up."""

    peer: str

    def words(self) -> str:
        return f"connected to {self.peer}"


class Trying(NamedTuple):
    """There is no connection yet, and somebody may wait for it; told once."""

    peer: str
    reason: str
    code: str
    left: float  # until it is given up

    def words(self) -> str:
        reason = addressed(self.peer, self.reason)
        return f"{reason}; trying for {format_duration(int(self.left))} more"


class CarrierSaid(NamedTuple):
    """The command whose run is the connection has said something on its stderr."""

    line: str

    def words(self) -> str:
        return self.line


class Lost(NamedTuple):
    """The connection is gone, and the next one is looked for."""

    reason: str
    code: str
    state: str = State.RECONNECTING  # or connecting: a listener waits for any caller

    def words(self) -> str:
        what = "waiting for a caller" if self.state == State.CONNECTING else self.state
        return f"connection lost: {self.reason}; {what}"


class Superseded(NamedTuple):
    """The sender of a file was away for long, and another one has begun: its stream is to come."""

    totals: Totals  # of the session that has given way

    def words(self) -> str:
        return "another sender has begun anew"


class Unsteady(NamedTuple):
    """The connection was lost so often that not each time is told, but once a minute how often."""

    losses: int  # that were not told
    state: str

    def words(self) -> str:
        times = count(self.losses, "more time")
        return f"the connection was lost {times} in the last minute; now {self.state}"


class Retrying(NamedTuple):
    """An attempt to connect has failed; not each of them is told."""

    reason: str
    code: str
    attempt: int  # how many there were in this outage; 0: one can only wait
    delay: float  # until the next one

    def words(self) -> str:
        if not self.attempt:
            return f"no connection yet: {self.reason}"
        return f"attempt {self.attempt}: {self.reason}; again in {format_duration(self.delay)}"


class Resumed(NamedTuple):
    """A later connection is up, and the streams go on where they were."""

    peer: str
    outage: float | None
    replayed: int  # sent again for this reconnect

    def words(self) -> str:
        outage = f" after {format_duration(self.outage)}" if self.outage is not None else ""
        again = f", {format_size(self.replayed)} sent again" if self.replayed else ""
        return f"connected again to {self.peer}{outage}{again}"


class PeerFinished(NamedTuple):
    """The peer's stream has come to its end."""

    received: int

    def words(self) -> str:
        return f"the peer has finished, after {format_size(self.received)}"


class WaitingForStdin(NamedTuple):
    """The peer has finished, but stdin stays open and silent."""

    terminal: bool

    def words(self) -> str:
        way_out = "^D" if self.terminal else "or --recv-only, which does not read it"
        return f"the peer has finished; waiting for the end of stdin ({way_out})"


class WaitingForPeer(NamedTuple):
    """All that was sent is safe, but the peer's stream stays open and silent."""

    def words(self) -> str:
        return "waiting for the far side, which has not finished (its stdin is open)"


class Crowded(NamedTuple):
    """So many sessions came within a minute that not each is told; once a minute at most."""

    sessions: int  # that have begun and were not told
    failed: int  # that have failed and were not told

    def words(self) -> str:
        what, number = ("failed", self.failed) if self.failed else ("began", self.sessions)
        return f"{count(number, 'more session')} {what} in the last minute"


class Draining(NamedTuple):
    """No more sessions begin, and those that there are go on for a while."""

    sessions: int
    left: float  # until they are ended

    def words(self) -> str:
        rest = f"; {self.sessions} may go on for {format_duration(self.left)}"
        return f"no more sessions are taken{rest if self.sessions else ''}"


class Frame(NamedTuple):
    """A frame heard (<) or said (>), a change of the session's state (=), an error (!)."""

    sign: str
    text: str

    def words(self) -> str:
        return f"{self.sign} {self.text}"


class Dropped(NamedTuple):
    """So many of these events could not be told here, because nobody took them."""

    messages: int

    def words(self) -> str:
        return f"({count(self.messages, 'message')} dropped)"


def addressed(peer: str, reason: str) -> str:
    """The reason, with the address that it is about."""
    known = peer in reason or f"cannot resolve {peer.rpartition(':')[0]}: " in reason
    known |= re.match(r"[^ ]*:\d+: ", reason) is not None  # which a name has led to
    return reason if known else f"{peer}: {reason}"
