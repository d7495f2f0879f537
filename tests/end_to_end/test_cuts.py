"""A stream that goes through a proxy that cuts the connection at chosen bytes arrives whole."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE
from typing import Final

import pytest

from bpipe.demo.faults import Cut, Fault
from bpipe.protocol.wire import HEADER_SIZE, HELLO_SIZE, VERDICT_SIZE
from tests.end_to_end.data import MIB, until
from tests.end_to_end.helpers import Start, finish

CUTS: Final = 50
TOTAL: Final = 50_000_000  # bytes of the folder, at least
UP: Final = HELLO_SIZE + HEADER_SIZE  # bytes of a greeting, from the caller to the listener
DOWN: Final = VERDICT_SIZE + HEADER_SIZE
FRAMES: Final = 3 * HEADER_SIZE  # some headers after it
QUICK: Final = ("--heartbeat", "100ms")
EAGER: Final = (*QUICK, "--retry-max", "10ms")  # which only a caller has


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with many small files, some large ones, and a few odd ones."""
    folder = tmp_path_factory.mktemp("folder")
    shutil.copytree(
        sysconfig.get_path("stdlib"),
        folder / "library",
        symlinks=True,
        ignore=shutil.ignore_patterns("site-packages", "test*", "__pycache__", "config-*", "*.so"),
    )
    rng = random.Random(1)
    size = sum(path.lstat().st_size for path in folder.rglob("*"))
    for number in itertools.count():
        if size >= TOTAL:
            break
        length = rng.randrange(5 * MIB)
        (folder / f"random{number}").write_bytes(rng.randbytes(length))
        size += length
    (folder / "empty").touch()
    (folder / "empty folder").mkdir()
    (folder / "link").symlink_to("random0")
    return folder


def digests(folder: Path) -> dict[str, str]:
    """What is in a folder: the SHA-256 of each file, where each link leads, each folder."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_symlink():
            content = "to " + os.readlink(path)
        elif path.is_dir():
            content = "folder"
        else:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path.relative_to(folder))] = content
    return found


def random_cuts(seed: int) -> Iterator[Cut]:
    """Cuts anywhere, a third of them in the greeting or in the first headers after it."""
    rng = random.Random(seed)
    for number in range(CUTS):
        fault = Fault.SILENCE if number % 10 == 1 else rng.choice([Fault.RESET, Fault.EOF])
        if number % 3:
            yield Cut(fault, True, rng.randrange(TOTAL * 8 // 10 // CUTS * 2))
        elif fault is Fault.SILENCE or rng.random() < 0.5:
            yield Cut(fault, True, UP + rng.randrange(FRAMES))
        else:
            upward = rng.random() < 0.5
            yield Cut(fault, upward, rng.randrange((UP if upward else DOWN) + HEADER_SIZE))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_folder_arrives_whole_through_fifty_cuts(
    start: Start, path: Path, folder: Path, tmp_path: Path, kind: str
) -> None:
    cuts = list(random_cuts(seed=50))
    unix = kind == "unix"
    receiving = start.bpipe("listen", str(path) if unix else "127.0.0.1:0", *QUICK, stdout=PIPE)
    unpack = start.program("tar", "x", "-C", str(tmp_path), stdin=receiving)
    proxy = start.proxy(receiving.address, cuts, path.with_name("proxy") if unix else None)
    pack = start.program("tar", "c", "-C", str(folder), ".", stdout=PIPE)
    sending = start.bpipe("connect", proxy.address, *EAGER, stdin=pack)
    assert finish(pack, sending, receiving, unpack, patience=60) == [0, 0, 0, 0]
    assert len(proxy.faults.made) == CUTS
    assert digests(tmp_path) == digests(folder)


def exchange(start: Start, cuts: list[Cut]) -> None:
    """Two bpipes send data to each other until each of these cuts was made."""
    listener = start.bpipe("listen", "127.0.0.1:0", *QUICK, stdin=PIPE, stdout=PIPE)
    proxy = start.proxy(listener.address, cuts)
    caller = start.bpipe("connect", proxy.address, *EAGER, stdin=PIPE, stdout=PIPE)
    up, down = caller.feed(None), listener.feed(None, offset=5)
    received = listener.drain(), caller.drain(offset=5)
    until(lambda: len(proxy.faults.made) == len(cuts), "the last cut")
    for producer, consumer in zip((up, down), received, strict=True):
        producer.finish()
        assert consumer.wait_end() == producer.written
    assert finish(caller, listener) == [0, 0]


def every_offset(fault: Fault, step: int) -> list[Cut]:
    """A cut after each byte of the greeting, and of some headers after it, both ways.

    Or, to save time, after one in ``step``.

    Those within the CONFIRM of an OPEN come twice: after each, the caller cannot know whether
    its session was created, asks to resume it, and is refused before the next cut.
    """
    cuts = []
    for upward, end in ((True, UP + FRAMES), (False, DOWN + FRAMES)):
        for offset in range(0, end, step):
            times = 2 if upward and HELLO_SIZE <= offset < UP else 1
            cuts += [Cut(fault, upward, offset)] * times
    return cuts


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "first", "step"),
    # That of an OPEN is cut after each in tests/test_pipe_links.py.
    [(Fault.RESET, [], 5), (Fault.EOF, [Cut(Fault.RESET, True, MIB)], 1)],
    ids=["OPEN", "RESUME"],
)
def test_a_cut_after_each_byte_of_the_greeting(
    start: Start, fault: Fault, first: list[Cut], step: int
) -> None:
    exchange(start, first + every_offset(fault, step))


@pytest.mark.parametrize(
    ("fault", "upward"),
    [
        (Fault.RESET, True),
        (Fault.EOF, False),
        pytest.param(Fault.ONE_WAY, True, marks=pytest.mark.slow),
        pytest.param(Fault.ONE_WAY, False, marks=pytest.mark.slow),
    ],
)
def test_a_cut_in_mid_transfer(start: Start, fault: Fault, upward: bool) -> None:
    exchange(start, [Cut(fault, upward, 3 * MIB + 1)])


@pytest.mark.slow
def test_silence_in_the_greeting(start: Start) -> None:
    exchange(start, [Cut(Fault.SILENCE, False, DOWN - 1)])
