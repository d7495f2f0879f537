"""Sessions whose connections are runs of a command."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import bpipe
from bpipe.errors import AddressError, LinkLost, NotConnected
from bpipe.net.carrier import Grace
from bpipe.net.command import Command, Via
from bpipe.net.connectors import Connection
from bpipe.net.schedule import CARRIER
from tests.support.carriers import BRISK, SHORT, InTurn, carriers, relay
from tests.support.pipes import QUICK as QUICKER
from tests.support.pipes import read_all, run, send, until

pytestmark = pytest.mark.slow  # real processes; the default Python only

QUICK = QUICKER._replace(heartbeat=0.3, give_up_after=20.0, connect_timeout=20.0)
DATA = random.Random(18).randbytes(4_000_000)


@pytest.fixture(autouse=True)
def _nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TEST_OF_BPIPE", str(os.getpid()))
    yield
    assert list(carriers()) == []


class Both:
    """A listener, and what calls it by a command."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told: list[str] = []
        self.command: Command
        self.listener: bpipe.BackedPipe
        self.caller: bpipe.BackedPipe

    async def call(self, *commands: list[str], limits: bpipe.Limits = QUICK, **more: Any) -> None:
        """Make what calls; one command after the other, the last again and again."""
        more = {"manners": BRISK, "grace": SHORT, **more}
        self.command = InTurn(list(commands), self.told.append, **more)
        self.caller = await bpipe.connect(self.command, limits=limits._replace(retry_max=0.05))

    async def connect(self) -> None:
        await asyncio.gather(self.caller.connect(), self.listener.connect())


@asynccontextmanager
async def both(tmp_path: Path, limits: bpipe.Limits = QUICK) -> AsyncIterator[Both]:
    """The same, ended in the end."""
    each = Both(tmp_path / "s")
    each.listener = await bpipe.listen(f"unix:{each.path}", limits=limits)
    try:
        yield each
    finally:
        for pipe in (each.listener, getattr(each, "caller", None)):
            if pipe is not None:
                pipe.abort(bpipe.Reason.INTERRUPTED, "the test is over")
                await pipe.wait_closed()


async def fate_of(command: Command) -> Connection:
    """One run, to its end."""
    connection = await command.connect(0)
    with connection.sock:
        while await connection.fate() is None:
            pass
    await command.close()
    return connection


def more_links(pipe: bpipe.BackedPipe, than: int) -> bool:
    return pipe.status().links > than


def cause(pipe: bpipe.BackedPipe) -> str:
    return pipe.status().cause


def test_what_it_leads_to_is_a_connection(tmp_path: Path) -> None:
    async def check() -> None:
        async with both(tmp_path) as each:
            await each.call(relay(each.path))
            await each.connect()
            await asyncio.gather(send(each.caller, DATA), send(each.listener, DATA[::-1]))
            got = await asyncio.gather(read_all(each.listener), read_all(each.caller))
            assert list(got) == [DATA, DATA[::-1]]
            await asyncio.gather(each.caller.close(), each.listener.close())
            assert each.caller.status().links == 1
            assert each.told == []

    run(check)


def test_it_is_killed_at_one_byte_after_the_other(tmp_path: Path) -> None:
    async def check() -> None:
        rng = random.Random(7)
        limits = [rng.choice((63, 64, 65, 80, 81, 500, 70_000, 400_000)) for _ in range(25)]
        async with both(tmp_path) as each:
            await each.call(*(relay(each.path, limit) for limit in limits), relay(each.path))
            await each.connect()
            sending = asyncio.create_task(send(each.caller, DATA))
            sent_back = asyncio.create_task(send(each.listener, DATA[::-1]))
            got = await asyncio.gather(read_all(each.listener), read_all(each.caller))
            assert list(got) == [DATA, DATA[::-1]]
            await asyncio.gather(sending, sent_back)
            await asyncio.gather(each.caller.close(), each.listener.close())
            assert isinstance(each.command, InTurn)
            assert each.command.runs == 26

    run(check)


def test_it_is_killed_by_others_again_and_again(tmp_path: Path) -> None:
    async def check() -> None:
        async with both(tmp_path) as each:
            await each.call(relay(each.path))
            await each.connect()
            receiving = asyncio.create_task(read_all(each.listener))
            for start in range(0, len(DATA), 400_000):
                links = each.caller.status().links
                await each.caller.write(DATA[start : start + 400_000])
                for pid in carriers():
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                await until(partial(more_links, each.caller, links))
            each.caller.finish()
            assert await receiving == DATA

    run(check)


