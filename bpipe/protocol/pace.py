"""Pace: how much of a stream goes into one frame of a link.

A frame that has begun has to end on its link before anything else can be said there, so its end
must not be far. How fast bytes leave this process says nothing about that: what lies between may
swallow megabytes of them at once. What is acknowledged has arrived. So a frame is at most a second
of what left on its link within the last four, and is acknowledged since: what is longer under way
tells nothing of how fast it is.

Of several links each takes a small part of that: what another one owed may be waited for, and goes
out behind the frame that has begun. And only between two frames a link is asked what it has
brought: what is not known to have arrived when it dies is sent again, over slower ones perhaps.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from bpipe.protocol.wire import LARGEST_PAYLOAD

SMALLEST_FRAME: Final = 16 << 10  # bytes that a frame may have in any case
SPAN: Final = 4  # seconds that are looked back
PART: Final = 50  # of a second has one of several links

_STEP: Final = SPAN / 32  # seconds between two notes


class Pace:
    """Of one link, or of one of ``several``. Offsets are those of the stream; times, seconds."""

    def __init__(self, *, several: bool = False) -> None:
        self._span = SPAN * PART if several else SPAN
        self._notes: deque[tuple[float, int]] = deque()  # when, and what was sent until then

    def limit(self, sent: int, acked: int, now: float, most: int = LARGEST_PAYLOAD) -> int:
        """What the next frame may hold, in bytes, at most ``most``; it begins at ``sent``."""
        notes = self._notes
        while notes and notes[0][0] < now - SPAN:
            notes.popleft()
        if not notes or now >= notes[-1][0] + _STEP:
            notes.append((now, sent))
        return min(most, max(SMALLEST_FRAME, (acked - notes[0][1]) // self._span))
