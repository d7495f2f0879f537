"""What connects, where there is more to say of the links of a session than that there is one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bpipe.errors import AddressError
from bpipe.net.address import Address
from bpipe.net.connectors import Connector, Tcp, Unix
from bpipe.net.ways import Links, links_of

if TYPE_CHECKING:
    from bpipe.net.origin import Origin


def connectors(
    place: Address | Connector, links: int | Links, *, anywhere: bool = False
) -> list[Connector]:
    """What connects there, for each of these links.

    ``anywhere`` is as for ``Tcp``. Raises AddressError; ValueError for links that cannot be.
    """
    links = links_of(links)
    count = links.total()
    links.require_congestion()
    if not isinstance(place, Address):
        if links.bind or links.congestion:
            raise ValueError(f"how {place.name} connects is its own affair")
        return [place] * count
    if place.path is None:
        return [
            Tcp(place, anywhere=anywhere, origin=origin, congestion=links.congestion)
            for origin in _origins(links, count)
        ]
    if links.bind or links.congestion:
        raise AddressError(f"{place}: only TCP has an address to begin at, and congestion")
    return [Unix(place.path) for _ in range(count)]


def _origins(links: Links, count: int) -> list[Origin | None]:
    """From where each of so many goes out."""
    if not links.bind:
        return [None] * count
    from bpipe.net.origin import parse_origin

    found = [parse_origin(each) for each in links.bind]
    return [found[number % len(found)] for number in range(count)]


async def check(connectors: Sequence[Connector], timeout: float) -> None:
    """Raise AddressError if it is known in so many seconds that none of them may be used.

    One of several ways may be missing at the beginning, as later: the others do without it.
    """
    different = {each.via: each for each in connectors}.values()
    checks = [each.check(timeout) for each in different]
    errors = [each for each in await asyncio.gather(*checks, return_exceptions=True) if each]
    for error in errors:
        if len(errors) == len(checks) or not isinstance(error, AddressError):
            raise error
