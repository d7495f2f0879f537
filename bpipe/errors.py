"""The exceptions of bpipe, named for the reaction that they ask for.

::

    BpipeError
    ├── AddressError           correct the input: an address that cannot be used
    ├── SecretError            correct the input: a secret that cannot be used
    ├── TargetError            correct the input, or wait: a file that cannot be written
    ├── LinkLost               retry: this link is gone, the session goes on over the next one
    │   ├── NobodyListens      retry, unless all is done: the peer may have left before
    │   ├── ProtocolError      retry: the peer said something that the protocol does not allow
    │   └── Forged             retry: somebody said something who does not know the secret
    └── SessionEnded           give up: this session moves no more bytes
        ├── NotConnected       there never was a session: nobody answered in time
        │   └── Busy           there never was a session: the listener serves somebody else
        ├── SessionLost        the session was up, and cannot be resumed
        ├── PipeClosed         the consumer of one of the two streams closed its end
        ├── ProgramFailed      all was carried, and a program at one of the ends has failed
        ├── PeerAborted        the other end failed, and said why
        └── LocalAbort         this end failed, and told the other end why

Whatever else comes out of bpipe is a bug in bpipe, or an ``OSError`` about a local resource.
"""

from __future__ import annotations

import errno
import os
from typing import Final

_CODES: Final = {
    errno.ECONNREFUSED: "refused",
    errno.ENOENT: "no-such-file",
    errno.ECONNRESET: "reset",
    errno.EPIPE: "closed",
    errno.ETIMEDOUT: "silent",
    errno.ENETUNREACH: "unreachable",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETDOWN: "unreachable",
}


class BpipeError(Exception):
    """The root of all exceptions that bpipe raises on purpose; its text is one line for people.

    ``code`` is one word for programs, which stays where the text may change.
    """

    code = "failed"

    def __init__(self, text: str, code: str = "") -> None:
        super().__init__(text)
        self.code = code or self.code


def explain(error: OSError) -> str:
    """What the system says about an error, without what Python adds to it."""
    text = os.strerror(error.errno) if error.errno is not None else str(error)
    return text[:1].lower() + text[1:]


def code_of(error: OSError) -> str:
    """The word for programs that fits an error of the system; else the error's name."""
    number = error.errno or 0
    return _CODES.get(number) or errno.errorcode.get(number, "failed").lower()


class AddressError(BpipeError):
    """An address that cannot be parsed, resolved or allowed."""

    code = "address"


class SecretError(BpipeError):
    """A secret that cannot be read, or that others can read as well."""

    code = "secret"


class TargetError(BpipeError):
    """What ``--output`` names cannot be written.

    ``usage``: it is the wrong thing; else the system refuses, or somebody else is writing it.
    """

    code = "output"

    def __init__(self, text: str, code: str = "", *, usage: bool = True) -> None:
        super().__init__(text, code)
        self.usage = usage


class LinkLost(BpipeError):
    """The current link cannot be used any more. The session reconnects."""

    code = "closed"


class NobodyListens(LinkLost):
    """Where the peer was, nobody listens any more."""


class ProtocolError(LinkLost):
    """The peer broke the protocol on this link. The session reconnects, a few times."""

    code = "protocol"


class Forged(LinkLost):
    """What came was not sealed by the peer. The session reconnects, as often as it takes."""

    code = "forged"


class SessionEnded(BpipeError):
    """The session is over, and not everything was delivered and confirmed."""


class NotConnected(SessionEnded):
    """No session was ever established."""

    code = "not-connected"


class Busy(NotConnected):
    """The listener is serving another session."""

    code = "busy"


class SessionLost(SessionEnded):
    """An established session cannot be resumed, or was given up."""

    code = "lost"


class PipeClosed(SessionEnded):
    """A consumer closed its pipe before the end of the stream, on this end or on the other."""

    code = "pipe-closed"


class ProgramFailed(SessionEnded):
    """Everything was carried, and a program that bpipe has started at one of the ends failed."""

    code = "program"


class PeerAborted(SessionEnded):
    """The other end aborted the session; the text is its reason."""

    code = "peer-aborted"


class LocalAbort(SessionEnded):
    """This end aborted the session; the text is the reason that the other end was given."""

    code = "aborted"
