"""The values of options: sizes and times, as people write them, and what to do with them."""

from __future__ import annotations

import enum
import re
from typing import Final, NamedTuple

_SIZES: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_DECIMAL_SIZES: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_TIMES: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER: Final = r"(\d{1,15}(?:\.\d{1,9})?)"

SECRET_VARIABLE: Final = "BPIPE_SECRET_FILE"  # in the environment: names the secret's file

# The exit statuses beside 0 and signals.
FAILED: Final = 1
USAGE: Final = 2
NOT_CONNECTED: Final = 3
LOST: Final = 4
PIPE_CLOSED: Final = 141  # as a shell reports a death by SIGPIPE

LARGEST_BUFFER: Final = _SIZES["T"]
SHORTEST_HEARTBEAT: Final = 0.05
SHORTEST_INTERVAL: Final = 0.1
SHORTEST_PAUSE: Final = 0.01


class Level(enum.IntEnum):
    """How much is said."""

    QUIET = 0  # errors
    NORMAL = 1  # what changes the state
    VERBOSE = 2  # what may explain it
    TRACE = 3  # every frame


class When(enum.StrEnum):
    """When the status line is drawn."""

    AUTO = "auto"  # on a terminal that shows nothing else of this process
    ALWAYS = "always"
    NEVER = "never"


class Usage(NamedTuple):
    """Which directions are used, and what is said of it."""

    send_only: bool
    recv_only: bool
    level: Level
    status: When = When.AUTO
    size: int | None = None  # bytes that are expected to be moved
    log_json: str | None = None  # a path, or - for stderr
    log_interval: float | None = None  # seconds between two progress events
    credentials: str = ""  # the options that the other end needs as well


def size(text: str) -> int:
    """The bytes that ``64M``, ``1.5GiB``, ``512GB`` or ``4096`` mean; ValueError for others.

    With a B alone the prefixes are decimal, as on the label of a disk.
    """
    match = re.fullmatch(_NUMBER + r"([KMGT]?)(i?B)?", text.strip(), re.ASCII | re.IGNORECASE)
    if match is None:
        raise ValueError(f"{text!r} is not a size: write bytes, or a number with K, M, G or T")
    sizes = _DECIMAL_SIZES if (match[3] or "").upper() == "B" else _SIZES
    return int(float(match[1]) * sizes[match[2].upper()])


def duration(text: str) -> float:
    """The seconds that ``30``, ``500ms``, ``2m`` or ``1.5h`` mean; ValueError for anything else."""
    match = re.fullmatch(_NUMBER + r"(|ms|s|m|h|d)", text.strip(), re.ASCII)
    if match is None:
        raise ValueError(f"{text!r} is not a time: write seconds, or ms, s, m, h, d after it")
    return float(match[1]) * _TIMES[match[2]]


def when(text: str) -> When:
    """One of the words of When."""
    try:
        return When(text)
    except ValueError:
        raise ValueError(f"{text!r} is not one of {', '.join(When)}") from None


def pause(text: str) -> float:
    """A duration that can lie between two attempts."""
    value = duration(text)
    if value < SHORTEST_PAUSE:
        raise ValueError(f"a pause of {text} is too short: at least 10ms")
    return value


def interval(text: str) -> float:
    """A duration that can lie between two reports."""
    value = duration(text)
    if value < SHORTEST_INTERVAL:
        raise ValueError(f"an interval of {text} is too short: at least 100ms")
    return value


def buffer(text: str) -> int:
    """A size that a buffer can have."""
    value = size(text)
    if not 1 <= value <= LARGEST_BUFFER:
        raise ValueError(f"a buffer of {text} is not possible: 1 byte to 1T")
    return value


def heartbeat(text: str) -> float:
    """A duration that a heartbeat can have."""
    value = duration(text)
    if value < SHORTEST_HEARTBEAT:
        raise ValueError(f"a heartbeat of {text} is too short: at least 50ms")
    return value


def format_size(count: float) -> str:
    """A number of bytes for people: ``4.2 GiB``."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1000:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"


def format_duration(seconds: float) -> str:
    """A duration for people: ``8ms``, ``0.25s``, ``4.2s``, ``42s``, ``3m12s``, ``2h05m``."""
    if seconds < 0.1:
        return f"{max(0.0, seconds) * 1000:.0f}ms"
    if seconds < 9.95:
        return f"{seconds:.2g}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
