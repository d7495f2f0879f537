from __future__ import annotations

import pytest

from bpipe.protocol.pace import PART, SMALLEST_FRAME, SPAN, Pace
from bpipe.protocol.wire import LARGEST_PAYLOAD

NOW = 100.0
MUCH = 1 << 30


def test_nothing_that_was_only_sent_makes_a_frame_larger() -> None:
    """A carrier may take megabytes at once, and be slow."""
    pace = Pace()
    for count in range(100):
        assert pace.limit(count << 20, 0, NOW + count / 100) == SMALLEST_FRAME


def test_a_frame_is_at_most_a_second_of_what_was_acknowledged_lately() -> None:
    pace = Pace()
    pace.limit(1000, 1000, NOW)
    assert pace.limit(MUCH, 1000 + SPAN * SMALLEST_FRAME, NOW + 0.01) == SMALLEST_FRAME
    assert pace.limit(MUCH, 1000 + SPAN * 100_000, NOW + 0.02) == 100_000
    assert pace.limit(MUCH, MUCH, NOW + 0.03) == LARGEST_PAYLOAD


def test_one_of_several_links_has_frames_of_a_part_of_that() -> None:
    pace = Pace(several=True)
    pace.limit(1000, 1000, NOW)
    assert pace.limit(MUCH, 1000 + SPAN * 2_000_000, NOW + 0.01) == 2_000_000 // PART
    assert pace.limit(MUCH, 1000 + SPAN * 100_000, NOW + 0.02) == SMALLEST_FRAME


def test_what_left_earlier_does_not_count() -> None:
    """A consumer that has slept acknowledges at once what a slow link has brought for long."""
    pace = Pace()
    pace.limit(0, 0, NOW)
    pace.limit(800_000, 0, NOW + SPAN / 2)
    assert pace.limit(1_200_000, 1_200_000, NOW + SPAN) == 1_200_000 // SPAN
    assert pace.limit(1_200_000, 1_200_000, NOW + SPAN + 0.01) == 400_000 // SPAN
    assert pace.limit(1_200_000, 1_200_000, NOW + 2 * SPAN + 0.01) == SMALLEST_FRAME


@pytest.mark.parametrize("late", [0.1, 2.0])
def test_a_link_that_goes_on_at_its_rate_has_frames_of_a_second_of_it_at_most(late: float) -> None:
    """Also where much is under way for long. A few notes are enough for ten thousand frames."""
    pace, rate = Pace(), 400_000
    for step in range(1, 10_000):
        now = step / 1000
        limit = pace.limit(int(rate * now), int(rate * max(0, now - late)), NOW + now)
        assert limit <= rate * (SPAN - late) / SPAN + 1
        if now > SPAN:
            assert limit >= rate * (SPAN - late) / SPAN * 0.8
