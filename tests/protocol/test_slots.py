from __future__ import annotations

import pytest

from bpipe.errors import LinkLost
from bpipe.protocol.caller import Caller
from bpipe.protocol.secret import Secret
from bpipe.protocol.session import Session
from bpipe.protocol.slots import Slots
from bpipe.protocol.terms import Terms
from bpipe.protocol.wire import Admission, Hello, Opening, Position
from tests.support.loopback import CALLER, LISTENER, SIDES, plain_and_sealed, take, write
from tests.support.several import LIMITS, Several, several

SESSION = bytes(16)
AT = Position(0, 0, 300, links=3)


def resuming(slot: int, epoch: int, live: int = 0) -> Hello:
    return Hello(Opening.RESUME, SESSION, epoch, AT, slot, live)


def listener(*slots: int, links: int = 3) -> Several:
    """A listener with links in these slots, whose caller the test may be."""
    both = several(links)
    both.sessions[LISTENER].identify(SESSION)
    for slot in set(range(links)) - set(slots):
        for link in both.of(slot):
            link.cut(both.now)
    assert both.sessions[LISTENER].slots.live == sum(1 << slot for slot in slots)
    return both


def live(both: Several, side: int) -> int:
    return both.sessions[side].slots.live


def judge(both: Several, hello: Hello) -> Admission:
    return both.table.judge(hello, both.now)[0]


# --- how many there are ---


@pytest.mark.parametrize(("ours", "theirs", "slots"), [(1, 8, 1), (4, 2, 2), (3, 8, 3), (2, 1, 1)])
def test_there_are_as_many_as_the_smaller_number_that_is_stated(
    ours: int, theirs: int, slots: int
) -> None:
    terms, position = Terms(links=ours), Position(0, 0, 1, links=theirs)
    assert (terms.slots, terms.slots_with(position)) == (1, slots)
    terms.agree(position)
    assert terms.slots == slots
    terms.forget()
    assert terms.slots == 1


@plain_and_sealed
def test_two_ends_have_so_many_links_at_once(secret: Secret | None) -> None:
    both = several(3, secret=secret)
    assert (live(both, CALLER), live(both, LISTENER)) == (7, 7)
    write(both.sessions[CALLER], b"hello")
    both.run()
    assert take(both.sessions[LISTENER]) == b"hello"


def test_where_one_end_wants_only_one_it_is_as_strict_as_ever() -> None:
    both = Several(Session(300, LIMITS, links=4), Session(300, LIMITS))
    both.connect()
    both.run()
    session = both.sessions[CALLER]
    assert session.position.links == 4
    assert not session.fits(Position(0, 1, 300))
    write(both.sessions[LISTENER], b"ab")
    both.run()
    take(session)
    both.run()
    both.now += 0.01
    both.links[0].ends[CALLER].channel.tick(both.now)
    both.run()
    assert both.sessions[LISTENER].writer.acked == 2
    assert not both.sessions[LISTENER].fits(Position(0, 2, 300, links=4))


def test_where_there_may_be_several_positions_may_be_old() -> None:
    both = several(2)
    session = both.sessions[CALLER]
    write(session, b"abcdef")
    both.run()
    take(both.sessions[LISTENER], 4)
    both.now += 0.05
    both.tick()
    both.run()
    assert session.writer.acked == 4
    for delivered, received, fits in [(0, 0, 1), (2, 5, 1), (3, 2, 0), (4, 7, 0), (6, 6, 1)]:
        assert session.fits(Position(delivered, received, 300, links=2)) is bool(fits)


# --- the answerer ---


@pytest.mark.parametrize(
    ("hello", "admission"),
    [
        (resuming(1, 9), Admission.OK),
        (resuming(2, 9), Admission.OK),
        (resuming(3, 9), Admission.STALE),
        (resuming(8, 9), Admission.STALE),
        (resuming(1, 2), Admission.STALE),
        (resuming(2, 2), Admission.STALE),
        (resuming(0, 2), Admission.OK),  # of this slot it is the latest
        (resuming(0, 1), Admission.STALE),
        (resuming(1, 9)._replace(session=b"x" * 16), Admission.UNKNOWN),
        (resuming(7, 9)._replace(session=b"x" * 16), Admission.UNKNOWN),
        (resuming(8, 9)._replace(session=b"x" * 16), Admission.STALE),
        (resuming(1, 9)._replace(opening=Opening.OPEN, session=b"x" * 16), Admission.STALE),
        (resuming(1, 9)._replace(position=AT._replace(links=2)), Admission.RANGE),
        (resuming(1, 9)._replace(position=AT._replace(received=1)), Admission.RANGE),
    ],
)
def test_a_greeting_is_judged_by_its_slot(hello: Hello, admission: Admission) -> None:
    assert judge(listener(0, 1, 2), hello) is admission


