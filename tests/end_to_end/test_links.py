"""Several links of one session, between real processes: over TCP, commands and ssh."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest

from bpipe.demo.faults import Cut, Fault
from tests.end_to_end.data import MIB, pattern, until
from tests.end_to_end.helpers import Start, finish
from tests.end_to_end.recipes import Shell
from tests.end_to_end.sshd import Near, Sshd, serve
from tests.support.carriers import carriers

pytestmark = pytest.mark.slow

UP = "^bpipe: link {} is up"
RUNNER = ["-c", "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"]  # what follows it


@pytest.fixture(autouse=True)
def _no_carrier_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TEST_OF_BPIPE", str(os.getpid()))
    yield
    until(lambda: not list(carriers()), lambda: f"{list(carriers())} left")


def test_as_many_as_the_listener_allows_from_where_they_are_to_and_through_cuts(
    start: Start, key: Path
) -> None:
    secret = "--secret", str(key)
    options = "--max-links", "3", "--congestion", "reno"
    listener = start.bpipe("listen", "127.0.0.1:0", *secret, *options, stdout=PIPE)
    cuts = [Cut(Fault.RESET, True, MIB + 1000 * number) for number in range(40)]
    proxy = start.proxy(listener.address, cuts)
    ways = "--bind", "127.0.0.5", "--bind", "lo", "--links", "4", "--congestion", "reno"
    caller = start.bpipe("connect", proxy.address, *secret, *ways, "-v", stdin=PIPE)
    consumer, producer = listener.drain(), caller.feed(None, pause=0.005)
    until(lambda: len(proxy.faults.made) >= 4, "four cuts")  # which links carry, nobody can say
    caller.wait_line(r"the far side allows 3 links, not 4 \(--max-links\)")
    for slot in range(3):
        caller.wait_line(f"{UP.format(slot)}, from ")
    caller.wait_line(": 3 of 3$")
    producer.finish()
    assert consumer.wait_end() == producer.written
    assert finish(caller, listener) == [0, 0]
    for origin in "127.0.0.5", "lo":  # which slot goes which way depends on what was cut, and when
        caller.wait_line(f"{UP.format('[0-2]')}, from {origin}, to ")
    assert "link 3" not in caller.text


def test_each_may_be_a_command_and_the_death_of_one_is_not_noticed(
    start: Start, path: Path
) -> None:
    if shutil.which("nc") is None:
        pytest.skip("nc is not installed")
    listener = start.bpipe("listen", str(path), stdout=PIPE)
    listener.wait_line("listening")
    command = "--via", f"nc -U {path}", "--links", "3", "-v"
    caller = start.bpipe("connect", *command, stdin=PIPE)
    consumer, producer = listener.drain(), caller.feed(None, pause=0.005)
    caller.wait_line(UP.format(2))
    there = list(carriers())
    assert len(there) == 3
    for pid in there[:2]:  # one after the other, and neither is the last that lives
        before = producer.written
        os.kill(pid, signal.SIGKILL)
        consumer.wait_count(before + MIB)
    producer.finish()
    assert consumer.wait_end() == producer.written
    assert finish(caller, listener) == [0, 0]
    assert "connection lost" not in caller.text + listener.text


def test_those_that_come_too_late_say_nothing(start: Start, path: Path) -> None:
    if shutil.which("nc") is None:
        pytest.skip("nc is not installed")
    listener = start.bpipe("listen", str(path))
    listener.wait_line("listening")
    command = f"sh -c 'sleep 0.05; exec nc -U {path}'"
    caller = start.bpipe("connect", "--via", command, "--links", "4")
    assert finish(caller, listener) == [0, 0]
    assert "nc: " not in caller.text


def test_a_far_side_without_bpipe_has_as_many(start: Start) -> None:
    run = start.bpipe(
        *("run", "--links", "2", "-v", "--via", f"{sys.executable} {' '.join(map(repr, RUNNER))}"),
        *("--", "sh", "-c", "cat; exit 3"),
        stdin=PIPE,
        stdout=PIPE,
    )
    consumer, producer = run.drain(), run.feed(None, pause=0.005)
    run.wait_line(UP.format(1))
    relays = [pid for pid in carriers() if b"\0code\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(relays) == 2
    os.kill(relays[0], signal.SIGKILL)
    consumer.wait_count(consumer.count + MIB)
    run.wait_line(UP.format("[01]"), times=3)
    producer.finish()
    assert consumer.wait_end() == producer.written
    assert run.wait() == 3
    assert "connection lost" not in run.text


def test_one_that_ends_before_all_are_there_is_silent(start: Start) -> None:
    """What has begun there is cut off, and would say so."""
    run = start.bpipe("run", "--links", "4", "--via", "env", "--", "sleep", "0.1")
    assert run.wait() == 0
    assert run.lines == []


def test_a_command_behind_two_of_ssh(near: Near, sshd: Sshd) -> None:
    far = sshd.far()
    program = near.ssh(far, "cat; exit 3", "--links", "2", "--verbose", stdin=PIPE, stdout=PIPE)
    consumer, producer = program.drain(), program.feed(None, pause=0.005)
    program.wait_line(UP.format(1))
    assert len(near.carriers()) == 2
    near.kill()
    consumer.wait_count(consumer.count + MIB)
    program.wait_line(UP.format("[01]"), times=3)
    producer.finish()
    assert consumer.wait_end() == producer.written
    assert program.wait() == 3
    assert "connection lost" not in program.text
    far.wait_nothing_left()


def test_an_sshd_that_refuses_what_comes_at_once_has_all_of_them_soon(shell: Shell) -> None:
    with serve("LogLevel VERBOSE\nMaxStartups 2:100:2\n") as sshd:
        options = "--links", "8", "--verbose"
        program = Near(shell, sshd).ssh(sshd.far(), "cat", *options, stdin=PIPE, stdout=PIPE)
        program.wait_line(": 8 of 8$")
        refused = [line for line in sshd.said if "past MaxStartups" in line]
        assert 0 < len(refused) < 50
        program.stdin.close()
        assert program.wait() == 0


def test_each_of_many_sessions_has_its_own(start: Start, path: Path) -> None:
    seen: set[int] = set()

    def tamper(connection: int, upward: bool, offset: int, data: bytes) -> bytes:
        seen.add(connection)
        return data

    service = start.bpipe("listen", "127.0.0.1:0", "-k", "--max-links", "2", "--", "cat")
    proxy = start.proxy(service.address, tamper=tamper)
    start.bpipe("connect", proxy.address, "--links", "3", "--from", str(path))
    until(path.exists, "who carries")
    data = bytes(pattern(0, MIB))
    for number in (1, 2):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(str(path))
            client.sendall(data[:1])
            until(lambda: len(seen) == 2 * number, lambda: f"links: {seen}")  # noqa: B023
            client.sendall(data[1:] if number == 1 else b"")
            client.shutdown(socket.SHUT_WR)
            found = b"".join(iter(lambda: client.recv(1 << 16), b""))
            assert found == (data if number == 1 else data[:1])


def test_one_of_many_has_as_many_as_there_are_descriptors_for_all(start: Start) -> None:
    many = "-k", "--max-sessions", "2", "--", "cat"
    service = start.bpipe("listen", "127.0.0.1:0", *many, shell='ulimit -n 141; exec "$@"')
    caller = start.bpipe("connect", service.address, "--links", "8", stdin=PIPE)
    caller.wait_line(r"the far side allows 2 links, not 8 \(--max-links\)")
    caller.stdin.close()
    assert caller.wait() == 0
