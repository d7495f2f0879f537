"""``bpipe connect --via COMMAND``: what carries it comes and goes, and nothing of it is left."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.end_to_end.data import MIB, until
from tests.end_to_end.helpers import Bpipe, Start, finish
from tests.end_to_end.screen import PROMPT, Open
from tests.support.carriers import carriers, relay

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TEST_OF_BPIPE", str(os.getpid()))
    yield
    until(lambda: not list(carriers()), lambda: f"{list(carriers())} left")


def by(path: Path) -> str:
    """The command that leads to the listener at this path."""
    return shlex.join(relay(path))


def calling(start: Start, command: str, *options: str) -> Bpipe:
    brisk = ("--heartbeat", "0.3", "--retry-max", "0.05")
    return start.bpipe("connect", "-v", "--via", command, *brisk, *options, stdin=PIPE)


@pytest.mark.parametrize("command", ["nc -U {}", "socat - UNIX-CONNECT:{}", "relay {}"])
def test_bytes_go_through_many_of_them(start: Start, path: Path, command: str) -> None:
    tool = command.split()[0]
    if tool != "relay" and shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    text = by(path) if tool == "relay" else command.format(path)
    receiving = start.bpipe("listen", str(path), "--heartbeat", "0.3", stdout=PIPE)
    receiving.wait_line("listening")
    sending = calling(start, text, "--send-only")
    producer = sending.feed(8 * MIB)
    consumer = receiving.drain()
    for kills in range(1, 6):
        consumer.wait_count(kills * MIB)
        for pid in carriers():
            os.kill(pid, signal.SIGKILL)
        sending.wait_back(times=1)
    assert consumer.wait_end() == 8 * MIB
    assert producer
    assert finish(sending, receiving) == [0, 0]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_it_and_what_carries_it(start: Start, path: Path, name: str) -> None:
    receiving = start.bpipe("listen", str(path), stdout=PIPE)
    receiving.wait_line("listening")
    sending = calling(start, by(path))
    sending.wait_connected()
    sending.signal(signal.Signals[name])
    assert finish(sending, receiving) == [-signal.Signals[name], 1]
    assert f"interrupted by {name}" in receiving.text
    assert list(carriers()) == []


def test_who_is_impatient_leaves_nothing_either(start: Start, path: Path) -> None:
    receiving = start.bpipe("listen", str(path), stdout=PIPE)
    receiving.wait_line("listening")
    sending = calling(start, by(path), "--heartbeat", "1h")
    sending.wait_connected()
    (hung,) = carriers()
    os.kill(hung, signal.SIGSTOP)
    sending.signal(signal.SIGTERM)

    def impatient() -> bool:
        sending.signal(signal.SIGINT)
        return not sending.running

    until(impatient, lambda: "still there")
    assert sending.wait_whatever() == -signal.SIGINT
    until(lambda: not list(carriers()), lambda: "the carrier is left")


def test_one_that_hangs_before_there_was_any_connection(start: Start) -> None:
    sending = calling(start, "sh -c 'trap \"\" TERM; sleep 100'")
    until(lambda: list(carriers()), lambda: "no carrier")
    sending.signal(signal.SIGINT)
    assert finish(sending) == [-signal.SIGINT]
    assert list(carriers()) == []


def test_a_death_that_nobody_can_prevent_is_its_end_of_file(start: Start, path: Path) -> None:
    receiving = start.bpipe("listen", str(path), stdout=PIPE)
    receiving.wait_line("listening")
    sending = calling(start, by(path))
    sending.wait_connected()
    sending.popen.kill()
    sending.wait_whatever()
    until(lambda: not list(carriers()), lambda: "the carrier is left")


def test_what_it_says_is_told_once_and_is_in_the_log(start: Start, tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = "sh -c 'echo far: no route >&2; exit 255'"
    options = ("--connect-timeout", "0.5", "--log-json", str(log))
    sending = calling(start, command, *options)
    assert finish(sending) == [3]
    assert sending.lines.count("bpipe: far: no route") == 1
    assert "far: no route; nothing was read from stdin" in sending.lines[-1]
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert [each["line"] for each in events if each["event"] == "carrier-said"] == ["far: no route"]
    assert (events[-1]["event"], events[-1]["code"]) == ("done", "carrier")


def test_connections_that_are_made_here_go_through_it(start: Start, path: Path) -> None:
    far = start.bpipe("listen", "-k", str(path), "--", "cat")
    far.wait_line("listening")
    door = path.with_name("door")
    near = start.bpipe("connect", "--via", by(path), "--from", str(door))
    near.wait_line("connections to")
    for word in (b"one", b"two"):
        client = start.program(*relay(door), stdin=PIPE, stdout=PIPE)
        client.stdin.write(word)
        client.stdin.close()
        assert client.read_all() == word
    near.signal(signal.SIGTERM)
    far.signal(signal.SIGTERM)
    assert {0, -signal.SIGTERM} >= {*finish(near, far)}  # a session may not have ended yet


# --- on a terminal ---

ASK = """
trap 'echo hit > {folder}/hit' INT
printf 'Password: ' > /dev/tty
read answer < /dev/tty
[ "$answer" = secret ] && exec {relay}
echo 'wrong' >&2
exit 1
"""


@pytest.fixture
def asks(path: Path) -> str:
    """A command that asks on the terminal before it leads to the path."""
    script = path.with_name("ask")
    script.write_text(ASK.format(folder=path.parent, relay=by(path)))
    return f"sh {script}"


def test_it_may_ask_on_the_terminal(start: Start, terminal: Open, path: Path, asks: str) -> None:
    receiving = start.bpipe("listen", str(path), stdout=PIPE)
    receiving.wait_line("listening")
    screen = terminal()
    screen.enter(f"bpipe connect --via {shlex.quote(asks)}")
    screen.wait_last("Password:")
    assert b"connecting" not in screen.output
    screen.enter("secret")
    until(lambda: re.search(rb"connected to", screen.output), lambda: str(screen.lines))
    screen.enter("hello")
    screen.press("\x04")
    assert receiving.read_all() == b"hello\n"  # and not the password
    assert receiving.wait() == 0
    screen.wait_last(rf"\{PROMPT}")


def test_an_interrupt_at_its_question_is_ours(terminal: Open, path: Path, asks: str) -> None:
    screen = terminal()
    screen.enter(f"bpipe connect --via {shlex.quote(asks)}; echo status $?")
    screen.wait_last("Password:")
    screen.press("\x03")
    screen.wait_last(rf"\{PROMPT}")
    assert list(carriers()) == []
    assert not path.with_name("hit").exists()


def test_an_interrupt_is_told_over_the_connection_that_it_carries(
    start: Start, terminal: Open, path: Path, asks: str
) -> None:
    receiving = start.bpipe("listen", str(path), "-v", stdout=PIPE)
    receiving.wait_line("listening")
    screen = terminal()
    screen.enter(f"bpipe connect --via {shlex.quote(asks)}")
    screen.wait_last("Password:")
    screen.enter("secret")
    receiving.wait_line("connected")
    until(lambda: re.search(rb"connected to", screen.output), lambda: str(screen.lines))
    screen.press("\x03")
    assert receiving.wait() == 1
    assert "interrupted by SIGINT" in receiving.text
    assert "connection lost" not in receiving.text
    assert not path.with_name("hit").exists()
