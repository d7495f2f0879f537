"""What is written into the part: zeros as holes, and what is the same as a copy."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bpipe.ends.contents import LEAST, PIECE, Contents, runs
from bpipe.ends.disk import Disk
from bpipe.ends.part import Target
from bpipe.errors import TargetError
from bpipe.protocol.assembly import Range
from bpipe.protocol.ring import Views
from tests.support.targets import device

__all__ = ["device"]

MIB = 1 << 20
DATA = random.Random(1).randbytes(MIB)


class Poor(Disk):
    """What a file system may lack: holes, and copies within the kernel. Writes are short, too."""

    def punch(self, descriptor: int, at: int, count: int) -> bool:
        return False

    def copy(self, source: int, target: int, at: int, count: int) -> int:
        return 0

    def next_data(self, descriptor: int, at: int) -> int | None:
        return at

    def next_hole(self, descriptor: int, at: int) -> int | None:
        return None

    def write(self, descriptor: int, views: Views, at: int) -> int:
        return super().write(descriptor, [view[:100_000] for view in views[:1]], at)


class Place:
    """FILE and its part, with what lies there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.part = path.with_name("file.part")
        self._targets: list[Target] = []

    def open(self, part: bytes = b"", old: bytes = b"", disk: Disk | None = None) -> Contents:
        if part:
            self.part.write_bytes(part)
        if old:
            self.path.write_bytes(old)
        self._targets.append(Target.open(str(self.path), disk))
        return Contents(self._targets[-1])

    @property
    def holes(self) -> bool:
        """Whether there is one."""
        return self.part.stat().st_blocks * 512 < self.part.stat().st_size

    def close(self) -> None:
        for target in self._targets:
            target.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path / "file")
    yield place
    place.close()


disks = pytest.mark.parametrize("disk", [Disk(), Poor()], ids=["rich", "poor"])


def views(*parts: bytes) -> Views:
    return [memoryview(part) for part in parts]


# --- runs ---


def test_zeros_are_found_wherever_the_views_are_cut() -> None:
    data = DATA[:PIECE] + bytes(3 * PIECE) + DATA[:100] + bytes(PIECE)
    for cut in (1, 100, LEAST, PIECE, PIECE + LEAST, 2 * PIECE + 1, len(data) - 1):
        found = list(runs(views(data[:cut], data[cut:]), 0))
        assert b"".join(b"".join(run) for run, _ in found) == data
        zeros = sum(len(b"".join(run)) for run, zeros in found if zeros)
        assert 3 * PIECE - LEAST <= zeros <= 3 * PIECE
        assert all(not any(b"".join(run)) for run, zeros in found if zeros)
        assert len(found) <= 5


def test_what_only_begins_and_ends_with_zeros_is_none() -> None:
    data = bytes(LEAST) + b"x" + bytes(PIECE - LEAST - 1)
    assert [zeros for _, zeros in runs(views(data), 0)] == [False]


def test_few_zeros_are_no_run() -> None:
    data = DATA[:100] + bytes(LEAST - 1)
    found = [(b"".join(run), zeros) for run, zeros in runs(views(data), PIECE - 100)]
    assert found == [(data, False)]
    assert list(runs([], 0)) == []


def test_pieces_are_counted_in_the_file() -> None:
    data = bytes(PIECE) + DATA[:PIECE]
    found = [(len(b"".join(run)), zeros) for run, zeros in runs(views(data), 1000)]
    assert found == [(PIECE - 1000, True), (PIECE + 1000, False)]


# --- what is put ---


