from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpipe.errors import ProtocolError
from bpipe.protocol.ring import fill
from bpipe.protocol.wire import Ended, Kind
from bpipe.protocol.writer import BackedWriter
from tests.support.loopback import EVERYTHING, Frame


def make(written: bytes = b"", *, window: int = 1000, capacity: int = 1000) -> BackedWriter:
    writer = BackedWriter(capacity)
    writer.resume(0, window)
    write(writer, written)
    return writer


def write(writer: BackedWriter, data: bytes) -> int:
    count = fill(writer.space(len(data)), data)
    writer.wrote(count)
    return count


def frame(writer: BackedWriter, limit: int = EVERYTHING) -> Frame | None:
    """The next frame."""
    piece = writer.next_frame(limit)
    return piece and Frame(piece.kind, piece.number, bytes(piece.payload), piece.finish.how)


def frames(writer: BackedWriter, limit: int = EVERYTHING) -> list[Frame]:
    """All that can be sent now."""
    found = []
    while (one := frame(writer, limit)) is not None:
        found.append(one)
    return found


# --- the producer ---


def test_the_producer_is_lent_what_is_free_and_nothing_when_it_is_full() -> None:
    writer = make(capacity=10)
    assert write(writer, b"0123456") == 7
    assert writer.room == 3
    assert write(writer, b"789abc") == 3
    assert writer.room == 0
    assert writer.space(1) == []
    assert writer.written == writer.end == 10


def test_room_comes_back_with_the_acknowledgement_and_not_before() -> None:
    writer = make(b"0123456789", capacity=10)
    frames(writer)
    assert writer.room == 0
    writer.acknowledge(4)
    assert writer.room == 4


# --- frames ---


def test_bytes_go_out_in_frames_of_at_most_the_limit() -> None:
    writer = make(b"abcdefg")
    assert frames(writer, 3) == [
        Frame(Kind.DATA, 0, b"abc"),
        Frame(Kind.DATA, 3, b"def"),
        Frame(Kind.DATA, 6, b"g"),
    ]
    assert writer.sent == writer.high == 7


def test_a_frame_that_has_begun_is_counted_before_any_of_it_is_sent() -> None:
    writer = make(b"abc")
    writer.next_frame(EVERYTHING)
    assert writer.high == 3


@pytest.mark.parametrize("window", [1, 4, 9, 10])
def test_no_byte_is_sent_beyond_the_window_and_each_within_it(window: int) -> None:
    writer = make(b"0123456789", window=window)
    assert frames(writer) == [Frame(Kind.DATA, 0, b"0123456789"[:window])]
    assert not writer.sendable
    writer.acknowledge(1)
    assert (
        frames(writer)
        == [Frame(Kind.DATA, window, b"0123456789"[window : window + 1])][: 10 - window]
    )


def test_the_end_mark_comes_after_the_last_byte_and_takes_one_offset() -> None:
    writer = make(b"abc")
    writer.finish()
    assert frames(writer) == [Frame(Kind.DATA, 0, b"abc"), Frame(Kind.FIN, 3)]
    assert writer.sent == writer.high == writer.end == 4
    assert writer.written == 3


def test_the_end_mark_needs_no_window() -> None:
    writer = make(b"abc", window=3)
    writer.finish()
    frame(writer)
    assert writer.sendable
    assert frame(writer) == Frame(Kind.FIN, 3)
    assert not writer.sendable
    assert frame(writer) is None


def test_an_empty_stream_is_its_end_mark() -> None:
    writer = make()
    assert not writer.sendable
    writer.finish()
    assert frames(writer) == [Frame(Kind.FIN, 0)]


def test_to_finish_again_has_no_effect() -> None:
    writer = make(b"abc")
    writer.finish()
    write(writer, b"d")
    writer.finish()
    assert writer.mark == 3


# --- acknowledgements ---


def test_the_end_mark_is_acknowledged_by_one_more_than_the_bytes() -> None:
    writer = make(b"abc")
    writer.finish()
    frames(writer)
    writer.acknowledge(3)
    assert (writer.done, writer.confirmed) == (False, 3)
    writer.acknowledge(4)
    assert (writer.done, writer.confirmed) == (True, 3)


def test_an_acknowledgement_tells_whether_it_moved_anything() -> None:
    writer = make(b"abc")
    frames(writer)
    assert not writer.acknowledge(0)
    assert writer.acknowledge(2)
    assert not writer.acknowledge(2)


@pytest.mark.parametrize(("number", "allowed"), [(1, False), (2, True), (4, True), (5, False)])
def test_an_acknowledgement_outside_what_was_begun_is_a_protocol_error(
    number: int, allowed: bool
) -> None:
    writer = make(b"abcdef")
    frame(writer, 4)
    writer.acknowledge(2)
    if allowed:
        writer.acknowledge(number)
        assert writer.acked == number
    else:
        with pytest.raises(ProtocolError, match="acknowledgement"):
            writer.acknowledge(number)
        assert writer.acked == 2


