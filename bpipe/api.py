"""``connect`` and ``listen``: the short way to a pipe, for programs.

Who only calls does not load what listens, nor the other way round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bpipe.pipe import BackedPipe
from bpipe.protocol.patience import Limits
from bpipe.protocol.rate import Bucket
from bpipe.protocol.secret import Secret
from bpipe.protocol.session import Session

if TYPE_CHECKING:
    from bpipe.net.address import Address
    from bpipe.net.connectors import Connector

BUFFER_SIZE: Final = 64 << 20  # bytes kept for each direction
EARLY_CHECK: Final = 1.0  # seconds for a look-up before the first attempt


async def connect(
    address: str | Address | Connector,
    *,
    insecure: bool = False,
    secret: Secret | None = None,
    retry_max: float | None = None,
    buffer_size: int = BUFFER_SIZE,
    limits: Limits = Limits(),  # noqa: B008 - immutable
    needs: int = 0,
    rate: int | Bucket = 0,
) -> BackedPipe:
    """A pipe to whoever listens at ``address``; entering it, or its ``connect``, connects.

    Addresses of other machines need a ``secret``, or ``insecure`` to do without, and so do other
    users of this one, where the system tells of them. In place of an address there may be a
    ``Command``, whose runs are the connections; it needs neither, as it is your own. ``retry_max``
    caps the delay between two attempts, in seconds: 1, or 15 for a command. ``needs`` are what the
    session has to have for this end: see ``protocol/terms.py``. ``rate`` is the most that each of
    the two ends sends, in bytes a second, 1024 or more (ValueError); 0: there is no limit. Pipes
    with the same ``Bucket`` share it. Raises AddressError for an address, or a command, that cannot
    be used.
    """
    from bpipe.net.dialer import Dialer

    calls = _connector(address, anywhere=insecure or secret is not None)
    session = Session(buffer_size, limits, secret, needs, bucket(rate))
    dialer = Dialer(session, calls, calls.manners.backoff(retry_max))
    await calls.check(min(EARLY_CHECK, limits.connect_timeout or EARLY_CHECK))
    return BackedPipe(session, dialer)


def _connector(address: str | Address | Connector, *, anywhere: bool) -> Connector:
    """What connects there. Raises AddressError."""
    from bpipe.net.address import Address, parse, require_callable
    from bpipe.net.connectors import connector

    if isinstance(address, str):
        address = parse(address)
    if not isinstance(address, Address):
        return address
    require_callable(address)
    return connector(address, anywhere=anywhere)


async def listen(
    address: str | Address,
    *,
    insecure: bool = False,
    secret: Secret | None = None,
    buffer_size: int = BUFFER_SIZE,
    limits: Limits = Limits(),  # noqa: B008 - immutable
    needs: int = 0,
    rate: int | Bucket = 0,
) -> BackedPipe:
    """A pipe that is bound to ``address``; entering it, or its ``connect``, waits for a caller.

    Addresses that other machines can reach need a ``secret``, or ``insecure`` to do without, and
    so do callers of other users, where the system tells of them. No host is loopback, or with a
    secret every address of this machine. ``needs``, ``rate``: as for ``connect``. Raises
    AddressError for an address that cannot be used, OSError if it cannot be bound.
    """
    from bpipe.net.address import to_listen_at
    from bpipe.net.bind import bind
    from bpipe.net.listener import Listener

    where = to_listen_at(address, sealed=secret is not None)
    anywhere = insecure or secret is not None
    listener = Listener(await bind(where, anywhere=anywhere), anywhere=anywhere, secret=secret)
    session = Session(buffer_size, limits, secret, needs, bucket(rate))
    return BackedPipe(session, listener.source(session))


def bucket(rate: int | Bucket) -> Bucket | None:
    """One of this rate, or this one; None for 0. ValueError."""
    return rate if isinstance(rate, Bucket) else Bucket(rate) if rate else None
