from __future__ import annotations

import pytest

from bpipe.errors import LinkLost, ProtocolError
from bpipe.protocol.frames import Frames
from bpipe.protocol.reader import BackedReader
from bpipe.protocol.traffic import ACK_DELAY, QUICK_FRAME, SLOW_FRAME, SMALLEST_FRAME, Traffic
from bpipe.protocol.wire import HEADER_SIZE, LARGEST_PAYLOAD, Header, Kind
from tests.support.loopback import EVERYTHING, Frame, fill

START = 100.0
WINDOW = 1000  # of the peer


def make(heartbeat: float = 2.0) -> Traffic:
    return Traffic(heartbeat, START, Frames())


def hear(
    traffic: Traffic, reader: BackedReader, data: bytes, step: int = EVERYTHING
) -> list[tuple[Header, bytes]]:
    """Let these bytes arrive, ``step`` at once; returns the frames that they completed."""
    heard: list[tuple[Header, bytes]] = []
    while data:
        count = fill(traffic.incoming(reader), data[:step])
        assert count > 0
        heard += traffic.received(count, reader, START)
        data = data[count:]
    return heard


# --- out ---


def test_what_is_lent_goes_out_in_order_and_is_gone_when_it_is_sent() -> None:
    traffic = make()
    traffic.lend(b"small", [memoryview(b"header"), memoryview(b"payload")], START)
    assert b"".join(traffic.lent) == b"smallheaderpayload"
    assert traffic.sent(18, START)
    assert traffic.lent == []


@pytest.mark.parametrize("step", range(1, 18))
def test_what_is_lent_can_go_out_in_pieces_of_any_size(step: int) -> None:
    traffic = make()
    traffic.lend(b"small", [memoryview(b"header"), memoryview(b"payload")], START)
    out = b""
    while traffic.lent:
        part = b"".join(traffic.lent)[:step]
        assert traffic.sent(len(part), START) is (len(out + part) == 18)
        out += part
    assert out == b"smallheaderpayload"


def test_nothing_is_lent_when_there_is_nothing() -> None:
    traffic = make()
    traffic.lend(b"", [], START)
    assert traffic.lent == []


def send_frame(traffic: Traffic, seconds: float) -> int:
    """Send a stream frame that takes so long; returns how large the next may be."""
    traffic.lend(b"", [memoryview(b"frame")], START)
    traffic.sent(5, START + seconds)
    return traffic.frame_size


def test_frames_start_small_and_double_up_to_the_cap_while_the_link_is_quick() -> None:
    traffic = make()
    sizes = [traffic.frame_size] + [send_frame(traffic, 0) for _ in range(8)]
    assert sizes == [(16 << 10) << min(doubled, 6) for doubled in range(9)]
    assert sizes[-1] == LARGEST_PAYLOAD


def test_frames_halve_down_to_the_smallest_while_the_link_is_slow() -> None:
    traffic = make()
    traffic.frame_size = 4 * SMALLEST_FRAME
    sizes = [send_frame(traffic, SLOW_FRAME + 0.01) for _ in range(3)]
    assert sizes == [2 * SMALLEST_FRAME, SMALLEST_FRAME, SMALLEST_FRAME]


@pytest.mark.parametrize("seconds", [QUICK_FRAME + 0.01, SLOW_FRAME - 0.01])
def test_a_frame_that_is_neither_quick_nor_slow_changes_nothing(seconds: float) -> None:
    traffic = make()
    traffic.frame_size = 4 * SMALLEST_FRAME
    assert send_frame(traffic, seconds) == 4 * SMALLEST_FRAME


def test_frames_without_a_payload_do_not_count_as_quick() -> None:
    traffic = make()
    traffic.lend(b"small", [], START)
    traffic.sent(5, START)
    assert traffic.frame_size == SMALLEST_FRAME


def test_a_frame_is_timed_until_its_last_byte() -> None:
    traffic = make()
    traffic.frame_size = 4 * SMALLEST_FRAME
    traffic.lend(b"", [memoryview(b"frame")], START)
    traffic.sent(1, START)
    traffic.sent(4, START + SLOW_FRAME + 0.01)
    assert traffic.frame_size == 2 * SMALLEST_FRAME


# --- acknowledgements ---


def acknowledged(capacity: int = 100) -> tuple[Traffic, BackedReader]:
    """A link on which the first ACK was said, and a full reader."""
    traffic, reader = make(heartbeat=60), BackedReader(capacity)
    reader.receive(fill(reader.lend(capacity), bytes(capacity)))
    traffic.acknowledge(reader)
    return traffic, reader


def test_an_ack_is_due_on_a_fresh_link_although_nothing_has_moved() -> None:
    assert make().ack_due


def test_an_ack_is_not_due_while_nothing_is_delivered() -> None:
    traffic, reader = acknowledged()
    traffic.consider_ack(reader, WINDOW, START)
    assert not traffic.ack_due
    assert traffic.ack_at is None


def test_an_ack_is_due_10_ms_after_the_first_delivery() -> None:
    traffic, reader = acknowledged()
    reader.took(1)
    traffic.consider_ack(reader, WINDOW, START)
    reader.took(1)
    traffic.consider_ack(reader, WINDOW, START + 0.009)
    assert not traffic.ack_due
    assert traffic.deadline() == START + ACK_DELAY == START + 0.010
    traffic.consider_ack(reader, WINDOW, START + 0.010)
    assert traffic.ack_due