def test_one_that_hangs_is_replaced(tmp_path: Path) -> None:
    async def check() -> None:
        async with both(tmp_path) as each:
            await each.call(relay(each.path))
            await each.connect()
            (hung,) = carriers()
            os.kill(hung, signal.SIGSTOP)
            await each.caller.write(b"x")
            assert await each.listener.read() == b"x"
            await until(lambda: hung not in carriers())
            await until(lambda: each.caller.status().links >= 2)

    run(check)


def test_one_that_closes_its_output_and_lives_on_is_replaced(tmp_path: Path) -> None:
    async def check() -> None:
        async with both(tmp_path) as each:
            deaf = ["sh", "-c", "exec 0<&- 1>&-; exec sleep 100"]
            await each.call(relay(each.path), deaf, relay(each.path))
            await each.connect()
            each.caller.force_reconnect()
            await until(lambda: each.caller.status().links == 2)
            await until(lambda: len(list(carriers())) == 1)

    run(check)


def test_one_that_fails_at_once_is_the_cause_with_its_words(tmp_path: Path) -> None:
    async def check() -> None:
        told: list[str] = []
        script = "echo 'ssh: no route' >&2; exit 255"
        command = Command(["sh", "-c", script], told.append, name="far", manners=BRISK)
        limits = QUICK._replace(connect_timeout=0.5)
        pipe = await bpipe.connect(command, limits=limits)
        with pytest.raises(NotConnected, match="far: ssh: no route") as caught:
            await pipe.connect()
        await pipe.wait_closed()
        assert caught.value.code == "carrier"
        assert told == ["ssh: no route"]  # once, of many attempts

    run(check)


def test_with_one_try_it_is_run_once(tmp_path: Path) -> None:
    async def check() -> None:
        command = InTurn([["false"]], print, manners=BRISK)
        pipe = await bpipe.connect(command, limits=QUICK._replace(connect_timeout=0))
        with pytest.raises(NotConnected, match="false exited with status 1"):
            await pipe.connect()
        await pipe.wait_closed()
        assert command.runs == 1

    run(check)


def test_what_it_says_later_is_told_when_it_is_news(tmp_path: Path) -> None:
    async def check() -> None:
        async with both(tmp_path) as each:
            fails = [["sh", "-c", f"echo {word} >&2; exit 1"] for word in "aabba"]
            await each.call(relay(each.path), *fails, relay(each.path))
            await each.connect()
            each.caller.force_reconnect()
            await until(lambda: each.caller.status().links == 2)
            assert each.told == ["a", "b", "a"]

    run(check)


def test_before_a_connection_was_good_there_is_no_limit(tmp_path: Path) -> None:
    """It may be asking for a password: neither its time nor --connect-timeout ends that."""

    async def check() -> None:
        manners = BRISK._replace(patience=0.1, greeting=0.1)
        async with both(tmp_path) as each:
            go = tmp_path / "go"
            words = relay(each.path)
            script = f'while [ ! -e {go} ]; do sleep 0.02; done; exec "$@"'
            asks = ["sh", "-c", script, "sh", *words]
            limits = QUICK._replace(connect_timeout=0.2)
            await each.call(asks, limits=limits, manners=manners)
            connecting = asyncio.create_task(each.connect())
            await asyncio.wait([connecting], timeout=0.8)
            assert not connecting.done()
            go.touch()
            await connecting
            assert isinstance(each.command, InTurn)
            assert each.command.runs == 1

    run(check)


def test_when_one_that_has_asked_fails_late_that_is_the_end(tmp_path: Path) -> None:
    async def check() -> None:
        command = InTurn([["sh", "-c", "sleep 0.6; exit 5"]], print, manners=BRISK)
        began = time.monotonic()
        pipe = await bpipe.connect(command, limits=QUICK._replace(connect_timeout=0.2))
        with pytest.raises(NotConnected, match="sh exited with status 5"):
            await pipe.connect()
        await pipe.wait_closed()
        assert time.monotonic() - began < 5
        assert command.runs == 1

    run(check)


def test_after_a_good_one_those_that_never_answer_have_their_time(tmp_path: Path) -> None:
    async def check() -> None:
        manners = BRISK._replace(patience=0.2)
        async with both(tmp_path) as each:
            silent = ["sleep", "100"]
            await each.call(relay(each.path), silent, silent, relay(each.path), manners=manners)
            await each.connect()
            each.caller.force_reconnect()
            await until(lambda: "no answer from in turn" in cause(each.caller))
            assert len(list(carriers())) <= 2  # one that ends, and the next one
            await until(lambda: each.caller.status().links == 2)

    run(check)


