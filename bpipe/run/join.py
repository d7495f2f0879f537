"""One pipe and its two ends, to its outcome. What becomes of the process is not known here."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

from bpipe.ends.local import Ends
from bpipe.ends.scheduling import LoopScheduling
from bpipe.errors import SessionEnded
from bpipe.pipe import BackedPipe
from bpipe.protocol.wire import UNTOLD, Finish, Reason
from bpipe.run.limits import LACKING, describe
from bpipe.status import Status

if TYPE_CHECKING:
    from bpipe.ends.file_sink import FileOutcome


class Outcome(NamedTuple):
    """How it ended."""

    failure: SessionEnded | None  # None: everything was delivered, both ways
    status: Status  # of the pipe, in the end
    far: Finish = UNTOLD  # how the peer's producer has ended, as far as is known
    near: Finish = UNTOLD  # the same of the program behind our own ends
    left_early: bool = False  # that one has not taken all that came
    file: FileOutcome | None = None  # what has become of the file behind our own ends


class Join:
    """A pipe and its ends. What is not used is said with the first link: the peer waits for it.

    There may be several in one event loop, which share one ``scheduling``.
    """

    def __init__(self, pipe: BackedPipe, ends: Ends, scheduling: LoopScheduling) -> None:
        self._pipe = pipe
        self._ends = ends
        self._scheduling = scheduling
        if ends.sends:
            pipe.engine.begin()

    async def run(self) -> Outcome:
        """Connect the pipe, start its ends, and wait until the session is over."""
        engine = self._pipe.engine
        with self._scheduling.counting(engine):
            with contextlib.suppress(SessionEnded):
                await self._pipe.connect()
                self._say_what_is_not_used()
                try:
                    self._ends.start(engine)
                except LACKING as error:
                    engine.abort(Reason.LOCAL_ERROR, describe(error))
            await self._pipe.wait_closed()
            await self._ends.wait()
        reader, ends = self._pipe.reader, self._ends
        far, near, left_early = reader.finish, ends.result or UNTOLD, reader.left_early
        return Outcome(engine.failure, engine.status(), far, near, left_early, ends.outcome)

    def _say_what_is_not_used(self) -> None:
        """With records nobody is asked to stop: the ends take them, and drop the data."""
        terms = self._pipe.engine.session.terms
        if not self._ends.receives and not terms.records:
            self._pipe.stop()
        if not self._ends.sends and terms.to_file:
            self._pipe.abort(Reason.LOCAL_ERROR, "nothing is sent, so there is no file")
        elif not self._ends.sends:
            self._pipe.finish()
