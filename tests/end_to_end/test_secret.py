"""A secret on both ends: where it may come from, what else is refused, and that nobody tells it."""

from __future__ import annotations

import base64
import contextlib
import os
import random
import stat
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE
from typing import Final

import pytest

from bpipe.cli.faults import Cut, Fault
from bpipe.protocol.sealed import SealedHandshake
from tests.end_to_end.data import MIB, until
from tests.end_to_end.helpers import Bpipe, Program, Start, finish

PASSPHRASE: Final = "correct horse battery staple"
ONCE: Final = ("--connect-timeout", "500ms")
CUTS: Final = 20


@pytest.fixture
def key(start: Start, tmp_path: Path) -> Path:
    """A key that `bpipe keygen` made."""
    path = tmp_path / "key"
    assert start.bpipe("keygen", str(path)).wait() == 0
    return path


@pytest.fixture
def phrase(tmp_path: Path) -> Path:
    """A file with a passphrase."""
    return write(tmp_path / "phrase", f"{PASSPHRASE}\n".encode())


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """A terminal: the descriptor of who types and reads, and that of the program at it."""
    typist, program = os.openpty()
    yield typist, program
    for descriptor in (typist, program):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def write(path: Path, data: bytes) -> Path:
    """Make a file that only its owner can read."""
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def key_bytes(key: Path) -> bytes:
    """What the text of a key stands for."""
    return base64.urlsafe_b64decode(key.read_text().strip().removeprefix("bpipe1:") + "=")


def public(program: Program) -> bytes:
    """What other people of the machine can see of a program that runs, and what it inherits."""
    return b"".join(
        Path(f"/proc/{program.pid}/{name}").read_bytes() for name in ("cmdline", "environ")
    )


def transfer(caller: Bpipe, listener: Bpipe) -> bytes:
    """Move bytes both ways, up to the end; returns all that was to be seen beside them."""
    caller.wait_connected()
    seen = public(caller) + public(listener)
    caller.feed(2 * MIB)
    listener.feed(MIB, offset=7)
    assert listener.drain().wait_end() == 2 * MIB
    assert caller.drain(offset=7).wait_end() == MIB
    assert finish(caller, listener) == [0, 0]
    return seen + (caller.text + listener.text).encode()


def pair(start: Start, *options: str) -> tuple[Bpipe, Bpipe]:
    """A caller and a listener that say all they can."""
    listener = start.bpipe("listen", "127.0.0.1:0", "-v", *options, stdin=PIPE, stdout=PIPE)
    caller = start.bpipe("connect", listener.address, "-v", *options, stdin=PIPE, stdout=PIPE)
    return caller, listener


# --- with the right one ---


def test_a_key_is_new_and_for_its_owner_alone(start: Start, key: Path) -> None:
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert len(key_bytes(key)) == 32
    text = key.read_text()
    again = start.bpipe("keygen", str(key))
    assert again.wait() == 1
    assert again.lines == [f"bpipe: {key} exists, and may be in use: name a new file"]
    assert key.read_text() == text


def test_with_a_key_everything_arrives_and_the_key_is_nowhere(start: Start, key: Path) -> None:
    seen = transfer(*pair(start, "--secret", str(key)))
    raw = key_bytes(key)
    for form in (raw, raw.hex().encode(), key.read_bytes().strip().removeprefix(b"bpipe1:")):
        assert form not in seen


