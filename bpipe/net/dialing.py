"""What obtains the links of a session that calls: one of them, or several."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bpipe.net.address import Address
from bpipe.net.connectors import Connector, connector
from bpipe.net.dialer import Dialer
from bpipe.net.ways import Links
from bpipe.protocol.session import Session

if TYPE_CHECKING:
    from bpipe.net.origin import Origin
    from bpipe.net.source import LinkSource


def connectors(
    place: Address | Connector, links: Links, *, anywhere: bool = False
) -> list[Connector]:
    """What connects there, for each of these links.

    ``anywhere`` is as for ``Tcp``. Raises AddressError; ValueError for links that cannot be.
    """
    count = links.total()
    links.require_congestion()
    if not isinstance(place, Address):
        if links.bind or links.congestion:
            raise ValueError(f"how {place.name} connects is its own affair")
        return [place] * count
    congestion = links.congestion
    return [
        connector(place, anywhere=anywhere, origin=origin, congestion=congestion)
        for origin in _origins(links, count)
    ]


def _origins(links: Links, count: int) -> list[Origin | None]:
    """From where each of so many goes out."""
    if not links.bind:
        return [None] * count
    from bpipe.net.origin import parse_origin

    found = [parse_origin(each) for each in links.bind]
    return [found[number % len(found)] for number in range(count)]


async def check(connectors: Sequence[Connector], timeout: float) -> None:
    """Raise AddressError if it is known in so many seconds that one of them may not be used."""
    different = {each.via: each for each in connectors}.values()
    await asyncio.gather(*(each.check(timeout) for each in different))


def dial_by(
    session: Session, connectors: Sequence[Connector], retry_max: float | None = None
) -> LinkSource:
    """What obtains the links of this session, each by one of these.

    ``retry_max`` caps the delay between two attempts, in seconds; None: as their manners say.
    """
    if len(connectors) == 1:
        only = connectors[0]
        return Dialer(session, only, only.manners.backoff(retry_max))
    from bpipe.net.dialers import Dialers  # which few need

    return Dialers(session, connectors, retry_max)
