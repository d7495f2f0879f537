from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpipe.errors import ProtocolError
from bpipe.protocol.wire import (
    HEADER_SIZE,
    HELLO_SIZE,
    LARGEST_MESSAGE,
    LARGEST_PAYLOAD,
    NOWHERE,
    VERDICT_SIZE,
    Admission,
    Ended,
    Header,
    Hello,
    Kind,
    Opening,
    Position,
    Reason,
    Stop,
    Verdict,
    check_hello_prefix,
    is_other_version,
    pack_data_header,
    pack_frame,
    pack_hello,
    pack_verdict,
    unpack_header,
    unpack_hello,
    unpack_verdict,
)

HELLO = Hello(Opening.RESUME, bytes(range(16)), 3, Position(4, 5, 6, 7), 8, 9)
VERDICT = Verdict(Admission.OK, Position(4, 5, 6, 7))
U64 = st.integers(0, 2**64 - 1)
U8 = st.integers(0, 255)
POSITIONS = st.builds(Position, U64, U64, U64, U8, st.just(0))


def header(kind: int, length: int, number: int = 0, padding: bytes = bytes(3)) -> bytes:
    return bytes([kind]) + padding + length.to_bytes(4, "big") + number.to_bytes(8, "big")


# --- frames ---


def test_the_kinds_have_the_numbers_of_the_specification() -> None:
    names = "DATA FIN ACK STOP PING PONG BYE ABORT CONFIRM READY RATE"
    assert [kind.name for kind in map(Kind, range(1, 12))] == names.split()


def test_the_reasons_have_the_numbers_of_the_specification() -> None:
    names = "BROKEN_PIPE LOCAL_ERROR INTERRUPTED PROTOCOL GIVEN_UP"
    assert [reason.name for reason in map(Reason, range(1, 6))] == names.split()


def test_a_frame_is_a_header_of_16_bytes_and_its_message() -> None:
    packed = pack_frame(Kind.ABORT, 0x0102030405060708, b"why")
    assert packed == b"\x08\0\0\0\0\0\0\x03\1\2\3\4\5\6\7\x08why"
    assert len(packed) == HEADER_SIZE + 3


def test_a_data_header_carries_the_offset_and_the_length() -> None:
    assert pack_data_header(256, LARGEST_PAYLOAD) == header(Kind.DATA, 1 << 20, 256)


@pytest.mark.parametrize("kind", sorted(set(Kind) - {Kind.DATA}))
def test_a_frame_without_a_message_comes_back(kind: Kind) -> None:
    assert unpack_header(pack_frame(kind, 2**64 - 1)) == Header(kind, 0, 2**64 - 1)


@pytest.mark.parametrize(
    ("kind", "length"),
    [
        (Kind.DATA, 1),
        (Kind.DATA, LARGEST_PAYLOAD),
        (Kind.ABORT, 0),
        (Kind.ABORT, LARGEST_MESSAGE),
    ],
)
def test_the_smallest_and_the_largest_payload_are_allowed(kind: Kind, length: int) -> None:
    assert unpack_header(header(kind, length)) == Header(kind, length, 0)


@pytest.mark.parametrize(
    ("kind", "length"),
    [
        (Kind.DATA, 0),
        (Kind.DATA, LARGEST_PAYLOAD + 1),
        (Kind.ABORT, LARGEST_MESSAGE + 1),
        *((kind, 1) for kind in sorted(set(Kind) - {Kind.DATA, Kind.ABORT})),
    ],
)
def test_a_payload_that_the_kind_does_not_have_is_a_protocol_error(kind: Kind, length: int) -> None:
    with pytest.raises(ProtocolError, match=f"{kind.name}.*wrong length"):
        unpack_header(header(kind, length))


@pytest.mark.parametrize("kind", [0, 12, 255])
def test_an_unknown_kind_is_a_protocol_error(kind: int) -> None:
    with pytest.raises(ProtocolError, match="unknown kind"):
        unpack_header(header(kind, 0))


@pytest.mark.parametrize("padding", [b"\1\0\0", b"\0\1\0", b"\0\0\1"])
def test_a_byte_that_has_to_be_zero_is_part_of_the_kind(padding: bytes) -> None:
    with pytest.raises(ProtocolError, match="unknown kind"):
        unpack_header(header(Kind.ACK, 0, padding=padding))


@given(st.binary(min_size=HEADER_SIZE, max_size=HEADER_SIZE))
def test_any_16_bytes_are_a_header_or_a_protocol_error(data: bytes) -> None:
    try:
        kind, length, number, how, status = unpack_header(data)
    except ProtocolError:
        return
    assert header(kind, length, number, padding=bytes([how, status, 0])) == data


