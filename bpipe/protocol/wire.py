"""Frames and greetings: bytes <-> values. All numbers are big-endian.

A frame is a 16-byte header, ``kind u8 | how u8 | status u8 | zero u8 | length u32 | number u64``,
and ``length`` bytes of payload. Only DATA and ABORT have a payload; ``how`` and ``status`` are 0
but in FIN, STOP and BYE. This module knows the shape of what is said; whether it may be said now is
for those who hold the state.
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
    RATE = 11  # the bytes a second that the peer may send; 0: as many as it will


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
    RUNNING = 4  # a program whose output has ended, and which goes on: BYE tells how it ends


class Finish(NamedTuple):
    """The end of a producer, and its exit status, or the signal."""

    how: Ended = Ended.UNKNOWN
    status: int = 0

    @property
    def failed(self) -> bool:
        """Whether its stream is not to be taken for a whole one."""
        return self.how in (Ended.CUT, Ended.KILLED) or self.status != 0

    @property
    def final(self) -> bool:
        """Whether it is the end of a program, and tells what that was."""
        return self.how in (Ended.EXITED, Ended.KILLED)


UNTOLD: Final = Finish()


class Stop(enum.IntEnum):
    """Why a stream is not taken any more. STOP says it."""

    UNWANTED = 0
    CONSUMER_GONE = 1  # it has taken everything so far: was there to be more?


def _word(kind: Kind, how: int = 0, status: int = 0) -> int:
    return kind << 24 | how << 16 | status << 8


_MEANINGS: Final = {
    **{_word(kind): (kind, 0, 0) for kind in Kind},
    **{
        _word(kind, how, status): (kind, how, status)
        for kind in (Kind.FIN, Kind.BYE)
        for how in (Ended.EXITED, Ended.KILLED)
        for status in range(how is Ended.KILLED, 256)
    },
    **{_word(Kind.FIN, how): (Kind.FIN, how, 0) for how in (Ended.CUT, Ended.RUNNING)},
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


def pack_frame(
    kind: Kind, number: int, message: bytes = b"", how: int = 0, status: int = 0
) -> bytes:
    """A whole frame that is not DATA."""
    return _HEADER.pack(_word(kind, how, status), len(message), number) + message


def pack_data_header(number: int, length: int) -> bytes:
    """The header of a DATA frame, whose payload is put on the link from where it lies."""
    return _HEADER.pack(Kind.DATA << 24, length, number)


def unpack_header(data: bytes | memoryview) -> Header:
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
    RANGE = 3  # numbers that cannot be
    BUSY = 4  # somebody else has this listener
    VERSION = 5  # another version is spoken here, or less of this one
    FULL = 6  # too many others have this listener


MOST_LINKS: Final = 8  # of one session


class Position(NamedTuple):
    """What one end states of itself: where it stands in the stream that it reads, and its terms.

    What is not an offset never changes during a session.
    """

    delivered: int
    received: int
    window: int  # the most that it can hold, in bytes
    links: int = 1  # that it would have at once
    needs: int = 0  # bits: what the session has to have for it


def possible(position: Position) -> bool:
    """Whether any end can have terms like these."""
    alone = position.needs & (FILE | RECORDS) == FILE
    return position.window >= 1 and 1 <= position.links <= MOST_LINKS and not alone


class Hello(NamedTuple):
    """The first message: who calls, and where it stands."""

    opening: Opening
    session: bytes
    epoch: int
    position: Position
    slot: int = 0  # which of its links this is to be
    live: int = 0  # bits: the slots in which it has links


class Verdict(NamedTuple):
    """The second message: whether the caller is let in, and where the answerer stands."""

    admission: Admission
    position: Position


VERSION: Final = 1
RECORDS: Final = 1  # the bit of `needs` for streams that are cut into records
FILE: Final = 2  # and for an end that writes what it receives to a file; RECORDS as well
NEEDS: Final = RECORDS | FILE  # the bits of `needs` that this program can serve
NOWHERE: Final = Position(0, 0, 0, 0)  # of an end that refuses
_MAGIC: Final = b"bpip"
_PREFIX_SIZE: Final = 8  # of M1 in every version: what says which version it is
_VERSION_AT: Final = 4
_SEALED_AT: Final = 6
_HEAD: Final = struct.Struct(">4sBBBx16s")
_HELLO: Final = struct.Struct(">QBBBBIQQQ")
_VERDICT: Final = struct.Struct(">BBBBIQQQ")

HEAD_SIZE: Final = _HEAD.size  # of M1; it is in the clear on every link
HELLO_SIZE: Final = HEAD_SIZE + _HELLO.size
VERDICT_SIZE: Final = _VERDICT.size


def pack_hello(hello: Hello, *, sealed: bool = False) -> bytes:
    """M1; on a link that is sealed, before everything after its head is."""
    head = _HEAD.pack(_MAGIC, VERSION, hello.opening, sealed, hello.session)
    delivered, received, window, links, needs = hello.position
    terms = hello.slot, links, hello.live, needs, 0
    return head + _HELLO.pack(hello.epoch, *terms, delivered, received, window)


def is_other_version(data: bytes | bytearray) -> bool:
    """Whether an M1 that begins like this is one of another version, on a link without a secret."""
    known = data[:_VERSION_AT] == _MAGIC and len(data) >= _PREFIX_SIZE
    return known and data[_VERSION_AT] != VERSION and not data[_SEALED_AT]


def check_hello_prefix(data: bytes | bytearray, *, sealed: bool = False) -> None:
    """ProtocolError as soon as these first bytes cannot become an M1 that we answer.

    One of another version may, until ``is_other_version`` can tell.
    """
    head = bytes(data[:_PREFIX_SIZE])
    if not _MAGIC.startswith(head[: len(_MAGIC)]):
        raise ProtocolError("the peer does not speak bpipe")
    if head[_VERSION_AT : _VERSION_AT + 1] not in (b"", bytes([VERSION])):
        if sealed or len(head) == _PREFIX_SIZE:
            raise ProtocolError(f"the peer does not speak version {VERSION} of bpipe's protocol")
        return
    if (head[5:6] and head[5] not in list(Opening)) or head[7:8] not in (b"", b"\0"):
        raise ProtocolError("the peer's greeting is malformed")
    if head[_SEALED_AT : _SEALED_AT + 1] not in (b"", bytes([sealed])):
        raise ProtocolError(
            "the peer uses no secret, and this end does"
            if sealed
            else "the peer uses a secret, and this end does not"
        )


def unpack_hello(data: bytes | bytearray, *, sealed: bool = False) -> Hello:
    """The M1 in these bytes; ProtocolError if it is none."""
    check_hello_prefix(data, sealed=sealed)
    *_, opening, _, session = _HEAD.unpack(data[:HEAD_SIZE])
    epoch, slot, links, live, needs, zero, *place = _HELLO.unpack(data[HEAD_SIZE:])
    if zero:
        raise ProtocolError("the peer's greeting is malformed")
    position = Position._make([*place, links, needs])
    return Hello(Opening(opening), session, epoch, position, slot, live)


def pack_verdict(verdict: Verdict) -> bytes:
    """M2; on a link that is sealed, before everything after its first byte is."""
    answer = Answer.ACCEPT if verdict.admission is Admission.OK else Answer.REFUSE
    delivered, received, window, links, needs = verdict.position
    terms = links, needs, 0
    return _VERDICT.pack(answer, verdict.admission, *terms, delivered, received, window)


def unpack_verdict(data: bytes | bytearray) -> Verdict:
    """The M2 in these bytes; ProtocolError if it is none. What else a refusal says is not judged.

    Needs that are not known here are a refusal, too: this end cannot serve them.
    """
    answer, status, links, needs, zero, *place = _VERDICT.unpack(data)
    if status not in list(Admission) or answer != (Answer.REFUSE if status else Answer.ACCEPT):
        raise ProtocolError("the peer does not speak bpipe")
    if answer == Answer.ACCEPT and zero:
        raise ProtocolError("the peer's greeting is malformed")
    if answer == Answer.ACCEPT and needs & ~NEEDS:
        return Verdict(Admission.VERSION, NOWHERE)
    return Verdict(Admission(status), Position._make([*place, links, needs]))
