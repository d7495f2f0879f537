"""What is told of one pipe, from its first connection to how it ended."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

import bpipe
from bpipe.ends.file_sink import FileOutcome
from bpipe.errors import LocalAbort, NotConnected, PipeClosed, ProgramFailed, SessionLost
from bpipe.report.pipe import PipeWatch
from bpipe.report.settings import Level, Settings
from tests.support.pairs import pair, until
from tests.support.statuses import BEFORE
from tests.support.watches import live, said


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


def test_a_loss_and_what_follows_are_told() -> None:
    async def check(watch: PipeWatch) -> None:
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
        async def check(watch: PipeWatch) -> None:
            async with pair() as (caller, _):
                watch.begin(caller.engine, listens=False)
                watch.conclude(failure, BEFORE, 1, interrupted=interrupted)

        return said(check, Settings(level))

    (found,) = concludes(Level.NORMAL)
    assert found.startswith(f"bpipe: {line}")
    quiet = failure is None or interrupted  # nobody needs to be told
    assert concludes(Level.QUIET) == ([] if quiet else [found])


@pytest.mark.parametrize(
    ("failure", "whose"),
    [(None, None), (ProgramFailed("status 3"), "program"), (SessionLost("given up"), "bpipe")],
)
def test_the_log_tells_whose_failure_it_is(
    failure: bpipe.SessionEnded | None, whose: str | None
) -> None:
    async def check(watch: PipeWatch) -> None:
        watch.open("there", listens=False)
        async with pair() as (caller, _):
            watch.begin(caller.engine, listens=False)
            watch.conclude(failure, BEFORE, 3, interrupted=False)

    assert json.loads(said(check, Settings(log="-"))[-1])["from"] == whose


def test_what_has_become_of_the_file_is_told_in_the_last_line() -> None:
    async def check(watch: PipeWatch) -> None:
        async with pair() as (caller, _):
            watch.begin(caller.engine, listens=False)
            filed = FileOutcome(named=False, kept=True, file="a.tar", part="a.tar.part")
            lost = SessionLost("given up")
            watch.conclude(lost, BEFORE, 4, interrupted=False, filed=filed)

    (line,) = said(check)
    assert line == (
        "bpipe: there:1: given up; what has come stays in a.tar.part;"
        " the same commands go on from there"
    )


def test_nothing_is_told_after_the_last_line() -> None:
    async def check(watch: PipeWatch) -> None:
        async with pair() as (caller, _):
            watch.begin(caller.engine, listens=False)
            watch.conclude(None, BEFORE, 0, interrupted=False)
            watch.report(Level.QUIET)  # a timer, or a signal that has come late

    (line,) = said(check)
    assert line == "bpipe: done; both streams were empty"
