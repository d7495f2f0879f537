"""One sender after the other at a listener whose pipe receives a file, in one process."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable

import pytest

import bpipe
from bpipe.ends.local import Sink
from bpipe.engine import Engine
from bpipe.errors import LocalAbort, NotConnected, SessionEnded
from bpipe.protocol import sessions
from bpipe.protocol.records import RecordWriter
from bpipe.protocol.wire import FILE, RECORDS, Reason
from bpipe.report.pipe import PipeWatch
from bpipe.run.join import Outcome
from bpipe.run.process import Process
from bpipe.run.succession import Succession
from tests.support.pairs import QUICK, until
from tests.support.watches import said

SOON = 0.3  # seconds after which a sender is not waited for alone


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "DESERTED", SOON)


class Taker:
    """Ends that take what comes, as those of a file do, and have nothing to say."""

    sends, receives = False, True
    result = None

    def __init__(self) -> None:
        self.taken = b""
        self.started = self.whole = False

    def start(self, engine: Engine) -> None:
        self.started = True
        sink = Sink(engine, "a test")

        def take() -> None:
            if self.whole or engine.session.over:
                return
            while views := sink.lend(1 << 16):
                data = b"".join(views)
                self.taken += data
                sink.took(len(data))
            if sink.half.drained:
                self.whole = True
                sink.ended()

        engine.observe(lambda: engine.call(take))
        engine.call(take)

    def hurry(self) -> bool:
        return False

    async def wait(self) -> None:
        """Nothing of it is left."""


class Sender:
    """Who calls there, and says this."""

    def __init__(self, pipe: bpipe.BackedPipe) -> None:
        self.pipe = pipe

    @classmethod
    async def call(cls, where: str, connect_timeout: float = 5.0) -> Sender:
        limits = QUICK._replace(connect_timeout=connect_timeout)
        sender = cls(await bpipe.connect(where, limits=limits))
        await sender.pipe.connect()
        return sender

    def say(self, data: bytes) -> None:
        records = RecordWriter(self.pipe.writer)
        for view in (views := records.space(len(data))):
            view[:], data = data[: len(view)], data[len(view) :]
        assert not data
        records.wrote(sum(map(len, views)))
        self.pipe.engine.drive()

    async def vanish(self) -> None:
        """As when its process is killed."""
        self.pipe.engine.session.leave(SessionEnded("killed"))
        self.pipe.engine.drive()
        await self.pipe.wait_closed()

    async def end(self) -> SessionEnded | None:
        self.pipe.finish()
        while (await self.pipe.read_record())[1]:
            pass
        await self.pipe.wait_closed()
        return self.pipe.failure


class Receiver:
    """A process that listens, and the ends that it has made."""

    def __init__(self, watch: PipeWatch, pipe: bpipe.BackedPipe) -> None:
        self.where = pipe.status().peer
        self.made: list[Taker] = []
        self.process = Process(watch)
        self.interrupted = False  # as soon as the next one is made
        watch.begin(pipe.engine, listens=True)
        succession = Succession(pipe, self.another(), self.process, watch, self.another)
        self.outcome = asyncio.ensure_future(succession.run())

    def another(self) -> Taker:
        self.made.append(Taker())
        if self.interrupted:
            self.process.end_all(signal.SIGINT)
        return self.made[-1]

    async def ended(self) -> Outcome:
        """Nobody listens any more, then."""
        outcome = await self.outcome
        host, _, port = self.where.rpartition(":")
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(host, int(port))
        return outcome


def played(check: Callable[[Receiver], Awaitable[None]]) -> list[str]:
    """The lines that are said when this is done."""

    async def play(watch: PipeWatch) -> None:
        needs = RECORDS | FILE
        pipe = await bpipe.listen("127.0.0.1:0", limits=QUICK, needs=needs, buffer_size=1 << 16)
        await check(Receiver(watch, pipe))

    return said(play)


def test_a_sender_that_begins_anew_is_taken_when_the_first_is_gone() -> None:
    async def check(receiver: Receiver) -> None:
        first = await Sender.call(receiver.where)
        first.say(b"half of it")
        await until(lambda: receiver.made[0].taken)
        await first.vanish()
        second = await Sender.call(receiver.where)
        second.say(b"all of it, from its beginning")
        assert await second.end() is None
        assert (await receiver.ended()).failure is None
        taken = [each.taken for each in receiver.made]
        assert taken == [b"half of it", b"all of it, from its beginning"]

    lines = [line.partition(" 127")[0] for line in played(check)]
    assert lines == [
        "bpipe: listening on",
        "bpipe: connected to",
        "bpipe: connection lost: the connection was closed; reconnecting",
        "bpipe: another sender has begun anew",
        "bpipe: connected to",
    ]


def test_without_another_sender_the_address_is_let_go_at_the_end() -> None:
    async def check(receiver: Receiver) -> None:
        sender = await Sender.call(receiver.where)
        sender.say(b"all of it")
        assert await sender.end() is None
        assert (await receiver.ended()).failure is None
        assert [each.taken for each in receiver.made] == [b"all of it"]

    played(check)


def test_a_failure_of_the_receiver_is_its_end() -> None:
    async def check(receiver: Receiver) -> None:
        sender = await Sender.call(receiver.where)
        sender.pipe.abort(Reason.LOCAL_ERROR, "the test wants that")
        await sender.pipe.wait_closed()
        assert "the test wants that" in str((await receiver.ended()).failure)

    played(check)


def test_a_signal_ends_it_while_it_waits() -> None:
    async def check(receiver: Receiver) -> None:
        receiver.process.end_all(signal.SIGINT)
        assert isinstance((await receiver.ended()).failure, LocalAbort)

    played(check)


def test_a_signal_ends_it_between_two_senders() -> None:
    async def check(receiver: Receiver) -> None:
        await (await Sender.call(receiver.where)).vanish()
        receiver.interrupted = True
        with pytest.raises(NotConnected):
            await Sender.call(receiver.where, connect_timeout=SOON + 2)
        assert isinstance((await receiver.ended()).failure, LocalAbort)
        assert [each.started for each in receiver.made] == [True, False]
        assert receiver.process.deadly == signal.SIGINT

    played(check)
