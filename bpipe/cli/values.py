"""The values of options: sizes, times and names, as people write them."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from bpipe.report.settings import When

if TYPE_CHECKING:
    from bpipe.net.address import Address
    from bpipe.protocol.rate import Bucket

_SIZES: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_DECIMAL_SIZES: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_TIMES: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER: Final = r"(\d{1,15}(?:\.\d{1,9})?)"

LARGEST_BUFFER: Final = _SIZES["T"]
FASTEST: Final = _SIZES["T"]  # bytes a second
MOST_SESSIONS: Final = 10_000
SHORTEST_HEARTBEAT: Final = 0.05
SHORTEST_INTERVAL: Final = 0.1
SHORTEST_PAUSE: Final = 0.01


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


def sessions(text: str) -> int:
    """A number of sessions; ValueError for anything else."""
    number = int(text) if re.fullmatch(r"\d{1,6}", text.strip(), re.ASCII) else 0
    if not 1 <= number <= MOST_SESSIONS:
        raise ValueError(f"{text!r} is not a number of sessions, from 1 to {MOST_SESSIONS}")
    return number


def links(text: str) -> int:
    """A number of links of one session; ValueError for anything else."""
    from bpipe.protocol.wire import MOST_LINKS

    number = int(text) if re.fullmatch(r"\d", text.strip(), re.ASCII) else 0
    if not 1 <= number <= MOST_LINKS:
        raise ValueError(f"{text!r} is not a number of connections, from 1 to {MOST_LINKS}")
    return number


def origin(text: str) -> str:
    """From where connections can go out; AddressError if none can from there now."""
    from bpipe.net.origin import parse_origin

    parse_origin(text).check()
    return text


def congestion(text: str) -> str:
    """A name that the system has, and allows; ValueError for another."""
    from bpipe.net.congestion import require_congestion

    require_congestion(text)
    return text


def when(text: str) -> When:
    """One of the words of When."""
    try:
        return When(text)
    except ValueError:
        raise ValueError(f"{text!r} is not one of {', '.join(When)}") from None


def log(text: str) -> str:
    """The path of a file; where it comes from the environment no shell has looked at it."""
    return os.path.expanduser(text) if text.startswith("~/") else text


def name(text: str) -> str:
    """The name of a pipe."""
    from bpipe.protocol.secret import normalize_name

    try:
        data = normalize_name(text)
    except ValueError as error:
        raise ValueError(f"the name {error}") from None
    if not data:
        raise ValueError("the name is empty: choose one, or leave --name out")
    return text


def address(text: str) -> Address:
    """Where to listen; AddressError for anything else."""
    from bpipe.net.address import parse

    return parse(text)


def service(text: str) -> Address:
    """Who can be called; AddressError for anybody else."""
    from bpipe.net.address import require_callable

    found = address(text)
    require_callable(found)
    return found


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


def rate(text: str) -> str:
    """The same, if it is one, or ``@FILE``. ValueError."""
    if text == "@":
        raise ValueError("a file is to be named behind the @")
    if not text.startswith("@"):
        _rate(text)
    return text


def bucket(text: str) -> Bucket:
    """What has this rate, or that of a file. ValueError if the file has none."""
    from bpipe.protocol.rate import Bucket
    from bpipe.run.rate import RateFile

    if text.startswith("@"):
        return RateFile(os.path.expanduser(text[1:]), _rate)  # behind an @ no shell has done it
    return Bucket(_rate(text))


def _rate(text: str) -> int:
    value = size(text)
    if value and value < _SIZES["K"]:
        raise ValueError(f"a rate of {text} is too low: at least 1K")
    if value > FASTEST:
        raise ValueError(f"a rate of {text} is too high: at most 1T; 0 is without any")
    return value


def heartbeat(text: str) -> float:
    """A duration that a heartbeat can have."""
    value = duration(text)
    if value < SHORTEST_HEARTBEAT:
        raise ValueError(f"a heartbeat of {text} is too short: at least 50ms")
    return value
