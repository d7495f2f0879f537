from __future__ import annotations

import math
from typing import NamedTuple

from bpipe.protocol.history import History
from bpipe.protocol.outflow import Outflow
from bpipe.protocol.owed import MOST_OWED, REPEAT_AFTER, Debt, Owed
from bpipe.protocol.ring import fill
from bpipe.protocol.wire import Ended, Finish, Kind
from bpipe.protocol.writer import BackedWriter, Piece

NOW = 100.0
LATE = NOW + REPEAT_AFTER
WINDOW = 100
STREAM = bytes(range(1, 251))


class Lines(NamedTuple):
    """A writer, and two links that carry what it has."""

    writer: BackedWriter
    owed: Owed
    history: History
    debts: tuple[Debt, Debt]
    flows: tuple[Outflow, Outflow]

    def next(self, link: int, limit: int = 10, now: float = NOW) -> Piece | None:
        flow = self.flows[link]
        flow.choose(now)
        due = flow.due
        piece = flow.next_frame(limit)
        assert (piece is None) == (due == 0)
        if piece is not None and piece.kind is Kind.DATA:
            payload = bytes(piece.payload)
            assert payload == STREAM[piece.number : piece.number + len(payload)]
            assert len(payload) <= min(limit, due)
        return piece

    def begins(self, link: int, limit: int = 10, now: float = NOW) -> tuple[int, int] | None:
        """Which bytes go out next over this link."""
        piece = self.next(link, limit, now)
        return None if piece is None else (piece.number, piece.number + len(piece.payload))


def lines(size: int = WINDOW, *, capacity: int = 200) -> Lines:
    writer, owed, history = BackedWriter(capacity), Owed(), History()
    writer.resume(0, WINDOW)
    writer.wrote(fill(writer.space(size), STREAM[:size]))
    debts = owed.join(0), owed.join(1)
    for debt in debts:
        debt.timed(0)
    one, other = (Outflow(writer, owed, debt, history) for debt in debts)
    return Lines(writer, owed, history, debts, (one, other))


def test_each_link_takes_what_is_new_as_it_asks() -> None:
    both = lines(35)
    assert [both.begins(link) for link in (0, 1, 1, 0, 1)] == [
        (0, 10),
        (10, 20),
        (20, 30),
        (30, 35),
        None,
    ]
    assert [flow.sent for flow in both.flows] == [15, 20]
    assert (both.writer.sent, both.writer.high, both.history.replayed) == (35, 35, 0)


def test_a_slow_link_begins_nothing_new_where_others_need_the_window() -> None:
    both = lines(20)
    quick, slow = both.debts
    slow.timed(1.0)
    quick.rate = WINDOW - 9.0  # bytes a second
    assert both.begins(1) == (0, 10)
    assert both.begins(1, now=NOW + 0.01) is None
    assert both.begins(0, now=NOW + 0.01) == (10, 20)
    both.writer.wrote(fill(both.writer.space(10), STREAM[20:30]))
    both.owed.doubt(quick)
    assert both.begins(1, now=NOW + 0.02) == (10, 20)  # given back: that goes in any case
    both.owed.trust(quick, NOW)
    assert both.begins(1, now=NOW + 0.03) is None
    both.writer.acknowledge(20)
    assert both.begins(1, now=NOW + 0.03) == (20, 30)


def test_what_is_given_back_goes_before_what_is_new() -> None:
    both = lines()
    for link in (0, 1, 0):
        both.begins(link)
    both.owed.leave(0)
    assert [both.begins(1, limit=7) for _ in range(5)] == [
        (0, 7),
        (7, 10),
        (20, 27),
        (27, 30),
        (30, 37),
    ]
    assert both.history.replayed == 20


def test_what_is_acknowledged_is_not_looked_for_in_memory() -> None:
    both = lines()
    both.begins(0, limit=20)
    both.owed.doubt(both.debts[0])
    both.writer.acknowledge(15)
    assert both.begins(1) == (15, 20)


def test_a_link_with_nothing_new_repeats_what_others_owe_for_too_long() -> None:
    both = lines(10)
    both.begins(0)
    assert both.begins(1) is None
    assert both.flows[1].look_at == LATE
    both.flows[1].tick(LATE - 0.001)
    assert both.flows[1].look_at == LATE
    both.flows[1].tick(LATE)
    assert both.flows[1].look_at == math.inf
    assert both.begins(1, now=LATE) == (0, 10)
    assert both.begins(1, now=LATE) is None
    assert both.flows[1].look_at == math.inf
    assert both.begins(0, now=LATE + 1) is None


def test_what_is_new_goes_before_what_others_owe() -> None:
    both = lines(20)
    both.begins(0)
    assert both.begins(1, now=LATE) == (10, 20)
    assert both.begins(1, now=LATE) == (0, 10)


def test_the_window_is_for_all_links_together() -> None:
    both = lines(150, capacity=300)
    assert both.begins(0, limit=60) == (0, 60)
    assert both.begins(1, limit=60) == (60, 100)
    assert both.begins(0) is None
    both.writer.acknowledge(20)
    assert both.begins(0, limit=60) == (100, 120)


def test_a_link_in_doubt_begins_nothing_while_another_is_not() -> None:
    both = lines()
    both.begins(0)
    both.owed.doubt(both.debts[0])
    assert both.begins(0) is None
    assert both.begins(1) == (0, 10)
    both.owed.doubt(both.debts[1])
    assert both.begins(0) == (10, 20)


def test_a_link_that_owes_many_pieces_begins_only_what_adjoins() -> None:
    both = lines(200)
    for _ in range(MOST_OWED // 3):
        both.writer.acknowledge(both.writer.sent)
        both.begins(0, limit=1)
        both.begins(1, limit=1)
    for at in range(MOST_OWED):
        both.owed.begin(both.debts[0], 1000 + 2 * at, 1001 + 2 * at, NOW)
    assert both.begins(0, limit=1) is None


def test_the_end_mark_is_given_back_and_repeated_like_a_byte() -> None:
    both = lines(10)
    both.begins(0)
    both.writer.finish(ended=Finish(Ended.EXITED, 3))
    fin = Piece(Kind.FIN, 10, memoryview(b""), Finish(Ended.EXITED, 3))
    assert both.next(0) == fin
    assert both.begins(1, limit=100, now=LATE) == (0, 10)
    assert both.next(1, now=LATE) == fin
    both.owed.leave(0)
    both.owed.leave(1)
    debt = both.owed.join(2)
    last = both._replace(flows=(Outflow(both.writer, both.owed, debt, both.history),) * 2)
    assert last.begins(0, limit=100) == (0, 10)
    assert last.next(0) == fin
    assert last.next(0) is None


def test_how_much_has_arrived_is_what_the_link_has_answered() -> None:
    both = lines()
    both.begins(0)
    both.debts[0].ask(NOW)
    both.begins(0)
    assert [flow.acked for flow in both.flows] == [0, 0]
    both.owed.answered(both.debts[0], NOW)
    assert [(flow.sent, flow.acked) for flow in both.flows] == [(20, 10), (0, 0)]
