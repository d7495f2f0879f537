"""What a command does when its options are read; here, what it loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bpipe.cli.many import Many
from bpipe.cli.options import Trust
from bpipe.cli.runs import Run
from bpipe.cli.tuning import Tuning
from bpipe.ends.streams import Directions
from bpipe.net.address import parse
from bpipe.report.settings import Settings
from bpipe.run.service import Plan
from bpipe.run.session import Wanted

PROGRAM = """
import sys
from bpipe.cli import app
from bpipe.run.session import run_session
sys.argv = ["bpipe"]
status = app.run([{arguments}])
print(status, *sorted(sys.modules), file=sys.stderr)
"""
OF_MANY = {"bpipe.server", "bpipe.run.service", "bpipe.report.service", "bpipe.report.census"}
OF_CARRIERS = {"bpipe.net.command", "bpipe.net.carrier", "bpipe.net.spawn"}
OF_FILES = {
    *("bpipe.ends.files", "bpipe.ends.part", "bpipe.report.files", "bpipe.run.succession"),
    *("bpipe.protocol.assembly", "bpipe.protocol.block_writer"),
}
OF_SEVERAL = {
    f"bpipe.{name}"
    for name in (
        *("protocol.slot_channel", "protocol.outflow", "protocol.owed", "protocol.ranges"),
        *("protocol.reassembly", "net.dialers", "net.dialing", "net.ways", "net.origin"),
    )
}
UNUSED = {
    f"bpipe.{name}"
    for name in (*("protocol.sessions", "protocol.secret", "net.listener", "net.bind", "net.dial"),)
}
OF_ENDS = {"bpipe.ends.program", "bpipe.ends.guard", "bpipe.ends.sockets", "bpipe.run.forward"}


def modules_after(arguments: str) -> set[str]:
    """What this command line has loaded, when nobody listened."""
    program = PROGRAM.format(arguments=arguments)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    return set(done.stderr.splitlines()[-1].split())


def test_one_pipe_loads_nothing_that_only_many_or_other_ends_need() -> None:
    loaded = modules_after("'connect', 'localhost:1', '--connect-timeout', '0'")
    assert "3" in loaded
    assert {"bpipe.ends.stdio", "bpipe.protocol.slots"} <= loaded
    assert not loaded & (OF_MANY | OF_ENDS | OF_CARRIERS | OF_FILES | OF_SEVERAL | UNUSED)


@pytest.mark.parametrize("local", ["'/nowhere/at/all'", "'*:0'"])
def test_many_that_cannot_begin_tell_why(local: str) -> None:
    arguments = f"'connect', 'localhost:1', '--from', {local}"
    loaded = modules_after(arguments)
    assert loaded >= OF_MANY | {"bpipe.ends.sockets", "bpipe.run.forward"}
    assert loaded & {"1", "2"}


def test_what_is_no_file_is_told_before_anything_else(tmp_path: Path) -> None:
    for arguments in ("'connect', 'localhost:1'", "'listen', 'localhost:0', '-k'"):
        loaded = modules_after(f"{arguments}, '--output', '{tmp_path}'")
        assert "2" in loaded
        assert "bpipe.ends.part" in loaded


@pytest.mark.parametrize("options", [(), ("--insecure", "--recv-only")])
def test_what_is_told_of_a_file_before_there_is_anybody(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Who is behind an address without a secret is known when there is a link."""
    file = tmp_path / "file"
    file.write_bytes(b"old")
    arguments = "localhost:1", "--connect-timeout", "0", "--output", str(file), *options
    command = [sys.executable, "-m", "bpipe", "connect", *arguments]
    done = subprocess.run(command, input="not read", capture_output=True, text=True)
    assert done.returncode == 3
    unread = "bpipe: stdin is not read with --output, although there is something on it"
    here = f"bpipe: {file}: 3 B are here already"
    told = [here] if options else [unread, f"{here}; what is equal is not sent"]
    assert done.stderr.splitlines()[:-1] == told


@pytest.mark.parametrize(
    ("place", "insecure", "tells"),
    [("localhost:0", False, True), ("localhost:0", True, None), ("unix:s", True, True)],
)
def test_who_serves_many_knows_as_much(
    place: str, insecure: bool, tells: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[Plan] = []
    monkeypatch.setattr("bpipe.run.service.run_service", lambda plan, settings: plans.append(plan))
    run = Run(parse(place), Trust(insecure=insecure), Tuning(), Settings(), listens=True)
    run.serve(Wanted(Directions(), output="file"), Many())
    assert plans[0].tells(exposed=False) is tells
