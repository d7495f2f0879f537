"""Mutants of programs as ends: what they see, what counts as taken, and what is told of them."""

from __future__ import annotations

from typing import Any

from bpipe.ends import program_streams
from bpipe.ends.consumer import UNREAD_FOR
from bpipe.ends.program import Program
from bpipe.ends.program_streams import Input, Output
from bpipe.protocol.ending import MOVING
from bpipe.protocol.reader import BackedReader
from bpipe.protocol.session import Session
from bpipe.protocol.wire import UNTOLD, Ended, Finish, Reason, Stop
from bpipe.protocol.writer import BackedWriter
from tests.simulation.mutants.registry import Patch, mutant


@mutant
def _start_early(patch: Patch) -> None:
    """a program started as soon as there is a link, and not when the session is established"""
    look = Program._look

    def hasty(self: Any) -> None:
        if self._child is None and not self._asked:
            self._asked = True
            self._engine.call(self._begin)
        else:
            look(self)

    patch.setattr(Program, "_look", hasty)


@mutant
def _start_again(patch: Patch) -> None:
    """a program started again with the next thing that happens"""
    look = Program._look

    def forget(self: Any) -> None:
        self._asked = False
        look(self)

    patch.setattr(Program, "_look", forget)


# --- what a program sees ---


@mutant
def _close_first(patch: Patch) -> None:
    """the stdin of a program closed before it is sent a signal"""
    cut_short = Program._cut_short

    def close(self: Any) -> None:
        self._input.shut()
        cut_short(self)

    patch.setattr(Program, "_cut_short", close)


@mutant
def _close_in_any_case(patch: Patch) -> None:
    """the stream of a producer that has failed taken for a whole one"""
    patch.setattr(Input, "is_cut", False)
    patch.setattr(Input, "_end", lambda self: self.shut())


@mutant
def _let_it_read_on(patch: Patch) -> None:
    """a program that goes on when its session has failed"""
    stream_is_cut = Program._stream_is_cut
    patch.setattr(
        Program,
        "_stream_is_cut",
        lambda self: self._engine.session.phase in MOVING and stream_is_cut(self),
    )


@mutant
def _leave_readers(patch: Patch) -> None:
    """somebody whom a program leaves behind with a part of its stream let be"""
    exited = Input.exited

    def let_be(self: Any) -> bool:
        exited(self)
        return True

    patch.setattr(Input, "exited", let_be)


# --- what counts as taken ---


@mutant
def _deliver_the_end_early(patch: Patch) -> None:
    """the end of a stream delivered before the program has exited"""
    end = Input._end

    def deliver(self: Any) -> None:
        end(self)
        if not self._open:
            self.engine.call(self.engine.delivered_end)

    patch.setattr(Input, "_end", deliver)


@mutant
def _take_what_is_written(patch: Patch) -> None:
    """bytes taken as soon as they are in a program's pipe"""
    patch.setattr(program_streams, "UNREAD_FOR", -1.0)


@mutant
def _take_what_is_left(patch: Patch) -> None:
    """bytes taken that a program has left in its pipe when it exited"""
    exited = Input.exited

    def count(self: Any) -> bool:
        if self._open:
            self._take(self._lying - self._counted)
        return exited(self)

    patch.setattr(Input, "exited", count)


@mutant
def _take_what_nobody_reads(patch: Patch) -> None:
    """bytes taken that lie in a pipe which the program has closed"""

    def note(self: Any) -> None:
        if self.engine.clock() - self._lying_since > UNREAD_FOR:
            self._take(self._lying - self._counted)
            self._counted = self._lying

    patch.setattr(Input, "_note_lying", note)


@mutant
def _forget_what_was_counted(patch: Patch) -> None:
    """bytes of which the program reads the ones before taken for bytes that it lets lie"""

    note_lying = Input._note_lying

    def forget(self: Any) -> None:
        note_lying(self)
        self._lying -= self._counted
        self._counted = 0

    patch.setattr(Input, "_note_lying", forget)


@mutant
def _blame_a_program(patch: Patch) -> None:
    """a program that leaves early taken for a failure of the session"""

    def blame(self: Session) -> None:
        self.abort(Reason.BROKEN_PIPE, "the program has left", self.heard_at)

    patch.setattr(Session, "program_left", blame)


@mutant
def _want_no_more(patch: Patch) -> None:
    """a program that leaves early taken for one that does not want any more"""
    stop = BackedReader.stop
    patch.setattr(BackedReader, "stop", lambda self, why=Stop.UNWANTED: stop(self))


# --- what is told of it ---


@mutant
def _end_with_the_output(patch: Patch) -> None:
    """a program that has closed its output taken for one that has exited with 0"""
    tell = Output.tell

    def presume(self: Any, how: Finish) -> None:
        tell(self, Finish(Ended.EXITED) if how.how is Ended.RUNNING else how)

    patch.setattr(Output, "tell", presume)


@mutant
def _drop_the_rest(patch: Patch) -> None:
    """the last bytes of a program that has exited dropped after two seconds"""
    patch.setattr(Output, "_wait_no_more", Output.end)


@mutant
def _wait_for_its_exit(patch: Patch) -> None:
    """the end of a program's output told only when the program has exited"""
    patch.setattr(program_streams, "OUTPUT_LINGER", 10.0**9)


@mutant
def _wait_for_others(patch: Patch) -> None:
    """the end of a program's output told only when nobody has it any more"""
    patch.setattr(program_streams, "HOLDERS_LINGER", 10.0**9)


@mutant
def _never_tell(patch: Patch) -> None:
    """a BYE that does not tell how a program has ended that went on"""

    def forget(self: BackedWriter, how: Finish) -> None:
        self.producing = False

    patch.setattr(BackedWriter, "exited", forget)


@mutant
def _tell_before(patch: Patch) -> None:
    """a BYE said before a program that went on has ended"""
    finish = BackedWriter.finish

    def hasty(self: BackedWriter, *, more: bool = False, ended: Finish = UNTOLD) -> None:
        finish(self, more=more, ended=ended)
        self.producing = False

    patch.setattr(BackedWriter, "finish", hasty)


@mutant
def _believe_in_success(patch: Patch) -> None:
    """success although nobody has told how a program has ended that went on"""
    patch.setattr(
        BackedReader,
        "finish",
        property(lambda self: self.exit if self.ended.how is Ended.RUNNING else self.ended),
    )


@mutant
def _never_ask_how(patch: Patch) -> None:
    """how a program has ended lost where its stream was cut"""
    patch.setattr(
        BackedReader,
        "finish",
        property(lambda self: self.ended if self.ended.how is not Ended.RUNNING else self.exit),
    )


@mutant
def _forget_who_was_not_waited_for(patch: Patch) -> None:
    """success although nobody has waited for the end of what the producer writes"""

    def cut_short(self: Any) -> bool:
        more = self.stopped is not None and self.written > self.stopped
        return more or (self.stopped is not None and (self.producing or self._turned_away))

    patch.setattr(BackedWriter, "cut_short", property(cut_short))