def test_a_tick_finds_the_ack_that_is_due() -> None:
    traffic, reader = acknowledged()
    reader.took(1)
    traffic.consider_ack(reader, WINDOW, START)
    traffic.tick(START + 0.009)
    assert not traffic.ack_due
    traffic.tick(START + 0.010)
    assert traffic.ack_due
    assert traffic.deadline() > START + 0.010


@pytest.mark.parametrize(
    ("taken", "window", "due"),
    [(24, 100, False), (25, 100, True), (25, 1000, True), (2, 10, False), (3, 10, True)],
)
def test_an_ack_is_due_at_once_for_a_quarter_of_the_smaller_window(
    taken: int, window: int, due: bool
) -> None:
    traffic, reader = acknowledged(capacity=100)
    reader.took(taken)
    traffic.consider_ack(reader, window, START)
    assert traffic.ack_due is due


@pytest.mark.parametrize("window", [1, 2, 3])
def test_with_the_smallest_windows_each_byte_is_acknowledged_once(window: int) -> None:
    traffic, reader = acknowledged(capacity=100)
    for taken in range(1, 4):
        reader.took(1)
        traffic.consider_ack(reader, window, START)
        assert traffic.ack_due
        assert traffic.acknowledge(reader) == taken
        traffic.consider_ack(reader, window, START)
        assert not traffic.ack_due


def test_what_was_acknowledged_on_another_link_has_not_moved_on_this_one() -> None:
    _, reader = acknowledged(capacity=100)
    reader.took(30)
    first, second = make(), make()
    first.acknowledge(reader)
    second.acknowledge(reader)
    reader.took(24)
    second.consider_ack(reader, WINDOW, START)
    assert not second.ack_due


def test_the_quarter_is_counted_from_the_last_ack() -> None:
    traffic, reader = acknowledged(capacity=100)
    reader.took(25)
    assert traffic.acknowledge(reader) == 25
    reader.took(24)
    traffic.consider_ack(reader, WINDOW, START)
    assert not traffic.ack_due
    reader.took(1)
    traffic.consider_ack(reader, WINDOW, START)
    assert traffic.ack_due


def test_an_ack_is_due_at_once_for_the_end_mark() -> None:
    traffic, reader = acknowledged(capacity=100)
    reader.receive_mark(100)
    reader.took(100)
    traffic.acknowledge(reader)
    reader.close()
    traffic.consider_ack(reader, WINDOW, START)
    assert traffic.ack_due


def test_saying_the_ack_stops_its_timer() -> None:
    traffic, reader = acknowledged()
    reader.took(1)
    traffic.consider_ack(reader, WINDOW, START)
    traffic.acknowledge(reader)
    traffic.tick(START + 1)
    assert not traffic.ack_due


def test_an_ack_is_due_as_a_sign_of_life_after_a_second_of_hearing() -> None:
    traffic, reader = acknowledged()
    hear(traffic, reader, Frame(Kind.PONG, 0).encode())
    traffic.tick(START + 0.99)
    assert not traffic.ack_due
    traffic.tick(START + 1)
    assert traffic.ack_due


def test_silence_loses_the_link() -> None:
    traffic = make(heartbeat=2)
    traffic.tick(START + 5.9)
    with pytest.raises(LinkLost, match="nothing was heard"):
        traffic.tick(START + 6)


# --- in ---

ABORT = Frame(Kind.ABORT, 2, b"disk full")
FRAMES = [Frame(Kind.ACK, 7), Frame(Kind.DATA, 0, b"payload"), ABORT, Frame(Kind.ABORT, 3)]


@pytest.mark.parametrize("step", [*range(1, 40), EVERYTHING])
def test_frames_are_found_in_pieces_of_any_size(step: int) -> None:
    reader = BackedReader(100)
    heard = hear(make(), reader, b"".join(frame.encode() for frame in FRAMES), step)
    assert heard == [
        (Header(Kind.ACK, 0, 7), b""),
        (Header(Kind.DATA, 7, 0), b""),
        (Header(Kind.ABORT, 9, 2), b"disk full"),
        (Header(Kind.ABORT, 0, 3), b""),
    ]
    assert b"".join(reader.readable(EVERYTHING)) == b"payload"


def test_the_next_header_is_read_together_with_a_payload() -> None:
    traffic, reader = make(), BackedReader(100)
    hear(traffic, reader, Frame(Kind.DATA, 0, b"payload").encode()[:HEADER_SIZE])
    assert sum(map(len, traffic.incoming(reader))) == 7 + HEADER_SIZE


def test_no_header_is_read_with_a_payload_that_does_not_fit_in_one_piece() -> None:
    traffic, reader = make(), BackedReader(1 << 20)
    reader.stop()
    hear(traffic, reader, Frame(Kind.DATA, 0, bytes(100_000)).encode()[:HEADER_SIZE])
    assert sum(map(len, traffic.incoming(reader))) == 1 << 16


def test_the_bytes_of_a_half_frame_count_as_received() -> None:
    traffic, reader = make(), BackedReader(100)
    hear(traffic, reader, Frame(Kind.DATA, 0, b"payload").encode()[:-3])
    assert reader.received == 4


def test_a_header_that_nobody_may_send_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="unknown kind"):
        hear(make(), BackedReader(100), bytes(HEADER_SIZE))
