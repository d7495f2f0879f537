"""Frames and greetings: bytes <-> values. All numbers are big-endian.

A frame is a 16-byte header, ``kind u8 | how u8 | status u8 | zero u8 | length u32 | number u64``,
and ``length`` bytes of payload. Only DATA and ABORT have a payload; ``how`` and ``status`` are 0
but in FIN and STOP. This module knows the shape of what is
said; whether it may be said now is for those who hold the state.
"""

from __future__ import annotations

import enum
import struct
from typing import Final, NamedTuple

from bpipe.errors import ProtocolError

HEADER_SIZE: Final = 16
LARGEST_PAYLOAD: Final = 1 << 20  # of a DATA frame, in bytes
LARGEST_MESSAGE: Final = 512  # of an ABORT frame, in bytes

_HEADER: Final = struct.Struct(">IIQ")  # kind, how, status and zero are the first word


class Kind(enum.IntEnum):
    """What a frame says, and what its ``number`` means."""

    DATA = 1  # the offset of the first byte
    FIN = 2  # the offset of the end-of-stream mark; `how` is an Ended
    ACK = 3  # `delivered`: everything below it reached the consumer
    STOP = 4  # the offset from which nothing is taken; `how` is a Stop
    PING = 5  # a token
    PONG = 6  # the token of the PING that it answers
    BYE = 7  # 0: "I am done"
    ABORT = 8  # a Reason; the payload is a message for people
    CONFIRM = 9  # 0: third message of the greeting
    READY = 10  # the answerer's final `received`: fourth message of the greeting


class Reason(enum.IntEnum):
    """Why an ABORT ends the session."""

    BROKEN_PIPE = 1
    LOCAL_ERROR = 2
    INTERRUPTED = 3
    PROTOCOL = 4
    GIVEN_UP = 5


class Ended(enum.IntEnum):
    """How the producer of a stream has ended, as far as its end knows. FIN says it."""

    UNKNOWN = 0  # an end of file, whatever became of the program behind it
    EXITED = 1  # a program; `status` is its exit status
    KILLED = 2  # a program; `status` is the signal
    CUT = 3  # there was more, or the producer had not ended when it was stopped


class Stop(enum.IntEnum):
    """Why a stream is not taken any more. STOP says it."""

    UNWANTED = 0
    CONSUMER_GONE = 1  # it has taken everything so far: was there to be more?


def _word(kind: Kind, how: int = 0, status: int = 0) -> int:
    return kind << 24 | how << 16 | status << 8


_MEANINGS: Final = {
    **{_word(kind): (kind, 0, 0) for kind in Kind},
    **{
        _word(Kind.FIN, how, status): (Kind.FIN, how, status)
        for how in (Ended.EXITED, Ended.KILLED)
        for status in range(how is Ended.KILLED, 256)
    },
    _word(Kind.FIN, Ended.CUT): (Kind.FIN, Ended.CUT, 0),
    _word(Kind.STOP, Stop.CONSUMER_GONE): (Kind.STOP, Stop.CONSUMER_GONE, 0),
}
_PAYLOADS: Final = {
    Kind.DATA: range(1, LARGEST_PAYLOAD + 1),
    Kind.ABORT: range(LARGEST_MESSAGE + 1),
}
_NO_PAYLOAD: Final = range(1)


class Header(NamedTuple):
    """The header of one frame."""

    kind: Kind
    length: int
    number: int
    how: int = 0
    status: int = 0


def pack_frame(kind: Kind, number: int, message: bytes = b"", how: int = 0) -> bytes:
    """A whole frame that is not DATA."""
    return _HEADER.pack(_word(kind, how), len(message), number) + message


def pack_data_header(number: int, length: int) -> bytes:
    """The header of a DATA frame, whose payload is put on the link from where it lies."""
    return _HEADER.pack(Kind.DATA << 24, length, number)


