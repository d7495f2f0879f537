"""Every cell of the tables in bpipe-protocol(7) that say what happens to an end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import pytest

from bpipe.errors import (
    LinkLost,
    LocalAbort,
    NobodyListens,
    NotConnected,
    PeerAborted,
    ProtocolError,
    SessionLost,
)
from bpipe.protocol.caller import Caller
from bpipe.protocol.ending import Phase
from bpipe.protocol.frames import Frames
from bpipe.protocol.noise import CipherState
from bpipe.protocol.rate import Bucket
from bpipe.protocol.sealed import SealedFrames
from bpipe.protocol.session import FRUITLESS_LINKS, Session
from bpipe.protocol.wire import NOWHERE, Admission, Kind, Opening, Position, Reason, Verdict
from tests.support.loopback import Frame, drain, feed, write
from tests.support.page import legends, tables
from tests.support.peer import (
    ABORT,
    ACK,
    BYE,
    DATA,
    FIN,
    LIMITS,
    NOW,
    PING,
    RATE,
    STOP,
    WINDOW,
    Failure,
    attach,
    channel,
    finish_both,
    hear,
    join,
    lose,
    make,
    said,
    tick,
)

QUIET: Final = 10.0  # seconds: a heartbeat
SENDS, HAPPENS = "What it sends", "What happens to it"
STATES: Final = ("new", "open", "done", "aborting", "answering")
REPORTS: Final[dict[str, Failure]] = {
    "done": None,
    "aborting": LocalAbort,
    "answering": PeerAborted,
}
PHASES: Final = dict(zip(STATES[1:], list(Phase)[:4], strict=True))


class Case(NamedTuple):
    """An end in some state, and how it got there."""

    state: str
    role: str
    session: Session
    caller: Caller

    @property
    def phase(self) -> Phase:
        return PHASES.get(self.state, Phase.UP)


def enter(state: str, role: str, *, stopped: bool = False, bucket: Bucket | None = None) -> Case:
    """An end in this state, with a link, or before its first one; nothing is said that is due."""
    session = make(b"abc", limits=LIMITS._replace(heartbeat=QUIET), bucket=bucket)
    case = Case(state, role, session, Caller(session))
    if stopped:
        session.stop()
    if state == "new" and role == "caller":
        session.patience.calling(NOW)
        case.caller.hello()
        return case
    attach(session, caller=role == "caller")
    if state == "new":
        return case
    hear(session, ACK(0))
    if state == "done":
        finish_both(session)
    elif state == "aborting":
        session.abort(Reason.LOCAL_ERROR, "disk full", NOW)
    elif state == "answering":
        hear(session, ABORT(2, b"theirs"))
    return case


Event = Callable[[Case, float], None]


def frame(make_frame: Callable[[Session], Frame]) -> Event:
    """The peer says this."""
    return lambda case, now: hear(case.session, make_frame(case.session), now=now)


def refusal(admission: Admission) -> Event:
    """The answerer says no."""
    return lambda case, now: case.caller.refused(Verdict(admission, NOWHERE), now)


def busy_later(case: Case, now: float) -> None:
    case.caller.confirming(b"")
    refusal(Admission.UNKNOWN)(case, now)
    refusal(Admission.BUSY)(case, now)


def third_error(case: Case, now: float) -> None:
    """Links are lost to errors, without progress on any of them or in between."""
    lose(case.session, now=now)
    for _ in range(FRUITLESS_LINKS):
        if not case.session.over:
            attach(case.session, case.session.writer.acked, caller=case.role == "caller")
            lose(case.session, ProtocolError("junk"), now)


def fail(case: Case, now: float) -> None:
    case.session.abort(Reason.LOCAL_ERROR, "disk full", now)


def wait_in_vain(case: Case, now: float) -> None:
    until = case.session.waits_until
    assert until is not None
    tick(case.session, until - 0.1)
    assert not case.session.over
    tick(case.session, until)


FRAMES: Final[dict[str, list[Event]]] = {
    "DATA, FIN": [
        frame(lambda session: DATA(session.reader.received, b"x")),
        frame(lambda session: FIN(session.reader.received)),
    ],
    "ACK": [frame(lambda session: ACK(session.writer.acked))],
    "STOP": [frame(lambda session: STOP(session.writer.confirmed))],
    "PING": [frame(lambda session: PING(1))],
    "PONG": [frame(lambda session: Frame(Kind.PONG, 1))],
    "RATE": [
        frame(lambda session: RATE(0)),
        frame(lambda session: RATE(1024)),
        frame(lambda session: RATE(1 << 63)),
    ],
    "BYE": [frame(lambda session: BYE(0))],
    "ABORT": [frame(lambda session: ABORT(2, b"theirs"))],
    "CONFIRM, READY": [
        frame(lambda session: Frame(Kind.CONFIRM, 0)),
        frame(lambda session: Frame(Kind.READY, 0)),
    ],
}
LINKED: Final[dict[str, list[Event]]] = {
    "link lost": [lambda case, now: lose(case.session, now=now)],
    "third error": [third_error],
    "something fails here": [fail],
}
ALONE: Final[dict[str, list[Event]]] = {
    **{each.name: [refusal(each)] for each in list(Admission)[1:]},
    "BUSY after UNKNOWN": [busy_later],
    "nobody listens": [lambda case, _: case.caller.attempt_failed(NobodyListens("refused"))],
    "no answer": [lambda case, _: case.caller.attempt_failed(LinkLost("no answer"))],
    "waited for too long": [wait_in_vain],
}
EVENTS: Final = {**FRAMES, **LINKED, **ALONE}


def cases(state: str, event: str) -> Iterator[Case]:
    """The ends in this state to which this may happen."""
    for role in ("caller", "answerer"):
        linked = event in FRAMES or event in LINKED
        if state == "new" and (role == "caller") is linked and event != "something fails here":
            continue  # that caller has no link, and that answerer waits for ever
        case = enter(state, role)
        if not linked and role == "caller":
            if state != "new":
                said(case.session) if state in ("open", "aborting") else None
                lose(case.session)
            yield case
        elif linked:
            yield case


# --- what the words mean ---


def unchanged(case: Case) -> None:
    assert case.session.phase is case.phase


def take(case: Case, event: Event) -> None:
    event(case, NOW)
    unchanged(case)
    assert case.session.established


def discard(case: Case, event: Event) -> None:
    received, delivered = case.session.reader.received, case.session.reader.delivered
    take(case, event)
    reader = case.session.reader
    assert (reader.received, reader.delivered, reader.buffered) == (received + 1, delivered, 0)


def error(case: Case, event: Event) -> None:
    with pytest.raises(ProtocolError):
        event(case, NOW)
    unchanged(case)


def nothing(case: Case, event: Event) -> None:
    event(case, NOW)
    unchanged(case)


def again(case: Case, event: Event) -> None:
    nothing(case, event)
    assert not case.session.attached


def answer(case: Case, event: Event) -> None:
    event(case, NOW)
    assert case.session.phase is Phase.ANSWERING
    assert said(case.session)[-1] == BYE(0)
    left(case, REPORTS.get(case.state, PeerAborted))


def abort(case: Case, event: Event) -> None:
    event(case, NOW)
    told = case.session.history.links > 0
    assert case.session.phase is (Phase.ABORTING if told else Phase.OVER)
    assert type(case.session.failure) is LocalAbort


def left(case: Case, failure: Failure) -> None:
    assert case.session.over
    assert type(case.session.failure) is (failure or type(None))


def leave(case: Case, event: Event) -> None:
    event(case, NOW)
    if not case.session.over:
        said(case.session)  # a BYE of its own
    left(case, REPORTS[case.state])


def lost(case: Case, event: Event) -> None:
    event(case, NOW)
    left(case, SessionLost)


def unconnected(case: Case, event: Event) -> None:
    event(case, NOW)
    assert isinstance(case.session.failure, NotConnected)


def reopen(case: Case, event: Event) -> None:
    before = case.session.id
    case.caller.confirming(b"")
    again(case, event)
    hello = case.caller.hello()
    assert (hello.opening, hello.epoch, hello.session != before) == (Opening.OPEN, 1, True)


def never(case: Case, event: Event) -> None:
    assert case.session.over


def after(seconds: float, then: Callable[[Case, Event], None]) -> Callable[[Case, Event], None]:
    """It has to come again, so many seconds later."""

    def last(case: Case, event: Event) -> None:
        for when in (0.0, seconds - 0.1):
            event(case, NOW + when)
            unchanged(case)
        then(case, lambda case, now: event(case, now + seconds))

    return last


WORDS: Final[dict[str, Callable[[Case, Event], None]]] = {
    each.__name__: each
    for each in (
        *(abort, again, answer, discard, error, leave, lost, never, nothing, reopen, take),
        unconnected,
    )
}
WORDS["leave-2"], WORDS["lost-30"] = after(2, leave), after(30, lost)


def cells() -> list[tuple[str, str, str]]:
    (table,) = tables(HAPPENS)
    return [(row["event"], state, row[state]) for row in table for state in STATES]


@pytest.mark.parametrize(("event", "state", "word"), cells())
def test_what_happens_to_an_end(event: str, state: str, word: str) -> None:
    tried = 0
    for happening in EVENTS[event]:
        for case in cases(state, event):
            WORDS[word](case, happening)
            tried += 1
    assert tried


def test_the_table_has_every_event_and_its_words_are_explained() -> None:
    assert {event for event, _, _ in cells()} == EVENTS.keys()
    assert set(legends(HAPPENS)[0]) == {word for _, _, word in cells()} == WORDS.keys()


# --- what an end sends ---


def everything_said(state: str, role: str, *, stopped: bool, limited: bool) -> list[Kind]:
    """What an end in this state says on a link on which it has a reason to say all that it may."""
    case = enter(state, role, stopped=stopped, bucket=Bucket() if limited else None)
    session = case.session
    if state not in ("new", "answering"):
        said(session)
        lose(session)
        attach(session, session.writer.acked, caller=role == "caller")
    write(session, b"more")
    tick(session, NOW + QUIET)
    if state != "new":
        hear(session, PING(1), now=NOW + QUIET)
    return [each.kind for each in said(session, NOW + QUIET)]


@pytest.mark.parametrize("role", ["caller", "answerer"])
@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize("state", STATES)
def test_what_an_end_sends(state: str, limited: bool, stopped: bool, role: str) -> None:
    if (state, role) == ("new", "caller"):
        return  # it has no link
    (table,) = tables(SENDS)
    kinds = everything_said(state, role, stopped=stopped, limited=limited)
    for row in table:
        names = row["frame"].split(", ")
        count = sum(each.name in names for each in kinds)
        word = row[state]
        if word == "no" or (word == "if" and not stopped) or (word == "own" and not limited):
            assert count == 0, (row, kinds)
        elif word == "due" and (state, names) == ("new", ["PONG"]):
            pass  # a PING would end this state
        else:
            assert count == 1, (row, kinds)


def test_the_table_of_what_is_sent_has_every_kind_and_its_words_are_explained() -> None:
    (table,) = tables(SENDS)
    named = [name for row in table for name in row["frame"].split(", ")]
    in_greetings = {"CONFIRM", "READY"}
    assert set(named) == {kind.name for kind in Kind} - in_greetings
    assert set(legends(SENDS)[0]) == {row[state] for row in table for state in STATES}


# --- errors ---


Raw = tuple[bytes, bytes]  # a header, and a payload, as nobody may say them


def raw(kind: int, number: int = 0, payload: bytes = b"", *, padding: bytes = bytes(3)) -> Raw:
    length = len(payload).to_bytes(4, "big")
    return bytes([kind]) + padding + length + number.to_bytes(8, "big"), payload


def large(kind: Kind, length: int) -> Raw:
    """A header that announces so much."""
    return bytes([kind, 0, 0, 0]) + length.to_bytes(4, "big") + bytes(8), b""


FIN_0, STOP_1 = raw(Kind.FIN), raw(Kind.STOP, 1)
SAID: Final[dict[str, list[list[Raw]]]] = {
    "a kind that does not exist": [[raw(0)], [raw(12)]],
    "bytes 1 to 3 that this kind cannot have": [[raw(Kind.ACK, padding=b"\1\0\0")]],
    "DATA of 0 bytes, or of more than 1,048,576": [
        [raw(Kind.DATA)],
        [large(Kind.DATA, (1 << 20) + 1)],
    ],
    "ABORT with more than 512 bytes": [[large(Kind.ABORT, 513)]],
    "any other frame with a payload": [[raw(Kind.PING, 0, b"x")]],
    "DATA or FIN whose number is not received": [[raw(Kind.DATA, 1, b"x")], [raw(Kind.FIN, 1)]],
    "DATA or FIN after FIN": [[FIN_0, raw(Kind.DATA, 1, b"x")], [FIN_0, raw(Kind.FIN, 1)]],
    "DATA beyond delivered plus the window": [[raw(Kind.DATA, 0, bytes(WINDOW + 1))]],
    "ACK below acked, or above high": [[raw(Kind.ACK, 2), raw(Kind.ACK, 1)], [raw(Kind.ACK, 4)]],
    "STOP below what is acknowledged, or above high": [
        [raw(Kind.ACK, 2), STOP_1],
        [raw(Kind.STOP, 4)],
    ],
    "STOP at another offset than the first": [[STOP_1, raw(Kind.STOP, 2)]],
    "BYE to an end that is new or open": [[raw(Kind.BYE)]],
    "BYE with a number that is not 0": [[raw(Kind.BYE, 5)]],  # see test_a_bye_has_no_number
    "RATE of 1 to 1,023": [[raw(Kind.RATE, 1)], [raw(Kind.RATE, 1023)]],
    "CONFIRM or READY on an attached link": [[raw(Kind.CONFIRM)], [raw(Kind.READY)]],
}
NOT_FRAMES: Final = {  # what is not said on an attached link, or is not said at all
    "a frame that does not verify": "test_sealed_frames",
    "M1 to M4 that are not what they have to be": "test_greeting_answerer, test_greeting_caller",
    "nothing for three heartbeats": "test_liveness",
    "no frame that comes to its end": "test_liveness",
    "an end of file, or a reset": "test_link",
}


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("error", SAID)
def test_an_error_ends_the_link_and_counts(error: str, sealed: bool) -> None:
    for frames in SAID[error]:
        session = make(b"abc")
        there, back = CipherState(bytes(32)), CipherState(bytes(range(32)))
        join(session, Position(0, 0, WINDOW), SealedFrames(back, there) if sealed else Frames())
        drain(channel(session), NOW)
        seal = CipherState(bytes(32))
        data = [
            seal.encrypt(b"", header) + (seal.encrypt(b"", payload) if payload else b"")
            if sealed
            else header + payload
            for header, payload in frames
        ]
        feed(channel(session), b"".join(data[:-1]), NOW)
        progress = any(header[0] in (Kind.ACK, Kind.FIN) for header, _ in frames[:-1])
        with pytest.raises(ProtocolError) as caught:
            feed(channel(session), data[-1], NOW)
        lose(session, caught.value)
        assert session.fruitless == (not progress)


def test_the_table_of_errors_is_the_one_that_was_tried() -> None:
    (table,) = tables("ERRORS OF PROTOCOL")
    words = {row["what comes"]: (row["plain"], row["sealed"]) for row in table}
    assert words.keys() == SAID.keys() | NOT_FRAMES.keys()
    assert {words[error] for error in SAID} == {("counts", "counts")}
    assert words["a frame that does not verify"] == ("never", "network")
    assert {words[each] for each in list(NOT_FRAMES)[1:]} == {("network", "network")}
    assert set(legends("ERRORS OF PROTOCOL")[0]) == {each for row in words.values() for each in row}