def test_a_slot_that_never_had_a_link_takes_any_epoch() -> None:
    both = Several(Session(300, LIMITS, links=3), Session(300, LIMITS, links=3))
    both.connect()
    both.run()
    both.sessions[LISTENER].identify(SESSION)
    both.sessions[LISTENER].advance(7)
    assert judge(both, resuming(1, 2)) is Admission.OK
    assert judge(both, resuming(0, 7)) is Admission.STALE


def test_only_the_link_of_its_slot_is_replaced() -> None:
    both = listener(0, 1, 2)
    both.table.admit(resuming(1, 9, live=0b101), b"", both.now)
    assert live(both, LISTENER) == 0b101
    assert both.sessions[LISTENER].slots.epoch(1) == 9


def test_links_that_the_caller_does_not_hold_are_closed() -> None:
    both = listener(0, 1, 2)
    both.table.admit(resuming(1, 9, live=0b001), b"", both.now)
    assert live(both, LISTENER) == 0b001


def test_a_link_that_was_made_since_is_not_closed() -> None:
    both = listener(0, 1)
    session = both.sessions[LISTENER]
    session.advance(10, 1)
    both.table.admit(resuming(2, 9, live=0b001), b"", both.now)
    assert live(both, LISTENER) == 0b011


def test_an_open_that_ends_a_session_closes_all_its_links() -> None:
    slots = Slots(Session(300).reader)
    assert (slots.any, slots.live, slots.dead(0, 5)) == (None, 0, [])
    slots.advance(2, 9)
    slots.forget()
    assert slots.epoch(2) == 0


# --- the caller ---


def test_the_caller_counts_over_all_slots_and_says_which_it_holds() -> None:
    both = several(3)
    both.of(1)[0].ends[CALLER].lose(LinkLost("cut"), both.now)
    hello = both.caller.hello(1)
    assert (hello.opening, hello.slot, hello.epoch) == (Opening.RESUME, 1, 4)
    assert hello.live == 0b101


def test_a_slot_whose_greeting_is_under_way_may_become_a_link() -> None:
    both = several(3)
    for slot in (1, 2):
        both.of(slot)[0].cut(both.now)
    link = both.connect(2)
    assert both.caller.hello(1).live == 0b101
    link.ends[CALLER].lose(LinkLost("cut"), both.now)
    link.ends[CALLER].lose(LinkLost("cut again"), both.now)
    assert both.caller.hello(1).live == 0b001


def test_two_slots_that_greet_at_once_do_not_close_each_other() -> None:
    both = several(3)
    for slot in (1, 2):
        both.of(slot)[0].cut(both.now)
    second, first = both.connect(2), both.connect(1)
    second.run(both.now)
    first.run(both.now)
    assert (live(both, CALLER), live(both, LISTENER)) == (7, 7)
    for slot in (1, 2):
        both.of(slot)[-1].cut(both.now)
    first, second = both.connect(1), both.connect(2)
    second.run(both.now)
    first.run(both.now)
    assert (live(both, CALLER), live(both, LISTENER)) == (7, 7)


def test_an_open_is_for_slot_0() -> None:
    with pytest.raises(AssertionError):
        Caller(Session(300, links=2)).hello(1)


def test_what_moves_meanwhile_makes_no_greeting_void() -> None:
    both = several(2)
    both.of(1)[0].cut(both.now)
    link = both.connect(1)
    write(both.sessions[LISTENER], b"abc")
    both.of(0)[0].run(both.now)
    assert take(both.sessions[CALLER]) == b"abc"
    link.run(both.now)
    assert (live(both, CALLER), live(both, LISTENER)) == (3, 3)


def test_a_refusal_means_nothing_while_there_is_a_link() -> None:
    both = several(2)
    both.of(1)[0].cut(both.now)
    both.sessions[LISTENER].identify(SESSION)
    both.connect(1)
    both.run()
    assert not both.sessions[CALLER].over


# --- links fail ---


def test_a_link_in_mid_frame_dies_and_another_goes_on() -> None:
    both = several(2)
    caller, far = both.sessions[CALLER], both.sessions[LISTENER]
    write(caller, bytes(range(100)))
    one, other = both.of(0)[0], both.of(1)[0]
    one.send(CALLER, both.now)
    one.arrive(LISTENER, both.now, 40)
    write(caller, bytes(range(100, 200)))
    other.run(both.now)
    assert len(take(far)) == far.reader.received < 100
    one.cut(both.now)
    other.run(both.now)
    assert far.reader.received == 200
    for side in SIDES:
        assert both.sessions[side].attached
