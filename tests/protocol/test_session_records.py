"""What a session makes of needs, and of a STOP 0 where there are records."""

from __future__ import annotations

import pytest

from bpipe.errors import PipeClosed
from bpipe.protocol.frames import Frames
from bpipe.protocol.session import Session
from bpipe.protocol.wire import FILE, RECORDS, Position
from tests.support.loopback import write
from tests.support.peer import ACK, BYE, FIN, STOP, WINDOW, hear, join, said

PLAIN, NEEDY = Position(0, 0, WINDOW), Position(0, 0, WINDOW, needs=RECORDS)


def test_it_states_what_it_needs() -> None:
    assert Session(WINDOW).position == PLAIN
    assert Session(WINDOW, needs=RECORDS).position == NEEDY


@pytest.mark.parametrize(("needs", "peer"), [(0, NEEDY), (RECORDS, PLAIN), (0, PLAIN)])
def test_whether_there_are_records_is_known_with_the_first_link(needs: int, peer: Position) -> None:
    session = Session(WINDOW, needs=needs)
    join(session, peer, Frames())
    assert session.terms.records is bool(needs or peer.needs)


def test_a_sender_learns_with_the_first_link_that_its_stream_goes_to_a_file() -> None:
    session = Session(1024)
    join(session, Position(0, 0, 1024, needs=RECORDS | FILE), Frames())
    assert (session.terms.records, session.terms.to_file) == (True, True)


@pytest.mark.parametrize("peer", [NEEDY, PLAIN], ids=["records", "bytes"])
def test_a_program_that_leaves_its_stdin_fails_nobody_where_there_are_records(
    peer: Position,
) -> None:
    session = Session(WINDOW)
    write(session, bytes(9))
    join(session, peer, Frames())
    said(session)
    session.writer.begin()
    hear(session, STOP(0), ACK(9))
    session.finish(more=True)
    session.stop()
    said(session)
    hear(session, FIN(0), ACK(10))
    said(session)
    hear(session, BYE(0))
    assert session.over
    if peer.needs:
        assert session.failure is None
    else:
        assert isinstance(session.failure, PipeClosed)
