"""What the system may refuse a process: descriptors, threads and memory.

That can happen at any moment. What a session cannot do without is asked for before it begins;
what is missing later ends it, and the peer is told.
"""

from __future__ import annotations

import errno
import os
from typing import Final

from bpipe.errors import code_of, explain

# Of the event loop, one that listens, the connection, two more for callers that come meanwhile or
# for what is dialled beside it, and two for each pump.
_DESCRIPTORS: Final = 3 + 1 + 3 + 4

# Of each session of many: its link, a greeting beside it, and what it is joined to, which for a
# program are two pipes and a handle. While one is started, its own ends are there, too.
_OF_A_SESSION: Final = 5
_OF_A_SERVICE: Final = 128

_TOO_MANY_FILES: Final = (errno.EMFILE, errno.ENFILE)

# Address space, untouched: with it, a process that has no more can still say so, and end in order.
_RESERVE: Final = [bytes(16 << 20)]

LACKING: Final = (OSError, RuntimeError, MemoryError)  # what it looks like


def require_descriptors() -> None:
    """Raise the OSError now, and not when the peer counts on this process."""
    found: list[int] = []
    try:
        for _ in range(_DESCRIPTORS):
            found.append(os.dup(0))
    finally:
        for descriptor in found:
            os.close(descriptor)


def affordable(count: int, links: int) -> int:
    """How many links each of so many sessions may have, of so many, as far as the system allows.

    If one had more, another might not have what it needs.
    """
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY == hard:
        return links
    return max(1, min(links, 1 + (hard - _needed(count)) // count))


def allow_sessions(count: int, links: int = 1) -> None:
    """Have the system allow the descriptors of so many, with so many links; OSError if it does not.

    For more than the first link of each, that is no error; see ``affordable``.
    """
    import resource

    needed = _needed(count)
    wanted = needed + count * (links - 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY not in (soft, hard) and hard < needed:
        raise OSError(f"--max-sessions {count} needs {needed} descriptors, not {hard} (ulimit -n)")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def _needed(count: int) -> int:
    """Descriptors for so many sessions, with a link each."""
    return _OF_A_SERVICE + count * _OF_A_SESSION


def shortage(error: BaseException) -> str | None:
    """What is missing, and what to do; None for an error of another kind."""
    number = error.errno if isinstance(error, OSError) else None
    if number in _TOO_MANY_FILES:
        return f"{os.strerror(number or 0).lower()}: bpipe needs some twenty (ulimit -n)"
    if number == errno.ENOMEM or isinstance(error, MemoryError):
        _RESERVE.clear()
        if isinstance(error, MemoryError) and str(error):
            return f"cannot allocate memory: {error}"
        return "cannot allocate memory: a smaller --buffer needs less (ulimit -v)"
    if number == errno.EAGAIN or "start new thread" in str(error):
        return "cannot start a thread: too many processes, or too little memory (ulimit -u, -v)"
    return None


def describe(error: BaseException) -> str:
    """Why this process cannot run, in one line. Raises an error that is a bug in bpipe."""
    if (missing := shortage(error)) is not None:
        return missing
    if isinstance(error, ImportError):
        return f"a module cannot be loaded: {error}"
    if not isinstance(error, OSError):
        raise error
    return f"{error.filename}: {explain(error)}" if error.filename else explain(error)


def code(error: BaseException) -> str:
    """The same in one word, for programs."""
    return code_of(error) if isinstance(error, OSError) else "failed"
