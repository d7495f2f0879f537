"""One pipe in a process: what is joined to it, and what becomes of one that cannot be opened."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import Final

import pytest

from bpipe.ends.streams import Directions
from bpipe.run.session import Wanted

RUN: Final = """
import sys
from bpipe import api
from bpipe.ends.streams import Directions
from bpipe.report.settings import Settings
from bpipe.run.session import Wanted, run_session
address = sys.argv[1]
wanted = Wanted(Directions())
opened = lambda hear: api.listen(address)
sys.exit(run_session(opened, wanted, Settings(), address, listens=True))
"""


@pytest.mark.parametrize(
    ("wanted", "reads_stdin", "writes_stdout"),
    [
        (Wanted(Directions()), True, True),
        (Wanted(Directions(send_only=True)), True, False),
        (Wanted(Directions(recv_only=True)), False, True),
        (Wanted(Directions(), ["cat"]), False, False),
        (Wanted(Directions(), output="file"), False, False),
    ],
)
def test_a_program_takes_the_place_of_stdin_and_stdout(
    wanted: Wanted, reads_stdin: bool, writes_stdout: bool
) -> None:
    assert wanted.seen.recv_only is not reads_stdin
    assert wanted.writes_stdout is writes_stdout


@pytest.mark.parametrize(
    ("wanted", "exposed", "tells"),
    [
        (Wanted(Directions(), output="file"), False, True),
        (Wanted(Directions(), output="file"), True, False),
        (Wanted(Directions(), output="file", whole=True), False, False),
        (Wanted(Directions(), output="file", anybody=True), False, None),
        (Wanted(Directions(), output="file", anybody=True, whole=True), False, False),
        (Wanted(Directions(), output="file", anybody=True), True, False),
    ],
)
def test_who_hears_what_lies_in_the_file(wanted: Wanted, exposed: bool, tells: bool | None) -> None:
    assert wanted.tells(exposed=exposed) is tells


def test_an_address_that_is_taken_is_told_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-c", RUN, where], capture_output=True, text=True, timeout=30
        )
    said = f"bpipe: cannot listen at {where}: address already in use; choose another address\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)


def test_an_address_that_may_not_be_used_is_an_error_of_usage() -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, "0.0.0.0:0"], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2
    assert done.stderr.startswith("bpipe: 0.0.0.0:0")
