from __future__ import annotations

import pytest

from bpipe.errors import ProtocolError
from bpipe.protocol.frames import Frames
from bpipe.protocol.reader import BackedReader
from bpipe.protocol.ring import fill
from bpipe.protocol.wire import HEADER_SIZE, Ended, Header, Kind
from tests.support.loopback import EVERYTHING, Frame, unpack


def joined(capacity: int = 100) -> tuple[Frames, BackedReader]:
    """The frames of a link, and the reader whose payloads come over it."""
    frames, reader = Frames(), BackedReader(capacity)
    frames.join(reader)
    return frames, reader


def room(frames: Frames) -> int:
    """How many bytes may come at once."""
    return sum(map(len, frames.incoming()))


# --- out ---


@pytest.mark.parametrize(
    "frame",
    [
        Frame(Kind.ACK, 7),
        Frame(Kind.FIN, 3, how=Ended.CUT),
        Frame(Kind.ABORT, 2, b"disk full"),
    ],
)
def test_a_frame_lies_on_the_link_as_the_wire_has_it(frame: Frame) -> None:
    assert Frames().pack(*frame) == frame.encode()


def test_a_frame_without_payload_has_the_size_that_a_greeting_counts_on() -> None:
    packed = Frames().pack(Kind.READY, 5)
    assert len(packed) == Frames.size
    assert Frames().unpack(packed) == Header(Kind.READY, 0, 5)


def test_a_payload_is_sent_from_where_it_lies() -> None:
    memory = bytearray(b"payload")
    views = Frames().pack_data(3, memoryview(memory))
    memory[:3] = b"PAY"
    assert b"".join(views) == Frame(Kind.DATA, 3, b"PAYload").encode()


# --- in ---

ABORT = Frame(Kind.ABORT, 2, b"disk full")
FRAMES = [Frame(Kind.ACK, 7), Frame(Kind.DATA, 0, b"payload"), ABORT, Frame(Kind.ABORT, 3)]


@pytest.mark.parametrize("step", [*range(1, 40), EVERYTHING])
def test_frames_are_found_in_pieces_of_any_size(step: int) -> None:
    frames, reader = joined()
    assert unpack(frames, b"".join(frame.encode() for frame in FRAMES), step) == [
        (Header(Kind.ACK, 0, 7), b""),
        (Header(Kind.DATA, 7, 0), b""),
        (Header(Kind.ABORT, 9, 2), b"disk full"),
        (Header(Kind.ABORT, 0, 3), b""),
    ]
    assert b"".join(reader.readable(EVERYTHING)) == b"payload"
    assert frames.missing == 0


def test_a_data_frame_counts_from_its_header_on() -> None:
    frames, _ = joined()
    header = Frame(Kind.DATA, 0, b"payload").encode()[:HEADER_SIZE]
    assert unpack(frames, header) == [(Header(Kind.DATA, 7, 0), b"")]


def test_the_next_header_is_read_together_with_a_payload() -> None:
    frames, _ = joined()
    assert room(frames) == HEADER_SIZE
    unpack(frames, Frame(Kind.DATA, 0, b"payload").encode()[:HEADER_SIZE])
    assert room(frames) == 7 + HEADER_SIZE


def test_no_header_is_read_with_a_payload_that_does_not_fit_in_one_piece() -> None:
    frames, reader = joined(1 << 20)
    reader.stop()
    unpack(frames, Frame(Kind.DATA, 0, bytes(100_000)).encode()[:HEADER_SIZE])
    assert room(frames) == 1 << 16


def test_the_bytes_of_a_half_frame_count_as_received() -> None:
    frames, reader = joined()
    unpack(frames, Frame(Kind.DATA, 0, b"payload").encode()[:-3])
    assert reader.received == 4
    assert (frames.missing, frames.passing) == (3, True)


def test_half_a_message_is_not_told() -> None:
    frames, _ = joined()
    assert unpack(frames, ABORT.encode()[:-1]) == []
    assert (frames.missing, frames.passing) == (1, False)
    assert unpack(frames, ABORT.encode()[-1:]) == [(Header(Kind.ABORT, 9, 2), b"disk full")]


def test_some_of_a_payload_may_go_another_way() -> None:
    frames, reader = joined()
    data = Frame(Kind.DATA, 0, b"payload").encode()
    unpack(frames, data[:HEADER_SIZE])
    for count, missing in ((3, 4), (4, 0)):
        frames.passed(count)
        reader.receive_passed(count)
        assert (frames.missing, frames.passing) == (missing, missing > 0)
    assert unpack(frames, Frame(Kind.FIN, 7).encode()) == [(Header(Kind.FIN, 0, 7), b"")]


def test_a_header_that_nobody_may_send_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="unknown kind"):
        unpack(joined()[0], bytes(HEADER_SIZE))


@pytest.mark.parametrize("frame", [Frame(Kind.DATA, 1, b"x"), Frame(Kind.DATA, 0, bytes(101))])
def test_data_that_may_not_come_is_a_protocol_error_before_any_of_it_is_read(frame: Frame) -> None:
    frames, reader = joined()
    with pytest.raises(ProtocolError):
        unpack(frames, frame.encode()[:HEADER_SIZE])
    assert reader.received == 0


def test_a_payload_comes_to_lie_where_the_reader_says() -> None:
    frames, reader = joined()
    unpack(frames, Frame(Kind.DATA, 0, b"payload").encode()[:HEADER_SIZE])
    assert fill(frames.incoming()[:1], b"payload") == 7
    assert not list(frames.receive(7))
    assert b"".join(reader.readable(EVERYTHING)) == b"payload"
