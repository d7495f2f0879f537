from __future__ import annotations

from bpipe.errors import LinkLost
from bpipe.protocol.history import History, Loss, OfSlot
from tests.support.peer import ACK, DATA, FIN, NOW, PING, attach, hear, lose, said, up


def test_links_are_counted_and_what_is_said_again_on_them() -> None:
    history = History()
    for replayed in (0, 5, 0, 2):
        history.attached(replayed, NOW)
    assert (history.links, history.replayed) == (4, 7)


def test_the_last_cause_is_that_of_a_lost_link_or_of_an_attempt_that_failed() -> None:
    history = History()
    assert history.last_cause is None
    for number in range(2):
        history.lost(Loss(LinkLost(f"lost {number}"), NOW), NOW + number)
        assert history.lost_at == NOW + number
        assert str(history.last_cause) == f"lost {number}"
        history.failed(LinkLost(f"failed {number}"))
        assert str(history.last_cause) == f"failed {number}"


def test_the_same_is_known_of_each_slot() -> None:
    history = History()
    assert history.slot(1) == OfSlot()
    history.attached(0, NOW)
    history.attached(0, NOW, 1, others=True)
    assert (history.links, history.beside) == (2, 1)
    cut, far, somewhere = (LinkLost(text) for text in ("cut", "too far", "somewhere"))
    history.lost(Loss(cut, NOW), NOW, 0, others=True)
    history.attached(0, NOW, others=True)
    history.failed(far, 2)
    history.failed(somewhere)
    assert [history.slot(each) for each in range(3)] == [
        OfSlot(2, cut),
        OfSlot(1),
        OfSlot(0, far),
    ]
    assert (history.links, history.beside, history.last_cause) == (3, 2, somewhere)


def test_what_a_peer_was_told_on_one_link_it_knows_for_ever() -> None:
    history = History()
    for told in (False, True, False):
        history.lost(Loss(LinkLost("cut"), NOW, told=told), NOW)
    assert history.told


def test_a_peer_that_is_heard_after_the_ack_of_its_end_mark_may_know_of_it() -> None:
    for heard_later in (False, True):
        session = up()
        session.stop()
        hear(session, FIN(0))
        assert ACK(1) in said(session)
        hear(session, PING(1), now=NOW + heard_later)
        lose(session)
        assert session.history.told is heard_later


def test_what_was_heard_before_that_ack_tells_nothing() -> None:
    session = up()
    hear(session, DATA(0, b"a"), FIN(1))
    hear(session, PING(1), now=NOW + 1)
    lose(session)
    assert not session.history.told


def test_the_time_away_counts_from_the_last_byte_that_was_heard() -> None:
    session = up(b"abc")
    hear(session, PING(1), now=NOW + 1)
    assert session.history.away(None) is None
    lose(session, now=NOW + 7)
    assert session.history.away(NOW + 8) == 7
    attach(session, now=NOW + 9)
    assert session.history.away(None) == 8
    lose(session, now=NOW + 101)  # the greeting was heard, too
    assert session.history.away(NOW + 102) == 93
