"""Sealed sessions with another implementation, made of nothing that is bpipe's."""

from __future__ import annotations

import struct

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from bpipe.errors import LinkLost
from bpipe.protocol.greeting import AnswererGreeting, CallerGreeting
from bpipe.protocol.wire import Admission, Opening
from tests.support.greetings import NOW, WINDOW, fresh, held, knock
from tests.support.loopback import drain, feed, take
from tests.support.oracle import Oracle

K = HKDF(SHA256(), 32, salt=b"bpipe/1 key", info=b"").derive(bytes(range(32)))


def say(oracle: Oracle, kind: int, number: int, payload: bytes = b"") -> bytes:
    header = struct.pack(">B3xIQ", kind, len(payload), number)
    return header + bytes(oracle.sending.encrypt_with_ad(header, payload))


def hear(oracle: Oracle, data: bytes) -> tuple[int, int, bytes]:
    kind, length, number = struct.unpack(">B3xIQ", data[:16])
    payload = oracle.receiving.decrypt_with_ad(data[:16], data[16:])
    assert len(payload) == length
    return kind, number, payload


def check_frames(
    oracle: Oracle, greeting: AnswererGreeting | CallerGreeting, offset: int, said: bytes
) -> None:
    """What both ends say on an attached link is what they hear; then it is cut."""
    here = greeting.channel
    assert here is not None
    assert greeting.session is not None
    out = drain(here, NOW)
    feed(here, say(oracle, 3, 0), NOW)  # the first frame, before which an answerer says no DATA
    out += drain(here, NOW)
    assert hear(oracle, out[:32]) == (3, offset, b"")  # ACK
    assert hear(oracle, out[32:]) == (1, 0, said)  # DATA
    feed(here, say(oracle, 1, offset, b"abc") + say(oracle, 5, 77), NOW)
    assert take(greeting.session).endswith(b"abc")
    assert hear(oracle, drain(here, NOW)[-32:]) == (6, 77, b"")  # PONG
    here.detach(LinkLost("cut"), NOW)


def test_another_implementation_calls_and_resumes() -> None:
    pair = fresh()
    resume_secret = bytes(32)
    for opening, epoch, received in ((1, 1, 0), (2, 2, 3), (2, 9, 6)):
        head = b"bpip" + bytes([1, opening, 1, 0])
        oracle = Oracle(head, [K, resume_secret], caller=True)
        greeting = knock(pair)
        hello = struct.pack(">16sQQQQ", b"i" * 16, epoch, 0, 0, WINDOW)
        feed(greeting, head + oracle.write(hello), NOW)
        answer = drain(greeting, NOW)
        assert answer[0] == 1
        assert struct.unpack(">QQQQ", oracle.read(answer[1:])) == (0, received, received, WINDOW)
        if opening == 1:
            resume_secret = oracle.derive(b"bpipe/1 resume")
        feed(greeting, say(oracle, 9, 0), NOW)
        assert hear(oracle, drain(greeting, NOW)) == (10, received, b"")
        check_frames(oracle, greeting, received, b"from the listener")


def test_another_implementation_answers_and_is_resumed() -> None:
    caller = fresh().caller
    resume_secret = bytes(32)
    for opening, epoch, received in ((1, 1, 0), (2, 2, 3), (2, 3, 6)):
        greeting = CallerGreeting(caller, NOW)
        hello = drain(greeting, NOW)
        assert hello[:8] == b"bpip" + bytes([1, opening, 1, 0])
        oracle = Oracle(hello[:8], [K, resume_secret], caller=False)
        said = struct.unpack(">16sQQQQ", oracle.read(hello[8:]))
        assert said[1:] == (epoch, received, received, WINDOW)
        feed(greeting, b"\1" + oracle.write(struct.pack(">QQQQ", 0, 0, 0, WINDOW)), NOW)
        if opening == 1:
            resume_secret = oracle.derive(b"bpipe/1 resume")
        assert hear(oracle, drain(greeting, NOW)) == (9, 0, b"")
        feed(greeting, say(oracle, 10, 0), NOW)
        check_frames(oracle, greeting, received, b"from the caller")


@pytest.mark.parametrize("opening", Opening)
def test_another_implementation_is_refused(opening: Opening) -> None:
    head = b"bpip" + bytes([1, opening, 1, 0])
    oracle = Oracle(head, [K, bytes(32)], caller=True)
    greeting = knock(held())
    feed(greeting, head + oracle.write(struct.pack(">16sQQQQ", b"i" * 16, 5, 0, 0, 1)), NOW)
    answer = drain(greeting, NOW)
    admission = Admission.BUSY if opening is Opening.OPEN else Admission.UNKNOWN
    assert answer[0] == 2
    assert struct.unpack(">QQQQ", oracle.read(answer[1:])) == (admission, 0, 0, 0)
