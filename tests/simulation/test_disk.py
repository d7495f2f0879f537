"""The model of a disk: it does what the real one does, and power is lost as it may be."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bpipe.ends.disk import Disk as RealDisk
from tests.simulation.disk import Disk, Manners
from tests.simulation.loop import Loop, World
from tests.simulation.system import FOLDER, Killed, System
from tests.simulation.threads import Gate, Thread, current


class Machine:
    """A disk, and a process that uses it."""

    def __init__(self, seed: int = 0, **manners: Any) -> None:
        self.world = World()
        self.loop = Loop(self.world, "process")
        self.disk = Disk(random.Random(seed), Manners(**manners), self.world.clock)
        self.system = System(self.disk)
        self.folder = self.system.open_folder(FOLDER)

    def open(self, name: str, flags: int = os.O_RDWR | os.O_CREAT) -> int:
        """A descriptor of this file."""
        return self.system.open(name, flags, self.folder)

    def write(self, number: int, data: bytes, offset: int = 0) -> None:
        """Put this there."""
        assert self.system.write(number, [memoryview(data)], offset) == len(data)


# --- what is seen ---


class Pair:
    """The same calls to the real system, and to the model."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        disk = Disk(random.Random(seed), Manners(sector=4096), World().clock)
        self.systems: list[RealDisk] = [RealDisk(), System(disk)]
        self.folders = [
            system.open_folder(path)
            for system, path in zip(self.systems, (str(folder), FOLDER), strict=True)
        ]
        flags = os.O_RDWR | os.O_CREAT
        self.files = [
            [system.open(name, flags, folder) for name in "ab"]
            for system, folder in zip(self.systems, self.folders, strict=True)
        ]

    def both(self, call: Callable[[RealDisk, int, list[int]], Any]) -> None:
        """Make this call, and see that the answers are equal."""
        answers = []
        for system, folder, files in zip(self.systems, self.folders, self.files, strict=True):
            try:
                answers.append(call(system, folder, files))
            except OSError as error:
                answers.append(error.errno)
        assert answers[0] == answers[1]

    def step(self) -> None:
        """One call, that is chosen."""
        rng, which = self.rng, self.rng.randrange(2)
        offset, count, name = rng.randrange(30_000), rng.randrange(1, 9000), rng.choice("ab")
        data = memoryview(rng.choice((rng.randbytes(count), bytes(count))))
        piece = 4096 * rng.randrange(1, 3)
        calls: list[Callable[[RealDisk, int, list[int]], Any]] = [
            lambda system, _, files: system.write(files[which], [data[:5], data[5:]], offset),
            lambda system, _, files: _read(system, files[which], count, offset),
            lambda system, _, files: system.truncate(files[which], offset),
            lambda system, _, files: system.size(files[which]),
            lambda system, _, files: system.stat(files[which]).st_nlink,
            lambda system, _, files: system.copy(files[which], files[1 - which], offset, count),
            lambda system, _, files: system.punch(files[which], offset // 4096 * 4096, piece),
            lambda system, _, files: system.sync_data(files[which]),
            lambda system, folder, _: system.lstat("c", folder) is None,
            lambda system, folder, _: system.rename(name, "c", folder),
            lambda system, folder, _: system.unlink("c", folder),
        ]
        self.both(rng.choice(calls))

    def close(self) -> None:
        """Let go of what is real."""
        for number in (self.folders[0], *self.files[0]):
            os.close(number)


def _read(system: RealDisk, number: int, count: int, offset: int) -> bytes:
    room = bytearray(count)
    return bytes(room[: system.read(number, memoryview(room), offset)])


@pytest.mark.parametrize("seed", range(20))
def test_it_does_what_the_real_one_does(seed: int, tmp_path: Path) -> None:
    pair = Pair(tmp_path, seed)
    for _ in range(100):
        pair.step()
    pair.close()


def test_holes_are_found() -> None:
    machine = Machine(sector=512)
    number, system = machine.open("a"), machine.system
    machine.write(number, b"x", 2000)
    system.truncate(number, 5000)
    assert system.next_data(number, 0) == 1536
    assert system.next_hole(number, 1600) == 2048
    assert system.next_data(number, 2048) is None
    system.punch(number, 1536, 512)
    assert machine.disk.names["a"].used == 0


def test_a_file_has_one_lock() -> None:
    machine = Machine()
    other = System(machine.disk)
    number = other.open("a", os.O_RDWR | os.O_CREAT, other.open_folder(FOLDER))
    assert machine.system.lock(machine.open("a"))
    assert not other.lock(number)
    machine.system.kill()
    assert other.lock(number)


def test_a_disk_is_full() -> None:
    machine = Machine(sector=512, capacity=2048)
    number = machine.open("a")
    assert machine.system.write(number, [memoryview(bytes(4000))], 0) == 2048
    with pytest.raises(OSError, match="No space"):
        machine.write(number, b"x", 2048)
    machine.write(number, b"there is room here", 100)


# --- what is left ---


def test_what_is_synced_stays() -> None:
    for seed in range(50):
        machine = Machine(seed)
        number = machine.open("a")
        machine.write(number, b"old" * 1000)
        machine.system.sync_data(number)
        machine.system.sync(machine.folder)
        assert machine.disk.safe("a")
        machine.disk.lose_power()
        assert machine.disk.seen("a") == b"old" * 1000


def test_what_is_not_synced_is_anything_sector_by_sector() -> None:
    seen = set()
    for seed in range(200):
        machine = Machine(seed)
        machine.disk.put("a", b"o" * 2048)
        number = machine.open("a")
        machine.write(number, b"n" * 1024, 512)
        assert not machine.disk.safe("a")
        machine.disk.lose_power()
        data = machine.disk.seen("a")
        assert data is not None
        assert data[:512] + data[1536:] == b"o" * 1024
        seen |= {data[512:1024], data[1024:1536]}
        assert data[512:1024] != b"n" * 512 or machine.disk.safe("a")
    assert seen == {b"o" * 512, b"n" * 512, bytes(512)}


def test_a_size_that_is_not_synced_is_one_of_those_that_it_had() -> None:
    sizes = set()
    for seed in range(100):
        machine = Machine(seed)
        machine.disk.put("a", b"o" * 700)
        number = machine.open("a")
        machine.system.truncate(number, 10)
        machine.write(number, b"n" * 2000)
        machine.disk.lose_power()
        sizes.add(len(machine.disk.seen("a") or b""))
    assert sizes == {700, 10, 2000}


def test_names_change_in_order_and_the_last_may_be_lost() -> None:
    seen = set()
    for seed in range(50):
        machine = Machine(seed)
        machine.disk.put("a", b"old")
        number = machine.open("a.part")
        machine.write(number, b"new")
        machine.system.sync_data(number)
        machine.system.rename("a.part", "a", machine.folder)
        machine.disk.lose_power()
        seen.add((machine.disk.seen("a"), machine.disk.seen("a.part")))
    assert seen == {(b"old", None), (b"old", b"new"), (b"new", None)}


def test_a_sync_that_fails_says_so_once_and_the_disk_has_not_what_is_seen() -> None:
    machine = Machine()
    machine.disk.put("a", b"old" * 1000)
    machine.disk.faults.syncs = [errno.EIO]
    number = machine.open("a")
    machine.write(number, b"new" * 1000)
    with pytest.raises(OSError, match="Input/output"):
        machine.system.sync_data(number)
    machine.system.sync_data(number)
    assert machine.disk.seen("a") == b"new" * 1000
    assert not machine.disk.safe("a")
    machine.write(number, b"new" * 1000)  # again
    machine.system.sync_data(number)
    assert machine.disk.safe("a")


def test_a_sync_that_fails_loses_what_it_was_to_write() -> None:
    machine = Machine()
    machine.disk.put("a", b"old" * 1000)
    machine.disk.faults.syncs = [errno.EIO]
    number = machine.open("a")
    machine.write(number, b"new" * 1000)
    with pytest.raises(OSError, match="Input/output"):
        machine.system.sync_data(number)
    machine.disk.lose_power()
    assert machine.disk.seen("a") != b"new" * 1000


def test_what_a_power_cut_leaves_depends_on_nothing_but_the_seed() -> None:
    def left() -> list[bytes | None]:
        machine = Machine(sector=1)
        names = "abcdefgh"
        numbers = {name: machine.open(name) for name in names}
        machine.system.sync(machine.folder)
        for name, number in numbers.items():
            machine.write(number, name.encode() * 100)
        machine.disk.lose_power()
        return [machine.disk.seen(name) for name in names]

    first, others = left(), [left() for _ in range(5)]  # which lie elsewhere in memory
    assert others == [first] * 5


# --- threads ---


def test_threads_take_turns_at_every_call() -> None:
    machine, said = Machine(), []

    def work(name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            for step in range(3):
                thread = current()
                assert thread is not None
                thread.sleep(seconds)
                said.append((name, step, machine.world.now - 1000))

        return run

    Thread(machine.world, machine.loop, work("a", 1.0), "a")
    Thread(machine.world, machine.loop, work("b", 0.4), "b")
    while not machine.world.idle:
        machine.world.step()
    assert [each[0] for each in said] == ["b", "b", "a", "b", "a", "a"]
    assert said[-1][2] == pytest.approx(3.0)


def test_a_thread_waits_at_a_gate_until_it_is_wanted_or_for_so_long() -> None:
    machine, said, open = Machine(), [], [False]
    gate = Gate(None, 0, lambda: open[0])

    def work() -> None:
        gate.rest(5.0)
        said.append(machine.world.now)
        gate.wait(beside=False)
        said.append(machine.world.now)

    def unlock() -> None:
        open[0] = True
        gate.look()

    Thread(machine.world, machine.loop, work, "waits")
    machine.world.at(1002.0, gate.look)  # nothing is there
    machine.world.at(1009.0, unlock)
    while not machine.world.idle:
        machine.world.step()
    assert said == [1005.0, 1009.0]


def test_a_thread_that_is_killed_touches_nothing_any_more() -> None:
    machine, said = Machine(), []
    gate = Gate(None, 0, lambda: False)

    def work() -> None:
        try:
            gate.wait(beside=False)
        except Killed:
            said.append("killed")
            raise
        finally:
            machine.open("a")

    thread = Thread(machine.world, machine.loop, work, "waits")
    machine.world.step()
    machine.system.kill()
    thread.kill()
    assert said == ["killed"]
    assert thread.ended
    assert not machine.disk.names
    assert isinstance(asyncio.events._get_running_loop(), type(None))
