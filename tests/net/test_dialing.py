"""What connects for each of several links, and which way it takes."""

from __future__ import annotations

import asyncio

import pytest

from bpipe.errors import AddressError
from bpipe.net.address import Address, parse
from bpipe.net.command import Command
from bpipe.net.dialing import check, connectors
from bpipe.net.ways import Links

HERE = Address("127.0.0.1", 1)


@pytest.mark.parametrize(
    ("links", "ways"),
    [
        (Links(), [""]),
        (Links(3), ["", "", ""]),
        (2, ["", ""]),
        (Links(bind=("lo", "127.0.0.9")), ["lo", "127.0.0.9"]),
        (Links(5, ("lo", "127.0.0.9")), ["lo", "127.0.0.9", "lo", "127.0.0.9", "lo"]),
        (Links(2, ("lo",), "reno"), ["lo", "lo"]),
    ],
)
def test_links_take_their_ways_in_turn(links: int | Links, ways: list[str]) -> None:
    found = connectors(HERE, links)
    assert [each.via for each in found] == ways
    assert len({id(each) for each in found}) == len(ways)  # each remembers what was good


def test_a_command_makes_all_of_them() -> None:
    command = Command(["true"])
    assert connectors(command, Links(3)) == [command] * 3
    for links in (Links(bind=("lo",)), Links(congestion="reno")):
        with pytest.raises(ValueError, match="how true connects is its own affair"):
            connectors(command, links)


def test_what_cannot_be_is_told() -> None:
    with pytest.raises(ValueError, match="1 to 8 links"):
        connectors(HERE, Links(9))
    with pytest.raises(ValueError, match="'none' is not known"):
        connectors(HERE, Links(congestion="none"))
    with pytest.raises(AddressError, match="'a b' is neither"):
        connectors(HERE, Links(bind=("a b",)))


def test_a_unix_socket_has_no_way_to_choose() -> None:
    there = parse("unix:/run/s")
    assert [each.name for each in connectors(there, 2)] == ["unix:/run/s"] * 2
    for links in (Links(bind=("lo",)), Links(congestion="reno")):
        with pytest.raises(AddressError, match="unix:/run/s: only TCP has"):
            connectors(there, links)


def test_each_way_is_checked() -> None:
    asyncio.run(check(connectors(HERE, Links(4, ("lo", "127.0.0.9"))), 1))
    asyncio.run(check(connectors(HERE, Links(bind=("lo", "192.0.2.77"))), 1))
    with pytest.raises(AddressError, match=r"192\.0\.2\.77 is not an address of this machine"):
        asyncio.run(check(connectors(HERE, Links(bind=("192.0.2.77", "192.0.2.78"))), 1))


def test_a_mistake_in_a_check_is_not_hidden_by_a_way_that_is_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good, bad = connectors(HERE, Links(bind=("lo", "127.0.0.9")))

    async def fail(timeout: float) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(bad, "check", fail)
    with pytest.raises(RuntimeError, match="a mistake"):
        asyncio.run(check([good, bad], 1))
