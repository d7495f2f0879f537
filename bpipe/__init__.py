"""A pipe between two machines that does not break.

::

    async with await bpipe.connect("localhost:7000") as pipe:
        await pipe.write(b"hello")
        pipe.finish()
        while data := await pipe.read():
            ...

A session that fails raises ``SessionEnded``, or one of its kinds (see ``bpipe.errors``).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from bpipe.api import connect, listen
    from bpipe.errors import (
        AddressError,
        BpipeError,
        Busy,
        Forged,
        LinkLost,
        LocalAbort,
        NobodyListens,
        NotConnected,
        PeerAborted,
        PipeClosed,
        ProgramFailed,
        ProtocolError,
        SecretError,
        SessionEnded,
        SessionLost,
        TargetError,
    )
    from bpipe.net.address import Address
    from bpipe.net.command import Command
    from bpipe.net.ways import Links
    from bpipe.pipe import BackedPipe
    from bpipe.protocol.patience import Limits
    from bpipe.protocol.reader import BackedReader
    from bpipe.protocol.secret import Secret
    from bpipe.protocol.wire import Reason
    from bpipe.protocol.writer import BackedWriter
    from bpipe.server import Server, serve
    from bpipe.status import SlotStatus, State, Status, Tally

__all__ = [
    "Address",
    "AddressError",
    "BackedPipe",
    "BackedReader",
    "BackedWriter",
    "BpipeError",
    "Busy",
    "Command",
    "Forged",
    "Limits",
    "LinkLost",
    "Links",
    "LocalAbort",
    "NobodyListens",
    "NotConnected",
    "PeerAborted",
    "PipeClosed",
    "ProgramFailed",
    "ProtocolError",
    "Reason",
    "Secret",
    "SecretError",
    "Server",
    "SessionEnded",
    "SessionLost",
    "SlotStatus",
    "State",
    "Status",
    "Tally",
    "TargetError",
    "connect",
    "listen",
    "serve",
]

_HOMES = {
    "bpipe.net.address": ("Address",),
    "bpipe.net.command": ("Command",),
    "bpipe.net.ways": ("Links",),
    "bpipe.api": ("connect", "listen"),
    "bpipe.pipe": ("BackedPipe",),
    "bpipe.protocol.patience": ("Limits",),
    "bpipe.protocol.reader": ("BackedReader",),
    "bpipe.protocol.secret": ("Secret",),
    "bpipe.protocol.wire": ("Reason",),
    "bpipe.protocol.writer": ("BackedWriter",),
    "bpipe.server": ("Server", "serve"),
    "bpipe.status": ("SlotStatus", "State", "Status", "Tally"),
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used (PEP 562): ``bpipe --version`` needs none."""
    if name not in __all__:
        raise AttributeError(f"module 'bpipe' has no attribute {name!r}")
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    return getattr(import_module("bpipe.errors"), name)


def __dir__() -> list[str]:
    """Also what was not used yet."""
    return sorted({*globals(), *__all__})
