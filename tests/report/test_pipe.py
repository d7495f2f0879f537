"""What is seen of a process that has one pipe: its status line, its hints, where it stands."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import bpipe
from bpipe.ends.streams import Directions
from bpipe.report.pipe import PipeWatch
from bpipe.report.settings import Level, Settings, When
from bpipe.status import Tally
from tests.support.pairs import both, until
from tests.support.statuses import BEFORE
from tests.support.watches import STREAMS, live, said


def test_where_things_stand_is_told_when_it_is_asked_for() -> None:
    async def check(watch: PipeWatch) -> None:
        async with both() as (caller, _):
            watch.begin(caller.engine, listens=False)
            await until(lambda: caller.status().state is bpipe.State.CONNECTED)
            watch.report(Level.QUIET)

    lines = said(check, Settings(Level.QUIET))
    assert len(lines) == 1
    assert lines[0].startswith("bpipe: connected 127.0.0.1:")
    assert lines[0].endswith("; sent 0 B, 0 B confirmed; received 0 B, 0 B delivered; 0 reconnects")


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

    async def check(watch: PipeWatch) -> None:
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


def test_who_sends_to_a_file_has_no_peer_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bpipe.report.hints.AFTER", 0.05)

    async def check(watch: PipeWatch) -> None:
        async with both() as (caller, listener):
            caller.engine.use_tally(Tally)
            caller.engine.begin()
            watch.begin(caller.engine, listens=False)
            listener.finish()
            assert await caller.read() == b""
            await asyncio.sleep(0.2)

    assert [line for line in said(check) if "waiting for" in line] == []


def test_what_a_far_program_says_goes_above_the_status_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bpipe.report.watch.wants_status", lambda settings: True)

    async def check(watch: PipeWatch) -> None:
        async with both() as (caller, _):
            watch.begin(caller.engine, listens=False)
            watch.make_way_for_errors([memoryview(b"oops")])
            os.write(2, b"oops")

    lines = said(check, directions=Directions(send_only=True, recv_only=True))
    (line,) = [line for line in lines if "oops" in line]
    assert line.endswith("oops")


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
        ({"state": bpipe.State.CONNECTING}, True),
        ({"state": bpipe.State.CONNECTING, "asks": True}, False),  # whoever asks has the terminal
        ({"asks": True}, True),
    ],
)
def test_data_on_the_same_terminal_goes_before_the_status_line(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], shown: bool
) -> None:
    """With --status auto, where stdout is the terminal that stderr is."""
    monkeypatch.setattr("bpipe.report.pipe.same_terminal", lambda descriptor: descriptor == 1)
    monkeypatch.setattr("bpipe.report.watch.wants_status", lambda settings: True)
    status = replace(BEFORE, state=bpipe.State.CONNECTED, links=1)

    async def check(watch: PipeWatch) -> None:
        async with both() as (caller, _):
            monkeypatch.setattr(caller.engine, "status", lambda: replace(status, **changes))
            watch.begin(caller.engine, listens=False)

    assert any("elapsed" in line for line in said(check)) is shown


def test_what_is_expected_is_what_is_left_of_stdin_unless_it_is_said(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1000))

    async def check(watch: PipeWatch) -> None:
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
