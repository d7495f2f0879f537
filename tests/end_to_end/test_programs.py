"""A program as the ends of a pipe: its status is told, and it sees no false end of file."""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import sys
from pathlib import Path
from subprocess import PIPE

import pytest

from bpipe.demo.faults import Cut, Fault
from tests.end_to_end.data import MIB, until
from tests.end_to_end.helpers import Bpipe, Start, finish
from tests.end_to_end.kills_actor import program_of

pytestmark = pytest.mark.slow

# A consumer that takes what it gets for whole when it sees the end, and then says so.
CONSUMER = """
import sys
while sys.stdin.buffer.read(1 << 16):
    pass
open(sys.argv[1], "w").close()
"""


class Service:
    """A listener with a program."""

    def __init__(self, start: Start, *program: str, options: tuple[str, ...] = ()) -> None:
        self._start, self._options = start, options
        self.bpipe = start.bpipe("listen", "127.0.0.1:0", *options, "--", *program)

    def call(self, cuts: int = 0, *more: str) -> Bpipe:
        """Somebody who calls it, through a network that breaks so often."""
        where = self.bpipe.address
        if cuts:
            rng = random.Random(cuts)
            places = [
                Cut(Fault.RESET, rng.random() < 0.5, rng.choice((50, 150, 3000, 10**5)))
                for _ in range(cuts)
            ]
            where = self._start.proxy(where, places).address
        retry = "--retry-max", "20ms"
        return self._start.bpipe(
            "connect", where, *self._options, *retry, *more, stdin=PIPE, stdout=PIPE
        )


def whole(path: Path) -> tuple[str, ...]:
    """The consumer, and where it says that it has a whole stream."""
    return sys.executable, "-c", CONSUMER, str(path)


@pytest.mark.parametrize(("status", "sealed"), [(0, True), (1, False), (255, True)])
def test_the_status_of_a_program_is_that_of_the_other_end(
    start: Start, key: Path, status: int, sealed: bool
) -> None:
    options = ("--secret", str(key)) if sealed else ()
    service = Service(start, "sh", "-c", f"cat; exit {status}", options=options)
    caller = service.call(3)
    caller.stdin.write(b"question")
    caller.stdin.close()
    assert caller.read_all() == b"question"
    assert finish(caller, service.bpipe) == [status, status]


def test_a_program_that_is_killed_is_told_as_a_shell_does(start: Start) -> None:
    service = Service(start, "sh", "-c", "ulimit -c 0; kill -SEGV $$")
    caller = service.call()
    assert finish(caller, service.bpipe) == [128 + signal.SIGSEGV, 128 + signal.SIGSEGV]
    assert "was killed by SIGSEGV" in caller.text


def test_a_caller_has_a_program_too(start: Start, tmp_path: Path) -> None:
    service = Service(start, "sh", "-c", f"cat > {tmp_path}/got; echo answer")
    script = f"echo question; exec > {tmp_path}/answer; cat; exit 5"
    caller = start.bpipe("connect", service.bpipe.address, "--", "sh", "-c", script)
    assert finish(caller, service.bpipe) == [5, 5]
    assert (tmp_path / "answer").read_text() == "answer\n"


def test_much_goes_through_a_program_and_twenty_cuts(start: Start, key: Path) -> None:
    service = Service(start, "sha256sum", options=("--secret", str(key)))
    caller = service.call(20)
    digest = hashlib.sha256()
    for _ in range(16):
        data = os.urandom(MIB)
        digest.update(data)
        caller.stdin.write(data)
    caller.stdin.close()
    assert caller.read_all().split()[0].decode() == digest.hexdigest()
    assert finish(caller, service.bpipe) == [0, 0]


def test_streams_go_both_ways_at_once(start: Start) -> None:
    service = Service(start, "cat")
    caller = service.call()
    producer, consumer = caller.feed(16 * MIB), caller.drain()
    assert consumer.wait_end() == producer.written == 16 * MIB
    assert finish(caller, service.bpipe) == [0, 0]


def test_a_program_that_has_enough_fails_nothing_but_the_truth(start: Start) -> None:
    """Its answer is carried to its end, and neither end says that everything was taken."""
    service = Service(start, "sh", "-c", "head -c 3; sleep 0.1; echo .")
    caller = service.call()
    caller.feed(None)
    assert len(caller.read_all()) == 3 + 2
    assert finish(caller, service.bpipe) == [141, 141]