def unpack_header(data: bytes | bytearray) -> Header:
    """The header in these 16 bytes; ProtocolError for one that nobody may send."""
    word, length, number = _HEADER.unpack(data)
    meaning = _MEANINGS.get(word)
    if meaning is None:
        raise ProtocolError("a frame of an unknown kind")
    kind, how, status = meaning
    if length not in _PAYLOADS.get(kind, _NO_PAYLOAD):
        raise ProtocolError(f"{kind.name} of a wrong length")
    return Header(kind, length, number, how, status)


# --- the greeting -------------------------------------------------------------------------


class Opening(enum.IntEnum):
    """What the caller asks for in its first message."""

    OPEN = 1
    RESUME = 2


class Answer(enum.IntEnum):
    """The first byte of the answerer's message."""

    ACCEPT = 1
    REFUSE = 2


class Admission(enum.IntEnum):
    """Why the answerer accepts or refuses."""

    OK = 0
    UNKNOWN = 1  # no such session
    STALE = 2  # an epoch that is not above the last attached one, or OPEN of a known session
    RANGE = 3  # offsets that cannot be
    BUSY = 4  # somebody else has this listener


class Position(NamedTuple):
    """Where one end stands in the stream that it reads, and how much of it it can hold."""

    delivered: int
    received: int
    window: int


class Hello(NamedTuple):
    """The first message: who calls, and where it stands."""

    opening: Opening
    session: bytes
    epoch: int
    position: Position


class Verdict(NamedTuple):
    """The second message: whether the caller is let in, and where the answerer stands."""

    admission: Admission
    position: Position


VERSION: Final = 1
_MAGIC: Final = b"bpip"
_HEAD: Final = struct.Struct(">4sBBBx")
_HELLO: Final = struct.Struct(">16sQQQQ")
_VERDICT: Final = struct.Struct(">BQQQQ")

HEAD_SIZE: Final = _HEAD.size  # of M1; it is plain on every link
HELLO_SIZE: Final = HEAD_SIZE + _HELLO.size
VERDICT_SIZE: Final = _VERDICT.size


def pack_hello(hello: Hello, *, sealed: bool = False) -> bytes:
    """M1; on a link that is sealed, before everything after its head is."""
    head = _HEAD.pack(_MAGIC, VERSION, hello.opening, sealed)
    return head + _HELLO.pack(hello.session, hello.epoch, *hello.position)


def check_hello_prefix(data: bytes | bytearray, *, sealed: bool = False) -> None:
    """ProtocolError as soon as these first bytes cannot become an M1 that we answer."""
    head = bytes(data[:HEAD_SIZE])
    fixed = _MAGIC + bytes([VERSION])
    if not fixed.startswith(head[: len(fixed)]):
        raise ProtocolError("the peer does not speak bpipe, version 1")
    if (head[5:6] and head[5] not in list(Opening)) or head[7:8] not in (b"", b"\0"):
        raise ProtocolError("the peer's greeting is malformed")
    if head[6:7] not in (b"", bytes([sealed])):
        raise ProtocolError(
            "the peer uses no secret, and this end does"
            if sealed
            else "the peer uses a secret, and this end does not"
        )


def unpack_hello(data: bytes | bytearray, *, sealed: bool = False) -> Hello:
    """The M1 in these bytes; ProtocolError if it is none."""
    check_hello_prefix(data, sealed=sealed)
    session, epoch, *position = _HELLO.unpack(data[HEAD_SIZE:])
    return Hello(Opening(data[5]), session, epoch, Position(*position))


def pack_verdict(verdict: Verdict) -> bytes:
    """M2; on a link that is sealed, before everything after its first byte is."""
    answer = Answer.ACCEPT if verdict.admission is Admission.OK else Answer.REFUSE
    return _VERDICT.pack(answer, verdict.admission, *verdict.position)


def unpack_verdict(data: bytes | bytearray) -> Verdict:
    """The M2 in these bytes; ProtocolError if it is none."""
    answer, status, *position = _VERDICT.unpack(data)
    if status not in list(Admission) or answer != (Answer.REFUSE if status else Answer.ACCEPT):
        raise ProtocolError("the peer does not speak bpipe, version 1")
    return Verdict(Admission(status), Position(*position))
