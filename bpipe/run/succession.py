"""One pipe in a process, or one after the other: a file at a listener is for one sender at a time.

When its sender is gone for long, another one may begin anew (``protocol/sessions.py``). The next
pipe is there from the beginning: it keeps the address, and nobody gets it before it is its turn.
"""

from __future__ import annotations

from collections.abc import Callable

from bpipe.ends.local import Ends
from bpipe.net.accepted import AcceptedLinks
from bpipe.pipe import BackedPipe
from bpipe.protocol.session import Session
from bpipe.protocol.sessions import SUPERSEDED
from bpipe.report.pipe import PipeWatch
from bpipe.run.join import Join, Outcome
from bpipe.run.process import Process


class Succession:
    """A pipe that is joined to these ends, and those after it to what ``again`` makes of them.

    Without ``again`` there is no other. With it, the pipe has to be that of a listener.
    """

    def __init__(
        self,
        pipe: BackedPipe,
        ends: Ends,
        process: Process,
        watch: PipeWatch,
        again: Callable[[], Ends] | None = None,
    ) -> None:
        self._pipe = pipe
        self._process = process
        self._watch = watch
        self._again = again
        self._next: BackedPipe | None = None
        self._begin(ends)

    def _begin(self, ends: Ends) -> None:
        self._process.take(self._pipe.engine, ends)
        self._join = Join(self._pipe, ends, self._process.scheduling)
        if self._again is not None:
            self._next = successor(self._pipe)
            self._process.take(self._next.engine)  # a signal at any time is for this one, too

    async def run(self) -> Outcome:
        """Until one has not given way; returns how that has ended."""
        outcome = await self._join.run()
        while self._next is not None and superseded(outcome):
            assert self._again is not None
            self._process.release(self._pipe.engine)
            self._pipe = self._next
            self._watch.follow(self._pipe.engine)
            self._begin(self._again())
            outcome = await self._join.run()
        if self._next is not None:
            await self._next.wait_closed()
        return outcome


def superseded(outcome: Outcome) -> bool:
    """Whether another sender waits for its turn: for the same file, if that has no name yet."""
    named = outcome.file is not None and outcome.file.named
    return not named and outcome.failure is not None and outcome.failure.code == SUPERSEDED


def successor(pipe: BackedPipe) -> BackedPipe:
    """One for the next caller of the same listener, on the same terms; not begun yet."""
    engine = pipe.engine
    session, source = engine.session, engine.source
    assert isinstance(source, AcceptedLinks)
    size, limits, needs = session.reader.capacity, session.patience.limits, session.terms.needs
    rate, links = session.rate.own, session.terms.links
    heir = Session(size, limits, session.secret, needs, rate, links)
    return BackedPipe(heir, source.another(heir), engine.clock)
