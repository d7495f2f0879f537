"""How many links a session may have, and what is said of their ways."""

from __future__ import annotations

import socket

import pytest

from bpipe.net.congestion import allowed
from bpipe.net.ways import Links, links_of


@pytest.mark.parametrize(
    ("links", "total"),
    [
        (Links(), 1),
        (Links(8), 8),
        (Links(bind=("a", "b", "c")), 3),
        (Links(4, ("a", "b")), 4),
        (links_of(2), 2),
        (links_of(Links(3)), 3),
    ],
)
def test_there_are_as_many_as_are_wanted_or_as_there_are_ways(links: Links, total: int) -> None:
    assert links.total() == total


@pytest.mark.parametrize(
    ("links", "why"),
    [
        (Links(0), "1 to 8 links, not 0"),
        (Links(9), "1 to 8 links, not 9"),
        (Links(bind=9 * ("a",)), "1 to 8 links, not 9"),
        (Links(1, ("a", "b")), "2 of them need as many links, not 1"),
    ],
)
def test_so_many_there_cannot_be(links: Links, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        links.total()
    if not links.bind:
        with pytest.raises(ValueError, match=why):
            links.to_accept()


def test_who_accepts_does_not_choose_from_where() -> None:
    assert Links(5).to_accept() == 5
    with pytest.raises(ValueError, match="no bind"):
        Links(bind=("lo",)).to_accept()


def test_congestion_is_chosen_for_all_that_come_in() -> None:
    Links().require_congestion()
    with pytest.raises(ValueError, match="'none' is not known here"):
        Links(congestion="none").require_congestion()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def congestion() -> str:
            data = server.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
            return data.rstrip(b"\0").decode()

        before = congestion()
        Links().prepare([server])
        assert congestion() == before
        other = next(each for each in allowed() if each != before)
        Links(congestion=other).prepare([server])
        assert congestion() == other
