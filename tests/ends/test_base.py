"""What lies there already, hashed block by block."""

from __future__ import annotations

import errno
import hashlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpipe.ends.base import UNLIKE, BaseFile
from bpipe.ends.disk import Disk
from bpipe.ends.part import Target
from bpipe.protocol.blocks import Base
from tests.support.targets import FailingDisk

MIB = 1 << 20
BLOCK = MIB // 4
DATA = random.Random(1).randbytes(2 * MIB)


class Place:
    """FILE and its part, with what lies there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.part = path.with_name("file.part")
        self._targets: list[Target] = []

    def open(self, disk: Disk | None = None) -> tuple[BaseFile, Base]:
        target = Target.open(str(self.path), disk)
        self._targets.append(target)
        base = Base(target.base, BLOCK)
        return BaseFile(target, base), base

    def close(self) -> None:
        for target in self._targets:
            target.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path / "file")
    yield place
    place.close()


def right(data: bytes) -> list[bytes]:
    """The digests of its blocks."""
    return [hashlib.sha256(data[at : at + BLOCK]).digest() for at in range(0, len(data), BLOCK)]


def found(file: BaseFile, base: Base) -> list[bytes]:
    return [file.digest(number) for number in range(base.blocks)]


@pytest.mark.parametrize("part", [0, 1, BLOCK, BLOCK + 5, MIB, 2 * MIB])
@pytest.mark.parametrize("old", [0, 100, MIB, MIB + 77])
def test_it_is_the_part_and_the_file_beyond_it(place: Place, part: int, old: int) -> None:
    place.part.write_bytes(DATA[:part])
    place.path.write_bytes(DATA[::-1][:old])
    assert found(*place.open()) == right(DATA[:part] + DATA[::-1][part:old])


def test_holes_are_not_read(place: Place) -> None:
    for each in (place.part, place.path):
        each.touch()
    os.truncate(place.part, MIB)
    os.truncate(place.path, 4 * MIB + 100)
    with place.path.open("r+b") as written:
        written.seek(3 * MIB)
        written.write(DATA[:BLOCK])
    disk = FailingDisk()
    file, base = place.open(disk)
    if file.read and not place.path.stat().st_blocks:
        pytest.skip("this file system does not tell of holes")
    assert found(file, base) == right(bytes(3 * MIB) + DATA[:BLOCK] + bytes(MIB - BLOCK + 100))
    assert (file.read, disk.called) == (BLOCK, ["read"])


def test_a_block_with_a_hole_in_it_is_read(place: Place) -> None:
    place.path.write_bytes(DATA[:1000])
    os.truncate(place.path, 2 * BLOCK)
    with place.path.open("r+b") as file:
        file.seek(2 * BLOCK - 1000)
        file.write(DATA[:1000])
    assert found(*place.open()) == right(DATA[:1000] + bytes(2 * BLOCK - 2000) + DATA[:1000])


def test_the_system_is_asked_once_for_a_long_hole(place: Place) -> None:
    class Asked(Disk):
        times = 0

        def next_data(self, descriptor: int, at: int) -> int | None:
            self.times += 1
            return super().next_data(descriptor, at)

    place.path.touch()
    os.truncate(place.path, 1 << 30)
    disk = Asked()
    file, base = place.open(disk)
    assert {*found(file, base)} == {hashlib.sha256(bytes(BLOCK)).digest()}
    assert disk.times == 1


def test_nothing_is_like_what_cannot_be_read(place: Place) -> None:
    place.path.write_bytes(DATA)
    disk = FailingDisk()
    file, _ = place.open(disk)
    assert file.digest(0) == right(DATA)[0]
    disk.broken["read"] = errno.EIO
    assert file.digest(1) == UNLIKE
    disk.broken.clear()
    os.truncate(place.path, 3 * BLOCK + 5)
    assert file.digest(3) == UNLIKE
    assert file.digest(2) == right(DATA)[2]


def test_what_is_written_once_it_is_read_has_another_time(place: Place) -> None:
    settled: list[int] = []

    class Noting(Disk):
        def settle(self, found: os.stat_result) -> None:
            settled.append(found.st_ino)

        def read(self, descriptor: int, into: memoryview, at: int) -> int:
            settled.append(0)
            return super().read(descriptor, into, at)

    place.path.write_bytes(DATA)
    found(*place.open(Noting()))
    assert settled == [place.path.stat().st_ino] + [0] * 8
