"""Mutants of records, and of a program whose stderr is carried."""

from __future__ import annotations

from typing import Any

from bpipe.ends import program_errors
from bpipe.ends.program_errors import LeavingInput, Outputs
from bpipe.ends.program_streams import Input
from bpipe.protocol.reader import BackedReader
from bpipe.protocol.records import RECORD_HEADER, Record, RecordReader, RecordWriter
from bpipe.protocol.ring import Views
from bpipe.protocol.session import Session
from bpipe.protocol.wire import Position
from bpipe.protocol.writer import BackedWriter
from tests.simulation.mutants.registry import Patch, mutant, worlds

program_mutant = worlds(28, 40)  # one end is a program whose stderr is carried


@mutant
def _forget_headers(patch: Patch) -> None:
    """a header of a record not counted"""
    took = RecordReader.took

    def content_only(self: Any, count: int) -> None:
        self._before = 0
        took(self, count)

    patch.setattr(RecordReader, "took", content_only)


@mutant
def _make_room_without_headers(patch: Patch) -> None:
    """space for a record where there is only space for a header"""
    patch.setattr(RecordWriter, "room", property(lambda self: self._half.room))


@mutant
def _wake_up_for_headers(patch: Patch) -> None:
    """a consumer woken up for a header, or a part of one"""
    patch.setattr(
        RecordReader, "buffered", property(lambda self: 0 if self._broken else self._half.buffered)
    )


@mutant
def _take_errors_for_data(patch: Patch) -> None:
    """ERRORS delivered as DATA"""
    wrote = RecordWriter.wrote
    patch.setattr(RecordWriter, "wrote", lambda self, count, kind=Record.DATA: wrote(self, count))


@mutant
def _take_them_for_what_was_found_last(patch: Patch) -> None:
    """what is lent of one record named as the one that was found last"""
    readable = RecordReader.readable

    def confuse(self: Any, limit: int, after: int = 0) -> Views:
        views = readable(self, limit, after)
        if views:
            self.kind = self._records[-1][0]
        return views

    patch.setattr(RecordReader, "readable", confuse)


@mutant
def _forget_the_rest(patch: Patch) -> None:
    """the rest of a record forgotten on a new link"""
    attach, readable = Session.attach, RecordReader.readable
    links: dict[BackedReader, int] = {}

    def count(self: Any, channel: Any, position: Position, now: float) -> None:
        attach(self, channel, position, now)
        links[self.reader] = self.history.links

    def forget(self: Any, limit: int, after: int = 0) -> Views:
        before = getattr(self, "links", 1)
        self.links = links.get(self._half, 1)
        if self.links > before:
            self._records.clear()
            self._untaken, self._known, self._before = 0, 0, RECORD_HEADER
        return readable(self, limit, after)

    patch.setattr(Session, "attach", count)
    patch.setattr(RecordReader, "readable", forget)


# --- a program whose stderr is carried ---


@program_mutant
def _end_with_stdout(patch: Patch) -> None:
    """the end of a program told before the end of its stderr"""

    def settle(self: Any) -> None:
        if self._exit is not None and not self._told and self._flows[0].ended:
            self._told = True
            self.engine.finish(ended=self._exit)

    patch.setattr(Outputs, "settle", settle)


@program_mutant
def _end_before_the_exit(patch: Patch) -> None:
    """the end of a program told before it has exited"""
    settle = Outputs.settle

    def hasty(self: Any) -> None:
        if self._exit is None and not self._told and all(each.ended for each in self._flows):
            self._told = True
            self.engine.finish()
        settle(self)

    patch.setattr(Outputs, "settle", hasty)


@program_mutant
def _wait_for_holders(patch: Patch) -> None:
    """who holds a program's stderr, when it has ended, waited for as long as he likes"""
    patch.setattr(program_errors, "HOLDERS_LINGER", 10**9)


@program_mutant
def _ask_who_has_left(patch: Patch) -> None:
    """a command that has left its stdin asked whether there was to be more"""
    patch.setattr(LeavingInput, "leave", Input.leave)


@program_mutant
def _wait_for_an_answer(patch: Patch) -> None:
    """the end of a command that waits for whether its stdin, which it has left, would go on"""
    patch.setattr(LeavingInput, "leave", Input.leave)
    patch.setattr(BackedWriter, "cut_short", False)


@program_mutant
def _blame_who_has_left(patch: Patch) -> None:
    """a command that has left its stdin taken for a failure"""

    def verdict(self: Any) -> Any:
        return self.ending.verdict(done=self.done, cut_short=self.writer.cut_short)

    patch.setattr(Session, "verdict", verdict)
