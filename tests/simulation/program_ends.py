"""A simulated process whose ends are a program: all of the production code but the program."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from bpipe.ends.guard import Guard
from bpipe.ends.program import Program
from bpipe.ends.scheduling import LoopScheduling
from bpipe.net.source import LinkSource
from bpipe.pipe import BackedPipe
from bpipe.protocol.ending import MOVING, Phase
from bpipe.protocol.session import Session
from bpipe.run.join import Join
from tests.simulation.ends import End, Plan
from tests.simulation.loop import World
from tests.simulation.programs import SimulatedProgram


class ProgramEnd(End):
    """Its program is what it takes and gives, as the plan's manner says."""

    kind_of_ends: ClassVar[type[Program]] = Program
    kind_of_program: ClassVar[type[SimulatedProgram]] = SimulatedProgram

    def __init__(
        self,
        name: str,
        world: World,
        plan: Plan,
        rng: random.Random,
        source: Callable[[Session], LinkSource],
    ) -> None:
        self.world = world
        self.rng = rng
        self.program: SimulatedProgram | None = None
        self._ends: Program
        self._join: Join
        super().__init__(name, world, plan, rng, source)

    def _start(self, source: Callable[[Session], LinkSource]) -> BackedPipe:
        pipe = BackedPipe(self.session, source(self.session), self.world.clock)
        self._ends = self._make_ends()
        self._join = Join(pipe, self._ends, LoopScheduling())
        self.loop.create_task(self._main(pipe))
        return pipe

    def _make_ends(self) -> Program:
        return self.kind_of_ends(["simulated"], launch=self._launch)

    async def _main(self, pipe: BackedPipe) -> None:
        self.outcome = await self._join.run()
        self.loop.end()

    def _launch(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        ended: Callable[[], None],
        guard: Guard,
    ) -> SimulatedProgram:
        self.require_right_to_start()
        self.program = self.kind_of_program(self, ended)
        return self.program

    def require_right_to_start(self) -> None:
        """A program is started once, and for a session."""
        if not self.session.established or self.session.phase is not Phase.UP:
            self.complain("is started although there is no session")
        if self.program is not None:
            self.complain("is started once more")

    def _look(self) -> None:
        super()._look()
        if self.session.over and self.over_at is None:
            self.over_at = self.world.now

    def _produce(self) -> None:
        """Its program does that."""

    def _consume(self) -> None:
        """The same."""

    def kill(self) -> None:
        if not self.gone:
            self.killed = True
            if self.program is not None:
                self.program.orphan()
            self.loop.kill()

    def hurry(self) -> None:
        """A second signal."""
        if not self.loop.ended and self.session.failure is not None:
            self.loop.run(self._ends.hurry)

    # --- what the program says and asks ---

    def note_exit(self) -> None:
        """That it has ended is known."""
        self.closed = True

    def complain(self, text: str) -> None:
        """Something that must never happen has happened to the program."""
        self.wrong = self.wrong or f"{self.name}: the program {text}"

    def is_given_everything(self) -> bool:
        """Whether all that is to come has come to it, and is no part."""
        assert self.program is not None
        return self.far.gives_all(self.taken + self.program.unread)

    def is_cut(self) -> bool:
        """Whether its stream may have no right end."""
        failed = isinstance(self.far, ProgramEnd) and self.far.has_failed
        return failed or self.session.phase not in MOVING or not self.is_given_everything()

    # --- what the judge asks ---

    @property
    def goes_on_unharmed(self) -> bool:
        """Whether its program has lived for longer than its session, and nobody has ended it."""
        program, over_at = self.program, self.over_at
        if program is None or over_at is None or program.was_cut:
            return False
        return program.died_at > over_at + 0.1

    @property
    def has_failed(self) -> bool:
        """Whether its program has."""
        true = None if self.program is None else self.program.true
        return true is not None and true.failed

    @property
    def gone(self) -> bool:
        return self.outcome is not None or self.killed

    @property
    def accepted(self) -> int:
        return 0 if self.program is None else self.program.accepted

    @property
    def total(self) -> int:
        return 0 if self.program is None else self.program.written + self._was_cut

    def may_have_stopped(self, offset: int) -> bool:
        least = 0 if self.plan.manner and self.plan.manner.heir else self.taken
        return least <= offset <= self.accepted

    def gives_all(self, count: int) -> bool:
        program = self.program
        return program is not None and program.whole and count == program.written
