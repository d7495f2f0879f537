from __future__ import annotations

from collections.abc import Callable

import pytest

from bpipe.errors import ProtocolError
from bpipe.protocol.reader import BackedReader
from bpipe.protocol.ring import fill
from tests.support.loopback import EVERYTHING


def make(arrived: bytes = b"", *, capacity: int = 10) -> BackedReader:
    reader = BackedReader(capacity)
    receive(reader, arrived)
    return reader


def receive(reader: BackedReader, data: bytes) -> None:
    """Let a DATA frame with the next bytes arrive."""
    reader.check(reader.received, len(data))
    while data:
        count = fill(reader.lend(len(data)), data)
        assert count > 0
        reader.receive(count)
        data = data[count:]


def waiting(reader: BackedReader, limit: int = EVERYTHING) -> bytes:
    return b"".join(reader.readable(limit))


# --- the consumer ---


def test_what_arrived_waits_for_the_consumer() -> None:
    reader = make(b"abcdef")
    assert (reader.received, reader.delivered, reader.buffered) == (6, 0, 6)
    assert waiting(reader) == b"abcdef"
    assert waiting(reader, 2) == b"ab"


def test_what_the_consumer_took_is_delivered() -> None:
    reader = make(b"abcdef")
    reader.took(2)
    assert (reader.received, reader.delivered, reader.buffered) == (6, 2, 4)
    assert waiting(reader) == b"cdef"


def test_nothing_is_lent_to_the_consumer_when_nothing_waits() -> None:
    assert make().readable(5) == []


def test_a_consumer_has_something_to_do_for_bytes_and_for_the_end_behind_them() -> None:
    reader = make()
    assert not reader.ready
    receive(reader, b"ab")
    for _ in range(2):
        assert reader.ready
        reader.took(1)
    assert not reader.ready
    reader.receive_mark(2)
    assert reader.ready


# --- what the peer may send ---


@pytest.mark.parametrize("number", [0, 2, 4, 2**64 - 1])
def test_data_that_is_not_the_next_is_a_protocol_error(number: int) -> None:
    with pytest.raises(ProtocolError, match="not the next"):
        make(b"abc").check(number, 1)


def test_data_may_fill_the_window_and_not_go_beyond_it() -> None:
    reader = make(b"abc", capacity=10)
    reader.check(3, 7)
    with pytest.raises(ProtocolError, match="more data than the window allows"):
        reader.check(3, 8)


def test_the_window_opens_with_delivery_and_not_with_receipt() -> None:
    reader = make(b"0123456789", capacity=10)
    with pytest.raises(ProtocolError, match="window"):
        reader.check(10, 1)
    reader.took(1)
    reader.check(10, 1)
    with pytest.raises(ProtocolError, match="window"):
        reader.check(10, 2)


def test_nothing_comes_after_the_end_mark() -> None:
    reader = make(b"abc")
    reader.receive_mark(3)
    with pytest.raises(ProtocolError, match="data that is not the next"):
        reader.check(4, 1)
    with pytest.raises(ProtocolError, match="end mark that is not the next"):
        reader.receive_mark(4)


@pytest.mark.parametrize("number", [2, 4])
def test_an_end_mark_that_is_not_the_next_is_a_protocol_error(number: int) -> None:
    reader = make(b"abc")
    with pytest.raises(ProtocolError, match="end mark that is not the next"):
        reader.receive_mark(number)
    assert (reader.mark, reader.received) == (None, 3)


# --- the end ---


def test_the_end_mark_takes_one_offset_and_is_delivered_when_the_consumer_is_closed() -> None:
    reader = make(b"abc")
    reader.took(3)
    assert not reader.drained
    reader.receive_mark(3)
    assert (reader.received, reader.delivered) == (4, 3)
    assert (reader.drained, reader.done) == (True, False)
    reader.close()
    assert (reader.delivered, reader.done) == (4, True)


def test_the_end_mark_waits_for_every_byte_before_it() -> None:
    reader = make(b"abc")
    reader.receive_mark(3)
    reader.took(2)
    assert not reader.drained
    reader.took(1)
    assert reader.drained


# --- stop ---


def test_a_stop_discards_what_waits_and_counts_it_as_delivered() -> None:
    reader = make(b"abcdef")
    reader.took(2)
    reader.stop()
    assert reader.stopped == 2
    assert (reader.delivered, reader.buffered) == (6, 0)
    assert reader.readable(EVERYTHING) == []


def test_after_a_stop_what_comes_is_counted_as_delivered_and_not_kept() -> None:
    reader = make(capacity=200_000)
    reader.stop()
    receive(reader, bytes(200_000))
    assert (reader.received, reader.delivered, reader.buffered) == (200_000, 200_000, 0)


def test_discarded_bytes_are_read_in_bounded_pieces_and_never_beyond_their_frame() -> None:
    reader = make(capacity=1 << 30)
    reader.stop()
    assert 0 < sum(map(len, reader.lend(1 << 30))) <= 1 << 16
    assert sum(map(len, reader.lend(7))) == 7


def test_the_first_stop_is_the_one_that_counts() -> None:
    reader = make(b"abc")
    reader.stop()
    receive(reader, b"def")
    reader.stop()
    assert reader.stopped == 0


@pytest.mark.parametrize("stop_first", [False, True])
def test_a_stopped_reader_delivers_the_end_mark_by_itself(stop_first: bool) -> None:
    reader = make(b"abc")
    steps: list[Callable[[], None]] = [reader.stop, lambda: reader.receive_mark(3)]
    for step in steps[:: 1 if stop_first else -1]:
        assert not reader.done
        step()
    assert reader.done
    assert reader.delivered == 4


def test_a_stop_in_the_middle_of_a_frame_discards_the_rest_of_it() -> None:
    reader = make()
    reader.check(0, 6)
    reader.receive(fill(reader.lend(3), b"abc"))
    reader.stop()
    reader.receive(fill(reader.lend(3), b"def"))
    assert (reader.received, reader.delivered, reader.buffered) == (6, 6, 0)


# --- after an abort ---


@pytest.mark.parametrize("data", [b"", b"def"])
@pytest.mark.parametrize("stopped", [False, True])
def test_a_reader_that_discards_keeps_and_delivers_nothing_of_what_comes(
    stopped: bool, data: bytes
) -> None:
    reader = make(b"abc")
    if stopped:
        reader.stop()
    before = reader.delivered, reader.buffered
    reader.discard()
    receive(reader, data)
    reader.receive_mark(3 + len(data))
    assert reader.received == 4 + len(data)
    assert (reader.delivered, reader.buffered) == before
    assert not reader.done
