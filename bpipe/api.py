"""``connect`` and ``listen``: the short way to a pipe, for programs.

Who only calls does not load what listens, nor the other way round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bpipe.pipe import BackedPipe
from bpipe.protocol.patience import Limits
from bpipe.protocol.rate import Bucket
from bpipe.protocol.session import Session
from bpipe.protocol.wire import MOST_LINKS

if TYPE_CHECKING:
    from bpipe.net.address import Address
    from bpipe.net.connectors import Connector
    from bpipe.net.source import LinkSource
    from bpipe.net.ways import Links
    from bpipe.protocol.secret import Secret

BUFFER_SIZE: Final = 64 << 20  # bytes kept for each direction
EARLY_CHECK: Final = 1.0  # seconds for a look-up before the first attempt


async def connect(
    address: str | Address | Connector,
    *,
    insecure: bool = False,
    secret: Secret | None = None,
    buffer_size: int = BUFFER_SIZE,
    limits: Limits = Limits(),  # noqa: B008 - immutable
    needs: int = 0,
    rate: int | Bucket = 0,
    links: int | Links = 1,
) -> BackedPipe:
    """A pipe to whoever listens at ``address``; entering it, or its ``connect``, connects.

    Addresses of other machines need a ``secret``, or ``insecure`` to do without, and so do other
    users of this one, where the system tells of them. In place of an address there may be a
    ``Command``, whose runs are the connections; it needs neither, as it is your own. ``needs`` are
    what the session has to have for this end: see ``protocol/terms.py``. ``rate`` is the most that
    each of the two ends sends, in bytes a second, 1024 or more (ValueError); 0: there is no limit.
    Pipes with the same ``Bucket`` share it. ``links`` is how many connections there are at once, 1
    to 8 (ValueError), if the listener allows so many; or ``Links``, which say more of them. Raises
    AddressError for an address, or a command, that cannot be used.
    """
    calls = _connectors(address, links, anywhere=insecure or secret is not None)
    session = Session(buffer_size, limits, secret, needs, bucket(rate), len(calls))
    dialling = dial_by(session, calls)
    await _check(calls, min(EARLY_CHECK, limits.connect_timeout or EARLY_CHECK))
    return BackedPipe(session, dialling)


def _connectors(
    address: str | Address | Connector, links: int | Links, *, anywhere: bool
) -> list[Connector]:
    """What connects there, for each link. Raises AddressError, ValueError."""
    from bpipe.net.address import Address, parse, require_callable
    from bpipe.net.connectors import connector

    if isinstance(address, str):
        address = parse(address)
    if isinstance(address, Address):
        require_callable(address)
    if links != 1:
        from bpipe.net.dialing import connectors  # which few need

        return connectors(address, links, anywhere=anywhere)
    return [connector(address, anywhere=anywhere) if isinstance(address, Address) else address]


async def _check(connectors: list[Connector], timeout: float) -> None:
    """Raise AddressError if it is known in so many seconds that none of them may be used."""
    if len(connectors) == 1:
        await connectors[0].check(timeout)
    else:
        from bpipe.net.dialing import check

        await check(connectors, timeout)


def dial_by(session: Session, connectors: list[Connector]) -> LinkSource:
    """What obtains the links of a session that calls: each of these has one at a time."""
    retry_max = session.patience.limits.retry_max
    if len(connectors) > 1:
        from bpipe.net.dialers import Dialers  # which few need

        return Dialers(session, connectors, retry_max)
    from bpipe.net.dialer import Dialer

    return Dialer(session, connectors[0], connectors[0].manners.backoff(retry_max))


async def listen(
    address: str | Address,
    *,
    insecure: bool = False,
    secret: Secret | None = None,
    buffer_size: int = BUFFER_SIZE,
    limits: Limits = Limits(),  # noqa: B008 - immutable
    needs: int = 0,
    rate: int | Bucket = 0,
    links: int | Links = MOST_LINKS,
) -> BackedPipe:
    """A pipe that is bound to ``address``; entering it, or its ``connect``, waits for a caller.

    Addresses that other machines can reach need a ``secret``, or ``insecure`` to do without, and
    so do callers of other users, where the system tells of them. No host is loopback, or with a
    secret every address of this machine. ``needs``, ``rate``: as for ``connect``; ``links``: what
    the caller may have. Raises AddressError for an address that cannot be used, OSError if it
    cannot be bound.
    """
    from bpipe.net.address import to_listen_at
    from bpipe.net.bind import bind
    from bpipe.net.listener import Listener
    from bpipe.net.ways import links_of

    allowed = links_of(links)
    allowed.require_congestion()
    session = Session(buffer_size, limits, secret, needs, bucket(rate), allowed.to_accept())
    where = to_listen_at(address, sealed=secret is not None)
    anywhere = insecure or secret is not None
    bound = await bind(where, anywhere=anywhere)
    allowed.prepare(bound.sockets)
    listener = Listener(bound, anywhere=anywhere, secret=secret)
    return BackedPipe(session, listener.source(session))


def bucket(rate: int | Bucket) -> Bucket | None:
    """One of this rate, or this one; None for 0. ValueError."""
    return rate if isinstance(rate, Bucket) else Bucket(rate) if rate else None
