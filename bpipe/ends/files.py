"""FileEnds: a receiver whose stream becomes a file.

Three threads do what a disk may hold up: one writes what comes (``file_sink.py``), one hashes and
tells what lies there already (``base_source.py``), and one brings to the disk what was written
(``syncs.py``). They begin when the session is established, so that nothing is told to somebody who
may not be there, after another one has seen what lies there; and end with it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import Final

from bpipe.ends.base import BaseFile
from bpipe.ends.base_source import BaseSource
from bpipe.ends.errors_sink import Errors
from bpipe.ends.file_sink import FileOutcome, FileSink
from bpipe.ends.gate import Gate
from bpipe.ends.local import End
from bpipe.ends.part import Target
from bpipe.ends.pumps import Pump
from bpipe.ends.syncs import EVERY
from bpipe.engine import Engine
from bpipe.errors import TargetError
from bpipe.protocol.assembly import Assembly
from bpipe.protocol.blocks import Base
from bpipe.protocol.ending import Phase
from bpipe.protocol.ring import Views


class FileEnds:
    """The ends of one session that writes to this target. See ``Ends``.

    Of a far program ``stderr``, a descriptor, gets what that says, and ``before`` is called with it
    first. ``whole``: nobody is told what lies there. The target stays open when all is over, for
    the next session, or for its owner to close; ``more``: there is going to be one, and nobody else
    writes there before it.
    """

    sends: Final = True
    receives: Final = True
    result: Final = None  # nobody knows a program here

    def __init__(
        self,
        target: Target,
        stderr: int = 2,
        before: Callable[[Views], None] = lambda data: None,
        *,
        whole: bool = False,
        more: bool = False,
    ) -> None:
        self._target = target
        self._errors = Errors(stderr)
        self._before = before
        self._whole = whole
        self._more = more
        self._engine: Engine
        self._sink: FileSink | None = None
        self._asked = False  # to begin
        self._threads = 0  # that have not ended
        self._hurried = False
        self._over = asyncio.Event()

    @property
    def outcome(self) -> FileOutcome:
        """What has become of it, after ``wait``."""
        if self._sink is None:  # it was over before there was anything to write
            target = self._target
            return FileOutcome(kept=target.lies > 0, file=target.path, part=target.part_path)
        return self._sink.outcome

    def start(self, engine: Engine) -> None:
        """Begin as soon as the session is established."""
        self._engine = engine
        engine.observe(self._look)
        self._look()

    def hurry(self) -> bool:
        """Do not wait any longer for a disk that does not answer; only once."""
        if not self._threads or self._hurried:
            return False
        self._hurried = True
        self._target.abandon()
        self._over.set()
        return True

    async def wait(self) -> None:
        """Wait until the threads have ended."""
        if self._threads:
            await self._over.wait()

    def _look(self) -> None:
        session = self._engine.session
        heard = session.established and self._engine.link is not None  # whom: that link tells
        if heard and not self._asked and session.phase is Phase.UP:
            self._asked = True
            self._engine.call(self._begin)

    def _begin(self) -> None:
        """First see what lies there by now: who listens may have waited for days."""
        if self._engine.session.phase is Phase.UP:  # it has not ended meanwhile
            end = End(self._engine, self._target.path)
            self._run(end, lambda: True, partial(self._renew, end, self._may_tell()))

    def _renew(self, end: End, tells: bool) -> bool:
        try:
            self._target.renew()
            self._engine.call(partial(self._go_on, tells))
        except TargetError as error:
            end.give_up(str(error))
        return False

    def _go_on(self, tells: bool) -> None:
        engine, target = self._engine, self._target
        if engine.session.phase is not Phase.UP:
            return
        window = min(engine.reader.capacity, engine.writer.window)
        assembly = Assembly(Base.of(target.base if tells else 0, window))
        source = BaseSource(engine, assembly, BaseFile(target, assembly.base))
        engine.use_tally(lambda: assembly.tally)
        self._sink = FileSink(engine, target, assembly, self._errors, self._before)
        self._run(self._sink, self._sink.wanted, self._sink.move)
        self._run(source, source.wanted, source.move)
        syncs = self._sink.syncs
        self._run(syncs, syncs.wanted, syncs.sync, EVERY)

    def _may_tell(self) -> bool:
        """Whether the peer may hear what lies here: it has the secret, or is our own process."""
        link = self._engine.link
        if self._whole or link is None:
            return False
        if self._engine.session.secret is not None:
            return True
        from bpipe.net.owner import surely_ours

        return surely_ours(link.sock)

    def _run(
        self,
        end: End,
        wanted: Callable[[], bool],
        move: Callable[[], bool],
        every: float | None = None,
    ) -> None:
        """A thread that moves whenever that is wanted, or so often, until there is no more."""
        gate = Gate(None, 0, wanted)
        wait = partial(gate.wait, beside=False) if every is None else partial(gate.rest, every)

        def work() -> None:
            try:
                while move():
                    wait()
            finally:
                self._engine.call(self._ended)

        Pump(end, gate, work)
        self._threads += 1

    def _ended(self) -> None:
        self._threads -= 1
        if self._threads:
            return
        if self._more:
            self._more = False
            self._run(End(self._engine, self._target.path), lambda: True, self._claim)
        else:
            self._over.set()

    def _claim(self) -> bool:
        """What was written may have its name, and so there is no part any more: make the next."""
        with contextlib.suppress(TargetError, OSError):  # the next session will tell
            self._target.renew()
        return False
