"""Mutants of a stream to a file: what is believed, what is synced, and what is named when."""

from __future__ import annotations

import errno
from collections.abc import Callable
from hashlib import sha256
from typing import Any

from bpipe.comparison import Comparison, _End
from bpipe.ends.base import BaseFile
from bpipe.ends.contents import Contents
from bpipe.ends.file_sink import FileSink
from bpipe.ends.files import FileEnds
from bpipe.ends.part import Target
from bpipe.ends.syncs import Syncs
from bpipe.protocol.assembly import Assembly, Range
from bpipe.protocol.block_writer import BlockWriter
from bpipe.protocol.blocks import Base
from bpipe.protocol.ring import Views
from bpipe.protocol.wire import Finish
from bpipe.run.exits import decide
from tests.simulation import file_ends
from tests.simulation.files import PERIOD, PLACE
from tests.simulation.mutants.registry import Patch, worlds
from tests.simulation.system import System

file_mutant = worlds(PLACE, PERIOD)


# --- what is named, and when ---


def _without(patch: Patch, *names: str) -> None:
    """A target whose end does without these calls to the system."""
    finish = Target.finish
    skips: set[str] = set()

    def hasty(self: Any, length: int, wanted: Callable[[], bool]) -> bool:
        skips.update(names)
        try:
            return finish(self, length, wanted)
        finally:
            skips.clear()

    def skip(name: str, call: Callable[..., None]) -> Callable[..., None]:
        return lambda self, *args: None if name in skips else call(self, *args)

    patch.setattr(Target, "finish", hasty)
    for name in names:
        patch.setattr(System, name, skip(name, getattr(System, name)))


@file_mutant
def _never_cut(patch: Patch) -> None:
    """what lay behind the end of the stream left there"""
    _without(patch, "truncate")


@file_mutant
def _never_sync_names(patch: Patch) -> None:
    """the name of a file not synced"""
    _without(patch, "sync")


@file_mutant
def _never_sync_data(patch: Patch) -> None:
    """a file named before it is on the disk, and its name neither"""
    _without(patch, "sync_data", "sync")


@file_mutant
def _cut_after_the_rename(patch: Patch) -> None:
    """a file cut to its length when it has its name already"""
    truncate, rename = System.truncate, System.rename
    late: list[tuple[int, int]] = []

    def wait(self: Any, descriptor: int, length: int) -> None:
        if length < self.size(descriptor):
            late.append((descriptor, length))
        else:
            truncate(self, descriptor, length)

    def then(self: Any, old: str, new: str, folder: int) -> None:
        rename(self, old, new, folder)
        while late:
            truncate(self, *late.pop())

    patch.setattr(System, "truncate", wait)
    patch.setattr(System, "rename", then)


@file_mutant
def _ignore_other_files(patch: Patch) -> None:
    """a base that somebody else has changed meanwhile taken for the old one"""
    patch.setattr(Target, "_has_same_base", lambda self: True)


@file_mutant
def _deliver_before_the_rename(patch: Patch) -> None:
    """a stream delivered before it has its name"""
    finish = FileSink._finish

    def hasty(self: Any) -> bool:
        self.ended()
        return finish(self)

    patch.setattr(FileSink, "_finish", hasty)


@file_mutant
def _name_what_has_failed(patch: Patch) -> None:
    """the stream of a producer that has failed named"""
    patch.setattr(Finish, "failed", property(lambda self: False))
    patch.setattr(_End, "whole", property(lambda self: True))


@file_mutant
def _name_what_was_cut(patch: Patch) -> None:
    """a stream without its total named"""
    patch.setattr(Finish, "failed", property(lambda self: False))
    patch.setattr(Assembly, "whole", True, raising=False)
    init = Assembly.__init__

    def begin(self: Any, base: Base) -> None:
        init(self, base)
        self.whole = True

    patch.setattr(Assembly, "__init__", begin)


@file_mutant
def _count_what_comes_after_the_name(patch: Patch) -> None:
    """a file that has its name, and a receiver that fails because its sender does not hear it"""
    patch.setattr(file_ends, "decide", lambda outcome: decide(outcome._replace(file=None)))


# --- what is believed of a base ---


@file_mutant
def _say_same_for_all(patch: Patch) -> None:
    """SAME for a block that differs"""
    settle = BlockWriter._settle

    def careless(self: Any) -> None:
        if self._digests:
            self._digests[0] = self._chain.last
        settle(self)

    patch.setattr(BlockWriter, "_settle", careless)


