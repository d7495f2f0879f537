"""A relay: who it talks to, what it carries, and what becomes of it. Its holder is the test."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.far import Far, Token, listen
from tests.support.remote import NEWEST, OLDEST, python

STREAM = random.Random(1).randbytes(3 << 20)


@pytest.fixture(params=[OLDEST, NEWEST], ids=["3.9", "3.13"])
def folder(request: pytest.FixtureRequest) -> Path:
    """One that copies, and one that splices."""
    return python(request.param)


@pytest.fixture(params=["pipes", "socket"])
def far(request: pytest.FixtureRequest, folder: Path) -> Iterator[Far]:
    with Far(folder, pipes=request.param == "pipes") as far:
        yield far


@pytest.fixture
def token() -> Token:
    return Token()


def meet(token: Token, listening: socket.socket) -> socket.socket:
    """The next relay comes, and knows the token."""
    with listening:
        sock, _ = listening.accept()
    sock.settimeout(20)
    assert sock.recv(16, socket.MSG_WAITALL) == token.bytes[:16]
    sock.sendall(token.bytes[16:])
    return sock


def connected(far: Far, token: Token) -> socket.socket:
    """The holder's end of its connection."""
    listening = listen(token)
    found: list[socket.socket] = []
    thread = threading.Thread(target=lambda: found.append(meet(token, listening)))
    thread.start()
    answer = far.answer(token.relay, token.words["nonce"])
    thread.join(20)
    assert answer["holder"] == "there"
    assert answer["name"] == os.uname().nodename
    assert answer["name"] in answer["at"]
    return found[0]


def test_it_carries_both_ways(far: Far, token: Token) -> None:
    with connected(far, token) as holder:
        sender = threading.Thread(target=far.send, args=[STREAM])
        answerer = threading.Thread(target=holder.sendall, args=[STREAM[::-1]])
        heard = bytearray()

        def hear() -> None:
            while len(heard) < len(STREAM):
                heard.extend(holder.recv(1 << 16))

        hearer = threading.Thread(target=hear)
        for each in (sender, answerer, hearer):
            each.start()
        assert far.read(len(STREAM)) == STREAM[::-1]
        for each in (sender, answerer, hearer):
            each.join(20)
        assert heard == STREAM


def test_it_ends_with_the_link_and_what_was_said_last_comes(far: Far, token: Token) -> None:
    with connected(far, token) as holder:
        holder.sendall(b"x" * 100_000)
    assert far.read(200_000) == b"x" * 100_000
    assert far.end() == 0


def test_it_ends_although_nobody_takes_what_was_said_last(token: Token, folder: Path) -> None:
    with Far(folder, pipes=True) as far, connected(far, token) as holder:
        holder.settimeout(1)
        with contextlib.suppress(socket.timeout):  # when everything on the way is full
            holder.sendall(STREAM)
        holder.close()
        assert far.end() == 0


def test_an_end_of_its_stdin_is_told(far: Far, token: Token) -> None:
    with connected(far, token) as holder:
        far.send(b"last")
        far.say_end()
        assert holder.recv(100) + holder.recv(100) == b"last"
        holder.sendall(b"answer")
        assert far.read(6) == b"answer"


def test_it_ends_when_nobody_hears_it(token: Token, folder: Path) -> None:
    with Far(folder, pipes=True) as far, connected(far, token) as holder:
        os.close(far.hears)
        far.hears = -1
        assert far.end() == 0
        assert holder.recv(1) == b""


def test_without_a_holder_it_ends(far: Far, token: Token) -> None:
    assert far.answer(token.relay, token.words["nonce"])["holder"] == "none"
    assert far.end() == 0


def test_who_does_not_know_the_token_is_no_holder(token: Token, folder: Path) -> None:
    with Far(folder) as far, listen(token) as listening:

        def pretend() -> None:
            with listening.accept()[0] as sock:
                sock.recv(16)
                sock.sendall(bytes(16))

        thread = threading.Thread(target=pretend)
        thread.start()
        assert far.answer(token.relay, token.words["nonce"])["holder"] == "none"
        thread.join(20)


@pytest.mark.parametrize("starts", [False, True])
def test_a_holder_that_is_busy_may_answer_the_next_time(token: Token, starts: bool) -> None:
    token.words["patience"] = 0.1
    with Far(python(OLDEST)) as far, listen(token):
        line = token.starter("true") if starts else token.relay
        answer = far.answer(line, token.words["nonce"])
    assert answer == {"error": "the holder there does not answer in 0.1 s", "final": False}


@pytest.fixture
def stranger(token: Token) -> Iterator[None]:
    """Another user has the name, and knows the whole token."""
    if os.geteuid():
        pytest.skip("only root can be another user")
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setresuid(65534, 65534, 65534)
            listening = listen(token)
            listening.settimeout(None)
            os.write(writer, b".")
            while True:
                with contextlib.suppress(ConnectionError), listening.accept()[0] as sock:
                    sock.sendall(token.bytes[16:])
                    sock.recv(100)
        finally:
            os._exit(0)
    os.read(reader, 1)
    yield
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reader)
    os.close(writer)


@pytest.mark.usefixtures("stranger")
def test_another_user_is_no_holder(token: Token, folder: Path) -> None:
    with Far(folder) as far:
        assert far.answer(token.relay, token.words["nonce"])["holder"] == "none"
    with Far(folder) as far:
        error = far.answer(token.starter("true"), token.words["nonce"])["error"]
        assert "is another process's" in error


def test_what_lies_in_the_folder_is_not_imported(
    token: Token, folder: Path, tmp_path: Path
) -> None:
    for name in ("code", "socket", "os", "json", "zlib", "bpipe", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('led astray')")
    before = sorted(tmp_path.iterdir())
    more = {"PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "os.py"), "TERM": "vt52"}
    with Far(folder, cwd=tmp_path, env={**os.environ, **more}) as far:
        assert far.answer(token.relay, token.words["nonce"])["holder"] == "none"
        far.hang_up()
        assert far.end() == 0
    assert sorted(tmp_path.iterdir()) == before
