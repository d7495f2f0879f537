"""What is seen of one run, from its first line to its last, by people and by programs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import bpipe
from bpipe.ends.streams import Directions, Streams
from bpipe.errors import LocalAbort, NotConnected, PipeClosed, SessionLost
from bpipe.report.output import LogError
from bpipe.report.settings import Level, Settings, When
from bpipe.report.watch import Watch
from tests.support.outputs import ended, stderr_as_a_pipe
from tests.support.pairs import QUICK, both, files, pair, run, until
from tests.support.statuses import BEFORE

__all__ = ["files"]

Check = Callable[[Watch], Awaitable[None]]
STREAMS = Streams(0, 1, False, False)


def said(
    check: Check,
    settings: Settings = Settings(),  # noqa: B008 - immutable
    streams: Streams = STREAMS,
    directions: Directions = Directions(),  # noqa: B008 - immutable
) -> list[str]:
    """The lines on stderr of a run that does this."""
    with stderr_as_a_pipe() as stderr, ended("Reporter"):
        watch = Watch(settings, streams, directions)
        try:
            run(lambda: check(watch))
        finally:
            watch.close()
        os.set_blocking(stderr, False)
        with contextlib.suppress(BlockingIOError):
            return os.read(stderr, 1 << 16).decode().splitlines()
        return []


# --- the beginning ---


@pytest.mark.parametrize(
    ("address", "secret", "credentials", "lines"),
    [
        (
            "127.0.0.1:0",
            False,
            "",
            ["listening on 127.0.0.1:PORT, for this machine only (no secret)"],
        ),
        ("127.0.0.1:0", True, "--secret k", ["listening on 127.0.0.1:PORT, for this machine only"]),
        (
            "0.0.0.0:0",
            True,
            "--secret k",
            [
                "listening on 0.0.0.0:PORT",
                "on the other machine: bpipe connect HOST:PORT --secret k",
            ],
        ),
        (
            "0.0.0.0:0",
            False,
            "--insecure",
            [
                "listening on 0.0.0.0:PORT",
                "without a secret: whoever reaches 0.0.0.0:PORT gets in; --secret FILE helps",
                "on the other machine: bpipe connect HOST:PORT --insecure",
            ],
        ),
    ],
)
def test_a_listener_says_who_can_call_and_how(
    address: str, secret: bool, credentials: str, lines: list[str]
) -> None:
    port = ""

    async def check(watch: Watch) -> None:
        nonlocal port
        key = bpipe.Secret(bytes(32)) if secret else None
        pipe = await bpipe.listen(address, secret=key, insecure=not secret, limits=QUICK)
        port = pipe.status().peer.rpartition(":")[2]
        watch.open(address, listens=True)
        watch.begin(pipe.engine, listens=True)
        await pipe.wait_closed()

    found = said(check, Settings(credentials=credentials))
    assert found == [f"bpipe: {line.replace('PORT', port)}" for line in lines]


def test_a_unix_socket_is_for_this_user(tmp_path: Path) -> None:
    async def check(watch: Watch) -> None:
        pipe = await bpipe.listen(str(tmp_path / "s"), limits=QUICK)
        watch.begin(pipe.engine, listens=True)
        await pipe.wait_closed()

    (line,) = said(check)
    assert line == f"bpipe: listening on unix:{tmp_path}/s, for this user only"


# --- the middle ---


async def live(watch: Watch, leave: Callable[[bpipe.BackedPipe], None] | None = None) -> None:
    """A session of which the watch tells; some bytes go each way."""
    async with pair() as (caller, listener):
        watch.open("there", listens=False)
        watch.begin(caller.engine, listens=False)
        await asyncio.gather(caller.connect(), listener.connect())
        await until(lambda: caller.status().state is bpipe.State.CONNECTED)
        await caller.write(b"12345")
        await listener.write(b"123")
        assert await listener.read() == b"12345"
        assert await caller.read() == b"123"
        await until(lambda: caller.status().confirmed == 5)
        if leave is not None:
            leave(caller)
        else:
            await asyncio.gather(caller.close(), listener.close())
        watch.conclude(caller.failure, caller.status(), 0, interrupted=False)


@pytest.mark.parametrize(
    ("level", "kinds"),
    [
        (Level.QUIET, []),
        (Level.NORMAL, ["connected", "done"]),
        (Level.VERBOSE, ["started", "connected", "peer-finished", "done"]),
    ],
)
def test_the_level_decides_what_people_hear(tmp_path: Path, level: Level, kinds: list[str]) -> None:
    starts = {
        "started": f"bpipe {bpipe.__version__}, process {os.getpid()}: connect there",
        "connected": "connected to 127.0.0.1:",
        "peer-finished": "the peer has finished, after 3 B",
        "done": "sent 5 B and received 3 B in ",
    }
    lines = said(live, Settings(level, log=str(tmp_path / "log")))
    assert len(lines) == len(kinds)
    assert all(
        line.startswith(f"bpipe: {starts[kind]}") for line, kind in zip(lines, kinds, strict=True)
    )
    told = [json.loads(line)["event"] for line in (tmp_path / "log").read_text().splitlines()]
    assert told == ["started", "connected", "peer-finished", "done"]


def test_every_frame_is_for_those_who_want_it_twice() -> None:
    lines = said(live, Settings(Level.TRACE))
    assert any(line.startswith("bpipe: > DATA 0 +5") for line in lines)
    assert any(line.startswith("bpipe: < FIN") for line in lines)


def test_a_log_on_stderr_takes_the_place_of_the_words() -> None:
    told = [json.loads(line) for line in said(live, Settings(log="-"))]
    assert [each["event"] for each in told] == ["started", "connected", "peer-finished", "done"]
    assert {each["run"] for each in told} == {told[0]["run"]}
    assert (told[-1]["sent"], told[-1]["received"], told[-1]["status"]) == (5, 3, 0)


def test_a_loss_and_what_follows_are_told() -> None:
    async def check(watch: Watch) -> None:
        async with pair() as (caller, listener):
            watch.begin(caller.engine, listens=False)
            await asyncio.gather(caller.connect(), listener.connect())
            await until(lambda: caller.status().state is bpipe.State.CONNECTED)
            caller.force_reconnect()
            await until(lambda: caller.status().links == 2)
            await until(lambda: caller.status().state is bpipe.State.CONNECTED)

    connected, lost, again = said(check)
    assert connected.startswith("bpipe: connected to 127.0.0.1:")
    assert lost == "bpipe: connection lost: told to reconnect; reconnecting"
    assert again.startswith("bpipe: connected again to 127.0.0.1:")


def test_where_things_stand_is_told_when_it_is_asked_for() -> None:
    async def check(watch: Watch) -> None:
        async with both() as (caller, _):
            watch.begin(caller.engine, listens=False)
            await until(lambda: caller.status().state is bpipe.State.CONNECTED)
            watch.report(Level.QUIET)

    lines = said(check, Settings(Level.QUIET))
    assert len(lines) == 1
    assert lines[0].startswith("bpipe: connected 127.0.0.1:")
    assert lines[0].endswith("; sent 0 B, 0 B confirmed; received 0 B, 0 B delivered; 0 reconnects")


@pytest.mark.parametrize(("log", "level"), [(None, Level.NORMAL), ("log", Level.VERBOSE)])
def test_progress_is_told_every_so_often(tmp_path: Path, log: str | None, level: Level) -> None:
    async def check(watch: Watch) -> None:
        async with both() as (caller, _):
            watch.open("there", listens=False)
            watch.begin(caller.engine, listens=False)
            await asyncio.sleep(0.2)

    path = log and str(tmp_path / log)
    settings = Settings(level, log=path, log_interval=0.05)
    lines = said(check, settings)
    assert sum("0 B delivered" in line for line in lines) >= 2
    if path is not None:
        told = [json.loads(line)["event"] for line in Path(path).read_text().splitlines()]
        assert told.count("progress") >= 2


@pytest.mark.parametrize(
    ("directions", "told"),
    [
        (Directions(), True),
        (Directions(send_only=True), False),
        (Directions(recv_only=True), False),
    ],
)
def test_an_open_stdin_is_hinted_at_where_it_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, directions: Directions, told: bool
) -> None:
    monkeypatch.setattr("bpipe.report.hints.AFTER", 0.05)

    async def check(watch: Watch) -> None:
        async with both() as (caller, listener):
            caller.engine.begin()
            watch.begin(caller.engine, listens=False)
            listener.finish()
            assert await caller.read() == b""
            await asyncio.sleep(0.2)

    lines = said(check, directions=directions)
    hint = (
        "bpipe: the peer has finished; waiting for the end of stdin"
        " (or --recv-only, which does not read it)"
    )
    assert (hint in lines) is told


# --- the status line ---


@pytest.mark.parametrize("when", list(When))
def test_the_status_line_is_drawn_where_it_is_wanted(when: When) -> None:
    lines = said(live, Settings(status_line=when))  # stderr is no terminal
    assert any("elapsed" in line for line in lines) is (when is When.ALWAYS)


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({}, True),
        ({"received": 5}, False),
        ({"received": 5, "delivered": 5}, False),
        ({"received": 5, "delivered": 5, "peer_finished": True}, True),
        ({"received": 5, "delivered": 5, "state": bpipe.State.RECONNECTING}, True),
        ({"received": 5, "state": bpipe.State.RECONNECTING}, False),
        ({"state": bpipe.State.OVER}, False),
    ],
)
def test_data_on_the_same_terminal_goes_before_the_status_line(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], shown: bool
) -> None:
    """With --status auto, where stdout is the terminal that stderr is."""
    monkeypatch.setattr("bpipe.report.watch.same_terminal", lambda descriptor: descriptor == 1)
    monkeypatch.setattr("bpipe.report.watch.wants_status", lambda settings: True)
    status = replace(BEFORE, state=bpipe.State.CONNECTED, links=1)

    async def check(watch: Watch) -> None:
        async with both() as (caller, _):
            monkeypatch.setattr(caller.engine, "status", lambda: replace(status, **changes))
            watch.begin(caller.engine, listens=False)

    assert any("there:1" in line for line in said(check)) is shown


# --- the end ---


@pytest.mark.parametrize(
    ("failure", "interrupted", "line"),
    [
        (None, False, "done; both streams were empty"),
        (NotConnected("nobody answered"), False, "there:1: nobody answered; nothing was read"),
        (SessionLost("given up"), False, "there:1: given up; start both ends again"),
        (PipeClosed("the far side stopped reading"), False, "the far side stopped reading"),
        (LocalAbort("interrupted by SIGINT"), True, "interrupted by SIGINT"),
    ],
)
def test_the_last_line(failure: bpipe.SessionEnded | None, interrupted: bool, line: str) -> None:
    def concludes(level: Level) -> list[str]:
        async def check(watch: Watch) -> None:
            async with pair() as (caller, _):
                watch.begin(caller.engine, listens=False)
                watch.conclude(failure, BEFORE, 1, interrupted=interrupted)

        return said(check, Settings(level))

    (found,) = concludes(Level.NORMAL)
    assert found.startswith(f"bpipe: {line}")
    quiet = failure is None or interrupted  # nobody needs to be told
    assert concludes(Level.QUIET) == ([] if quiet else [found])


def test_nothing_is_told_after_the_last_line() -> None:
    async def check(watch: Watch) -> None:
        async with pair() as (caller, _):
            watch.begin(caller.engine, listens=False)
            watch.conclude(None, BEFORE, 0, interrupted=False)
            watch.report(Level.QUIET)  # a timer, or a signal that has come late

    (line,) = said(check)
    assert line == "bpipe: done; both streams were empty"


def test_a_run_that_cannot_begin_is_one_line() -> None:
    async def check(watch: Watch) -> None:
        assert watch.refuse(2, "a bad address", "address") == 2

    for level in (Level.QUIET, Level.TRACE):
        assert said(check, Settings(level)) == ["bpipe: a bad address"]


def test_a_log_that_cannot_be_opened_and_one_that_fails() -> None:
    async def refuse(watch: Watch) -> None:
        with pytest.raises(LogError, match="cannot open the log /no/log"):
            watch.open("there", listens=False)

    assert said(refuse, Settings(log="/no/log")) == []

    async def fail(watch: Watch) -> None:
        watch.open("there", listens=False)

    (line,) = said(fail, Settings(log="/dev/full"))
    assert line == "bpipe: /dev/full: no space left on device; nothing more is logged"


def test_what_is_expected_is_what_is_left_of_stdin_unless_it_is_said(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1000))

    async def check(watch: Watch) -> None:
        watch.open("there", listens=False)

    with path.open("rb", buffering=0) as file:
        file.seek(400)
        streams = STREAMS._replace(stdin=file.fileno())
        for size, directions, expected in (
            (None, Directions(), 600),
            (7, Directions(), 7),
            (None, Directions(recv_only=True), None),
        ):
            (line,) = said(check, Settings(size=size, log="-"), streams, directions)
            assert json.loads(line)["size"] == expected
