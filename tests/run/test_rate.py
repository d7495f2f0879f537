"""A rate that is in a file."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from bpipe.cli import values
from bpipe.protocol.rate import Bucket
from bpipe.report.events import Event
from bpipe.report.rates import Rate, RateUnread
from bpipe.report.settings import Level, Settings
from bpipe.report.watch import Watch
from bpipe.run import rate
from bpipe.run.rate import RateFile, follow

K = 1 << 10


class Hearing(Watch):
    """One that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(Settings(), None, None)
        self.told: list[Event] = []

    def tell(self, event: Event) -> None:
        self.told.append(event)

    def report(self, level: Level) -> None:
        """Nothing."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "rate"
    path.write_text("2K\n")
    return path


def of(path: Path) -> RateFile:
    bucket = values.bucket(f"@{path}")
    assert isinstance(bucket, RateFile)
    return bucket


@pytest.mark.parametrize(
    ("text", "number"), [("2M", 2 << 20), (" 1.5k \n", 1536), ("", 0), ("\n", 0), ("0", 0)]
)
def test_what_the_file_says(path: Path, text: str, number: int) -> None:
    path.write_text(text)
    assert of(path).rate == number


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("much", "'much' is not a size"),
        ("1023", "too low"),
        ("9" * 200, "is not a size"),
        ("9" * 15 + "T", "too high"),
    ],
)
def test_a_file_that_has_no_rate_cannot_be_begun_with(path: Path, text: str, why: str) -> None:
    path.write_text(text)
    with pytest.raises(ValueError, match=f"^{path}: .*{why}"):
        of(path)


def test_a_file_that_is_not_there_cannot_be_begun_with(path: Path) -> None:
    path.unlink()
    with pytest.raises(ValueError, match="no such file"):
        of(path)


@pytest.mark.parametrize("kind", ["fifo", "folder", "device"])
def test_what_is_no_file_has_no_rate_and_takes_no_descriptor(path: Path, kind: str) -> None:
    """What a pipe says is gone when it was read, and may be somebody else's."""
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/null")
    lowest = os.dup(0)
    os.close(lowest)
    with pytest.raises(ValueError, match=f"^{path}: it is no file"):
        of(path)
    after = os.dup(0)
    os.close(after)
    assert after == lowest


def test_one_in_the_home_directory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(path.parent))
    assert values.bucket("@~/rate").rate == 2 * K


def test_the_same_reason_is_told_once(path: Path) -> None:
    bucket = of(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match="it is no file"):
        bucket.look()
    for each in range(3):
        (path / str(each)).touch()
        assert not bucket.look()
    for each in range(3):
        (path / str(each)).unlink()
    path.rmdir()
    path.write_text("2K")
    assert not bucket.look()
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match="it is no file"):
        bucket.look()


def test_it_is_read_again_when_it_has_changed_and_not_before(path: Path) -> None:
    bucket = of(path)
    assert not bucket.look()
    path.write_text("4K")
    assert bucket.look()
    assert bucket.rate == 4 * K
    other = path.with_name("other")
    other.write_text("8K")
    other.replace(path)  # as an editor does it
    assert bucket.look()
    os.utime(path, ns=(1, 1))
    assert not bucket.look()  # it says the same
    path.write_text("")
    assert not bucket.look()
    assert bucket.rate == 8 * K
    assert bucket.look()
    assert bucket.rate == 0
    assert not bucket.look()


def test_one_that_is_written_just_now_has_not_lifted_the_limit(path: Path) -> None:
    """A shell empties a file before the program runs that writes it."""
    bucket = of(path)
    with path.open("w") as file:
        assert not bucket.look()
        file.write("4K")
    assert bucket.look()
    assert bucket.rate == 4 * K
    path.write_text("")
    assert not bucket.look()
    path.write_text("much")
    with pytest.raises(ValueError, match="not a size"):
        bucket.look()
    assert bucket.rate == 4 * K


def test_what_cannot_be_understood_is_told_once_and_the_rate_stays(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate, "LOOK", 0.01)

    async def check() -> None:
        watch, changes, bucket = Hearing(), [0], of(path)

        def changed() -> None:
            changes[0] += 1

        async def told(count: int) -> None:
            while len(watch.told) < count:
                await asyncio.sleep(0.005)

        follow(bucket, watch, changed)
        path.write_text("4K")
        await told(1)
        path.unlink()
        await told(2)
        await asyncio.sleep(0.05)
        path.write_text("4K")  # as before
        await asyncio.sleep(0.05)
        path.write_text("0")
        await told(3)
        unread = RateUnread(f"{path}: no such file or directory", 4 * K)
        expected: list[Event] = [Rate(4 * K), unread, Rate(None)]
        assert watch.told == expected
        assert changes == [2]

    asyncio.run(asyncio.wait_for(check(), 20))


def test_a_number_is_not_followed() -> None:
    bucket = values.bucket("2K")
    assert (type(bucket), bucket.rate) == (Bucket, 2 * K)

    async def check() -> None:
        follow(bucket, Hearing(), lambda: None)
        await asyncio.sleep(0)

    asyncio.run(check())