@disks
def test_what_is_put_lies_there(place: Place, disk: Disk) -> None:
    contents = place.open(part=DATA, disk=disk)
    data = DATA[:5] + bytes(4 * PIECE) + DATA[: 2 * PIECE] + bytes(MIB)
    contents.put(views(data[:9], data[9:]), MIB // 2)
    assert place.part.read_bytes() == DATA[: MIB // 2] + data


def test_zeros_are_holes(place: Place) -> None:
    contents = place.open(part=DATA)
    contents.put(views(bytes(MIB // 2)), MIB // 4)
    assert place.holes
    contents.put(views(bytes(MIB // 2)), 3 * MIB // 4)
    assert place.part.read_bytes() == DATA[: MIB // 4] + bytes(MIB)
    contents.put(views(bytes(MIB)), 5 * MIB // 4)
    assert place.part.stat().st_size == 9 * MIB // 4
    assert place.part.stat().st_blocks * 512 <= MIB // 4 + 4096


def test_a_disk_that_takes_nothing_is_full(place: Place) -> None:
    class Full(Disk):
        def write(self, descriptor: int, views: Views, at: int) -> int:
            return 0

    with pytest.raises(OSError, match="No space left"):
        place.open(disk=Full()).put(views(DATA), 0)


# --- what is kept ---


def keep(contents: Contents, offset: int, length: int) -> None:
    while length:
        count = contents.keep(Range(offset, length))
        assert 0 < count <= length
        offset, length = offset + count, length - count


@disks
def test_what_is_the_same_is_copied_from_the_file_beyond_the_part(place: Place, disk: Disk) -> None:
    old = DATA + bytes(MIB) + DATA[:12345]
    contents = place.open(part=b"x" * 100_000, old=old, disk=disk)
    keep(contents, 0, len(old))
    assert place.part.read_bytes() == b"x" * 100_000 + old[100_000:]


def test_holes_of_the_file_stay_holes(place: Place) -> None:
    place.path.touch()
    os.truncate(place.path, 4 * MIB)
    with place.path.open("r+b") as file:
        file.seek(MIB)
        file.write(DATA)
    contents = place.open()
    keep(contents, 0, 4 * MIB)
    assert place.part.read_bytes() == place.path.read_bytes()
    assert place.part.stat().st_blocks * 512 <= MIB + 4096


def test_zeros_of_the_file_become_holes_where_they_are_copied_by_hand(place: Place) -> None:
    contents = place.open(old=bytes(MIB) + DATA, disk=Poor())
    keep(contents, 0, 2 * MIB)
    assert place.part.read_bytes() == bytes(MIB) + DATA
    assert place.holes


@disks
def test_a_file_that_has_become_shorter_is_noticed(place: Place, disk: Disk) -> None:
    contents = place.open(old=DATA, disk=disk)
    os.truncate(place.path, 0)
    if isinstance(disk, Poor):
        with pytest.raises(TargetError, match="has become shorter meanwhile"):
            keep(contents, 0, MIB)
    else:
        keep(contents, 0, MIB)  # it looks like a hole; but before it is named it is looked at


def test_a_long_range_is_done_piece_by_piece(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bpipe.ends.contents.LARGEST_COPY", 1000)
    contents = place.open(old=DATA)
    assert contents.keep(Range(0, MIB)) == 1000


# --- block devices ---


def test_a_device_is_given_zeros_and_never_more_than_it_holds(
    place: Place, device: Callable[[int], Path]
) -> None:
    path = device(MIB)
    path.write_bytes(DATA)

    class Written(Disk):
        def punch(self, descriptor: int, at: int, count: int) -> bool:
            raise AssertionError

    target = Target.open(str(path), Written())
    contents = Contents(target)
    contents.put(views(bytes(PIECE)), PIECE)
    keep(contents, 2 * PIECE, MIB - 2 * PIECE)
    with pytest.raises(TargetError) as caught:
        contents.put(views(bytes(PIECE)), MIB - PIECE + 1)
    assert str(caught.value) == f"what comes is longer than {path}, which holds {MIB} bytes"
    assert target.finish(MIB, lambda: True)
    target.close()
    assert path.read_bytes() == DATA[:PIECE] + bytes(PIECE) + DATA[2 * PIECE :]
