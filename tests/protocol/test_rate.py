"""The rate as a channel asks for it, without one: frames that begin, and go out in pieces."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bpipe.errors import ProtocolError
from bpipe.protocol.rate import BURST, FASTEST, GRAIN, SLOWEST, SMALLEST_FRAME, Bucket, Rate
from bpipe.protocol.wire import LARGEST_PAYLOAD

NOW = 1000.0
RATES = [SLOWEST, 10_000, 2 << 20, 1 << 32]
Left = list[tuple[float, int]]  # when, and how many bytes


class Sender:
    """A session that always has something to send; ``piece`` is the largest frame that it has."""

    def __init__(self, bucket: Bucket | None, piece: int = 1 << 62, told: int = 0) -> None:
        self.rate = Rate(bucket)
        self.rate.hear(told)
        self.left: Left = []
        self.begun: list[float] = []
        self._piece = piece
        self._rest = 0  # of the frame that has begun

    def go(self, now: float) -> None:
        """Put on the link what may go now."""
        while True:
            if not self._rest and (size := self.rate.begin(self._piece, now)):
                self._rest = size
                self.begun.append(now)
            if not self._rest or not (count := self.rate.allow(self._rest, now)):
                return
            self._rest -= count
            self.left.append((now, count))
            self.rate.draw(count, now)

    @property
    def total(self) -> int:
        return sum(count for _, count in self.left)


def play(*senders: Sender, until: float, late: Callable[[], float] = lambda: 0.0) -> None:
    """Virtual time: each sender goes on when it has said that it would, or a little later."""
    due = {sender: NOW for sender in senders}
    while min(due.values()) < until:
        sender = min(senders, key=lambda each: due[each])
        now = due[sender]
        sender.go(now)
        assert sender.rate.until is not None
        assert sender.rate.until > now
        due[sender] = max(sender.rate.until + late(), now)


def worst(left: Left) -> int:
    """The most bytes that left in a second."""
    most = count = first = 0
    for at, size in left:
        count += size
        while left[first][0] <= at - 1:
            count -= left[first][1]
            first += 1
        most = max(most, count)
    return most


@pytest.mark.parametrize("rate", RATES)
def test_no_second_has_more_than_the_rate_and_the_average_is_near_it(rate: int) -> None:
    sender = Sender(Bucket(rate))
    play(sender, until=NOW + 5)
    assert worst(sender.left) <= rate * (1 + BURST) + 1
    assert sender.total >= 0.98 * 5 * rate


@pytest.mark.parametrize("rate", RATES)
def test_who_is_late_by_little_loses_nothing_and_who_is_late_by_much_saves_nothing(
    rate: int,
) -> None:
    delays = [0.0, BURST - 2 * GRAIN, GRAIN, 0.001]
    sender = Sender(Bucket(rate))
    play(sender, until=NOW + 5, late=lambda: delays[len(sender.left) % 4])
    assert sender.total >= 0.98 * 5 * rate
    sender = Sender(Bucket(rate))
    play(sender, until=NOW + 5, late=lambda: 0.7 if len(sender.left) % 9 == 0 else 0.0)
    assert worst(sender.left) <= rate * (1 + BURST) + 1


@pytest.mark.parametrize("rate", RATES)
def test_after_a_pause_there_is_no_credit(rate: int) -> None:
    sender = Sender(Bucket(rate))
    play(sender, until=NOW + 1)
    before = sender.total
    sender.go(NOW + 3600)
    assert sender.total - before <= rate * BURST + 1


def test_a_frame_is_a_grain_or_some_hundred_bytes_and_no_more_than_is_there() -> None:
    assert Rate(Bucket(2 << 20)).begin(1 << 30, NOW) == int((2 << 20) * GRAIN)
    assert Rate(Bucket(SLOWEST)).begin(1 << 30, NOW) == SMALLEST_FRAME
    assert Rate(Bucket(SLOWEST)).begin(20, NOW) == 20


def test_a_frame_that_has_begun_goes_on_in_small_pieces() -> None:
    """What is due behind it waits for less than a third of a second, at the slowest rate."""
    sender = Sender(Bucket(SLOWEST))
    play(sender, until=NOW + 2)
    assert max(count for _, count in sender.left) <= SLOWEST * BURST
    waits = [after - before for before, after in zip(sender.begun, sender.begun[1:], strict=False)]
    assert max(waits) < 0.3


@pytest.mark.parametrize("piece", [20, 1 << 62])
@pytest.mark.parametrize("rate", [SLOWEST, 20_000])
def test_sessions_share_a_bucket_fairly(rate: int, piece: int) -> None:
    bucket = Bucket(rate)
    senders = [Sender(bucket, piece) for _ in range(5)]
    play(*senders, until=NOW + 5)
    everything = sorted(each for sender in senders for each in sender.left)
    assert worst(everything) <= rate * (1 + BURST) + 1
    shares = [sender.total for sender in senders]
    assert sum(shares) >= 0.95 * 5 * rate
    assert max(shares) - min(shares) <= max(2 * SMALLEST_FRAME, 0.05 * sum(shares))


def test_who_was_promised_a_time_and_does_not_come_holds_nobody_up() -> None:
    bucket = Bucket(1 << 20)
    gone, sender = Sender(bucket), Sender(bucket)
    sender.go(NOW)
    gone.go(NOW)
    play(sender, until=NOW + 2)
    assert sender.total >= 0.98 * 2 * (1 << 20)


def test_the_smaller_of_its_own_and_of_what_the_peer_allows_counts() -> None:
    for own, told, least in ((0, 0, 0), (5000, 0, 5000), (0, 4000, 4000), (5000, 4000, 4000)):
        rate = Rate(Bucket(own))
        rate.hear(told)
        assert rate.limit == least
    assert Rate().limit == 0
    sender = Sender(Bucket(20_000), told=5000)
    play(sender, until=NOW + 5)
    assert worst(sender.left) <= 5000 * (1 + BURST) + 1
    assert sender.total >= 0.98 * 5 * 5000


def test_one_that_its_peer_holds_up_leaves_the_rest_to_others() -> None:
    bucket = Bucket(1 << 20)
    slow, fast = Sender(bucket, told=10_000), Sender(bucket)
    play(slow, fast, until=NOW + 5)
    assert slow.total == pytest.approx(50_000, rel=0.05)
    assert slow.total + fast.total >= 0.95 * 5 * (1 << 20)


def test_what_holds_up_is_told_while_somebody_waits() -> None:
    rate = Rate(Bucket(SLOWEST))
    assert rate.holds_up is None
    rate.draw(1000, NOW)
    assert not rate.begin(1000, NOW)
    assert rate.holds_up == SLOWEST


def test_without_a_rate_nothing_waits() -> None:
    rate = Rate(Bucket())
    for _ in range(3):
        assert rate.begin(1 << 40, NOW) == LARGEST_PAYLOAD
        assert rate.allow(1 << 40, NOW) == 1 << 40
        rate.draw(1 << 40, NOW)
    assert rate.until is None


def test_what_was_waited_for_is_waited_for_once() -> None:
    rate = Rate(Bucket(SLOWEST))
    rate.draw(1000, NOW)
    assert not rate.begin(1000, NOW)
    until = rate.until
    assert until is not None
    rate.tick(until - 0.001)
    assert rate.until == until
    rate.tick(until)
    assert rate.until is None
    assert rate.begin(1000, until)
    rate.draw(100, until)
    assert not rate.allow(1000, until)
    rate.rest()
    assert rate.until is None


def test_a_rate_that_changes_counts_at_once() -> None:
    bucket = Bucket(SLOWEST)
    sender = Sender(bucket)
    play(sender, until=NOW + 1)
    before = sender.total
    bucket.change(1 << 20)
    play(sender, until=NOW + 2)
    assert sender.total - before >= 0.98 * (1 << 20)
    bucket.change(0)
    assert sender.rate.limit == 0


@pytest.mark.parametrize("told", [0, SLOWEST])
def test_what_was_promised_at_an_old_rate_is_not_what_may_begin(told: int) -> None:
    """A frame that is large, as it is slow, would hold up everything behind it."""
    rate = Rate(bucket := Bucket(1 << 20))
    bucket.draw(1 << 16, NOW)
    assert not rate.begin(1 << 20, NOW)
    if told:
        rate.hear(told)
    else:
        bucket.change(SLOWEST)
    assert 0 < rate.begin(1 << 20, NOW + 1) <= SMALLEST_FRAME


def test_who_waits_at_an_old_rate_waits_no_longer_than_at_the_new_one() -> None:
    sessions = [Rate(bucket := Bucket(SLOWEST))]
    sessions += [Rate(bucket) for _ in range(3)]
    bucket.draw(100, NOW)
    for rate in sessions:
        assert not rate.begin(1 << 20, NOW)
    bucket.change(1 << 20)
    for rate in sessions:
        rate.begin(1 << 20, NOW)
        assert rate.until is None or rate.until < NOW + 0.2


@pytest.mark.parametrize("rate", [1, SLOWEST - 1, -1, FASTEST + 1])
def test_what_is_no_rate_is_refused(rate: int) -> None:
    with pytest.raises(ValueError, match=r"too (few|many)"):
        Bucket(rate)
    with pytest.raises(ProtocolError, match="RATE"):
        Rate().hear(rate)
