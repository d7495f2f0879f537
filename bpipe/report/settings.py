"""What is to be told of a run, and where."""

from __future__ import annotations

import enum
from typing import NamedTuple

from bpipe.protocol.rate import Bucket


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


class Settings(NamedTuple):
    """What people and programs want to be told."""

    level: Level = Level.NORMAL
    status_line: When = When.AUTO
    size: int | None = None  # bytes that are expected to be moved
    log: str | None = None  # a path, or - for stderr
    log_interval: float | None = None  # seconds between two progress events
    credentials: str = ""  # the options that the other end needs as well
    rate: Bucket | None = None  # what the streams may have
