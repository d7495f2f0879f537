"""One sender after the other at a listener whose pipe receives a file, in one process."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import bpipe
from bpipe.ends.file_sink import FileOutcome
from bpipe.ends.files import FileEnds
from bpipe.ends.part import Target
from bpipe.errors import LocalAbort, NotConnected, SessionEnded, SessionLost
from bpipe.protocol import sessions
from bpipe.protocol.wire import FILE, RECORDS, Reason
from bpipe.report.pipe import PipeWatch
from bpipe.run.join import Outcome
from bpipe.run.process import Process
from bpipe.run.succession import Succession, superseded
from tests.support.pairs import QUICK, until
from tests.support.statuses import BEFORE
from tests.support.watches import said

SOON = 0.3  # seconds after which a sender is not waited for alone


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "DESERTED", SOON)


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

    async def vanish(self) -> None:
        """As when its process is killed."""
        self.pipe.engine.session.leave(SessionEnded("killed"))
        self.pipe.engine.drive()
        await self.pipe.wait_closed()

    async def send(self, data: bytes) -> SessionEnded | None:
        """All of a stream."""
        await self.pipe.write(data)
        self.pipe.finish()
        await self.pipe.wait_closed()
        return self.pipe.failure


class Receiver:
    """A process that listens, and the ends that it has made for this file."""

    def __init__(self, watch: PipeWatch, pipe: bpipe.BackedPipe, file: Path) -> None:
        self.where = pipe.status().peer
        self.part = file.with_suffix(".part")
        self.made: list[FileEnds] = []
        self._target = Target.open(str(file))
        self.process = Process(watch)
        self.interrupted = False  # as soon as the next one is made
        watch.begin(pipe.engine, listens=True)
        succession = Succession(pipe, self.another(), self.process, watch, self.another)
        self.outcome = asyncio.ensure_future(succession.run())

    def another(self) -> FileEnds:
        self.made.append(FileEnds(self._target))
        if self.interrupted:
            self.process.end_all(signal.SIGINT)
        return self.made[-1]

    async def ended(self) -> Outcome:
        """Nobody listens any more, then."""
        outcome = await self.outcome
        self._target.close()
        host, _, port = self.where.rpartition(":")
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(host, int(port))
        return outcome


def played(file: Path, check: Callable[[Receiver], Awaitable[None]]) -> list[str]:
    """The lines that are said when this is done."""

    async def play(watch: PipeWatch) -> None:
        needs = RECORDS | FILE
        pipe = await bpipe.listen("127.0.0.1:0", limits=QUICK, needs=needs, buffer_size=1 << 20)
        await check(Receiver(watch, pipe, file))

    return said(play)


def test_a_sender_that_begins_anew_is_taken_when_the_first_is_gone(tmp_path: Path) -> None:
    file, stream = tmp_path / "file", os.urandom(3 << 18)

    async def check(receiver: Receiver) -> None:
        first = await Sender.call(receiver.where)
        await first.pipe.write(stream[: 5 << 17])
        await until(lambda: receiver.part.stat().st_size == 5 << 17)
        await first.vanish()
        second = await Sender.call(receiver.where)
        assert await second.send(stream) is None
        assert second.pipe.engine.writer.written < 2 << 18
        assert (await receiver.ended()).failure is None
        assert [each.outcome.named for each in receiver.made] == [False, True]

    lines = [line.partition(" 127")[0] for line in played(file, check)]
    assert lines == [
        "bpipe: listening on",
        "bpipe: connected to",
        "bpipe: connection lost: the connection was closed; reconnecting",
        "bpipe: another sender has begun anew",
        "bpipe: connected to",
    ]
    assert file.read_bytes() == stream


def test_without_another_sender_the_address_is_let_go_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "file"

    async def check(receiver: Receiver) -> None:
        sender = await Sender.call(receiver.where)
        assert await sender.send(b"all of it") is None
        assert (await receiver.ended()).failure is None
        assert len(receiver.made) == 1

    played(file, check)
    assert file.read_bytes() == b"all of it"


def test_a_failure_is_the_end(tmp_path: Path) -> None:
    async def check(receiver: Receiver) -> None:
        sender = await Sender.call(receiver.where)
        sender.pipe.abort(Reason.LOCAL_ERROR, "the test wants that")
        await sender.pipe.wait_closed()
        assert "the test wants that" in str((await receiver.ended()).failure)

    played(tmp_path / "file", check)


def test_a_signal_ends_it_while_it_waits(tmp_path: Path) -> None:
    async def check(receiver: Receiver) -> None:
        receiver.process.end_all(signal.SIGINT)
        assert isinstance((await receiver.ended()).failure, LocalAbort)

    played(tmp_path / "file", check)


def test_a_signal_ends_it_between_two_senders(tmp_path: Path) -> None:
    async def check(receiver: Receiver) -> None:
        await (await Sender.call(receiver.where)).vanish()
        receiver.interrupted = True
        with pytest.raises(NotConnected):
            await Sender.call(receiver.where, connect_timeout=SOON + 2)
        assert isinstance((await receiver.ended()).failure, LocalAbort)
        assert len(receiver.made) == 2
        assert receiver.process.deadly == signal.SIGINT

    played(tmp_path / "file", check)


@pytest.mark.parametrize(
    ("failure", "named", "goes_on"),
    [
        (SessionLost("the next one", sessions.SUPERSEDED), False, True),
        (SessionLost("the next one", sessions.SUPERSEDED), True, False),
        (SessionLost("given up"), False, False),
        (None, True, False),
    ],
)
def test_nobody_replaces_a_file_that_has_its_name(
    failure: SessionEnded | None, named: bool, goes_on: bool
) -> None:
    outcome = Outcome(failure, BEFORE, file=FileOutcome(named=named))
    assert superseded(outcome) is goes_on
