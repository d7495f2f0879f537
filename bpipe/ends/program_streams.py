"""The two streams of a program that bpipe has started: the event loop moves their bytes.

Bytes count as taken when the program has read them from its pipe, or has left them there for two
seconds; the end of the stream, when it has exited. A program that exits, or closes its stdin,
before that fails nothing: the peer is asked to stop, and the program's own stream is carried to its
end. How it has ended goes with that end.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final, Protocol

from bpipe.ends.consumer import LOOKS, UNREAD_FOR
from bpipe.ends.local import Sink, Source
from bpipe.engine import Engine
from bpipe.protocol.ring import Views
from bpipe.protocol.wire import Ended, Finish

READ: Final = 1 << 18  # bytes at once
OUTPUT_LINGER: Final = 1.0  # seconds after the end of its output for a program to exit
HOLDERS_LINGER: Final = 2.0  # seconds after its exit for others to let go of its output


class Started(Protocol):
    """A program that was started, and what can be done with it; see ``Child``."""

    @property
    def stdin(self) -> int:
        """Where it reads: for the event loop, which waits until there is room."""

    @property
    def stdout(self) -> int:
        """What it writes: for the event loop, which waits until there is something."""

    @property
    def result(self) -> Finish | None:
        """How it has ended; None while it runs."""

    @property
    def unread(self) -> int:
        """The bytes that it has not read."""

    @property
    def deserted(self) -> bool:
        """Whether nobody can read them any more."""

    @property
    def untaken(self) -> int:
        """The bytes that it has written, and that nobody has taken."""

    def read(self, views: Views) -> int:
        """Take what it has written."""

    def write(self, views: Views) -> int:
        """Let it read this."""

    def close_stdin(self) -> None:
        """The stream that it reads has ended, and is whole."""

    def close_stdout(self) -> None:
        """Nothing more of what it writes is wanted."""

    def cut_short(self, done: Callable[[], None]) -> None:
        """The stream that it reads will not be whole."""

    def kill_now(self) -> None:
        """The same, at once."""


class Output(Source):
    """What the program writes."""

    def __init__(self, engine: Engine, child: Started) -> None:
        super().__init__(engine, "the program's output")
        self._child = child
        self._loop = asyncio.get_running_loop()
        self._paused = False
        self._ended = False
        self._exit: Finish | None = None  # how it has ended
        self._cut = False  # that was our doing
        self._told = False  # that, or that it goes on
        self._left = math.inf  # bytes: when these are taken nobody waits for more
        self._loop.add_reader(child.stdout, self._read)

    def look(self) -> None:
        """There may be space again, or nobody may want more."""
        if self._paused and not self._ended and (self.spacious or self.refused):
            self._paused = False
            self._loop.add_reader(self._child.stdout, self._read)

    def _read(self) -> None:
        try:
            count = self._discard() if self.refused else self._take()
        except BlockingIOError:
            return
        except OSError as error:
            self.failed(error)
            count = 0
        self._left -= count or 0
        if count == 0 or self._left <= 0:
            self.end()

    def _take(self) -> int | None:
        """Bytes for the stream; None if it has to wait for space."""
        views = self.lend(READ)
        if not views:
            self._paused = True
            self._loop.remove_reader(self._child.stdout)
            return None
        count = self._child.read(views)
        if count:
            self.wrote(count)
            self.engine.drive()
        return count

    def _discard(self) -> int:
        """Nobody takes more of it. If it is not wanted the program need not know that."""
        if not self.engine.writer.unwanted:
            return 0
        return self._child.read([memoryview(bytearray(READ))])

    def end(self) -> None:
        """There is no more of it; how the program ends may be known later."""
        if self._ended:
            return
        self._ended = True
        if not self._paused:
            self._loop.remove_reader(self._child.stdout)
        self._child.close_stdout()
        if self._exit is not None:
            self.tell(self._exit)
        elif not self.engine.session.terms.to_file:  # what becomes of that, only the exit tells
            self._loop.call_later(OUTPUT_LINGER, self.tell, Finish(Ended.RUNNING))

    def exited(self, how: Finish, *, cut: bool) -> None:
        """The program has ended; what it has written may still lie there.

        ``cut``: it was ended, because what it read was cut short. Whoever has cut that knows why,
        and need not be told of a signal; its output has no right end either.
        """
        self._exit, self._cut = how, cut
        if self._ended:
            self.tell(how)
        else:
            self._loop.call_later(HOLDERS_LINGER, self._wait_no_more)

    def _wait_no_more(self) -> None:
        """Others have its output still; of what lies there nobody knows whose it is."""
        if not self._ended:
            self._left = self._child.untaken
        if self._left <= 0:
            self.end()

    def tell(self, how: Finish) -> None:
        """The end goes on the stream, with what is known; later, only what was not."""
        if not self._told:
            self._told = True
            self.finish(ended=Finish(Ended.CUT) if self._cut else how)
        elif how.how is not Ended.RUNNING:
            self.engine.session.writer.exited(how)
            self.engine.drive()


class Input(Sink):
    """What the program reads."""

    def __init__(self, engine: Engine, child: Started) -> None:
        super().__init__(engine, "the program's input")
        self._child = child
        self._loop = asyncio.get_running_loop()
        self._full = False  # the pipe: the event loop waits for room
        self._lying = 0  # bytes in it, as far as is known
        self._counted = 0  # the first of them, which count as taken all the same
        self._lying_since = 0.0  # the others
        self._looks: asyncio.TimerHandle | None = None
        self._pause = LOOKS[0]
        self._open = True

    @property
    def wanting(self) -> bool:
        """Whether there is something to do."""
        return self._open and not self._full and self.half.ready

    @property
    def is_cut(self) -> bool:
        """Whether everything was given to the program, and it must not take that for all."""
        return self._open and self.half.drained and self.reader.ended.failed

    def move(self) -> None:
        """Give the program what there is, as far as its pipe takes it; close it after the end."""
        if not self._open:
            return
        try:
            self._note_read()
            self._note_lying()
            while views := self.lend(READ, self._lying - self._counted):
                if self._lying == self._counted:
                    self._lying_since = self.engine.clock()
                self._lying += self._child.write(views)
        except BlockingIOError:
            self._wait_for_room()
        except OSError as error:
            self._broken(error)
            return
        if self.half.drained:
            self._end()
        elif self._lying > self._counted and self._looks is None:
            self._looks = self._loop.call_later(self._pause, self._look_again)

    def _note_read(self) -> None:
        """What the program has read is taken."""
        unread = self._child.unread
        if unread < self._lying:
            counted = max(0, self._counted - (self._lying - unread))
            self._take(self._lying - self._counted - (unread - counted))
            self._lying, self._counted = unread, counted
            self._lying_since, self._pause = self.engine.clock(), LOOKS[0]

    def _note_lying(self) -> None:
        """And so is what it has let lie for long enough. BrokenPipeError if nobody can read it."""
        left = self._lying - self._counted
        if left and self.engine.clock() - self._lying_since > UNREAD_FOR:
            if self._child.deserted:
                raise BrokenPipeError
            self._take(left)
            self._counted = self._lying

    def _take(self, count: int) -> None:
        if count:
            self.took(count)
            self.engine.nudge()

    def _look_again(self) -> None:
        self._looks = None
        self._pause = min(2 * self._pause, LOOKS[1])
        self.move()

    def _wait_for_room(self) -> None:
        if not self._full:
            self._full = True
            self._loop.add_writer(self._child.stdin, self._room)

    def _room(self) -> None:
        self.release()
        self.move()

    def release(self) -> None:
        """Do not wait for room."""
        if self._full:
            self._full = False
            self._loop.remove_writer(self._child.stdin)

    def _broken(self, error: OSError) -> None:
        """The program has closed its stdin; it may go on."""
        self.shut()
        if isinstance(error, BrokenPipeError):
            self.leave()
        else:
            self.failed(error)

    def leave(self) -> None:
        """The program takes no more: was there to be more?"""
        self.engine.session.program_left()
        self.engine.drive()

    def _end(self) -> None:
        """It has read everything. Of a stream that was cut short it does not see the end."""
        if not self.reader.ended.failed:
            self.shut()

    def halt(self) -> None:
        """The program is given nothing more; its stdin stays open."""
        self.release()
        self._open = False

    def shut(self) -> None:
        """Its stdin is closed."""
        self.halt()
        self._child.close_stdin()

    def exited(self) -> bool:
        """The program has ended: the end of the stream is delivered, or it has left early.

        Returns whether its stdin has come to a right end; somebody else may have it still.
        """
        closed = not self._open
        if self._open:
            self._note_read()
        self.halt()
        whole = self.half.drained and not self.reader.ended.failed
        if whole:
            self.shut()
        if self.half.drained:
            self.deliver()
        else:
            self.leave()
        return whole or closed
