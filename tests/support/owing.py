"""What of a stream nobody has, and nobody is going to send: looked for after every event."""

from __future__ import annotations

from collections.abc import Sequence

from bpipe.protocol.ranges import Ranges


def in_none(start: int, end: int, sets: Sequence[Ranges]) -> list[tuple[int, int]]:
    """What lies from ``start`` up to ``end``, and in none of these."""
    found = []
    while start < end:
        for each in sets:
            there = each.end_at(start)
            if there is not None:
                start = there
                break
        else:
            following = [each.start_after(start) for each in sets]
            gap = min([end, *(at for at in following if at is not None)])
            found.append((start, gap))
            start = gap
    return found
