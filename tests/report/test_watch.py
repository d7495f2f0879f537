"""What is seen of a process, by people and by programs: its first lines, and its log."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

import bpipe
from bpipe.report.output import LogError
from bpipe.report.pipe import PipeWatch
from bpipe.report.settings import Level, Settings
from tests.support.pairs import QUICK, both
from tests.support.watches import live, said


@pytest.mark.parametrize(
    ("address", "secret", "credentials", "lines"),
    [
        (
            "127.0.0.1:0",
            False,
            "",
            [
                "listening on 127.0.0.1:PORT, for this machine only;"
                " others need --secret (bpipe keygen)"
            ],
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

    async def check(watch: PipeWatch) -> None:
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
    async def check(watch: PipeWatch) -> None:
        pipe = await bpipe.listen(str(tmp_path / "s"), limits=QUICK)
        watch.begin(pipe.engine, listens=True)
        await pipe.wait_closed()

    (line,) = said(check)
    assert line == f"bpipe: listening on unix:{tmp_path}/s, for this user only"


@pytest.mark.parametrize(
    ("base", "in_place", "line"),
    [(0, False, "a.tar: nothing of it is here yet"), (9, True, "a.tar is written in place: ")],
)
def test_where_the_file_is_that_takes_what_comes(base: int, in_place: bool, line: str) -> None:
    async def check(watch: PipeWatch) -> None:
        watch.open("there", listens=False)
        watch.tell_of_file("a.tar", base, in_place=in_place, told=True)

    (words,) = said(check)
    assert words.startswith(f"bpipe: {line}")
    told = json.loads(said(check, Settings(log="-"))[-1])
    assert (told["event"], told["file"], told["base"]) == ("writing", "a.tar", base)


def test_a_log_on_stderr_takes_the_place_of_the_words() -> None:
    told = [json.loads(line) for line in said(live, Settings(log="-"))]
    assert [each["event"] for each in told] == ["started", "connected", "peer-finished", "done"]
    assert {each["run"] for each in told} == {told[0]["run"]}
    assert (told[-1]["sent"], told[-1]["received"], told[-1]["status"]) == (5, 3, 0)


@pytest.mark.parametrize(("log", "level"), [(None, Level.NORMAL), ("log", Level.VERBOSE)])
def test_progress_is_told_every_so_often(tmp_path: Path, log: str | None, level: Level) -> None:
    async def check(watch: PipeWatch) -> None:
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


def test_a_run_that_cannot_begin_is_one_line() -> None:
    async def check(watch: PipeWatch) -> None:
        assert watch.refuse(2, "a bad address", "address") == 2

    for level in (Level.QUIET, Level.TRACE):
        assert said(check, Settings(level)) == ["bpipe: a bad address"]


def test_a_run_that_cannot_begin_is_a_failure_of_bpipe() -> None:
    async def check(watch: PipeWatch) -> None:
        watch.open("there", listens=False)
        watch.refuse(2, "a bad address", "address")

    done = json.loads(said(check, Settings(log="-"))[-1])
    assert (done["event"], done["status"], done["from"]) == ("done", 2, "bpipe")


def test_a_log_that_cannot_be_opened_and_one_that_fails() -> None:
    async def refuse(watch: PipeWatch) -> None:
        with pytest.raises(LogError, match="cannot open the log /no/log"):
            watch.open("there", listens=False)

    assert said(refuse, Settings(log="/no/log")) == []

    async def fail(watch: PipeWatch) -> None:
        watch.open("there", listens=False)

    (line,) = said(fail, Settings(log="/dev/full"))
    assert line == "bpipe: /dev/full: no space left on device; nothing more is logged"
