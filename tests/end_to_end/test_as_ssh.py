"""``bpipe ssh`` and ``bpipe run`` as programs use them, over an ssh that goes nowhere."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.end_to_end.as_ssh import AsSsh, alive, holders
from tests.end_to_end.data import MIB, pattern, until
from tests.end_to_end.helpers import Bpipe, Start, finish
from tests.end_to_end.screen import DRAWN, Open

pytestmark = pytest.mark.slow

FIRST = "-T -oRemoteCommand=none -oControlMaster=no"
LATER = (
    f"{FIRST} -akx -oBatchMode=yes -oControlPath=none -oClearAllForwardings=yes"
    " -oPermitLocalCommand=no"
)
PYTHON = "python3 -ISm code -q"


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AsSsh]:
    """It comes first in PATH; and when a test is over, no holder is left."""
    ssh = AsSsh(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SHELL", "/bin/sh")
    yield ssh
    until(lambda: holders(str(tmp_path)) == [], "no holder")


def wait_pid(path: Path) -> int:
    """The process whose number is written there, soon."""
    until(lambda: path.exists() and path.read_text().endswith("\n"), f"{path}")
    return int(path.read_text())


def test_its_status_is_that_of_the_command(start: Start, ssh: AsSsh) -> None:
    ends = {"exit 0": 0, "exit 3": 3, "exit 141": 141, "exit 255": 255, "kill -9 $$": 137}
    running = [start.bpipe("ssh", "far", command) for command in ends]
    assert finish(*running) == list(ends.values())
    assert [each.text for each in running] == [""] * len(ends)


def test_its_streams_are_those_of_the_command(start: Start, ssh: AsSsh) -> None:
    command = "cat", ">&2;", "echo", "a  b", "'c  d';", "pwd"
    near = start.bpipe("ssh", "-p22", "me@far", "-4", *command, stdin=PIPE, stdout=PIPE)
    near.stdin.write(b"to stderr\nno line")
    near.stdin.close()
    assert near.read_all() == f"a b c  d\n{ssh.far}\n".encode()
    assert near.wait() == 0
    assert near.lines == ["to stderr", "no line"]
    assert ssh.calls == [f"{FIRST} -p 22 -4 -- me@far {PYTHON}"]


def test_without_stdin_the_command_has_an_empty_one(start: Start, ssh: AsSsh) -> None:
    near = start.bpipe("ssh", "-n", "far", "cat; echo end", stdin=PIPE, stdout=PIPE)
    assert near.read_all() == b"end\n"
    assert near.wait() == 0


def test_a_command_that_leaves_its_stdin_ends_it_all(start: Start, ssh: AsSsh) -> None:
    with open("/dev/zero", "rb") as zeros:
        near = start.bpipe("ssh", "far", "head -c 3; exit 4", stdin=zeros, stdout=PIPE)
        assert near.read_all() == bytes(3)
        assert near.wait() == 4
    assert near.lines == []


def test_a_reader_that_leaves_is_told_by_the_status_alone(start: Start, ssh: AsSsh) -> None:
    near = start.bpipe("ssh", "far", "yes", stdout=PIPE)
    assert near.stdout.read(2) == b"y\n"
    near.stdout.close()
    assert near.wait() == 141
    assert near.lines == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_what_ends_ssh_ends_it_and_the_command(
    start: Start, ssh: AsSsh, number: signal.Signals
) -> None:
    near = start.bpipe("ssh", "far", f"echo $$ > {ssh.folder}/there; exec sleep 1000")
    there = wait_pid(ssh.folder / "there")
    assert len(holders(str(ssh.folder))) == 1
    near.signal(number)
    assert near.wait() == -number
    assert near.lines == []
    until(lambda: not alive(there), "the end of the command")
    until(lambda: not any(map(alive, ssh.pids)), "the end of ssh")


def test_the_command_hears_first_that_its_terminal_has_gone(start: Start, ssh: AsSsh) -> None:
    here = ssh.folder
    traps = f"trap 'echo hup > {here}/heard; exit' HUP; trap 'echo term > {here}/heard; exit' TERM"
    command = f"{traps}; echo $$ > {here}/there; while :; do sleep 0.05; done"
    near = start.bpipe("ssh", "far", command)
    wait_pid(here / "there")
    near.signal(signal.SIGINT)
    assert near.wait() == -signal.SIGINT
    until(lambda: (here / "heard").exists(), "a signal")
    assert (here / "heard").read_text() == "hup\n"


def test_it_goes_on_over_the_next_connection_and_nobody_is_asked_then(
    start: Start, ssh: AsSsh
) -> None:
    size = 30 * MIB
    command = "echo begin >&2; cat; echo end >&2; exit 7"
    near = start.bpipe("ssh", "-A", "-S/s", "far", command, stdin=PIPE, stdout=PIPE)
    producer, consumer = near.feed(size), near.drain()
    for number in (1, 2, 3):
        consumer.wait_count(number * 5 * MIB)
        ssh.kill(number)
        near.wait_back(times=number)
    assert consumer.wait_end() == producer.written == size
    assert near.wait() == 7
    said = [line for line in near.lines if not line.startswith("bpipe: ")]
    assert said == ["begin", "end"]
    assert ssh.calls[0] == f"{FIRST} -A -S /s -- far {PYTHON}"
    assert ssh.calls[1:] == [f"{LATER} -- far {PYTHON}"] * 3


def test_stderr_is_whole_however_late_it_is_taken(start: Start, ssh: AsSsh) -> None:
    data = pattern(0, 4 * MIB)
    (ssh.folder / "data").write_bytes(data)
    near = start.bpipe(
        "ssh",
        "--buffer",
        "64K",
        "far",
        f"echo a; cat {ssh.folder}/data >&2; echo b",
        stdout=PIPE,
        stderr=(ends := os.pipe())[1],
    )
    os.close(ends[1])
    with open(ends[0], "rb") as stderr:
        assert near.stdout.read(2) == b"a\n"
        assert stderr.read() == data
    assert near.stdout.read() == b"b\n"
    assert near.wait() == 0


def test_where_both_go_to_one_file_so_do_both_of_the_command(start: Start, ssh: AsSsh) -> None:
    shell = f'exec "$@" > {ssh.folder}/both 2>&1'
    near = start.bpipe("ssh", "far", "echo out; echo err >&2; exit 1", shell=shell)
    assert near.wait() == 1
    assert sorted((ssh.folder / "both").read_text().splitlines()) == ["err", "out"]


def test_what_ssh_says_and_how_it_ends_is_told(start: Start, ssh: AsSsh) -> None:
    (ssh.folder / "ssh").write_text("#!/bin/sh\necho ssh: no route >&2; exit 255\n")
    near = start.bpipe("ssh", "--connect-timeout", "0", "far", "true")
    assert near.wait() == 255
    assert near.lines[0] == "bpipe: ssh: no route"
    assert re.fullmatch("bpipe: far: ssh: no route(; .*)?", near.lines[-1])
    assert len(near.lines) == 2


def test_how_it_ended_is_logged_with_whose_failure_it_is(start: Start, ssh: AsSsh) -> None:
    log = ssh.folder / "log"
    near = start.bpipe("ssh", "--log-json", str(log), "far", "exit 255")
    assert near.wait() == 255
    done = log.read_text().splitlines()[-1]
    assert '"event": "done", "status": 255, "reason": "the command exited with status 255"' in done
    assert '"from": "program"' in done


def running(start: Start, *words: str) -> Bpipe:
    """A bpipe that runs these words by a command that runs them here."""
    via = f"{sys.executable} -c 'import os, sys; os.execvp(sys.argv[1], sys.argv[1:])'"
    return start.bpipe("run", "--via", via, "--", *words, stdin=PIPE, stdout=PIPE)


def test_words_of_run_stay_what_they_are(start: Start, ssh: AsSsh) -> None:
    near = running(start, "printf", "<%s>", "a  b", "$HOME", "", "--quiet", "--")
    assert near.read_all() == b"<a  b><$HOME><><--quiet><-->"
    assert near.wait() == 0


def test_a_program_that_is_not_there_is_a_failure_of_ours(start: Start, ssh: AsSsh) -> None:
    near = running(start, "/nowhere/at/all")
    assert near.wait() == 255
    assert "/nowhere/at/all" in near.lines[-1]
    assert near.lines[-1].startswith("bpipe: ")


# --- on a terminal ---

ASKS = """#!/bin/sh
printf 'password: ' > /dev/tty
read -r word < /dev/tty
test "$word" = open || exit 255
"""


def test_who_types_a_command_sees_what_it_says_and_no_more(terminal: Open, ssh: AsSsh) -> None:
    script = (ssh.folder / "ssh").read_text()
    (ssh.folder / "ssh").write_text(script.replace("#!/bin/sh\n", ASKS))
    screen = terminal(100)
    screen.enter("clear; bpipe ssh far 'echo out; echo err >&2; exit 3'; echo status $?")
    screen.wait_last("password:")
    screen.enter("open")
    screen.wait_line("status 3")
    screen.wait_last(r"\$")
    assert screen.lines == ["password: open", "out", "err", "status 3", "$"]
    assert re.search(DRAWN.encode(), screen.output) is None


def test_who_moves_bytes_by_hand_sees_them_pass_and_an_outage(terminal: Open, ssh: AsSsh) -> None:
    screen = terminal(100)
    command = f"cat > /dev/null; cat {ssh.folder}/go > /dev/null"
    os.mkfifo(ssh.folder / "go")
    screen.enter(f"clear; head -c 5M /dev/zero | bpipe ssh far '{command}'")
    screen.wait_last(r"(connected to far|waiting for the command)  sent 5\.0 MiB  .*")
    ssh.kill(1)
    screen.wait_line("bpipe: connected again to far after .*")
    (ssh.folder / "go").write_bytes(b"")
    screen.wait_line(r"bpipe: sent 5\.0 MiB \(5,242,880 bytes\) .*, 1 reconnect, all delivered")


def test_an_interrupt_that_is_typed_ends_the_command(terminal: Open, ssh: AsSsh) -> None:
    screen = terminal(100)
    screen.enter(f"clear; bpipe ssh far 'echo $$ > {ssh.folder}/there; exec sleep 1000'")
    there = wait_pid(ssh.folder / "there")
    screen.press("\x03")
    screen.wait_last(r"\$")
    screen.enter("echo status $?")
    screen.wait_line("status 130")
    until(lambda: not alive(there), "the end of the command")
