"""A model of a disk: what a process sees of it, and what is left when the power is cut.

One folder has files. A process sees what was written last, by whomever. The disk itself has what
was synced, and of what came after that, sector by sector, whatever it likes: the old, the new, or
zeros. Names change in order, each change as a whole; some of the last are lost unless the folder
was synced. A sync that fails loses what it was to write, and says so once: who reads it sees it
all the same, as long as the power is there.
"""

from __future__ import annotations

import errno
import os
import random
import stat
from collections.abc import Callable
from dataclasses import dataclass, field

Clock = Callable[[], float]


class Inode:
    """A file, with whatever name; ``sector`` is in bytes."""

    def __init__(self, number: int, sector: int, mode: int) -> None:
        self.number = number
        self.mode = mode
        self.owner = (1000, 1000)
        self.data = bytearray()  # what is seen
        self.changed_at = 0  # nanoseconds
        self.version = 0  # raised with every change of what is seen
        self.unsynced_since: float | None = None  # seconds; None: all of it is synced
        self.locked_by: object | None = None
        self.haunted = False  # what is seen is not on the disk, and nobody will be told again
        self.folder = False
        self._sector = sector
        self._on_disk = b""
        self._sizes = {0}  # that may be on the disk
        self._touched: set[int] = set()  # sectors of which nobody knows what is on the disk
        self._lost: set[int] = set()  # that are taken for written, and are not
        self._there: set[int] = set()  # sectors that are no hole

    # --- what is seen ---

    @property
    def used(self) -> int:
        """The bytes of the disk that it takes."""
        return len(self._there) * self._sector

    def adds(self, offset: int, count: int) -> int:
        """The bytes of the disk that a write there would take in addition."""
        return len(set(self._sectors(offset, offset + count)) - self._there) * self._sector

    def write(self, offset: int, data: bytes) -> None:
        """What is seen there, from now on."""
        if offset + len(data) > len(self.data):
            self.resize(offset + len(data))
        self.data[offset : offset + len(data)] = data
        self._touch(offset, offset + len(data))
        self._there.update(self._sectors(offset, offset + len(data)))

    def punch(self, offset: int, count: int) -> None:
        """Zeros there, and holes where whole sectors are zeros; the size stays."""
        end = min(offset + count, len(self.data))
        if offset < end:
            self.data[offset:end] = bytes(end - offset)
            self._touch(offset, end)
            whole = range(-(-offset // self._sector), end // self._sector)
            self._there.difference_update(whole)

    def resize(self, size: int) -> None:
        """It ends there."""
        before = len(self.data)
        self._touch(min(size, before), max(size, before))
        if size < before:
            del self.data[size:]
            self._there = {each for each in self._there if each * self._sector < size}
        else:
            self.data += bytes(size - before)
        self._sizes.add(size)

    def drop_zeros(self) -> None:
        """There are holes wherever that makes no difference to what is seen."""
        self._there = {each for each in self._there if any(self._piece(self.data, each))}

    def next_of(self, offset: int, *, hole: bool) -> int:
        """Where the next hole, or data that is none, begins from here on; the end is a hole."""
        size = len(self.data)
        while offset < size:
            if (offset // self._sector in self._there) is not hole:
                return offset
            offset = (offset // self._sector + 1) * self._sector
        return size

    # --- what the disk has ---

    def sync(self) -> None:
        """All that was written since the last time is on the disk."""
        self._on_disk = self._mixed(len(self.data), lambda each: each not in self._lost)
        self._touched.clear()
        self._sizes = {len(self.data)}

    def fail_to_sync(self, rng: random.Random) -> None:
        """Some sectors are not written, and are taken for written from now on."""
        self._lost |= {each for each in self._touched if rng.random() < 0.5} or self._touched
        self.sync()
        self.haunted = True

    @property
    def safe(self) -> bool:
        """Whether what is seen is on the disk, whatever happens."""
        return not self._touched and self._on_disk == self.data and self._sizes == {len(self.data)}

    def lose_power(self, rng: random.Random) -> None:
        """What is seen afterwards is what was on the disk."""
        size = rng.choice(sorted(self._sizes | {len(self._on_disk)}))
        zeroed = rng.random() * 0.5 if rng.random() < 0.5 else 0.0
        new = rng.choice((0.0, 0.5, 1.0, rng.random()))

        def chosen(sector: int) -> bool | None:
            if sector not in self._touched:
                return False
            return None if rng.random() < zeroed else rng.random() < new

        self._on_disk = self._mixed(size, chosen)
        self.data = bytearray(self._on_disk)
        self._there = set(self._sectors(0, size))
        self.drop_zeros()
        self._touched.clear()
        self._lost.clear()
        self._sizes = {size}
        self.haunted = False
        self.version += 1
        self.locked_by = None

    def _mixed(self, size: int, chosen: Callable[[int], bool | None]) -> bytes:
        """So many bytes: of each sector what is seen, what was on the disk, or zeros (None)."""
        result = bytearray(size)
        for number in range(-(-size // self._sector)):
            begin, end = number * self._sector, min((number + 1) * self._sector, size)
            choice = chosen(number)
            if choice is not None:
                part = (self.data if choice else self._on_disk)[begin:end]
                result[begin : begin + len(part)] = part
        return bytes(result)

    def _piece(self, data: bytearray, sector: int) -> bytearray:
        return data[sector * self._sector : (sector + 1) * self._sector]

    def _touch(self, begin: int, end: int) -> None:
        self.version += 1
        self._touched.update(self._sectors(begin, end))
        self._lost -= self._touched

    def _sectors(self, begin: int, end: int) -> range:
        return range(begin // self._sector, -(-end // self._sector))


@dataclass
class Manners:
    """How a disk and its file system behave."""

    sector: int = 512  # bytes that are written as a whole
    capacity: int = 1 << 40  # bytes
    full: int = errno.ENOSPC  # what is said where there is no more room
    copies: str = "all"  # copy_file_range: "all", "some" of it at a time, or "none"
    finds_holes: bool = True  # SEEK_DATA, SEEK_HOLE
    makes_holes: bool = True  # fallocate
    call: float = 0.0  # seconds that a call takes
    byte: float = 0.0  # and each byte of it
    sync: float = 0.0  # seconds that a sync takes


@dataclass
class Faults:
    """What fails next; each is taken when it happens."""

    syncs: list[int] = field(default_factory=list)  # errors of the next syncs of files; 0: none
    folders: list[int] = field(default_factory=list)  # the same of folders
    writes: dict[int, int] = field(default_factory=dict)  # at a write of this offset: the error
    reads: dict[int, int] = field(default_factory=dict)  # the same for reads

    def at(self, what: dict[int, int], offset: int, count: int) -> int:
        """The error of this call, once; 0 if there is none."""
        for where in list(what):
            if offset <= where < offset + count:
                return what.pop(where)
        return 0


class Disk:
    """One folder, and the files in it."""

    def __init__(self, rng: random.Random, manners: Manners, clock: Clock) -> None:
        self.manners = manners
        self.faults = Faults()
        self.unread = 0  # reads that have failed
        self.names: dict[str, Inode] = {}
        self._count = 0
        self.root = self._make(0o40755)
        self.root.folder = True
        self._on_disk: dict[str, Inode] = {}
        self._changes: list[dict[str, Inode | None]] = []  # of names, since the folder was synced
        self._rng = rng
        self._clock = clock

    # --- for who makes the world ---

    def put(self, name: str, data: bytes, mode: int = 0o100644, *, holes: bool = False) -> Inode:
        """There has been such a file for long; ``holes``: wherever it has zeros."""
        inode = self._make(mode)
        inode.write(0, data)
        if holes:
            inode.drop_zeros()
        inode.sync()
        _apply(self.names, {name: inode})
        _apply(self._on_disk, {name: inode})
        return inode

    def seen(self, name: str) -> bytes | None:
        """What is in this file; None if there is none."""
        inode = self.names.get(name)
        return None if inode is None else bytes(inode.data)

    def safe(self, name: str) -> bool:
        """Whether this file is as it is seen whatever happens."""
        inode = self.names.get(name)
        if any(name in change for change in self._changes):
            return False
        return self._on_disk.get(name) is inode and (inode is None or inode.safe)

    def lose_power(self) -> None:
        """Now; afterwards the machine starts anew."""
        rng = self._rng
        for change in self._changes[: rng.randint(0, len(self._changes))]:
            _apply(self._on_disk, change)
        inodes = {*self.names.values(), *self._on_disk.values()}
        for inode in sorted(inodes, key=lambda each: each.number):
            inode.lose_power(rng)
            inode.unsynced_since = None
        self.names = dict(self._on_disk)
        self._changes.clear()

    # --- for the calls of a process ---

    @property
    def now(self) -> int:
        """In nanoseconds, as file systems tell it: not exactly."""
        return int(self._clock() * 100) * 10_000_000

    @property
    def room(self) -> int:
        """Bytes that are free."""
        return self.manners.capacity - sum(each.used for each in set(self.names.values()))

    def create(self, name: str, mode: int) -> Inode:
        """A new, empty file."""
        inode = self._make(stat.S_IFREG | mode)
        self.change({name: inode})
        return inode

    def _make(self, mode: int) -> Inode:
        self._count += 1
        return Inode(self._count, self.manners.sector, mode)

    def change(self, change: dict[str, Inode | None]) -> None:
        """These names mean that from now on; None: nothing."""
        _apply(self.names, change)
        self._changes.append(change)

    def write(self, inode: Inode, offset: int, data: bytes) -> int:
        """As much as there is room for. Raises OSError."""
        self._fail(self.faults.at(self.faults.writes, offset, len(data)))
        count = len(data)
        while count and inode.adds(offset, count) > self.room:
            count -= min(count, (offset + count - 1) % self.manners.sector + 1)
        if data and not count:
            self._fail(self.manners.full)
        if count:
            inode.write(offset, data[:count])
            self.changed(inode)
        return count

    def changed(self, inode: Inode) -> None:
        """Somebody has changed it just now."""
        inode.changed_at = self.now
        if inode.unsynced_since is None:
            inode.unsynced_since = self._clock()

    def read(self, inode: Inode, offset: int, count: int) -> bytes:
        """Raises OSError."""
        error = self.faults.at(self.faults.reads, offset, count)
        self.unread += error != 0
        self._fail(error)
        return bytes(inode.data[offset : offset + count])

    def sync(self, inode: Inode) -> None:
        """Raises OSError, after which what was to be written is lost."""
        error = self.faults.syncs.pop(0) if self.faults.syncs else 0
        if error:
            inode.fail_to_sync(self._rng)
            self._fail(error)
        inode.sync()
        inode.unsynced_since = None

    def sync_names(self) -> None:
        """Of the folder. Raises OSError."""
        self._fail(self.faults.folders.pop(0) if self.faults.folders else 0)
        self._on_disk = dict(self.names)
        self._changes.clear()

    def _fail(self, error: int) -> None:
        if error:
            raise OSError(error, os.strerror(error))


def _apply(names: dict[str, Inode], change: dict[str, Inode | None]) -> None:
    for name, inode in change.items():
        if inode is None:
            names.pop(name, None)
        else:
            names[name] = inode
