"""The two halves of a pipe as those who feed and drain it use them: chosen once, when they begin.

A stream is bytes, or is cut into records, or goes to a file; what that takes is decided here, for
whoever is behind it, and costs nothing later.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, NamedTuple, Protocol

from bpipe.engine import Engine
from bpipe.protocol.reader import BackedReader
from bpipe.protocol.records import Record, RecordReader, RecordWriter
from bpipe.protocol.ring import Views
from bpipe.protocol.wire import UNTOLD, Finish
from bpipe.protocol.writer import BackedWriter

if TYPE_CHECKING:
    from bpipe.protocol.block_writer import BlockWriter


class Ending(Protocol):
    """What ends a stream; see ``Engine.finish``."""

    def __call__(self, *, more: bool = False, ended: Finish = UNTOLD) -> None:
        """The producer has ended."""


class Outward(NamedTuple):
    """What a producer writes to; ``space`` is that of ``half``, or of who lends its memory."""

    half: BackedWriter | RecordWriter | BlockWriter
    space: Callable[[int], Views]
    finish: Ending


class Inward(NamedTuple):
    """What a consumer reads from; ``reader`` is the stream below its records.

    ``deliver`` is called when everything is taken, the end of the stream as well.
    """

    half: BackedReader | RecordReader
    reader: BackedReader
    deliver: Callable[[], None]


def outward(engine: Engine, space: Callable[[int], Views] | None = None) -> Outward:
    """A producer begins: what it writes to. ``space`` lends the memory, else the writer does.

    What compares is loaded only where that is to be done.
    """
    if not engine.session.terms.begin():
        return Outward(engine.writer, space or engine.writer.space, engine.finish)
    if engine.session.terms.to_file:
        from bpipe.comparison import Comparison

        comparison = Comparison(engine, space)
        return Outward(comparison.half, comparison.half.space, comparison.finish)
    records = RecordWriter(engine.writer, space)
    return Outward(records, records.space, engine.finish)


def inward(engine: Engine, kinds: Collection[Record]) -> Inward:
    """A consumer begins: what it reads from; of these kinds, where there are records.

    Of a peer that writes to a file there is nothing for anybody but who compares.
    """
    if engine.session.terms.to_file:
        nothing = BackedReader(1)
        nothing.receive_mark(0)
        return Inward(nothing, nothing, nothing.close)
    if engine.session.terms.records:
        return Inward(RecordReader(engine.reader, kinds), engine.reader, engine.delivered_end)
    return Inward(engine.reader, engine.reader, engine.delivered_end)
