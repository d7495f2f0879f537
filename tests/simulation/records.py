"""Simulated processes whose streams are records, with the production source and sink."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import ClassVar

from bpipe.ends.local import Sink, Source
from bpipe.net.source import LinkSource
from bpipe.pipe import BackedPipe
from bpipe.protocol.records import RECORD_HEADER, Record, RecordReader, RecordWriter
from bpipe.protocol.ring import Views
from bpipe.protocol.session import Session
from bpipe.protocol.wire import Ended
from tests.simulation.ends import End, Plan
from tests.simulation.loop import World
from tests.simulation.tape import Reading, Tape, Taped, part


class AllRecords(Sink):
    """Takes all kinds."""

    kinds = frozenset(Record)


class RecordsEnd(End, Taped):
    """Its producer mixes records of all kinds, and its consumer takes them, in one order."""

    kinds: ClassVar[Sequence[Record]] = (Record.DATA, Record.ERRORS)  # that it writes
    sink_kind: ClassVar[type[Sink]] = AllRecords

    def __init__(
        self,
        name: str,
        world: World,
        plan: Plan,
        rng: random.Random,
        source: Callable[[Session], LinkSource],
    ) -> None:
        self.tape = Tape()
        self.reading = Reading()
        self._source: Source | None = None
        self._sink: Sink | None = None
        super().__init__(name, world, plan, rng, source)
        self._producing = self.consuming = False  # not before there is a link

    def _start(self, source: Callable[[Session], LinkSource]) -> BackedPipe:
        pipe = BackedPipe(self.session, source(self.session), self._world.clock)
        pipe.engine.begin()
        self.loop.create_task(self._main(pipe))
        return pipe

    def _connected(self, pipe: BackedPipe) -> None:
        self._source = Source(pipe.engine, "simulated")
        self._sink = self.sink_kind(pipe.engine, "simulated")
        self._look()

    # --- for the judge ---

    @property
    def accepted(self) -> int:
        # Of a stream that was cut, the rest of a header counts as well.
        cut = self.session.reader.ended.how is Ended.CUT
        return self.taken + (RECORD_HEADER if cut else 0)

    @property
    def has_more(self) -> bool:
        return self.tape.content < self.plan.length

    @property
    def total(self) -> int:
        return self.pipe.writer.written + self.has_more + self._was_cut

    def gives_all(self, count: int) -> bool:
        return super().gives_all(count) and not self.has_more

    # --- the producer and the consumer ---

    def _has_space(self) -> bool:
        return self._source is not None and self._source.spacious

    def _has_come(self) -> bool:
        return self._sink is not None and self._sink.half.ready

    def _produce(self) -> None:
        source, engine = self._source, self.engine
        if self.loop.ended or source is None:
            return
        if engine.refusing or not self.has_more:
            more = self.has_more
            self.loop.run(engine.call, lambda: engine.finish(more=more))
            return
        self._producing = False
        spacious = source.spacious
        if views := source.lend(self._limit()):
            self._write(source, views, self._rng.choice(self.kinds))
            self.loop.run(engine.nudge)
        elif spacious:
            self._complain("is told that there is space, and is lent none")

    def _limit(self) -> int:
        """The bytes that it writes next, at most."""
        limit = self._rng.randint(1, max(2000, self.plan.length // 3))
        return min(limit, self.plan.length - self.tape.content)

    def _write(self, source: Source, views: Views, kind: Record) -> None:
        at = self.tape.counts[kind]
        for view in views:
            view[:] = part(kind, at, len(view))
            at += len(view)
        count = at - self.tape.counts[kind]
        assert isinstance(source.half, RecordWriter)
        self.tape.wrote(kind, count)
        source.half.wrote(count, kind)

    def _consume(self) -> None:
        sink, engine = self._sink, self.engine
        if self.loop.ended or sink is None or self.pipe.failure is not None:
            return
        if self.pipe.reader.stopped is not None:
            return
        self.consuming = False
        ready = sink.half.ready
        if views := self._lend(sink, 0):
            self._take_records(sink, views)
            self.loop.run(engine.nudge)
        elif sink.half.drained:
            self.consuming = self.closed = True
            self.loop.run(engine.call, engine.delivered_end)
        elif ready and engine.failure is None and not engine.ending.abort:
            self._complain("is told that there is something, and is lent nothing")

    def _lend(self, sink: Sink, after: int) -> Views:
        limit = self._rng.randint(1, self.plan.appetite)
        views: Views = self.loop.run(sink.lend, limit, after)
        return views

    def _take_records(self, sink: Sink, views: Views) -> None:
        """Take these, or some of them; and perhaps look at what comes after them first."""
        rng, count, kind = self._rng, 0, _kind_of(sink)
        if rng.random() < 0.2:
            self._lend(sink, sum(map(len, views)))
            views = [views[0][: rng.randint(1, len(views[0]))]]
        while views:
            for view in views:
                self.take_record(kind, view)
                count += len(view)
            views = self._lend(sink, count) if rng.random() < 0.4 else []
            kind = _kind_of(sink)
        sink.took(count)

    def take_record(self, kind: Record, data: memoryview) -> None:
        """The consumer has these bytes of this kind."""
        far = self.far
        assert isinstance(far, Taped)
        if not self.reading.read(far.tape, kind, bytes(data)):
            self._complain(f"has not what comes next, after {self.taken} bytes")
        self.taken = self.reading.passed
        self._call_cues()

    def _complain(self, text: str) -> None:
        self.wrong = self.wrong or f"{self.name}: {text}"


def _kind_of(sink: Sink) -> Record:
    """Of what it has lent last."""
    assert isinstance(sink.half, RecordReader)
    return sink.half.kind
