from __future__ import annotations

import pytest

from bpipe.protocol.frames import Frames
from bpipe.protocol.rate import Bucket
from bpipe.protocol.session import Session
from bpipe.protocol.slot_channel import SlotChannel
from bpipe.protocol.trace import Traced
from bpipe.protocol.wire import Position
from tests.support.loopback import drain, feed, write
from tests.support.peer import ACK, CUT, NOW


def test_what_is_told_is_told_from_then_on() -> None:
    traced, told = Traced(), list[tuple[str, str]]()
    traced.log("=", "before")
    traced.trace_to(lambda sign, text: told.append((sign, text)))
    traced.log(">", "after")
    assert told == [(">", "after")]


def test_a_number_is_raised_with_each_change() -> None:
    traced = Traced()
    before = traced.change
    traced.changed()
    assert traced.change > before


@pytest.mark.parametrize("bucket", [None, Bucket(1 << 20)])
def test_what_concerns_one_of_several_links_is_told_with_its_slot(bucket: Bucket | None) -> None:
    session, told = Session(1000, links=2, bucket=bucket), list[tuple[str, str]]()
    session.trace_to(lambda sign, text: told.append((sign, text)))
    session.establish()
    for slot in range(2):
        channel = SlotChannel(session, Frames(), NOW, slot)
        session.attach(channel, Position(0, 0, 1000, links=2), NOW, slot)
    write(session, b"abc")
    drain(channel, NOW)
    feed(channel, ACK(2).encode(), NOW)
    channel.detach(CUT, NOW)
    assert all(text.startswith("link 1: ") for _, text in told[1:])
    assert {*told} >= {
        (">", "link 1: DATA 0 +3"),
        (">", "link 1: ACK 0"),
        ("<", "link 1: ACK 2"),
        ("=", "link 1: detached: cut"),
    }
    assert told[0][1].startswith("link 0: attached: ")
    assert ((">", f"link 1: RATE {1 << 20}") in told) is (bucket is not None)