def test_the_environment_may_name_the_file(
    start: Start, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BPIPE_SECRET_FILE", str(key))
    caller, listener = pair(start)
    monkeypatch.delenv("BPIPE_SECRET_FILE")
    plain = start.bpipe("connect", listener.address, *ONCE)
    assert plain.wait() == 3  # so it is a secret indeed
    transfer(caller, listener)


def test_with_a_passphrase_everything_arrives_and_it_is_nowhere(start: Start, phrase: Path) -> None:
    assert PASSPHRASE.encode() not in transfer(*pair(start, "--secret", str(phrase)))


def test_a_secret_may_be_typed(start: Start, phrase: Path, terminal: tuple[int, int]) -> None:
    typist, program = terminal
    screen = b""

    def look() -> bool:
        nonlocal screen
        with contextlib.suppress(BlockingIOError):
            screen += os.read(typist, 1000)
        return b"Secret: " in screen

    listener = start.bpipe("listen", "127.0.0.1:0", "--secret", str(phrase), stdin=PIPE)
    at_terminal = 'exec setsid --ctty "$@"'
    arguments = "connect", listener.address, "--ask-secret", "-v"
    caller = start.bpipe(*arguments, stdin=program, stdout=PIPE, shell=at_terminal)
    os.set_blocking(typist, False)
    until(look, "the question on the terminal")
    os.write(typist, f"{PASSPHRASE}\n".encode())
    listener.feed(MIB)
    assert caller.drain().wait_end() == MIB
    assert finish(caller, listener) == [0, 0]
    look()
    assert PASSPHRASE.encode() not in screen + caller.text.encode()


def test_sealed_streams_arrive_whole_through_cuts(start: Start, key: Path) -> None:
    rng = random.Random(CUTS)
    greeting = SealedHandshake.hello_size + SealedHandshake.frame_size
    cuts = [
        Cut(
            rng.choice([Fault.RESET, Fault.EOF]),
            rng.random() < 0.5,
            rng.randrange(greeting if number % 3 == 0 else 2 * MIB),
        )
        for number in range(CUTS)
    ]
    options = "--secret", str(key), "--heartbeat", "100ms"
    listener = start.bpipe("listen", "127.0.0.1:0", *options, stdin=PIPE, stdout=PIPE)
    proxy = start.proxy(listener.address, cuts)
    eager = (*options, "--retry-max", "5ms")
    caller = start.bpipe("connect", proxy.address, *eager, stdin=PIPE, stdout=PIPE)
    producers = caller.feed(None), listener.feed(None, offset=5)
    consumers = listener.drain(), caller.drain(offset=5)
    until(lambda: proxy.faults.connections > CUTS, "the connection after the last cut")
    for producer, consumer in zip(producers, consumers, strict=True):
        producer.finish()
        assert consumer.wait_end() == producer.written
    assert finish(caller, listener) == [0, 0]
    assert len(proxy.faults.made) > CUTS // 2  # the others, where another attempt overtook


# --- with a wrong one ---


@pytest.mark.parametrize(
    ("listens", "calls", "advice"),
    [
        ("key", "other", "is it bpipe, with the same secret?"),
        ("key", None, "is it bpipe, and without a secret?"),
        (None, "key", "is it bpipe, with the same secret?"),
    ],
)
def test_who_has_another_secret_never_connects(
    start: Start, key: Path, listens: str | None, calls: str | None, advice: str
) -> None:
    other = key.with_name("other")
    assert start.bpipe("keygen", str(other)).wait() == 0

    def having(name: str | None) -> list[str]:
        return [] if name is None else ["--secret", str(key.with_name(name))]

    listener = start.bpipe("listen", "127.0.0.1:0", *having(listens), stdin=PIPE, stdout=PIPE)
    caller = start.bpipe("connect", listener.address, "-v", *having(calls), *ONCE)
    assert caller.wait() == 3
    assert advice in caller.text
    right = start.bpipe("connect", listener.address, *having(listens), stdin=PIPE, stdout=PIPE)
    transfer(right, listener)  # he was in nobody's way


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (None, 0, "No such file"),
        (PASSPHRASE.encode(), 0o640, "chmod 600 it"),
        (b"tooclose", 0o600, "a passphrase has at least 12 characters"),
        (b"bpipe1:c2hvcnQ", 0o600, "damaged key"),
        (b"\x80\xff" * 16, 0o600, "is not text"),
        (b"x" * 5000, 0o600, "longer than 4096 bytes"),
    ],
)
def test_what_is_no_secret_is_one_line(
    start: Start, tmp_path: Path, content: bytes | None, mode: int, said: str
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        write(path, content).chmod(mode)
    program = start.bpipe("listen", "127.0.0.1:0", "-v", "--secret", str(path))
    assert program.wait() == 2
    assert len(program.lines) == 1
    assert str(path) in program.text
    assert said.lower() in program.text.lower()
    if content is not None:
        assert content.removeprefix(b"bpipe1:") not in program.text.encode()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--secret", "{key}", "--insecure"], "--insecure and the secret {key} contradict"),
        (["--secret", "{key}", "--ask-secret"], "--secret and --ask-secret contradict"),
        (["--ask-secret"], "no terminal to ask for the secret on"),
    ],
)
def test_options_that_contradict_each_other(
    start: Start, key: Path, options: list[str], said: str
) -> None:
    arguments = [option.format(key=key) for option in options]
    program = start.bpipe("listen", "127.0.0.1:0", *arguments, shell='exec setsid "$@"')
    assert program.wait() == 2
    assert said.format(key=key) in program.text
