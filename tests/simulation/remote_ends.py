"""The two ends of a command that runs elsewhere: its program there, and who has called for it here.

The program's stderr is carried, too. Near it there are three streams, each with manners of its own:
one may be closed before the others, and one may not be taken for a while.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

from bpipe.ends.kin import PATIENCE
from bpipe.ends.local import Sink
from bpipe.ends.program_errors import RemoteProgram
from bpipe.net.source import LinkSource
from bpipe.protocol.records import Record, RecordReader
from bpipe.protocol.ring import Views
from bpipe.protocol.session import Session
from tests.simulation.ends import Plan
from tests.simulation.loop import World
from tests.simulation.program_ends import ProgramEnd
from tests.simulation.programs import AFTER_SIGKILL, NearManner, Pipe, SimulatedProgram, spread
from tests.simulation.records import RecordsEnd
from tests.simulation.tape import Reading, Tape, Taped, part


class TalkingProgram(SimulatedProgram):
    """One that says something on its stderr, too: a ``Talking``."""

    def __init__(self, end: RemoteProgramEnd, ended: Callable[[], None]) -> None:
        assert end.plan.manner is not None
        self.stderr: Any = Pipe(end.plan.manner.depth)
        self.said = 0  # bytes of what is written, on stderr
        self._tape = end.tape
        self._blocked: Pipe | None = None  # which it has begun to write to
        super().__init__(end, ended)

    # --- what it does ---

    def _choose(self) -> Pipe:
        """Where it writes next."""
        if self._blocked is None:
            talks = self._end.rng.random() < self.manner.talks
            self._blocked = self.stderr if talks else self.stdout
        return self._blocked

    def _put(self, pipe: Pipe, most: int) -> int:
        self._blocked = None
        errors = pipe is self.stderr
        kind, at = (Record.ERRORS, self.said) if errors else (Record.DATA, self.written - self.said)
        count = pipe.write(part(kind, at, most))
        self.said += count if errors else 0
        return count

    def _leave_nobody(self) -> None:
        self.stderr.ended = True
        self._end.loop.ready_to_read(self.stderr)
        super()._leave_nobody()

    def _terminate(self) -> None:
        """It is asked twice."""
        world, deaf = self._end.world, self.manner.deaf
        if self.true is None and PATIENCE <= deaf < 2 * PATIENCE:
            world.at(world.now + deaf, self._die, self.manner.after_sigterm)
        elif self.true is None and deaf >= 2 * PATIENCE:
            world.at(world.now + 2 * PATIENCE, self._die, AFTER_SIGKILL)
        else:
            super()._terminate()

    # --- what is asked of it by who has started it ---

    def read(self, views: Views) -> int:
        return self._note(Record.DATA, super().read(views))

    @property
    def untaken_errors(self) -> int:
        return len(self.stderr.buffer)

    def read_errors(self, views: Views) -> int:
        count = spread(self.stderr.read(sum(map(len, views))), views)
        self._write_soon()
        return self._note(Record.ERRORS, count)

    def close_stderr(self) -> None:
        self.stderr.broken = True
        self._write_soon()

    def _note(self, kind: Record, count: int) -> int:
        if count and not self._end.engine.refusing:  # else it is thrown away
            self._tape.wrote(kind, count)
        return count


class RemoteProgramEnd(ProgramEnd, Taped):
    """The end there."""

    kind_of_ends = RemoteProgram
    kind_of_program = TalkingProgram
    program: TalkingProgram | None

    def __init__(
        self,
        name: str,
        world: World,
        plan: Plan,
        rng: random.Random,
        source: Callable[[Session], LinkSource],
    ) -> None:
        self.tape = Tape()
        self._reading = Reading()
        super().__init__(name, world, plan, rng, source)

    def take(self, data: memoryview) -> None:
        far = self.far
        assert isinstance(far, Taped)
        if not self._reading.read(far.tape, Record.DATA, bytes(data)):
            self.complain("reads what was not written for it")
        self.taken += len(data)
        self._call_cues()

    # --- what the judge asks ---

    @property
    def accepted(self) -> int:
        return self._with_headers(super().accepted)

    @property
    def total(self) -> int:
        program = self.program
        if program is None:
            return 0
        lies = program.written - self.tape.content
        return self.session.writer.written + lies + self._was_cut

    @property
    def kept(self) -> int:
        """The bytes that the program has written and that have gone nowhere."""
        return 0 if self.program is None else self.program.written - self.tape.content

    def may_have_stopped(self, offset: int) -> bool:
        least = 0 if self.plan.manner and self.plan.manner.heir else self._with_headers(self.taken)
        return least <= offset <= self.accepted

    def _with_headers(self, content: int) -> int:
        far = self.far
        assert isinstance(far, Taped)
        return far.tape.with_headers(content)


class SshEnd(RecordsEnd):
    """The end here."""

    kinds = (Record.DATA,)

    def __init__(
        self,
        name: str,
        world: World,
        plan: Plan,
        rng: random.Random,
        source: Callable[[Session], LinkSource],
    ) -> None:
        self.manner = plan.near or NearManner()
        self.took_at = world.now  # the last byte
        self.linked_at = world.now  # when the last link came or went
        self._rested = False
        self._links = (0, False)
        super().__init__(name, world, plan, rng, source)

    def _look_at_links(self) -> None:
        super()._look_at_links()
        links = self.session.history.links, self.session.attached
        if links != self._links:
            self._links, self.linked_at = links, self._world.now

    def calm(self) -> None:
        super().calm()
        self.manner = self.manner._replace(idle_at=None)
        if not self.loop.ended:
            self._look()

    # --- stdin ---

    @property
    def idle(self) -> bool:
        """Whether its stdin has not ended, and nothing comes."""
        at = self.manner.idle_at
        return at is not None and self.has_more and self.tape.content >= at

    def _has_space(self) -> bool:
        return super()._has_space() and not self.idle

    def _limit(self) -> int:
        most, at = super()._limit(), self.manner.idle_at
        return most if at is None else min(most, at - self.tape.content)

    def _produce(self) -> None:
        if self.idle and not self.engine.refusing:
            self._producing = False
        else:
            super()._produce()

    # --- stdout and stderr ---

    def _take_records(self, sink: Sink, views: Views) -> None:
        """They are two consumers, in one order; and one that has gone is noticed late."""
        assert isinstance(sink.half, RecordReader)
        kind = sink.half.kind
        if kind is Record.ERRORS and self.manner.rests and not self._rested:
            self._rested = self.consuming = True
            self._world.at(self._world.now + self.manner.rests, self._consume)
            return
        leaves_at = self.manner.leaves_at
        if kind is Record.DATA and leaves_at is not None:
            views = [views[0][: leaves_at - self.reading.counts[Record.DATA]]]
            if not views[0]:
                self.left = True
                self.loop.run(partial(sink.left, 0, untaken=self._rng.random() < 0.5))
                return
        self.took_at = self._world.now
        self.take_record(kind, views[0])
        sink.took(len(views[0]))
