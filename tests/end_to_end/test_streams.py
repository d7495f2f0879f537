"""stdin, stdout and stderr as anything that a shell can make them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.end_to_end.data import MIB, Consumer, Producer, pattern, until
from tests.end_to_end.helpers import Program, Start, finish
from tests.support.scheduling import CHOOSING

SIZE = 3 * MIB + 7
SIDES = pytest.mark.parametrize("side", ["connect", "listen"])


def other(side: str) -> str:
    """The command at the other side."""
    return "listen" if side == "connect" else "connect"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A regular file with test data."""
    path = tmp_path / "data"
    with path.open("wb") as sink:
        for at in range(0, SIZE, MIB // 2):
            sink.write(pattern(at, min(MIB // 2, SIZE - at)))
    return path


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """A terminal: the descriptor of who types and reads, and that of the program at it."""
    typist, program = os.openpty()
    yield typist, program
    for descriptor in (typist, program):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def patient(program: Program) -> bool:
    """Whether a thread of it lets others have their turn."""
    threads = map(int, os.listdir(f"/proc/{program.pid}/task"))
    return os.SCHED_BATCH in map(os.sched_getscheduler, threads)


def prompt(program: Program) -> bool:
    """Whether its event loop does not, which moves what is little; pumps only wait meanwhile."""
    return os.sched_getscheduler(program.pid) == os.SCHED_OTHER


@CHOOSING
def test_bulk_is_moved_in_patient_turns_and_what_comes_after_it_in_prompt_ones(
    start: Start,
) -> None:
    receiver = start.bpipe("listen", "127.0.0.1:0", stdout=PIPE)
    sender = start.bpipe("connect", receiver.address, stdin=PIPE)
    consumer, written = receiver.drain(), 0

    def write_until(condition: Callable[[], bool], pieces: int, size: int) -> None:
        def look() -> bool:
            nonlocal written
            for _ in range(pieces):
                sender.stdin.write(pattern(written, size))
                written += size
            return condition()

        until(look, f"the policy while {size} bytes are written at once")

    for program in (sender, receiver):
        write_until(partial(patient, program), 64, 1 << 17)
    for program in (sender, receiver):
        write_until(partial(prompt, program), 1, 1)
    sender.stdin.close()
    assert finish(sender, receiver) == [0, 0]
    assert consumer.wait_end() == written


def read_screen(typist: int, until_seen: bytes) -> None:
    """Read what is on the terminal until this is."""
    seen = b""
    os.set_blocking(typist, False)

    def look() -> bool:
        nonlocal seen
        with contextlib.suppress(BlockingIOError):
            seen += os.read(typist, 1 << 16)
        return until_seen in seen

    until(look, f"{until_seen!r} on the terminal")


# --- stdin ---


def test_stdin_and_stdout_are_regular_files(
    start: Start, path: Path, file: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    with file.open("rb") as source, copy.open("wb") as sink:
        sending = start.bpipe("listen", str(path), stdin=source)
        receiving = start.bpipe("connect", str(path), stdout=sink)
    assert finish(sending, receiving) == [0, 0]
    assert copy.read_bytes() == file.read_bytes()


def test_a_file_is_read_from_its_position_and_appended_to(
    start: Start, path: Path, file: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    copy.write_bytes(b"before")
    with file.open("rb", buffering=0) as source, copy.open("ab") as sink:
        source.seek(1000)
        sending = start.bpipe("connect", str(path), stdin=source)
        receiving = start.bpipe("listen", str(path), stdout=sink)
        assert finish(sending, receiving) == [0, 0]
    assert copy.read_bytes() == b"before" + file.read_bytes()[1000:]


@pytest.mark.parametrize(
    ("side", "redirection"),
    [
        ("connect", "</dev/null"),
        ("listen", "0<&-"),
        ("listen", "0>/dev/null"),  # as nohup(1) leaves it at a terminal
        ("connect", "0>/dev/null"),
    ],
)
def test_no_stdin_is_an_empty_stream(start: Start, path: Path, side: str, redirection: str) -> None:
    sending = start.bpipe(side, str(path), shell=f'exec "$@" {redirection}')
    receiving = start.bpipe(other(side), str(path), stdin=PIPE, stdout=PIPE)
    assert receiving.read_all() == b""
    receiving.stdin.close()
    assert finish(sending, receiving) == [0, 0]


def test_a_stdin_that_cannot_be_read_ends_both_and_both_say_why(start: Start, path: Path) -> None:
    with socket.socket() as lonely:
        sending = start.bpipe("connect", str(path), stdin=lonely.fileno())
    receiving = start.bpipe("listen", str(path), stdin=PIPE, stdout=PIPE)
    assert finish(sending, receiving) == [1, 1]
    for end in (sending, receiving):
        assert "cannot read stdin: transport endpoint is not connected" in end.text


@pytest.mark.parametrize("size", [7, 900_000], ids=["little", "much"])
def test_a_stdin_that_breaks_is_not_taken_for_one_that_ends(
    start: Start, path: Path, size: int
) -> None:
    near, far = socket.socketpair()
    with near:
        near.sendall(b"never read")  # so that a close of the other end resets the connection
        sending = start.bpipe("connect", str(path), stdin=near.fileno())
    receiving = start.bpipe("listen", str(path), stdout=PIPE)
    consumer = receiving.drain()
    with far:
        far.sendall(pattern(0, size))
        consumer.wait_count(size)
    assert consumer.wait_end() == size
    assert finish(sending, receiving) == [1, 1]
    for end in (sending, receiving):
        assert "cannot read stdin: connection reset by peer" in end.text


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_much_and_little_take_turns(start: Start, path: Path, kind: str) -> None:
    if kind == "pipe":
        stdin, feed = os.pipe()
    else:
        stdin, feed = (end.detach() for end in socket.socketpair())
    with open(stdin, "rb", buffering=0) as source:
        sending = start.bpipe("connect", str(path), stdin=source)
    receiving = start.bpipe("listen", str(path), stdout=PIPE)
    consumer = receiving.drain()
    total = 0
    with open(feed, "wb", buffering=0) as file:
        for size in [1, 2, 3 * MIB, *[1] * 40, MIB // 2, 7, 900_000, 900_000, 5]:
            end = total + size
            while total < end:
                total += os.write(file.fileno(), pattern(total, min(MIB // 2, end - total)))
            consumer.wait_count(total)
    assert consumer.wait_end() == total
    assert finish(sending, receiving) == [0, 0]


# --- stdout ---


@pytest.mark.parametrize(
    ("side", "redirection", "reason"),
    [
        ("connect", ">/dev/full", "cannot write stdout: no space left on device"),
        ("listen", ">/dev/full", "cannot write stdout: no space left on device"),
        ("listen", "1>&-", "cannot write stdout: bad file descriptor"),
    ],
)
def test_a_stdout_that_fails_ends_both_and_both_say_why(
    start: Start, path: Path, side: str, redirection: str, reason: str
) -> None:
    receiving = start.bpipe(side, str(path), shell=f'exec "$@" {redirection}', stdin=PIPE)
    sending = start.bpipe(other(side), str(path), stdin=PIPE, stdout=PIPE)
    producer = sending.feed(None)
    assert finish(receiving, sending) == [1, 1]
    assert reason in receiving.text
    assert reason in sending.text
    producer.wait_broken()


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET], ids=["Unix", "TCP"])
def test_a_consumer_that_resets_its_socket_has_closed_it(
    start: Start, path: Path, family: socket.AddressFamily
) -> None:
    """So it does when it leaves with unread bytes."""
    if family == socket.AF_UNIX:
        ours, theirs = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as server:
            ours = socket.create_connection(server.getsockname())
            theirs = server.accept()[0]
    with theirs:
        receiving = start.bpipe("listen", str(path), stdout=theirs.fileno())
    sending = start.bpipe("connect", str(path), stdin=PIPE)
    producer = sending.feed(None)
    with ours:
        until(lambda: len(ours.recv(1 << 20, socket.MSG_PEEK)) > 1000, "bytes that nobody reads")
    assert finish(receiving, sending) == [141, 141]
    producer.wait_broken()


@SIDES
def test_a_socket_that_was_shut_down_has_no_consumer(start: Start, path: Path, side: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.shutdown(socket.SHUT_WR)
        receiving = start.bpipe(side, str(path), stdout=theirs.fileno())
        sending = start.bpipe(other(side), str(path), stdin=PIPE)
        producer = sending.feed(None)
        assert finish(receiving, sending) == [141, 141]
        producer.wait_broken()


def test_a_socket_that_was_never_connected_has_no_consumer(start: Start, path: Path) -> None:
    with socket.socket() as lonely:
        receiving = start.bpipe("listen", str(path), stdout=lonely.fileno())
    sending = start.bpipe("connect", str(path), stdin=PIPE)
    producer = sending.feed(None)
    assert finish(receiving, sending) == [141, 141]
    producer.wait_broken()


def test_an_empty_stream_does_not_need_stdout(start: Start, path: Path) -> None:
    receiving = start.bpipe("listen", str(path), shell='exec "$@" 1>&-')
    sending = start.bpipe("connect", str(path))
    assert finish(receiving, sending) == [0, 0]


def test_stdout_is_closed_when_the_stream_ends_and_not_when_the_process_does(
    start: Start, path: Path
) -> None:
    receiving = start.bpipe("listen", str(path), stdin=PIPE, stdout=PIPE)
    sending = start.bpipe("connect", str(path), stdin=PIPE)
    sending.feed(10)
    assert receiving.drain().wait_end() == 10
    assert receiving.running
    assert sending.running


def test_stdin_and_stdout_are_the_same_socket(start: Start, path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, open(os.dup(ours.fileno()), "rb", buffering=0) as file:
        with theirs:
            near = start.bpipe("listen", str(path), stdin=theirs.fileno(), stdout=theirs.fileno())
        far = start.bpipe("connect", str(path), stdin=PIPE, stdout=PIPE)
        far.feed(5 * MIB)
        assert Consumer(file).wait_end() == 5 * MIB  # the other direction is still open
        ours.sendall(b"answer")
        ours.shutdown(socket.SHUT_WR)
        assert far.read_all() == b"answer"
        assert finish(near, far) == [0, 0]


# --- stderr ---


def test_stderr_is_closed(start: Start, path: Path) -> None:
    closed = 'exec "$@" 2>&-'
    receiving = start.bpipe("listen", str(path), "-v", shell=closed, stdout=PIPE)
    sending = start.bpipe("connect", str(path), "-v", shell=closed, stdin=PIPE, stdout=PIPE)
    sending.feed(MIB)
    assert receiving.drain().wait_end() == MIB
    assert sending.read_all() == b""
    assert finish(receiving, sending) == [0, 0]
    assert receiving.lines == sending.lines == []


@pytest.mark.parametrize("arguments", [["connect", "1:2:3"], ["connect"], ["listen", "192.0.2.1"]])
def test_an_error_that_stderr_cannot_take_does_not_go_to_stdout(
    start: Start, arguments: list[str]
) -> None:
    bpipe = start.bpipe(*arguments, shell='exec "$@" 2>&-', stdout=PIPE)
    assert bpipe.read_all() == b""
    assert bpipe.wait() == 2


@pytest.mark.slow
def test_a_stderr_that_nobody_reads_does_not_hold_up_the_data(start: Start, path: Path) -> None:
    unread, full = os.pipe()
    os.set_blocking(full, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(full, bytes(1 << 16))
    os.set_blocking(full, True)
    with open(full, "wb") as stderr, open(unread, "rb"):
        receiving = start.bpipe("listen", str(path), "-v", stdout=PIPE, stderr=stderr)
        sending = start.bpipe("connect", str(path), "-v", stdin=PIPE, stderr=stderr)
        producer = sending.feed(None)
        consumer = receiving.drain()
        for _ in range(200):  # more lines than are kept
            consumer.wait_count(consumer.count + MIB // 2)
            receiving.signal(signal.SIGUSR1)
            sending.signal(signal.SIGUSR1)
        consumer.wait_count(consumer.count + 5 * MIB)
        sending.signal(signal.SIGTERM)
        assert finish(sending, receiving) == [-15, 1]
        consumer.wait_end()
        producer.wait_broken()


# --- terminals ---


def test_what_is_typed_at_a_terminal_is_sent(
    start: Start, path: Path, terminal: tuple[int, int]
) -> None:
    typist, program = terminal
    with open(program, "wb", buffering=0) as screen:
        near = start.bpipe("connect", str(path), stdin=screen, stdout=screen)
    far = start.bpipe("listen", str(path), stdin=PIPE, stdout=PIPE)
    os.write(typist, b"typed\n")
    assert os.read(far.stdout.fileno(), 100) == b"typed\n"
    far.stdin.write(b"answered\n")
    far.stdin.close()
    read_screen(typist, b"answered")
    os.write(typist, b"last\n\x04")
    assert far.read_all() == b"last\n"
    assert finish(near, far) == [0, 0]


@SIDES
def test_a_terminal_is_not_read_when_stdout_is_none(
    start: Start, path: Path, side: str, terminal: tuple[int, int]
) -> None:
    typist, program = terminal
    with open(program, "rb", buffering=0) as keyboard:
        near = start.bpipe(side, str(path), stdin=keyboard, stdout=PIPE)
        os.write(typist, b"for the shell\n")
        far = start.bpipe(other(side), str(path), stdin=PIPE, stdout=PIPE)
        assert far.read_all() == b""
        far.feed(MIB)
        assert near.drain().wait_end() == MIB
        assert finish(near, far) == [0, 0]
        assert os.read(keyboard.fileno(), 100) == b"for the shell\n"


def test_send_only_reads_a_terminal_whatever_stdout_is(
    start: Start, path: Path, terminal: tuple[int, int]
) -> None:
    typist, program = terminal
    with open(program, "rb", buffering=0) as keyboard:
        near = start.bpipe("connect", str(path), "--send-only", stdin=keyboard, stdout=PIPE)
    far = start.bpipe("listen", str(path), stdout=PIPE)
    os.write(typist, b"typed\n\x04")
    assert far.read_all() == b"typed\n"
    assert finish(near, far) == [0, 0]


HANGING_UP = """
import fcntl, os, signal, sys, termios
if sys.argv[1] == "session":
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
if sys.argv[1] == "deaf":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, "-m", "bpipe", *sys.argv[2:]])
"""


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("session", -signal.SIGHUP),
        ("foreign", -signal.SIGHUP),  # not that of its session: of its end nobody tells
        ("deaf", 1),  # it ignores SIGHUP
    ],
)
@pytest.mark.parametrize(
    ("side", "typed"),
    [("connect", b""), ("listen", b"a line\n"), ("connect", b"half a line")],
    ids=["nothing", "a line", "half a line"],
)
def test_a_terminal_that_hangs_up_is_an_interruption_at_both_ends(
    start: Start, path: Path, kind: str, status: int, side: str, typed: bytes
) -> None:
    typist, keyboard = os.openpty()
    with open(keyboard, "wb", buffering=0) as terminal:
        near = start.program(
            *(sys.executable, "-c", HANGING_UP, kind, side, str(path)),
            stdin=terminal,
            stdout=terminal,
        )
    far = start.bpipe(other(side), str(path))
    far.wait_connected()
    near.wait_line("^bpipe: connected to ")  # a caller is connected later than its listener
    os.write(typist, typed)
    os.close(typist)
    assert finish(near, far) == [status, 1]
    assert re.search("interrupted by SIGHUP|its terminal has hung up", far.text)


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_a_terminal_behind_stdout_that_hangs_up_is_no_satisfied_consumer(
    start: Start, path: Path, busy: bool
) -> None:
    typist, program = os.openpty()
    with open(program, "wb", buffering=0) as screen:
        near = start.bpipe("listen", str(path), stdout=screen)
    far = start.bpipe("connect", str(path), stdin=PIPE)
    far.wait_connected()
    if busy:
        far.feed(None).wait_stuck(1)  # as nobody reads what is on the screen
    os.close(typist)
    assert finish(near, far) == [-signal.SIGHUP, 1]


# --- flags of descriptors that others share ---


@pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "nonblocking"])
def test_the_flags_of_stdin_and_stdout_stay_as_they_are(
    start: Start, path: Path, blocking: bool
) -> None:
    stdin, feed = os.pipe()
    drain, stdout = os.pipe()
    for descriptor in (stdin, stdout):
        os.set_blocking(descriptor, blocking)

    def flags() -> list[int]:
        return [fcntl.fcntl(descriptor, fcntl.F_GETFL) for descriptor in (stdin, stdout)]

    before = flags()
    with open(stdin, "rb", buffering=0) as source, open(stdout, "wb", buffering=0) as sink:
        sending = start.bpipe("connect", str(path), stdin=source)
        receiving = start.bpipe("listen", str(path), stdout=sink)
        producer = Producer(open(feed, "wb", buffering=0), 20 * MIB)
        producer.wait_written(5 * MIB)  # more than fits into stdout
        consumer = Consumer(open(drain, "rb", buffering=0))
        consumer.wait_count(5 * MIB)
        assert flags() == before
        assert finish(sending, receiving) == [0, 0]
        assert flags() == before
    assert consumer.wait_end() == 20 * MIB
