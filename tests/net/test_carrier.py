"""One run of a command: what it is given, and that nothing is left of it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bpipe.net.carrier import Carrier, Grace
from bpipe.net.processes import DEAD, look
from bpipe.net.utterance import Utterance
from bpipe.protocol.wire import Ended
from tests.support.carriers import SHORT
from tests.support.pairs import run, until

pytestmark = pytest.mark.slow  # real processes; the default Python only

APART = pytest.mark.parametrize("apart", [True, False], ids=["apart", "ours"])


@asynccontextmanager
async def carrying(
    script: str, *, apart: bool = True, grace: Grace = SHORT, told: list[str] | None = None
) -> AsyncIterator[Carrier]:
    """A run of this in a shell, of which nothing is left in the end."""
    utterance = Utterance((told if told is not None else []).append)
    carrier = Carrier(["sh", "-c", script], utterance, apart=apart, grace=grace)
    try:
        with carrier.sock:
            yield carrier
    finally:
        carrier.kill()
        await carrier.gone


def runs(pid: int) -> bool:
    process = look(pid)
    return process is not None and process.state not in DEAD


def mask(signals: Iterable[int]) -> int:
    return sum(1 << (number - 1) for number in signals)


async def hear(carrier: Carrier, size: int = 1000) -> bytes:
    return await asyncio.get_running_loop().sock_recv(carrier.sock, size)


@APART
def test_its_stdin_and_stdout_are_one_connection(apart: bool) -> None:
    async def check() -> None:
        async with carrying("exec cat", apart=apart) as carrier:
            carrier.sock.send(b"hello")
            assert await hear(carrier) == b"hello"

    run(check)


@APART
def test_it_has_nothing_else_of_ours(apart: bool) -> None:
    async def check() -> None:
        with open("/dev/null") as null:
            os.set_inheritable(null.fileno(), True)
            async with carrying("ls -l /proc/self/fd; exec cat", apart=apart) as carrier:
                data = b""
                while b" 3 -> " not in data:  # the folder that ls has opened
                    data += await hear(carrier)
                assert b" 4 -> " not in data
                assert data.count(b"socket:") == 2

    run(check)


@APART
def test_signals_have_their_effect_but_those_of_a_terminal_if_it_is_ours(apart: bool) -> None:
    async def check() -> None:
        async with carrying("grep Sig /proc/self/status; exec cat", apart=apart) as carrier:
            data = b""
            while b"SigCgt" not in data:
                data += await hear(carrier)
        fields = dict(line.split(b":\t") for line in data.splitlines() if b":\t" in line)
        expected = () if apart else (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
        assert int(fields[b"SigIgn"], 16) & mask(signal.valid_signals()) == mask(expected)
        assert int(fields[b"SigBlk"], 16) & ~mask(expected) == 0

    run(check)


def test_where_it_belongs() -> None:
    async def check() -> None:
        for apart in (True, False):
            async with carrying("exec cat", apart=apart) as carrier:
                process = look(carrier.pid)
                assert process is not None
                assert process.session == (carrier.pid if apart else os.getsid(0))
                assert process.group == (carrier.pid if apart else os.getpgrp())

    run(check)


@pytest.mark.parametrize(
    ("script", "how", "words"),
    [
        ("exit 0", (Ended.EXITED, 0), "sh exited with status 0"),
        ("echo why >&2; exit 0", (Ended.EXITED, 0), "sh exited with status 0"),
        ("echo why >&2; exit 255", (Ended.EXITED, 255), "sh exited with status 255"),
        ("kill -9 $$", (Ended.KILLED, 9), "sh was ended by SIGKILL"),
        ("kill -40 $$", (Ended.KILLED, 40), "sh was ended by signal 40"),
    ],
)
def test_its_fate(script: str, how: tuple[Ended, int], words: str) -> None:
    async def check() -> None:
        told: list[str] = []
        async with carrying(script, grace=Grace(moment=10), told=told) as carrier:
            fate = await carrier.fate()
            assert fate is not None
            assert (fate.finish, fate.words) == (how, words)
            assert list(fate.said) == told == ["why"] * ("why" in script)
            assert fate.why == ("why" if told and how[1] else words)
            assert await hear(carrier) == b""

    run(check)


def test_the_fate_of_one_that_lives_is_waited_for_a_moment_only() -> None:
    async def check() -> None:
        async with carrying("exec 0<&- 1>&-; sleep 100") as carrier:
            assert await carrier.fate() is None

    run(check)


def test_one_that_ends_with_its_connection_is_not_signalled() -> None:
    async def check() -> None:
        told: list[str] = []
        script = "trap 'echo signalled >&2' TERM; cat; echo bye >&2"
        async with carrying(script, grace=Grace(moment=10), told=told) as carrier:
            carrier.sock.close()
            carrier.release()
            await carrier.gone
            assert told == ["bye"]

    run(check)


@APART
def test_one_that_was_stopped_goes_on_to_its_end(apart: bool) -> None:
    async def check() -> None:
        told: list[str] = []
        script = "trap 'echo ended >&2; exit' TERM; echo ready; kill -STOP $$; sleep 100"
        grace = Grace(moment=0.05, patience=15)
        async with carrying(script, apart=apart, told=told, grace=grace) as carrier:
            assert await hear(carrier) == b"ready\n"
            carrier.release()
            await carrier.gone
            assert told == ["ended"]
            assert await carrier.fate() is None  # it was our signal

    run(check)


@APART
@pytest.mark.parametrize(
    "script",
    [
        "exec sleep 100",
        "trap '' TERM; echo ready; sleep 100; sleep 100",
        "sleep 100 & echo ready; exec sleep 100",
        "(trap '' TERM; exec sleep 100) & echo ready; exec sleep 100",
        "echo ready; sleep 100 | sleep 100",
        "echo ready; kill -STOP $$",
        "sleep 100 & echo ready",
    ],
)
def test_nothing_is_left_of_it(script: str, apart: bool, tmp_path: Path) -> None:
    async def check() -> None:
        mark = f"BPIPE_NOBODY={tmp_path}"
        async with carrying(f"export {mark}\n{script}", apart=apart) as carrier:
            if "ready" in script:
                assert await hear(carrier) == b"ready\n"
            carrier.sock.close()
            carrier.release()
            carrier.release()
            await carrier.gone
            await until(lambda: not left(mark))  # who is killed may need a moment to die
            with pytest.raises(ChildProcessError):
                os.waitpid(carrier.pid, os.WNOHANG)

    run(check)


def left(mark: str) -> list[int]:
    there = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if runs(pid)]
    return [pid for pid in there if has(pid, mark)]


def has(pid: int, mark: str) -> bool:
    try:
        return mark.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def test_a_daemon_is_let_go(tmp_path: Path) -> None:
    async def check() -> None:
        script = f"setsid sh -c 'echo $$ > {tmp_path}/pid; exec sleep 100' & exec sleep 100"
        async with carrying(script) as carrier:
            await until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
            carrier.release()
            await carrier.gone
            daemon = int((tmp_path / "pid").read_text())
            assert runs(daemon)
            os.kill(daemon, signal.SIGKILL)

    run(check)


def test_who_outlives_it_does_not_hold_the_connection_open(tmp_path: Path) -> None:
    async def check() -> None:
        script = f"setsid sh -c 'echo $$ > {tmp_path}/pid; exec sleep 100' & sleep 0.2; printf last"
        async with carrying(script) as carrier:
            assert await hear(carrier) == b"last"
            assert await hear(carrier) == b""
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)

    run(check)


def test_killing_it_does_not_wait() -> None:
    async def check() -> None:
        async with carrying("sleep 100 & echo ready; exec sleep 100", grace=Grace(50, 50)) as each:
            await hear(each)
            began = time.monotonic()
            each.kill()
            await each.gone
            assert time.monotonic() - began < 5

    run(check)


def test_a_loop_that_ends_ends_it() -> None:
    pids = []

    async def main() -> None:
        utterance = Utterance(lambda line: None)
        carrier = Carrier(["sleep", "100"], utterance, apart=True, grace=Grace(50, 50))
        pids.append(carrier.pid)
        carrier.sock.close()

    asyncio.run(main())
    assert os.waitpid(pids[0], 0)[1] == signal.SIGKILL


def test_a_question_is_told_before_its_line_ends() -> None:
    async def check() -> None:
        told: list[str] = []
        script = "printf 'The code: ' >&2; read code; echo \"$code\" >&2; exec cat"
        async with carrying(script, apart=False, told=told) as carrier:
            await until(lambda: told)
            assert told == ["The code: "]
            carrier.sock.send(b"123\n")
            await until(lambda: told[1:])
            assert told[1:] == ["123"]

    run(check)


def test_a_flood_of_words_holds_nothing_up() -> None:
    async def check() -> None:
        told: list[str] = []
        script = f"{sys.executable} -ISc 'print(\"word \" * 200000)' >&2; exec cat"
        async with carrying(script, told=told) as carrier:
            carrier.sock.send(b"x")
            assert await hear(carrier) == b"x"
            await until(lambda: sum(map(len, told)) >= 1_000_000)

    run(check)


def test_one_that_cannot_be_started_leaves_nothing() -> None:
    async def check() -> None:
        before = set(os.listdir("/proc/self/fd"))
        with pytest.raises(FileNotFoundError):
            Carrier(["/nowhere/x"], Utterance(print), apart=True, grace=SHORT)
        assert set(os.listdir("/proc/self/fd")) == before

    run(check)


def test_one_that_may_ask_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    """Also if it is killed: what ssh has done for a question it undoes at SIGTERM."""
    undone = tmp_path / "undone"
    script = f"trap 'echo > {undone}; exit' TERM; echo up; while :; do sleep 0.01; done"

    async def check() -> None:
        async with carrying(script, apart=False) as carrier:
            await hear(carrier)
            carrier.kill()
            assert undone.exists()

    run(check)
