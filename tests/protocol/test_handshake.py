from __future__ import annotations

import pytest

from bpipe.errors import ProtocolError
from bpipe.protocol.frames import Frames
from bpipe.protocol.handshake import Handshake
from bpipe.protocol.wire import (
    Admission,
    Hello,
    Kind,
    Opening,
    Position,
    Verdict,
    pack_hello,
    pack_verdict,
)

HELLO = Hello(Opening.RESUME, b"i" * 16, 7, Position(1, 2, 3))
VERDICT = Verdict(Admission.OK, Position(4, 5, 6))


def test_the_messages_of_a_plain_greeting_are_those_of_the_wire() -> None:
    assert Handshake().pack_hello(HELLO) == pack_hello(HELLO)
    assert Handshake().pack_verdict(VERDICT, b"a secret") == pack_verdict(VERDICT)


def test_both_sides_understand_each_other() -> None:
    caller, answerer = Handshake(), Handshake()
    hello = caller.pack_hello(HELLO)
    assert len(hello) == answerer.hello_size
    assert answerer.unpack_hello(hello) == HELLO
    verdict = answerer.pack_verdict(VERDICT, b"")
    assert len(verdict) == caller.verdict_size
    assert caller.unpack_verdict(verdict, b"") == VERDICT
    for each in (caller, answerer):
        assert each.resume_secret == b""
        assert type(each.frames(caller=each is caller)) is Frames
        assert len(each.frames(caller=each is caller).pack(Kind.CONFIRM, 0)) == each.frame_size


@pytest.mark.parametrize("size", range(1, len(pack_hello(HELLO)) + 1))
def test_a_hello_that_has_begun_is_checked_as_far_as_it_has_come(size: int) -> None:
    hello = pack_hello(HELLO)
    Handshake().check_hello(hello[:size])
    with pytest.raises(ProtocolError):
        Handshake().check_hello(b"x" + hello[1:size])


def test_a_sealed_hello_is_not_for_who_has_no_secret() -> None:
    with pytest.raises(ProtocolError, match="the peer uses a secret"):
        Handshake().check_hello(pack_hello(HELLO, sealed=True))
