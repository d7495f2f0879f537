"""Comparison: a stream to a file, and what the peer says of what lies there.

Where the peer writes our stream to a file, what it sends is no stream for anybody here: it tells
what it has, and then in digests what that is. All of it is brought to the one who compares
(``protocol/block_writer.py``), as fast as that asks for it. So the consumers of this end, of which
there may be some all the same, are given an end at once, and decide nothing.

The last block of the stream may have to wait for its digest when the producer has ended: the end
mark comes after that.

Threads. What is here belongs to the thread of the event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from bpipe.engine import Engine
from bpipe.errors import ProtocolError
from bpipe.protocol.block_writer import BlockWriter
from bpipe.protocol.records import Record, RecordReader
from bpipe.protocol.ring import Views
from bpipe.protocol.wire import UNTOLD, Ended, Finish, Reason

PIECE: Final = 1 << 14  # bytes of digests at once: so many more than it asks for it may be given


class _End(NamedTuple):
    """What is known of a producer that has ended."""

    more: bool
    ended: Finish

    @property
    def whole(self) -> bool:
        """Whether what it has written is the stream: else no file is made of it."""
        return not self.more and self.ended in (UNTOLD, Finish(Ended.EXITED, 0))


class Comparison:
    """What is written to ``half`` is compared, for as long as the engine's session lasts.

    ``space`` lends memory, as that of the engine's writer does.
    """

    def __init__(self, engine: Engine, space: Callable[[int], Views] | None = None) -> None:
        self.half = BlockWriter(engine.writer, space, whole=engine.session.terms.whole)
        self._engine = engine
        self._records = RecordReader(engine.reader, {Record.BASE, Record.DIGESTS})
        self._asked = False  # it is going to be called
        self._heard = False  # all that the peer says
        self._end: _End | None = None  # which cannot be said yet
        self._ended = False  # that is said
        engine.use_tally(lambda: self.half.tally)
        engine.observe(self._look)
        engine.nudge()

    def finish(self, *, more: bool = False, ended: Finish = UNTOLD) -> None:
        """The producer has ended; as the engine's ``finish``, which is called as soon as it can be.

        Again: no effect, unless the stream turns out to be cut before that.
        """
        if self._ended:
            self._engine.finish(more=more, ended=ended)
            return
        self._end = _End(more, ended)
        self._settle()
        if not self._ended:
            self.half.pause()
            self._engine.drive()

    # --- what the engine tells ---

    def _look(self) -> None:
        """Something has happened: what follows is done outside of this call."""
        if not self._asked and (self._hears or self._ends):
            self._asked = True
            self._engine.call(self._move)

    @property
    def _hears(self) -> bool:
        """Whether the peer has said something for which there is room.

        Not after a failure: then its end may come without what was before it.
        """
        new = self._records.ready and not self._heard
        return new and self.half.hungry and self._engine.failure is None

    @property
    def _ends(self) -> bool:
        """Whether an end that had to wait can be said."""
        if self._end is None:
            return False
        return not self._end.whole or self._engine.refusing or not self.half.waiting

    def _move(self) -> None:
        self._asked = False
        if self._hears:
            try:
                self._hear()
            except ProtocolError as error:
                self._heard = True
                self._engine.abort(Reason.PROTOCOL, f"protocol error: {error}")
        self._settle()
        self._engine.drive()  # who waits for a digest goes on

    def _hear(self) -> None:
        half, records = self.half, self._records
        while half.hungry and (views := records.readable(PIECE)):
            data = b"".join(views)
            half.hear(records.kind, data)
            records.took(len(data))
        if records.drained:
            self._heard = True
            half.hear_end()
            self._engine.delivered_end()

    def _settle(self) -> None:
        if self._end is None or not self._ends:
            return
        end, self._end, self._ended = self._end, None, True
        if not self._engine.refusing:
            self.half.end(end.whole)
        self._engine.finish(more=end.more, ended=end.ended)