def test_later_ones_have_no_terminal_and_a_session_of_their_own(tmp_path: Path) -> None:
    async def check() -> None:
        async with both(tmp_path) as each:
            await each.call(relay(each.path))
            await each.connect()
            (first,) = carriers()
            assert os.getsid(first) == os.getsid(0)
            each.caller.force_reconnect()
            await until(lambda: each.caller.status().links == 2)
            await until(lambda: first not in carriers())
            (second,) = carriers()
            assert os.getsid(second) == second

    run(check)


def test_who_stops_trying_leaves_nothing(tmp_path: Path) -> None:
    async def check() -> None:
        command = Command(["sh", "-c", "trap '' TERM; sleep 100"], print, grace=SHORT)
        pipe = await bpipe.connect(command, limits=QUICK)
        connecting = asyncio.create_task(pipe.connect())
        await until(lambda: list(carriers()))
        pipe.abort(bpipe.Reason.INTERRUPTED, "enough")
        began = time.monotonic()
        await pipe.wait_closed()
        assert list(carriers()) == []
        assert time.monotonic() - began < 5
        await asyncio.wait([connecting])
        assert connecting.exception() is not None

    run(check)


def test_a_final_failure_ends_the_session(tmp_path: Path) -> None:
    class Hopeless(Command):
        async def begin(self, connection: Connection) -> None:
            raise NotConnected("there is no python3", "python")

    async def check() -> None:
        began = time.monotonic()
        pipe = await bpipe.connect(Hopeless(["true"]), limits=QUICK)
        with pytest.raises(NotConnected, match="there is no python3"):
            await pipe.connect()
        await pipe.wait_closed()
        assert time.monotonic() - began < 5

    run(check)


def test_one_that_is_not_needed_any_more_has_no_last_word() -> None:
    class Patient(Command):
        async def begin(self, connection: Connection) -> None:
            await asyncio.Event().wait()

    async def check() -> None:
        said: list[str] = []
        command = Patient(["sh", "-c", "echo first >&2; cat; echo last >&2"], said.append)
        connecting = asyncio.create_task(command.connect(0))
        await until(lambda: said)
        connecting.cancel()
        await asyncio.wait([connecting])
        await command.close()
        assert said == ["first"]

    run(check)


def test_who_takes_too_long_in_the_end_is_killed() -> None:
    async def check() -> None:
        command = Command(["sleep", "100"], grace=Grace(50, 50))
        connection = await command.connect(0)
        with connection.sock:
            await command.close()
        await until(lambda: not list(carriers()))

    run(check)


def test_one_that_cannot_be_started_is_a_failed_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        command = Command(["/nowhere/x"])
        with pytest.raises(LinkLost, match="cannot start /nowhere/x: no such file or directory"):
            await command.connect(0)

        def exhausted(*_: object) -> None:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(os, "pipe", exhausted)
        with pytest.raises(LinkLost, match="cannot start cat: too many open files"):
            await Command(["cat"]).connect(0)

    run(check)


def test_its_manners() -> None:
    command = Command(["cat"])
    assert command.manners == CARRIER.asking()
    assert not command.quiet


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "this one is empty"),
        ("''", "this one is empty"),
        ("a 'b", "no closing quotation"),
        ("/nowhere/x y", "/nowhere/x: there is no such program"),
        ("/etc/passwd", "/etc/passwd: this is no program that may be run"),
        ("cat a\0b", "a null character"),
    ],
)
def test_what_is_no_command(text: str, said: str) -> None:
    with pytest.raises(AddressError, match=said):
        Via(text)


def test_a_command_is_split_into_words_as_a_shell_does_it(tmp_path: Path) -> None:
    async def check() -> None:
        told: list[str] = []
        via = Via("sh -c 'echo \"$1\" >&2' sh 'a  b*'")
        assert str(via) == "sh -c 'echo \"$1\" >&2' sh 'a  b*'"
        command = via.command(told.append)
        assert command.name == str(via)
        await fate_of(command)
        assert told == ["a  b*"]

    run(check)


def test_sessions_of_one_command_learn_from_each_other() -> None:
    async def check() -> None:
        told: list[str] = []
        via = Via("sh -c 'echo no >&2; exit 1'")
        first, second = via.command(told.append), via.command(told.append)
        for command in (first, second):
            connection = await fate_of(command)
        assert told == ["no"]
        first.prefer(connection)
        assert second.quiet
        assert second.manners == CARRIER

    run(check)
