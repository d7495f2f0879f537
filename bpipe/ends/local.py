"""What an end is: where the bytes of a pipe's streams come from, and where they go.

A source puts bytes on the stream that is sent, a sink takes those of the stream that has come.
Whatever is behind them, a descriptor that somebody else may share, a program, a socket or a file:
the pipe lends them memory, and hears of them in the few words that are methods here. ``name`` is
what errors call it, as in "cannot read stdin".

Where the session needs records, what is moved is their content: of a source, DATA; for a sink, of
the kinds that it has a use for. Which it is, is known when an end is made: see ``halves.py``.

Threads. What an end *says* may be said in any thread; what it does with lent memory, only in one
at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, ClassVar, Protocol

from bpipe.engine import Engine
from bpipe.errors import ProtocolError, explain
from bpipe.halves import inward, outward
from bpipe.protocol.records import Record, RecordReader
from bpipe.protocol.ring import Views
from bpipe.protocol.wire import Finish, Reason

if TYPE_CHECKING:
    from bpipe.ends.file_sink import FileOutcome


class End:
    """What sources and sinks have in common."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.name = name
        self.engine = engine

    def give_up(self, message: str, reason: Reason = Reason.LOCAL_ERROR) -> None:
        """Something else than an error of the system has happened: both directions end."""
        self.engine.call(lambda: self.engine.abort(reason, message))


class Source(End):
    """An end that puts bytes on the stream that is sent; it has begun when it is made.

    ``lend`` returns memory for the next bytes, at most so many; none while it has to wait.
    ``wrote`` says how many there are. ``finish`` ends the stream, in the event loop's thread.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        super().__init__(engine, name)
        # Not methods that call these: every byte passes here.
        self.half, self.lend, self.finish = outward(engine, engine.space)
        self.wrote: Callable[[int], None] = self.half.wrote
        engine.begin()

    @property
    def spacious(self) -> bool:
        """Whether to go on, after a wait for space."""
        return self.half.room > 0 and self.engine.spacious

    @property
    def refused(self) -> bool:
        """Whether nobody wants more of it, so that it is to end."""
        return self.engine.refusing

    def ended(self, *, more: bool = False) -> None:
        """There are no more bytes; ``more``: there are, but they are not wanted."""
        self.engine.call(lambda: self.finish(more=more))

    def failed(self, error: OSError) -> None:
        """The bytes do not come to an end, but to this error."""
        self.give_up(f"cannot read {self.name}: {explain(error)}")


class Sink(End):
    """An end that takes the bytes of the stream that has come.

    ``lend`` returns the next of them, at most so many; none while there are none.
    ``took`` says how many of these are taken, and so delivered. ``half`` tells what there is.
    ``deliver`` says, in the event loop's thread, that all is taken, and the end as well. ``reader``
    is the stream; where the peer writes to a file, an empty one.
    """

    kinds: ClassVar[Collection[Record]] = frozenset({Record.DATA})  # that it has a use for

    def __init__(self, engine: Engine, name: str) -> None:
        super().__init__(engine, name)
        self.half, self.reader, self.deliver = inward(engine, self.kinds)
        self.lend: Callable[..., Views] = self.half.readable
        if isinstance(self.half, RecordReader):
            self._records = self.half
            self.lend = self._lend_content
        self.took = self.half.took

    def _lend_content(self, limit: int, after: int = 0) -> Views:
        """As ``lend``, of records: ``[]`` as well where they are none that can be."""
        try:
            views = self._records.readable(limit, after)
        except ProtocolError as error:
            self.give_up(f"protocol error: {error}", Reason.PROTOCOL)
            return []
        if not views and self._records.drained:
            self.engine.nudge()  # what is left of a record that was cut counts as taken
        return views

    def ended(self) -> None:
        """Everything is taken, the end of the stream as well."""
        self.engine.call(self.deliver)

    def left(self, unread: int, *, untaken: bool) -> None:
        """Its consumer has gone, and takes no more; so many bytes are known to lie there unread.

        ``untaken``: not all that it was given was taken, whether or not that can be counted.
        """
        if self.reader is not self.engine.reader:
            return  # there was nothing for it
        message = f"the consumer behind {self.name} closed its pipe"
        if unread:
            message += f", and left {unread} bytes there"
        self.engine.call(lambda: self.engine.consumer_gone(message, untaken=untaken))

    def failed(self, error: OSError) -> None:
        """It cannot take the bytes, because of this error."""
        self.give_up(f"cannot write {self.name}: {explain(error)}")


class Ends(Protocol):
    """A source and a sink of one pipe, or one of them."""

    @property
    def sends(self) -> bool:
        """Whether there is a source; else the stream that is sent is empty."""

    @property
    def receives(self) -> bool:
        """Whether there is a sink; else the peer is told that nothing is taken.

        Not where there are records: they are taken all the same, and their data is dropped.
        """

    @property
    def result(self) -> Finish | None:
        """How the program behind them has ended, if they are one."""

    @property
    def outcome(self) -> FileOutcome | None:
        """What has become of the file behind them, if they are one. It is final after ``wait``."""

    def start(self, engine: Engine) -> None:
        """The pipe is up: from now on its bytes are moved.

        Raises OSError, RuntimeError or MemoryError where the system refuses what that needs.
        """

    def hurry(self) -> bool:
        """Somebody is impatient: end at once what they have started.

        Returns whether there was anything to hurry.
        """

    async def wait(self) -> None:
        """The session is over: wait until nothing is left of what they have started."""
