"""A pipe between two machines that does not break.

::

    async with await bpipe.connect("localhost:7000") as pipe:
        await pipe.write(b"hello")
        pipe.finish()
        while data := await pipe.read():
            ...
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from bpipe.pipe import BackedPipe, ReconnectFunc, State, Status, connect, listen
    from bpipe.protocol.patience import Limits
    from bpipe.protocol.reader import BackedReader
    from bpipe.protocol.secret import Secret
    from bpipe.protocol.wire import Reason
    from bpipe.protocol.writer import BackedWriter

__all__ = [
    "BackedPipe",
    "BackedReader",
    "BackedWriter",
    "Limits",
    "Reason",
    "ReconnectFunc",
    "Secret",
    "State",
    "Status",
    "connect",
    "listen",
]

_HOMES = {
    "Limits": "bpipe.protocol.patience",
    "BackedReader": "bpipe.protocol.reader",
    "Reason": "bpipe.protocol.wire",
    "Secret": "bpipe.protocol.secret",
    "BackedWriter": "bpipe.protocol.writer",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used (PEP 562): ``bpipe --version`` needs none."""
    if name not in __all__:
        raise AttributeError(f"module 'bpipe' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "bpipe.pipe")), name)