def test_a_stream_without_an_end_mark_is_confirmed_and_never_done() -> None:
    writer = make(b"abc")
    frames(writer)
    assert (writer.done, writer.confirmed) == (False, 0)
    writer.acknowledge(3)
    assert (writer.done, writer.confirmed) == (False, 3)


# --- a new link ---


def test_a_new_link_carries_on_from_what_the_peer_holds() -> None:
    writer = make(b"abcdef")
    frames(writer)
    writer.resume(2, writer.window)
    assert frame(writer, 1) == Frame(Kind.DATA, 2, b"c")
    assert writer.high == 6
    assert frames(writer) == [Frame(Kind.DATA, 3, b"def")]
    assert writer.high == 6


def test_the_end_mark_is_replayed_like_a_byte() -> None:
    writer = make(b"abc")
    writer.finish()
    frames(writer)
    writer.resume(3, writer.window)
    assert frames(writer) == [Frame(Kind.FIN, 3)]
    writer.resume(4, writer.window)
    assert frames(writer) == []


def test_what_an_acknowledgement_confirms_is_not_replayed() -> None:
    writer = make(b"abcdef")
    frames(writer)
    writer.resume(0, writer.window)
    writer.acknowledge(4)
    assert frames(writer) == [Frame(Kind.DATA, 4, b"ef")]


@pytest.mark.parametrize(
    ("delivered", "received", "held"),
    [
        (2, 2, True),
        (2, 5, True),
        (5, 5, True),
        (3, 4, True),
        (1, 4, False),
        (4, 3, False),
        (4, 6, False),
    ],
)
def test_a_peer_can_be_resumed_within_what_was_begun_and_is_held(
    delivered: int, received: int, held: bool
) -> None:
    writer = make(b"abcdef")
    frame(writer, 5)
    writer.acknowledge(2)
    assert writer.holds(delivered, received) is held


def test_a_new_session_gets_the_stream_from_its_first_byte() -> None:
    writer = make(b"abc")
    writer.restart()
    assert writer.holds(0, 0)
    assert not writer.holds(0, 1)
    writer.window = 2
    assert frames(writer) == [Frame(Kind.DATA, 0, b"ab")]
    with pytest.raises(AssertionError):
        writer.restart()  # somebody may have taken it


# --- the peer stops ---


def test_a_stop_drops_what_was_never_begun_and_ends_the_stream_there() -> None:
    writer = make(b"abcdef")
    frame(writer, 4)
    writer.stop(2)
    assert frames(writer) == [Frame(Kind.FIN, 4, how=Ended.CUT)]
    writer.acknowledge(5)
    assert writer.done
    assert writer.confirmed == 2  # the others were discarded


def test_a_stop_does_not_drop_what_was_begun_on_an_earlier_link() -> None:
    writer = make(b"abcdef")
    frame(writer, 4)
    writer.resume(1, writer.window)
    writer.stop(2)
    assert frames(writer) == [Frame(Kind.DATA, 1, b"bcd"), Frame(Kind.FIN, 4, how=Ended.CUT)]


@pytest.mark.parametrize("marked", [False, True])
def test_a_stop_before_the_end_mark_was_begun_moves_it(marked: bool) -> None:
    writer = make(b"abc")
    if marked:
        writer.finish()
    writer.stop(0)
    assert frames(writer) == [Frame(Kind.FIN, 0, how=Ended.CUT)]


def test_a_stop_after_the_end_mark_was_begun_leaves_it_where_it_is() -> None:
    writer = make(b"abc")
    writer.finish()
    frames(writer)
    writer.stop(1)
    assert writer.mark == 3
    assert frames(writer) == []


@pytest.mark.parametrize("offset", [0, 2, 4])
def test_a_stop_is_said_again_as_it_was_and_within_what_was_begun(offset: int) -> None:
    writer = make(b"abcdef")
    frame(writer, 3)
    writer.stop(1)
    writer.stop(1)
    with pytest.raises(ProtocolError):
        writer.stop(offset)
    assert writer.stopped == 1


def test_a_first_stop_beyond_what_was_begun_is_a_protocol_error() -> None:
    writer = make(b"abcdef")
    frame(writer, 3)
    with pytest.raises(ProtocolError):
        writer.stop(4)
    writer.stop(3)
    assert writer.cut_short


@pytest.mark.parametrize(
    ("written", "offset", "cut_short"),
    [(b"abc", 2, True), (b"abc", 3, False), (b"", 0, False), (b"a", 0, True)],
)
@pytest.mark.parametrize("finished", [False, True])
def test_a_stream_is_cut_short_when_it_had_bytes_beyond_the_stop(
    written: bytes, offset: int, cut_short: bool, finished: bool
) -> None:
    writer = make(written)
    if finished:
        writer.finish()
    frames(writer)
    assert not writer.cut_short
    writer.stop(offset)
    assert writer.cut_short is cut_short


