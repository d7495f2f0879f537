"""A program whose stderr is carried, too: the far end of ``bpipe ssh`` and ``bpipe run``.

What it writes goes out as records, DATA and ERRORS, in the order in which it comes. The end follows
when both have ended and the program has exited: then the other end knows how. Where others hold one
of them after that, they are waited for as with any program.

It may leave its stdin as it likes: as with ssh nobody asks whether there was to be more, and its
exit status says whether that was enough. Cut short, it gets SIGHUP first, as from a terminal that
has hung up.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Protocol, cast

from bpipe.ends.child import Child, open_pipe
from bpipe.ends.guard import Guard
from bpipe.ends.local import Source
from bpipe.ends.program import Program, Written
from bpipe.ends.program_streams import HOLDERS_LINGER, READ, Input, Started
from bpipe.engine import Engine
from bpipe.net.outlet import waiting
from bpipe.protocol.ending import MOVING
from bpipe.protocol.records import Record
from bpipe.protocol.ring import Views
from bpipe.protocol.wire import Ended, Finish
from bpipe.protocol.writer import BackedWriter


class Talking(Started, Protocol):
    """A program that was started, and whose stderr is ours to read; see ``ErrorsChild``."""

    @property
    def stderr(self) -> int:
        """What it says there: for the event loop, which waits until there is something."""

    @property
    def untaken_errors(self) -> int:
        """The bytes that it has said there, and that nobody has taken."""

    def read_errors(self, views: Views) -> int:
        """Take what it has said there."""

    def close_stderr(self) -> None:
        """Nothing more of that is wanted."""


class ErrorsChild(Child):
    """As ``Child``; its stderr is a pipe, and it is not left behind if we are killed.

    Also if it has read the whole of its stream: who has started it will not see its end then.
    """

    asks: ClassVar[Sequence[int]] = (signal.SIGHUP, signal.SIGTERM)

    def _make_stderr(self, its: contextlib.ExitStack, ours: contextlib.ExitStack) -> int:
        self.stderr, stderr = open_pipe()
        its.callback(os.close, stderr)
        ours.callback(os.close, self.stderr)
        return stderr

    def close_stdin(self) -> None:
        """As of ``Child``; the guard still sees to its end."""
        super().close_stdin()
        self._hold_again()

    def read_errors(self, views: Views) -> int:
        """Take what it has said, as ``read`` does."""
        return os.readv(self.stderr, views)

    @property
    def untaken_errors(self) -> int:
        """The bytes that lie there."""
        return waiting(self.stderr)

    def close_stderr(self) -> None:
        """Nothing more of it is wanted."""
        if self.stderr >= 0:
            os.close(self.stderr)
            self.stderr = -1


# What starts it; see ``Launch``.
TalkingLaunch = Callable[[Sequence[str], Mapping[str, str], Callable[[], None], Guard], Talking]


class RemoteProgram(Program):
    """As ``Program``, for a session with records."""

    def __init__(
        self,
        argv: Sequence[str],
        guard: Guard | None = None,
        launch: TalkingLaunch = ErrorsChild,
    ) -> None:
        super().__init__(argv, guard, launch)

    def _streams(self, engine: Engine, child: Started) -> tuple[Written, Input]:
        return Outputs(engine, cast(Talking, child)), LeavingInput(engine, child)


class LeavingInput(Input):
    """What the program reads, and may leave."""

    def leave(self) -> None:
        """It takes no more."""
        if self.engine.session.phase in MOVING:
            self.engine.stop()


class Outputs(Source):
    """What the program writes, to both."""

    def __init__(self, engine: Engine, child: Talking) -> None:
        super().__init__(engine, "the program's output")
        self._exit: Finish | None = None  # how the program has ended
        self._told = False
        self._loop = asyncio.get_running_loop()
        self._flows = [_Data(self, child), _Errors(self, child)]

    def look(self) -> None:
        """There may be space again, or nobody may want more."""
        for flow in self._flows:
            flow.look()

    def exited(self, how: Finish, *, cut: bool) -> None:
        """The program has ended; ``cut``: it was ended. What it has written may still lie there."""
        self._exit = Finish(Ended.CUT) if cut else how
        self._loop.call_later(HOLDERS_LINGER, self._wait_no_more)
        self.settle()

    def settle(self) -> None:
        """One of them has ended, or the program; tell the end when all have."""
        if self._exit is not None and not self._told and all(each.ended for each in self._flows):
            self._told = True
            self.finish(ended=self._exit)

    def _wait_no_more(self) -> None:
        for flow in self._flows:
            flow.wait_no_more()


class _Flow:
    """One of the streams that a program writes. The event loop takes what there is."""

    kind: ClassVar[Record]

    def __init__(self, outputs: Outputs, child: Talking) -> None:
        assert not isinstance(outputs.half, BackedWriter)
        self.ended = False
        self._outputs = outputs
        self._records = outputs.half
        self._child = child
        self._loop = asyncio.get_running_loop()
        self._paused = False
        self._left = math.inf  # bytes: when these are taken nobody waits for more
        self._loop.add_reader(self._descriptor, self._readable)

    def look(self) -> None:
        """There may be space again, or nobody may want more."""
        outputs = self._outputs
        if self._paused and not self.ended and (outputs.spacious or outputs.refused):
            self._paused = False
            self._loop.add_reader(self._descriptor, self._readable)

    def wait_no_more(self) -> None:
        """Others have it still; of what lies there nobody knows whose it is."""
        if not self.ended:
            self._left = self._untaken
        if self._left <= 0:
            self._end()

    def _readable(self) -> None:
        try:
            count = self._discard() if self._outputs.refused else self._take()
        except BlockingIOError:
            return
        except OSError as error:
            self._outputs.failed(error)
            count = 0
        self._left -= count or 0
        if count == 0 or self._left <= 0:
            self._end()

    def _take(self) -> int | None:
        """Bytes for the stream; None if it has to wait for space."""
        views = self._records.space(READ)
        if not views:
            self._pause()
            return None
        count = self._read(views)
        if count:
            self._records.wrote(count, self.kind)
            self._outputs.engine.drive()
        return count

    def _discard(self) -> int:
        """Nobody takes more of it. If it is not wanted the program need not know that."""
        if not self._outputs.engine.writer.unwanted:
            return 0
        return self._read([memoryview(bytearray(READ))])

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._loop.remove_reader(self._descriptor)

    def _end(self) -> None:
        if not self.ended:
            self._pause()
            self.ended = True
            self._close()
            self._outputs.settle()

    # --- which of them ---

    @property
    def _descriptor(self) -> int:
        raise NotImplementedError

    @property
    def _untaken(self) -> int:
        raise NotImplementedError

    def _read(self, views: Views) -> int:
        raise NotImplementedError

    def _close(self) -> None:
        raise NotImplementedError


class _Data(_Flow):
    kind = Record.DATA

    @property
    def _descriptor(self) -> int:
        return self._child.stdout

    @property
    def _untaken(self) -> int:
        return self._child.untaken

    def _read(self, views: Views) -> int:
        return self._child.read(views)

    def _close(self) -> None:
        self._child.close_stdout()


class _Errors(_Flow):
    kind = Record.ERRORS

    @property
    def _descriptor(self) -> int:
        return self._child.stderr

    @property
    def _untaken(self) -> int:
        return self._child.untaken_errors

    def _read(self, views: Views) -> int:
        return self._child.read_errors(views)

    def _close(self) -> None:
        self._child.close_stderr()
