"""Mutants of a command that is held far away, and of the carriers that lead there."""

from __future__ import annotations

from typing import Any

from bpipe.errors import SessionLost
from bpipe.net.connectors import Connection
from bpipe.net.schedule import CARRIER
from bpipe.protocol.caller import FORGOTTEN
from bpipe.protocol.ending import Phase
from bpipe.protocol.wire import Reason
from bpipe.remote.carrier import Answer, Remote
from bpipe.run.join import Join
from tests.simulation.carriers import SimulatedCommand
from tests.simulation.far import PERIOD, PLACE, Machine
from tests.simulation.mutants.registry import Patch, worlds

far_mutant = worlds(PLACE, PERIOD)


@far_mutant
def _start_another(patch: Patch) -> None:
    """a second holder for one session, and its command with it"""
    find = Machine.find
    patch.setattr(
        Machine,
        "find",
        lambda self, *, may_start: self.start() if may_start else find(self, may_start=False),
    )


@far_mutant
def _end_with_the_relay(patch: Patch) -> None:
    """a relay's end taken for the session's"""
    run = Join.run

    async def hasty(self: Any) -> Any:
        pipe = self._pipe

        def look() -> None:
            session = pipe.engine.session
            if session.established and not session.attached and session.phase is Phase.UP:
                pipe.engine.call(lambda: pipe.abort(Reason.INTERRUPTED, "hung up"))

        pipe.engine.observe(look)
        return await run(self)

    patch.setattr(Join, "run", hasty)


@far_mutant
def _believe_another_machine(patch: Patch) -> None:
    """none of another machine believed"""

    def believe(self: Any, answer: Answer) -> None:
        if answer.holder == "none":
            raise SessionLost(FORGOTTEN)

    patch.setattr(Remote, "_require_holder", believe)


@far_mutant
def _never_release(patch: Patch) -> None:
    """a carrier that is never released"""
    connect = SimulatedCommand.connect

    async def forget(self: Any, turn: int) -> Connection:
        return (await connect(self, turn))._replace(released=lambda: None)

    patch.setattr(SimulatedCommand, "connect", forget)


@far_mutant
def _try_twice_at_once(patch: Patch) -> None:
    """two attempts of a carrier at once"""
    hasty = CARRIER._replace(attempts=6, overlap=0.5)
    patch.setattr(Remote, "manners", property(lambda self: hasty))