@file_mutant
def _believe_a_journal(patch: Patch) -> None:
    """a torn block of a base believed, because a journal says that it was written"""
    move, digest = FileSink.move, BaseFile.digest

    def note(self: Any) -> bool:
        moved = move(self)
        system, block = self._target.disk, self._assembly.base.block
        journal = system.disk.__dict__.setdefault("journal", {})
        if self._target.part in system.opened:
            data = system.opened[self._target.part].inode.data
            for number in range(getattr(self, "noted", 0), self.at // block):
                journal[block, number] = sha256(data[number * block :][:block]).digest()
            self.noted = self.at // block
        return moved

    def believe(self: Any, number: int) -> bytes:
        journal = self._disk.disk.__dict__.setdefault("journal", {})
        block = self._base.block
        written = (number + 1) * block <= self._target.lies
        found: bytes | None = journal.get((block, number)) if written else None
        return digest(self, number) if found is None else found

    patch.setattr(FileSink, "move", note)
    patch.setattr(BaseFile, "digest", believe)


@file_mutant
def _hash_the_file_alone(patch: Patch) -> None:
    """the digests of FILE told where the part lies over it"""
    parts = BaseFile._parts

    def confuse(self: Any, at: int, end: int) -> Any:
        target = self._target
        size = 0 if target.old < 0 else self._disk.size(target.old)
        return [(target.old, at, end)] if size >= end else parts(self, at, end)

    patch.setattr(BaseFile, "_parts", confuse)


@file_mutant
def _take_holes_for_the_same(patch: Patch) -> None:
    """a block taken for zeros because its beginning lies in a hole"""
    empty = BaseFile._is_empty

    def hasty(self: Any, descriptor: int, at: int, end: int) -> bool:
        return empty(self, descriptor, at, min(end, at + 1))

    patch.setattr(BaseFile, "_is_empty", hasty)


@file_mutant
def _keep_the_digest_of_zeros(patch: Patch) -> None:
    """the digest of so many zeros taken for that of any number of them"""

    def confuse(self: Any, count: int) -> bytes:
        if not self._zeros:
            self._zeros[count] = of_zeros(self, count)
        first: bytes = next(iter(self._zeros.values()))
        return first

    of_zeros = BaseFile._of_zeros
    patch.setattr(BaseFile, "_of_zeros", confuse)


@file_mutant
def _believe_what_is_not_told(patch: Patch) -> None:
    """everything sent although it is there: no digest is waited for"""
    patch.setattr(Base, "covers", lambda self, offset: False)


# --- what is written ---


@file_mutant
def _take_short_writes_for_whole(patch: Patch) -> None:
    """a write that found little room taken for a whole one"""

    def once(self: Any, views: Views, at: int) -> None:
        self._disk.write(self._target.part, views, at)

    patch.setattr(Contents, "_write", once)


@file_mutant
def _leave_old_bytes_for_zeros(patch: Patch) -> None:
    """zeros left out where old bytes lie in the part"""
    patch.setattr(Contents, "_punch", lambda self, at, count: True)


@file_mutant
def _keep_nothing(patch: Patch) -> None:
    """what is the same in FILE not copied into the part"""
    keep = Contents.keep

    def forget(self: Any, place: Range) -> int:
        within = min(place.length, self._target.lies - place.offset)
        if within > 0:
            return keep(self, place)
        self._lengthen(place.offset + place.length)
        return place.length

    patch.setattr(Contents, "keep", forget)


@file_mutant
def _copy_once(patch: Patch) -> None:
    """a copy within the disk that was cut short taken for a whole one"""
    copy = Contents._copy

    def hasty(self: Any, at: int, end: int) -> int:
        copy(self, at, end)
        return end - at

    patch.setattr(Contents, "_copy", hasty)


# --- errors ---


@file_mutant
def _keep_what_was_not_written(patch: Patch) -> None:
    """a part kept whose sync has failed"""
    patch.setattr(Target, "remove", lambda self: True)


@file_mutant
def _never_sync_before_the_end(patch: Patch) -> None:
    """nothing synced before the end of a stream"""
    patch.setattr(Syncs, "sync", lambda self: not self.wanted())


@file_mutant
def _hold_up_the_loop(patch: Patch) -> None:
    """what lies there read in the event loop"""
    go_on = FileEnds._go_on

    def read(self: Any, tells: bool) -> None:
        go_on(self, tells)
        if self._sink is not None:
            self._target.disk.read(self._target.part, memoryview(bytearray(1)), 0)

    patch.setattr(FileEnds, "_go_on", read)


@file_mutant
def _wait_in_silence(patch: Patch) -> None:
    """what is the same not said before a sender waits for its last digest"""
    patch.setattr(BlockWriter, "pause", lambda self: None)


@file_mutant
def _go_round_after_a_failure(patch: Patch) -> None:
    """a sender that goes round in circles when its session has failed"""

    def hears(self: Any) -> bool:
        return bool(not self._heard and self._records.ready and self.half.hungry)

    patch.setattr(Comparison, "_hears", property(hears))


@file_mutant
def _tell_strangers(patch: Patch) -> None:
    """the digests of what lies there told to whom nobody knows"""
    patch.setattr(FileEnds, "_may_tell", lambda self: True)


@file_mutant
def _ignore_a_sync_that_fails(patch: Patch) -> None:
    """a sync that fails taken for a good one"""
    sync = System.sync_data

    def ignore(self: Any, descriptor: int) -> None:
        try:
            sync(self, descriptor)
        except OSError as error:
            if error.errno != errno.EIO:
                raise

    patch.setattr(System, "sync_data", ignore)


@file_mutant
def _lock_nothing(patch: Patch) -> None:
    """a part that somebody else is writing taken all the same"""
    patch.setattr(System, "lock", lambda self, descriptor: True)
