"""Sealed sessions with another implementation, made of nothing that is bpipe's."""

from __future__ import annotations

import hmac
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

K, KM = (
    HKDF(SHA256(), 32, salt=salt, info=b"").derive(bytes(range(32)))
    for salt in (b"bpipe/1 key", b"bpipe/1 mac")
)
ID = b"i" * 16


def head(opening: int) -> bytes:
    return b"bpip" + bytes([1, opening, 1, 0]) + ID


def hello(oracle: Oracle, opening: int, epoch: int, window: int) -> bytes:
    """M1."""
    message = oracle.write(struct.pack(">QBBBB4xQQQ", epoch, 0, 1, 0, 0, 0, 0, window))
    return head(opening) + mac(head(opening) + message) + message


def mac(data: bytes) -> bytes:
    return hmac.digest(KM, data, "sha256")[:16]


def say(oracle: Oracle, kind: int, number: int, payload: bytes = b"") -> bytes:
    header = struct.pack(">B3xIQ", kind, len(payload), number)
    sealed = bytes(oracle.sending.encrypt_with_ad(b"", header))
    return sealed + (bytes(oracle.sending.encrypt_with_ad(b"", payload)) if payload else b"")


def hear(oracle: Oracle, data: bytes) -> tuple[int, int, bytes]:
    header = oracle.receiving.decrypt_with_ad(b"", data[:32])
    kind, length, number = struct.unpack(">B3xIQ", header)
    payload = oracle.receiving.decrypt_with_ad(b"", data[32:]) if length else b""
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
        oracle = Oracle(head(opening), [K, resume_secret], caller=True)
        greeting = knock(pair)
        feed(greeting, hello(oracle, opening, epoch, WINDOW), NOW)
        answer = drain(greeting, NOW)
        assert answer[0] == 1
        said = struct.unpack(">BBB4xQQQ", oracle.read(answer[1:]))
        assert said == (0, 1, 0, received, received, WINDOW)
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
        first = drain(greeting, NOW)
        assert first[:8] == head(opening)[:8]
        oracle = Oracle(first[:24], [K, resume_secret], caller=False)
        assert first[24:40] == mac(first[:24] + first[40:])
        said = struct.unpack(">QBBBB4xQQQ", oracle.read(first[40:]))
        assert said == (epoch, 0, 1, 0, 0, received, received, WINDOW)
        verdict = struct.pack(">BBB4xQQQ", 0, 1, 0, 0, 0, WINDOW)
        feed(greeting, b"\1" + oracle.write(verdict), NOW)
        if opening == 1:
            resume_secret = oracle.derive(b"bpipe/1 resume")
        assert hear(oracle, drain(greeting, NOW)) == (9, 0, b"")
        feed(greeting, say(oracle, 10, 0), NOW)
        check_frames(oracle, greeting, received, b"from the caller")


@pytest.mark.parametrize("opening", Opening)
def test_another_implementation_is_refused(opening: Opening) -> None:
    oracle = Oracle(head(opening), [K, bytes(32)], caller=True)
    greeting = knock(held())
    feed(greeting, hello(oracle, opening, 5, 1), NOW)
    answer = drain(greeting, NOW)
    admission = Admission.BUSY if opening is Opening.OPEN else Admission.UNKNOWN
    assert answer[0] == 2
    assert oracle.read(answer[1:]) == bytes([admission]) + bytes(30)
