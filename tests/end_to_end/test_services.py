"""Processes with many sessions, as users start them: listen -k, --to, connect --from."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.end_to_end.data import until
from tests.end_to_end.helpers import Bpipe, Start, finish

pytestmark = pytest.mark.slow

ANSWER = "read status; echo answer $status; exit $status"


def serve(start: Start, *more: str, program: str = ANSWER) -> Bpipe:
    """A service that answers with what it is asked for, and exits with that."""
    return start.bpipe("listen", "127.0.0.1:0", "-k", *more, "--", "sh", "-c", program)


def ask(start: Start, service: Bpipe, question: str, *more: str) -> Bpipe:
    caller = start.bpipe("connect", service.address, *more, stdin=PIPE, stdout=PIPE)
    caller.stdin.write(question.encode())
    caller.stdin.close()
    return caller


def test_each_caller_has_a_program_of_its_own(start: Start) -> None:
    service = serve(start)
    callers = [ask(start, service, f"{number}\n") for number in (0, 7, 255)]
    assert [caller.read_all() for caller in callers] == [
        b"answer 0\n",
        b"answer 7\n",
        b"answer 255\n",
    ]
    assert finish(*callers) == [0, 7, 255]
    service.wait_line("^bpipe: session .: .*: the program exited with status 255; ")
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    assert service.lines[-1].startswith("bpipe: served 3 sessions, 2 failed; ")


def test_one_too_many_has_to_wait_and_comes_in_then(start: Start) -> None:
    service = serve(start, "--max-sessions", "1")
    first = start.bpipe("connect", service.address, stdin=PIPE, stdout=PIPE)
    first.wait_connected()
    service.wait_line("^bpipe: session 1: connected to ")
    second = ask(start, service, "3\n", "-v")
    second.wait_line("the listener takes no more callers for now")
    first.stdin.write(b"4\n")
    first.stdin.close()
    assert finish(first, second) == [4, 3]


def test_stopped_it_serves_who_is_there_to_the_end(start: Start) -> None:
    service = serve(start, "--drain", "1h")
    caller = start.bpipe("connect", service.address, stdin=PIPE, stdout=PIPE)
    service.wait_line("^bpipe: session 1: connected to ")
    service.signal(signal.SIGTERM)
    service.wait_line("no more sessions are taken; 1 may go on for 1h00m")
    caller.stdin.write(b"0\n")
    caller.stdin.close()
    assert finish(caller, service) == [0, 0]


def test_a_program_that_does_not_end_is_killed_at_the_second_signal(start: Start) -> None:
    service = serve(start, program="trap '' TERM; echo ready; while :; do read x || sleep 1; done")
    caller = start.bpipe("connect", service.address, stdin=PIPE, stdout=PIPE)
    assert caller.stdout.read(6) == b"ready\n"
    service.signal(signal.SIGTERM)
    assert caller.wait() == 1  # it is told at once
    service.signal(signal.SIGINT)
    assert service.wait(4.0) == -signal.SIGTERM  # before the five seconds that programs have


def test_all_is_told_of_all_and_of_each(start: Start, tmp_path: Path) -> None:
    log = tmp_path / "log"
    service = serve(start, "--log-json", str(log))
    callers = [start.bpipe("connect", service.address, stdin=PIPE, stdout=PIPE) for _ in range(2)]
    service.wait_line("^bpipe: session 2: connected to ")
    service.signal(signal.SIGUSR1)
    service.wait_line("^bpipe: 2 sessions; 2 in all; ")
    for number in (1, 2):
        service.wait_line(rf"^bpipe: session {number}: connected 127\.0\.0\.1:\d+; sent 0 B, ")
    for caller in callers:
        caller.stdin.write(b"9\n")
    assert finish(*callers) == [9, 9]
    service.wait_line("the program exited with status 9", times=2)
    service.signal(signal.SIGINT)
    assert service.wait() == -signal.SIGINT
    events = [json.loads(line) for line in log.read_text().splitlines()]
    done = [event for event in events if event["event"] == "done"]
    assert [event.get("from") for event in done] == ["program", "program", None]
    assert len({event["session"] for event in done[:2]}) == 2
    last = [event for event in events if event["event"] == "listener"][-1]
    assert (last["served"], last["failed"], last["sessions"]) == (2, 2, 0)


def test_a_program_knows_its_caller_and_its_session(start: Start, tmp_path: Path) -> None:
    log = tmp_path / "log"
    show = 'echo "$BPIPE_PEER $BPIPE_SESSION"'
    service = serve(start, "--log-json", str(log), program=show)
    callers = [ask(start, service, "") for _ in range(2)]
    shown = {caller.read_all().decode().strip() for caller in callers}
    assert finish(*callers) == [0, 0]
    service.signal(signal.SIGTERM)
    service.wait()
    events = [json.loads(line) for line in log.read_text().splitlines()]
    told = {f"{each['peer']} {each['session']}" for each in events if each["event"] == "connected"}
    assert shown == told


@pytest.fixture
def echo() -> Iterator[str]:
    """A service that sends back what it gets, and ends when that does; its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer(sock: socket.socket) -> None:
            with sock:
                while data := sock.recv(65536):
                    sock.sendall(data)

        def accept() -> None:
            while True:
                try:
                    sock, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=[sock], daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)


def test_a_caller_is_joined_to_a_service(start: Start, echo: str) -> None:
    listener = start.bpipe("listen", "127.0.0.1:0", "--to", echo)
    caller = ask(start, listener, "hello")
    assert caller.read_all() == b"hello"
    assert finish(caller, listener) == [0, 0]


def test_a_service_that_is_not_there_is_told_at_the_other_end(start: Start) -> None:
    listener = start.bpipe("listen", "127.0.0.1:0", "-k", "--to", "localhost:1")
    caller = ask(start, listener, "hello")
    assert caller.wait() == 1
    caller.wait_line('the other end: "cannot connect to localhost:1: connection refused"')
    listener.wait_line("^bpipe: session 1: .*: cannot connect to localhost:1: connection refused")


def test_connections_that_are_made_here_are_carried_to_a_service(start: Start, echo: str) -> None:
    listener = start.bpipe("listen", "127.0.0.1:0", "-k", "--to", echo)
    here = start.bpipe("connect", listener.address, "--from", "127.0.0.1:0")
    line = here.wait_line("^bpipe: connections to ")
    host, _, port = line.split()[3].rpartition(":")
    socks = [socket.create_connection((host, int(port))) for _ in range(3)]
    for number, sock in enumerate(socks):
        with sock:
            sock.sendall(bytes([number]) * 300_000)
            sock.shutdown(socket.SHUT_WR)
            got = b""
            while data := sock.recv(65536):
                got += data
            assert got == bytes([number]) * 300_000
    here.wait_line("all delivered", times=3)
    for each in (here, listener):
        each.signal(signal.SIGTERM)
    assert finish(here, listener) == [0, 0]


def test_a_door_is_only_for_those_who_may_pass(start: Start, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as service:
        service.bind(str(path))
        service.listen()
        listener = start.bpipe("listen", f"unix:{path}.in", "-k", "--to", str(path))
        here = start.bpipe("connect", listener.address, "--from", f"unix:{path}.door")
        here.wait_line("^bpipe: connections to ")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(f"{path}.door")
            sock.sendall(b"in")
            far, _ = service.accept()
            with far:
                assert far.recv(2) == b"in"
        here.signal(signal.SIGINT)
        assert here.wait() == -signal.SIGINT
        until(lambda: not Path(f"{path}.door").exists(), "the door is gone")
