"""Frames under a secret: what is changed, lost, repeated or moved ends the link and no more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from bpipe.errors import Forged, LinkLost, ProtocolError
from bpipe.protocol import noise
from bpipe.protocol.ending import Phase
from bpipe.protocol.noise import REKEY_EVERY, TAG_SIZE, CipherState
from bpipe.protocol.reader import BackedReader
from bpipe.protocol.sealed import LOOK_AHEAD, SealedFrames
from bpipe.protocol.session import FRUITLESS_LINKS, Session
from bpipe.protocol.wire import (
    HEADER_SIZE,
    LARGEST_PAYLOAD,
    Header,
    Kind,
    Position,
    Reason,
)
from tests.support.loopback import (
    EVERYTHING,
    SECRET,
    SIDES,
    Frame,
    Pair,
    drain,
    feed,
    state,
    take,
    unpack,
    write,
)
from tests.support.peer import channel, join, lose

NOW = 100.0
WINDOW = 300
OVERHEAD = HEADER_SIZE + TAG_SIZE


def link(number: int = 0) -> tuple[SealedFrames, SealedFrames]:
    """Both ends of a link, whose keys this number makes."""
    there, back = bytes([number] * 32), bytes([number + 100] * 32)
    near = SealedFrames(CipherState(there), CipherState(back))
    far = SealedFrames(CipherState(back), CipherState(there))
    return near, far


def seal(frames: SealedFrames, frame: Frame) -> bytes:
    if frame.kind is Kind.DATA:
        return b"".join(frames.pack_data(frame.number, memoryview(frame.payload)))
    return frames.pack(frame.kind, frame.number, frame.payload)


def unseal(frames: SealedFrames, data: bytes) -> list[Frame]:
    """The frames in these bytes, which end with the last of them."""
    reader = BackedReader(1 << 21)
    frames.join(reader)
    heard, found = unpack(frames, data), []
    payloads = b"".join(reader.readable(EVERYTHING))
    for (kind, length, number, *_), message in heard:
        if kind is Kind.DATA:
            message, payloads = payloads[:length], payloads[length:]
        found.append(Frame(kind, number, message))
    return found


def attach(frames: SealedFrames, session: Session | None = None) -> Session:
    """A session on this link, which has said 20 bytes and heard 5."""
    if session is None:
        session = Session(WINDOW, secret=SECRET)
        write(session, bytes(20))
    position = Position(session.writer.acked, session.writer.high, WINDOW)
    join(session, position, frames)
    drain(channel(session), NOW)
    return session


HELLO = Frame(Kind.DATA, 0, b"hello")
FRAMES = [
    Frame(Kind.DATA, 5, b"world"),
    Frame(Kind.DATA, 5, b"w"),
    Frame(Kind.FIN, 5),
    Frame(Kind.ACK, 7),
    Frame(Kind.STOP, 3),
    Frame(Kind.PING, 12345),
    Frame(Kind.PONG, 1),
    Frame(Kind.ABORT, Reason.LOCAL_ERROR, b"disk full"),
    Frame(Kind.ABORT, Reason.INTERRUPTED),
]


def hearing() -> tuple[SealedFrames, Session]:
    """Who says what comes, and a session that has heard ``HELLO``."""
    near, far = link()
    session = attach(far)
    feed(channel(session), seal(near, HELLO), NOW)
    return near, session


def check_forged(session: Session, data: bytes, step: int = EVERYTHING) -> None:
    """These bytes end the link, and change nothing; nor does it count that they did."""
    was, failure = state(session), session.failure
    with pytest.raises(LinkLost) as caught:
        feed(channel(session), data, NOW, step)
    assert type(caught.value) is Forged
    assert state(session) == was
    lose(session, caught.value)
    assert state(session) == was._replace(attached=False)
    assert session.failure is failure


def size_of(frame: Frame) -> int:
    return OVERHEAD + (len(frame.payload) + TAG_SIZE if frame.payload else 0)


@pytest.mark.parametrize("frame", FRAMES)
def test_a_frame_shows_nothing_but_its_length(frame: Frame) -> None:
    near, far = link()
    hello, sealed = seal(near, HELLO), seal(near, frame)
    assert len(sealed) == size_of(frame)
    assert frame.encode()[:HEADER_SIZE] != sealed[:HEADER_SIZE]
    assert len(frame.payload) < 4 or frame.payload not in sealed
    assert unseal(far, hello + sealed) == [HELLO, frame]


# --- what is changed ---


@pytest.mark.parametrize("frame", FRAMES)
def test_any_bit_flipped_is_a_forgery_as_soon_as_its_tag_is_there(frame: Frame) -> None:
    for bit in range(8 * size_of(frame)):
        near, session = hearing()
        sealed = bytearray(seal(near, frame))
        sealed[bit // 8] ^= 1 << bit % 8
        tagged = OVERHEAD if bit < 8 * OVERHEAD else len(sealed)
        feed(channel(session), bytes(sealed[: tagged - 1]), NOW)
        check_forged(session, bytes(sealed[tagged - 1 : tagged]))


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("number", [0, 5, 2**64 - 1])
def test_any_frame_of_who_has_no_key_is_a_forgery(kind: Kind, number: int) -> None:
    plain = Frame(kind, number, b"x" if kind is Kind.DATA else b"").encode()
    check_forged(hearing()[1], plain + bytes(TAG_SIZE))
    check_forged(hearing()[1], plain + plain * 3)
    check_forged(hearing()[1], seal(link(1)[0], Frame(kind, number, plain[HEADER_SIZE:])))


@pytest.mark.parametrize(
    "junk", [bytes(32), b"\xff" * 32, b"GET / HTTP/1.1\r\nHost: a.example\r\n"[:32]]
)
def test_junk_is_a_forgery_as_soon_as_there_is_as_much_as_a_header(junk: bytes) -> None:
    session = hearing()[1]
    feed(channel(session), junk[:-1], NOW)
    check_forged(session, junk[-1:])


def test_forgeries_do_not_end_a_session_however_many_there_are() -> None:
    session = Session(WINDOW, secret=SECRET)
    for number in range(3 * FRUITLESS_LINKS):
        attach(link(number)[1], session)
        check_forged(session, bytes(OVERHEAD))
    assert session.phase is Phase.UP


def test_what_came_before_a_forgery_counts() -> None:
    near, session = hearing()
    with pytest.raises(Forged):
        feed(channel(session), seal(near, Frame(Kind.DATA, 5, b" you")) + bytes(100), NOW)
    assert take(session) == b"hello you"


# --- what is lost, repeated or moved ---


def three(frames: SealedFrames) -> list[bytes]:
    return [seal(frames, Frame(Kind.DATA, 5 + number, b"x")) for number in range(3)]


@pytest.mark.parametrize(
    ("order", "heard"),
    [((1,), 0), ((2, 1, 0), 0), ((0, 0), 1), ((0, 2), 1), ((0, 1, 1), 2), ((0, 1, 0), 2)],
)
def test_frames_come_in_their_order_and_once(order: tuple[int, ...], heard: int) -> None:
    near, session = hearing()
    frames = three(near)
    feed(channel(session), b"".join(frames[number] for number in order[:heard]), NOW)
    check_forged(session, frames[order[heard]])
    assert take(session) == b"hello" + b"x" * heard


def test_a_frame_of_the_first_link_is_a_forgery_on_the_next() -> None:
    near, session = hearing()
    again = seal(near, Frame(Kind.DATA, 5, b"x"))
    lose(session, LinkLost("cut"))
    attach(link(1)[1], session)
    check_forged(session, again)


def test_what_an_end_says_itself_is_a_forgery_to_it() -> None:
    session = Session(WINDOW, secret=SECRET)
    join(session, Position(0, 0, WINDOW), link()[1])
    check_forged(session, drain(channel(session), NOW))


# --- what only the peer can have said ---


@pytest.mark.parametrize(
    "frame",
    [
        Frame(Kind.DATA, 4, b"x"),
        Frame(Kind.DATA, 6, b"x"),
        Frame(Kind.DATA, 2**64 - 1, b"x"),
        Frame(Kind.DATA, 5, bytes(WINDOW - 4)),
        Frame(Kind.DATA, 5, bytes(LARGEST_PAYLOAD)),
        Frame(Kind.FIN, 4),
        Frame(Kind.ACK, 21),
        Frame(Kind.ACK, 2**64 - 1),
        Frame(Kind.STOP, 21),
        Frame(Kind.BYE, 0),
        Frame(Kind.CONFIRM, 0),
        Frame(Kind.READY, 0),
    ],
)
@pytest.mark.parametrize("step", [1, EVERYTHING])
def test_what_the_peer_may_not_say_is_a_protocol_error_at_its_header(
    frame: Frame, step: int
) -> None:
    near, session = hearing()
    was = state(session)
    header = seal(near, frame)[:OVERHEAD]
    with pytest.raises(ProtocolError):
        feed(channel(session), header, NOW, step)
    assert state(session) == was
    forged = bytearray(header)
    forged[-1] ^= 1
    near, session = hearing()
    check_forged(session, bytes(forged), step)


def test_a_peer_that_breaks_the_protocol_again_and_again_ends_the_session() -> None:
    session = Session(WINDOW, secret=SECRET)
    for number in range(FRUITLESS_LINKS):
        near, far = link(number)
        attach(far, session)
        with pytest.raises(ProtocolError) as caught:
            feed(channel(session), seal(near, Frame(Kind.CONFIRM, 0)), NOW)
        lose(session, caught.value)
    assert session.phase is Phase.ABORTING


# --- chunks, and where a payload comes to lie ---

data_sizes = st.integers(1, 70)


@given(
    sizes=st.lists(data_sizes, min_size=1, max_size=30),
    capacity=st.integers(16, 400),
    steps=st.lists(st.sampled_from([1, 2, 15, 16, 17, 31, 32, 33, 48, 49, 300]), min_size=1),
)
def test_a_stream_arrives_whatever_its_frames_its_chunks_and_the_readers_pages(
    sizes: list[int], capacity: int, steps: list[int]
) -> None:
    near, far = link()
    session = Session(capacity, secret=SECRET)
    join(session, Position(0, 0, WINDOW), far)
    stream, taken, turn = b"", b"", 0
    for size in sizes:
        payload = bytes((len(stream) + at) % 251 for at in range(min(size, capacity)))
        data = seal(near, Frame(Kind.DATA, len(stream), payload))
        stream += payload
        taken += take(session, session.reader.received + len(payload) - capacity - len(taken))
        while data:
            step = steps[turn % len(steps)]
            feed(channel(session), data[:step], NOW)
            data, turn = data[step:], turn + 1
        assert session.reader.received == len(stream)
    assert taken + take(session) == stream


class Heard(NamedTuple):
    error: str
    received: int
    waiting: bytes
    acknowledged: int


def hear(data: bytes, step: int) -> Heard:
    """What a session makes of these bytes in pieces of this size."""
    session = hearing()[1]
    error = ""
    try:
        feed(channel(session), data, NOW, step)
    except LinkLost as lost:
        error = repr(lost)
    reader = session.reader
    return Heard(error, reader.received, take(session), session.writer.acked)


frames_to_say = st.lists(
    st.sampled_from([*FRAMES, Frame(Kind.DATA, 10, b"x" * 50), Frame(Kind.BYE, 0)]), max_size=4
)


@settings(max_examples=300)
@given(
    said=frames_to_say,
    flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 7)), max_size=1),
    step=st.integers(1, 70),
)
def test_chunks_never_change_the_outcome(
    said: list[Frame], flips: list[tuple[int, int]], step: int
) -> None:
    near = hearing()[0]
    data = bytearray(b"".join(seal(near, frame) for frame in said))
    for at, bit in flips:
        if data:
            data[at % len(data)] ^= 1 << bit
    assert hear(bytes(data), step) == hear(bytes(data), EVERYTHING)


@pytest.mark.parametrize("before", range(124, 133))
@pytest.mark.parametrize("size", [1, 4, 5, 127, 128, 129, 180])
@pytest.mark.parametrize("flip", [0, 1])
def test_a_payload_that_crosses_pages_is_put_together(before: int, size: int, flip: int) -> None:
    near, far = link()
    session = Session(320, secret=SECRET)
    assert len(session.reader.lend(EVERYTHING)[0]) == 128  # a page
    join(session, Position(0, 0, WINDOW), far)
    payload = bytes(range(1, size + 1))
    feed(channel(session), seal(near, Frame(Kind.DATA, 0, b"#" * before)), NOW)
    sealed = bytearray(seal(near, Frame(Kind.DATA, before, payload)))
    sealed[OVERHEAD] ^= flip
    feed(channel(session), bytes(sealed[:-1]), NOW)
    last = bytes(sealed[-1:])
    if flip:
        check_forged(session, last)
    else:
        assert session.reader.received == before
        feed(channel(session), last, NOW)
    assert take(session) == b"#" * before + (b"" if flip else payload)


def stop(session: Session) -> None:
    session.stop()


def fail(session: Session) -> None:
    session.abort(Reason.INTERRUPTED, "", NOW)


@pytest.mark.parametrize("size", [1, 100, (64 << 10) - 1, 64 << 10, (64 << 10) + 1, 200_000])
@pytest.mark.parametrize("already", [0, OVERHEAD, OVERHEAD + 1])
@pytest.mark.parametrize("discard", [stop, fail])
def test_what_is_discarded_is_verified_anyway(
    discard: Callable[[Session], None], already: int, size: int
) -> None:
    for flip in (0, 1):
        near, far = link()
        session = Session(1 << 18, secret=SECRET)
        join(session, Position(0, 0, WINDOW), far)
        feed(channel(session), seal(near, HELLO), NOW)
        sealed = bytearray(seal(near, Frame(Kind.DATA, 5, bytes(size))))
        sealed[-1] ^= flip
        feed(channel(session), bytes(sealed[:already]), NOW)
        discard(session)
        if flip:
            check_forged(session, bytes(sealed[already:]))
            continue
        delivered, buffered = session.reader.delivered, session.reader.buffered
        feed(channel(session), bytes(sealed[already:]), NOW)
        assert session.reader.received == 5 + size
        assert session.reader.buffered == buffered
        assert session.reader.delivered == delivered + (size if discard is stop else 0)


# --- memory ---


def test_a_frame_that_is_announced_and_does_not_come_costs_no_more_than_the_window() -> None:
    near, session = hearing()
    header = seal(near, Frame(Kind.DATA, 5, bytes(WINDOW - 5)))[:OVERHEAD]
    feed(channel(session), header, NOW)
    assert len(channel(session).incoming()[0]) == WINDOW - 5 + TAG_SIZE


def test_a_small_frame_after_a_large_one_is_itself_and_nothing_of_the_other() -> None:
    near, far = link()
    large, smaller = 3 * LOOK_AHEAD, 2 * LOOK_AHEAD
    frames = [
        Frame(Kind.DATA, 0, b"x" * large),
        Frame(Kind.DATA, large, b"y" * smaller),
        Frame(Kind.DATA, large + smaller, b"z"),
        Frame(Kind.FIN, large + smaller + 1),
    ]
    assert unseal(far, b"".join(seal(near, frame) for frame in frames)) == frames


# --- no number is used twice ---


class Recorder:
    """An AESGCM that remembers what was sealed under which key and nonce."""

    sealed: Counter[tuple[bytes, bytes]]
    inputs: dict[tuple[bytes, bytes], tuple[bytes, bytes]]

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._cipher = AESGCM(key)
        self.decrypt, self.decrypt_into = self._cipher.decrypt, self._cipher.decrypt_into

    def _record(self, nonce: bytes, data: bytes, associated: bytes) -> None:
        self.sealed[self._key, nonce] += 1
        once = bytes(data), bytes(associated)
        assert self.inputs.setdefault((self._key, nonce), once) == once

    def encrypt(self, nonce: bytes, data: bytes, associated: bytes) -> bytes:
        self._record(nonce, data, associated)
        return self._cipher.encrypt(nonce, data, associated)

    def encrypt_into(self, nonce: bytes, data: bytes, associated: bytes, into: memoryview) -> None:
        self._record(nonce, data, associated)
        self._cipher.encrypt_into(nonce, data, associated, into)


FOR_REKEY = bytes(4) + b"\xff" * 8


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[bytes, bytes]]:
    monkeypatch.setattr(Recorder, "sealed", Counter(), raising=False)
    monkeypatch.setattr(Recorder, "inputs", {}, raising=False)
    monkeypatch.setattr(noise, "AESGCM", Recorder)
    return Recorder.sealed


def check_unique(recorded: Counter[tuple[bytes, bytes]]) -> None:
    """Only the nonce of REKEY comes twice under one key: once at each end, for the same zeros."""
    for (_, nonce), count in recorded.items():
        assert count == 1 or (nonce == FOR_REKEY and count == 2)


def test_no_nonce_comes_twice_over_many_links(recorded: Counter[tuple[bytes, bytes]]) -> None:
    pair = Pair(Session(WINDOW, secret=SECRET), Session(WINDOW, secret=SECRET))
    moved = [0, 0]
    for number in range(300):
        between = pair.connect()
        left = 13 * number % 1100
        while left > 0:
            before = left
            for side in SIDES:
                write(pair.sessions[side], bytes([number % 256]) * 20)
                sent = between.send(side, pair.now, min(left, 50))
                between.arrive(1 - side, pair.now)
                moved[1 - side] += len(take(pair.sessions[1 - side], 30))
                left -= sent
            pair.now += 0.01
            if left == before:
                break
        between.cut(pair.now)
    assert min(moved) > 2000
    assert all(
        session.history.links > 100 and session.history.replayed for session in pair.sessions
    )
    assert len({key for key, _ in recorded}) > 600
    check_unique(recorded)


@pytest.mark.slow
def test_no_nonce_comes_twice_over_a_rekey_in_both_directions(
    recorded: Counter[tuple[bytes, bytes]],
) -> None:
    near, far = link()
    session = Session(WINDOW, secret=SECRET)
    join(session, Position(0, 0, WINDOW), far)
    assert near.unpack(drain(channel(session), NOW)).kind is Kind.ACK
    for number in range(REKEY_EVERY + 50):
        feed(channel(session), near.pack(Kind.PING, number), NOW)
        assert near.unpack(drain(channel(session), NOW)) == Header(Kind.PONG, 0, number)
    assert [count for (_, nonce), count in recorded.items() if nonce == FOR_REKEY] == [2, 2]
    assert len({key for key, _ in recorded}) == 4
    check_unique(recorded)