@pytest.mark.parametrize("gone", [False, True])
def test_a_stream_that_was_not_waited_for_counts_as_cut_short_if_it_was_wanted(gone: bool) -> None:
    writer = make(b"abc")
    writer.begin()
    frames(writer)
    writer.stop(3, consumer_gone=gone)
    writer.cut()  # two seconds later, if that was not done at once
    writer.finish()
    assert writer.ended.how is Ended.CUT
    assert writer.cut_short is gone


@pytest.mark.parametrize("more", [False, True])
def test_a_stream_counts_as_cut_short_until_its_producer_says_that_it_had_no_more(
    more: bool,
) -> None:
    writer = make(b"abc")
    writer.begin()
    frames(writer)
    assert not writer.cut_short
    writer.stop(3)
    assert writer.cut_short
    writer.finish(more=more)
    assert not writer.producing
    assert writer.cut_short is more


def test_a_stop_below_what_was_acknowledged_cannot_be() -> None:
    writer = make(b"abc")
    frames(writer)
    writer.acknowledge(2)
    with pytest.raises(ProtocolError):
        writer.stop(1)
    writer.stop(2)


# --- the peer's consumer has gone ---


def asked(*, ended: bool, written: bytes = b"abc") -> BackedWriter:
    """The far consumer has taken three bytes, which were all that was sent, and has gone."""
    writer = make(written)
    if ended:
        writer.finish()
    frame(writer, 3)
    writer.acknowledge(3)
    writer.stop(3, consumer_gone=True)
    return writer


@pytest.mark.parametrize("ended", [False, True])
def test_a_producer_that_ends_where_the_consumer_has_gone_has_cut_nothing_short(
    ended: bool,
) -> None:
    writer = asked(ended=ended)
    assert writer.asked is not ended
    if not ended:
        assert frames(writer) == []
        writer.finish()
    assert frames(writer) == [Frame(Kind.FIN, 3)]
    assert not writer.cut_short


@pytest.mark.parametrize("when", ["before", "with the end before", "later", "with its end"])
def test_a_producer_that_has_more_than_a_consumer_has_taken_is_cut(when: str) -> None:
    early = "before" in when
    writer = asked(ended=when == "with the end before", written=b"abcd" if early else b"abc")
    if not early:
        write(writer, b"d")
        assert writer.had_more
        assert frames(writer)[:1] == [Frame(Kind.DATA, 3, b"d")]
    if when == "later":
        writer.cut()
    elif when == "with its end":
        writer.finish()
    assert not writer.asked
    assert frames(writer) == [Frame(Kind.FIN, 3 if early else 4, how=Ended.CUT)]
    assert writer.cut_short


def test_how_a_stream_has_ended_does_not_change_once_it_was_said() -> None:
    writer = make(b"abc")
    writer.finish()
    frames(writer)
    writer.stop(1, consumer_gone=True)
    assert writer.ended.how is Ended.UNKNOWN
    writer.resume(3, writer.window)
    assert frames(writer) == [Frame(Kind.FIN, 3)]


def test_a_producer_that_is_cut_and_then_ends_stays_cut() -> None:
    writer = asked(ended=False)
    writer.cut()
    writer.finish()
    assert frames(writer) == [Frame(Kind.FIN, 3, how=Ended.CUT)]


def test_a_consumer_that_has_gone_has_taken_what_it_says_and_makes_room() -> None:
    writer = make(b"abc", capacity=3)
    frames(writer)
    assert writer.room == 0
    writer.stop(3, consumer_gone=True)
    assert writer.room == 3
    assert writer.acked == 3


# --- whatever happens ---

STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "send", "ack", "resume", "finish"]), st.integers(0, 30)),
    max_size=40,
)


@given(st.integers(1, 20), st.integers(1, 20), STEPS)
def test_the_cursors_stay_in_order_and_frames_carry_what_was_written(
    capacity: int, window: int, steps: list[tuple[str, int]]
) -> None:
    writer = make(capacity=capacity, window=window)
    written = b""
    for step, count in steps:
        if step == "write" and writer.mark is None:
            data = bytes((len(written) + at) % 256 for at in range(count))
            written += data[: write(writer, data)]
        elif step == "send" and count:
            sendable, sent = writer.sendable, writer.sent
            one = frame(writer, count)
            assert sendable is (one is not None)
            if one is not None:
                assert one.number == sent
                assert one.payload == written[sent : writer.sent]
        elif step == "ack":
            writer.acknowledge(min(writer.acked + count, writer.sent))
        elif step == "resume":
            writer.resume(min(writer.acked + count, writer.high), window)
        elif step == "finish":
            writer.finish()
        assert writer.acked <= writer.sent <= writer.high <= writer.end
        assert min(writer.sent, writer.written) <= writer.acked + window
        assert 0 <= writer.room <= capacity