@pytest.mark.parametrize(
    ("kind", "word", "meaning"),
    [
        (Kind.FIN, 0x010000, (Ended.EXITED, 0)),
        (Kind.FIN, 0x01FF00, (Ended.EXITED, 255)),
        (Kind.FIN, 0x020F00, (Ended.KILLED, 15)),
        (Kind.FIN, 0x020000, None),  # there is no signal 0
        (Kind.FIN, 0x030000, (Ended.CUT, 0)),
        (Kind.FIN, 0x030100, None),
        (Kind.FIN, 0x040000, (Ended.RUNNING, 0)),
        (Kind.FIN, 0x040100, None),
        (Kind.FIN, 0x050000, None),
        (Kind.FIN, 0x010001, None),
        (Kind.STOP, 0x010000, (Stop.CONSUMER_GONE, 0)),
        (Kind.STOP, 0x020000, None),
        (Kind.BYE, 0x01FF00, (Ended.EXITED, 255)),
        (Kind.BYE, 0x020F00, (Ended.KILLED, 15)),
        (Kind.BYE, 0x020000, None),
        (Kind.BYE, 0x030000, None),
        (Kind.ACK, 0x010000, None),
    ],
)
def test_a_fin_a_stop_and_a_bye_say_how(
    kind: Kind, word: int, meaning: tuple[int, int] | None
) -> None:
    data = header(kind, 0, 7, padding=word.to_bytes(3, "big"))
    if meaning is None:
        with pytest.raises(ProtocolError, match="unknown kind"):
            unpack_header(data)
    else:
        assert unpack_header(data) == Header(kind, 0, 7, *meaning)
        assert meaning[1] or pack_frame(kind, 7, how=meaning[0]) == data


# --- the greeting ---


def test_a_hello_on_the_link() -> None:
    epoch, *numbers = (number.to_bytes(8, "big") for number in (3, 4, 5, 6))
    terms = bytes([8, 7, 9, 0]) + bytes(4)
    packed = b"bpip\1\2\0\0" + HELLO.session + epoch + terms + b"".join(numbers)
    assert pack_hello(HELLO) == packed
    assert len(packed) == HELLO_SIZE == 64


@given(
    st.builds(
        Hello,
        st.sampled_from(Opening),
        st.binary(min_size=16, max_size=16),
        U64,
        st.builds(Position, U64, U64, U64, U8, U8),
        U8,
        U8,
    ),
    st.integers(0),
)
def test_a_hello_comes_back_and_each_part_of_it_is_the_beginning_of_one(
    hello: Hello, cut: int
) -> None:
    packed = pack_hello(hello)
    check_hello_prefix(packed[: cut % HELLO_SIZE])
    assert unpack_hello(packed) == hello


@pytest.mark.parametrize(
    ("at", "byte", "why"),
    [
        *((at, 0xFF, "does not speak bpipe") for at in range(4)),
        (5, 0, "malformed"),
        (5, 3, "malformed"),
        (6, 1, "uses a secret"),
        (7, 1, "malformed"),
    ],
)
def test_a_wrong_byte_in_a_hello_is_noticed_when_it_comes(at: int, byte: int, why: str) -> None:
    packed = bytearray(pack_hello(HELLO))
    packed[at] = byte
    check_hello_prefix(packed[:at])
    with pytest.raises(ProtocolError, match=why):
        check_hello_prefix(packed[: at + 1])
    with pytest.raises(ProtocolError, match=why):
        unpack_hello(packed)


def test_bytes_that_have_to_be_zero_are_part_of_a_greeting() -> None:
    for at in range(36, 40):
        packed = bytearray(pack_hello(HELLO))
        packed[at] = 1
        with pytest.raises(ProtocolError, match="malformed"):
            unpack_hello(packed)
    for at in range(4, 8):
        packed = bytearray(pack_verdict(VERDICT))
        packed[at] = 1
        with pytest.raises(ProtocolError, match="malformed"):
            unpack_verdict(packed)


def test_another_version_is_told_from_junk_as_soon_as_it_can_be() -> None:
    other = b"bpip\2\7\0\0" + bytes(56)
    for count in range(8):
        assert not is_other_version(other[:count])
        check_hello_prefix(other[:count])
    for count in (8, 64):
        assert is_other_version(other[:count])
        with pytest.raises(ProtocolError, match="does not speak version 1"):
            check_hello_prefix(other[:count])
    assert not is_other_version(pack_hello(HELLO))
    assert not is_other_version(b"bpip\2\7\1\0")  # who has a secret is told nothing
    assert not is_other_version(b"HTTP/1.1")


def test_who_has_a_secret_hears_of_no_other_version_than_its_own() -> None:
    with pytest.raises(ProtocolError, match="does not speak version 1"):
        check_hello_prefix(b"bpip\2", sealed=True)


def test_a_verdict_on_the_link() -> None:
    numbers = b"".join(number.to_bytes(8, "big") for number in (4, 5, 6))
    assert pack_verdict(VERDICT) == bytes([1, 0, 7, 0, 0, 0, 0, 0]) + numbers
    busy = VERDICT._replace(admission=Admission.BUSY)
    assert pack_verdict(busy) == bytes([2, 4, 7, 0, 0, 0, 0, 0]) + numbers
    assert len(pack_verdict(VERDICT)) == VERDICT_SIZE == 32


def test_needs_that_this_end_does_not_know_are_a_refusal() -> None:
    needy = VERDICT._replace(position=Position(4, 5, 6, needs=5))
    assert unpack_verdict(pack_verdict(needy)) == Verdict(Admission.VERSION, NOWHERE)


@given(st.sampled_from(Admission), POSITIONS)
def test_a_verdict_comes_back(admission: Admission, position: Position) -> None:
    verdict = Verdict(admission, position)
    assert unpack_verdict(pack_verdict(verdict)) == verdict


@pytest.mark.parametrize(
    ("answer", "admission"), [(1, 1), (1, 4), (2, 0), (0, 0), (3, 1), (2, 7), (2, 255)]
)
def test_a_verdict_that_contradicts_itself_is_a_protocol_error(answer: int, admission: int) -> None:
    with pytest.raises(ProtocolError, match="does not speak bpipe"):
        unpack_verdict(bytes([answer, admission]) + bytes(30))