def test_a_program_that_goes_on_after_its_output(start: Start, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    service = Service(start, "sh", "-c", f"exec > /dev/null; cat {go}; exit 9")
    caller = service.call()
    caller.stdin.close()
    assert caller.read_all() == b""  # its end is seen before the program has ended
    assert caller.running
    go.write_text("")
    assert finish(caller, service.bpipe) == [9, 9]


@pytest.mark.parametrize(
    ("victim", "shell"),
    [("caller", False), ("caller", True), ("listener", False), ("both", True)],
)
def test_whoever_is_killed_no_program_sees_a_false_end(
    start: Start, tmp_path: Path, victim: str, shell: bool
) -> None:
    mark = tmp_path / "whole"
    script = tmp_path / "consumer.py"
    script.write_text(CONSUMER)
    piped = "sh", "-c", f"cat | {sys.executable} {script} {mark}"
    options = "--give-up-after", "1s"
    service = Service(start, *(piped if shell else whole(mark)), options=options)
    caller = service.call()
    caller.feed(None)
    caller.wait_connected()
    children = Path(f"/proc/{service.bpipe.pid}/task/{service.bpipe.pid}/children")
    until(lambda: len(children.read_text().split()) > 1, "the program and its guard")
    pids = [int(each) for each in children.read_text().split()]
    for each in (caller, service.bpipe):
        if victim == "both" or each is (caller if victim == "caller" else service.bpipe):
            each.signal(signal.SIGKILL)
    if victim == "caller":
        assert service.bpipe.wait() == 4
    until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in pids), "their end")
    assert not mark.exists()


def test_a_program_that_leaves_its_reader_behind(start: Start, tmp_path: Path) -> None:
    """setsid(1) goes at once, and the one that it has started would see a false end."""
    mark = tmp_path / "whole"
    service = Service(start, "setsid", *whole(mark))
    caller = service.call()
    caller.feed(None)
    assert finish(caller, service.bpipe) == [141, 141]
    assert not mark.exists()


def test_what_is_odd_about_a_program_is_told(start: Start) -> None:
    service = Service(start, "sh", "-c", "cat; sleep 99 & echo an answer")
    caller = service.call()
    caller.wait_connected()
    until(lambda: program_of(service.bpipe.pid), "the program")
    program = program_of(service.bpipe.pid)
    assert program is not None
    os.kill(program, signal.SIGSTOP)
    line = service.bpipe.wait_line("^bpipe: the program is stopped: ")
    assert f"process {program} (sh)" in line
    os.kill(program, signal.SIGCONT)
    caller.stdin.close()
    assert caller.read_all() == b"an answer\n"
    line = service.bpipe.wait_line("holds its output")
    found = re.search(r"ended, but process (\d+) \(sleep\)", line)
    assert found is not None
    os.kill(int(found[1]), signal.SIGKILL)  # it has our stderr, too
    assert finish(caller, service.bpipe) == [0, 0]


def test_a_producer_that_failed_has_no_whole_stream(start: Start, tmp_path: Path) -> None:
    for status in (0, 3):
        mark = tmp_path / f"whole-{status}"
        service = Service(start, *whole(mark))
        script = f"head -c 100000 /dev/zero; exit {status}"
        caller = start.bpipe("connect", service.bpipe.address, "--", "sh", "-c", script)
        far, near = finish(service.bpipe, caller)
        assert mark.exists() is (status == 0)
        assert far == status
        assert near == status  # not that of the consumer, which was ended for that


def test_its_environment_tells_who_calls_and_nothing_that_is_ours(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BPIPE_SECRET_FILE", "")
    monkeypatch.setenv("BPIPE_HEARTBEAT", "1")
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    service = Service(start, "sh", "-c", "env | grep -E '^(BPIPE|LISTEN|NOTIFY)' | sort")
    caller = service.call()
    caller.stdin.close()
    lines = caller.read_all().decode().splitlines()
    assert [line.partition("=")[0] for line in lines] == ["BPIPE_PEER", "BPIPE_SESSION"]
    assert lines[0].startswith("BPIPE_PEER=127.0.0.1:")
    assert finish(caller, service.bpipe) == [0, 0]


def test_what_it_says_on_stderr_is_kept_where_stdout_goes_there_too(
    start: Start, path: Path, tmp_path: Path
) -> None:
    """Nothing of ours carries data then, so there is nothing to keep apart."""
    log = tmp_path / "log"
    listener = start.bpipe(
        *("listen", str(path), "--", "sh", "-c", "echo the program >&2"),
        shell=f'exec "$@" > {log} 2>&1',
    )
    until(path.exists, "the socket")
    caller = start.bpipe("connect", str(path))
    assert finish(caller, listener) == [0, 0]
    assert "the program\n" in log.read_text()
    assert "bpipe: listening on" in log.read_text()


def test_it_has_no_descriptor_but_its_own_three(start: Start) -> None:
    service = Service(start, "sh", "-c", "ls /proc/$$/fd")
    caller = service.call()
    caller.stdin.close()
    assert set(caller.read_all().decode().split()) == {"0", "1", "2"}
    assert finish(caller, service.bpipe) == [0, 0]
