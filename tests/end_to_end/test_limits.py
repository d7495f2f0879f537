"""What the system may refuse: descriptors, memory, threads, and what else a process expects."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.end_to_end.helpers import Program, Start, finish
from tests.end_to_end.test_streams import SIDES, other

SIZE = 300_000
UNSEEMLY = ("Traceback", "Exception ignored", "error in bpipe itself", "Fatal Python error")

WITHOUT = """
import errno, os, sys, threading
from bpipe.__main__ import main

def refuse(*arguments, **options):
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

def start_some(thread, start=threading.Thread.start):
    if not left:
        raise RuntimeError("can't start new thread")
    left.pop()
    start(thread)

what = sys.argv.pop(1)
if what == "pipes":
    os.pipe = refuse
elif what == "memory":
    os.readv = lambda *arguments: bytes(1 << 60)
elif what == "null":
    os.devnull = "/nowhere/null"
elif what == "cryptography":
    sys.modules["cryptography"] = None
else:
    left = [None] * int(what)
    threading.Thread.start = start_some
main()
"""


def without(start: Start, what: str, *arguments: str) -> Program:
    """A bpipe that lacks this, or has so many threads and no more."""
    return start.program(sys.executable, "-c", WITHOUT, what, *arguments, stdin=PIPE)


def check(start: Start, path: Path, limit: str, side: str, *secret: str) -> None:
    """Under this limit it works, or says in one line why not, and nobody is deceived."""
    limited = f'ulimit {limit}; exec "$@"'
    options = {"listen": [], "connect": ["--connect-timeout", "1"]}
    sides = {}
    for name in ("listen", "connect"):
        sides[name] = start.bpipe(
            *(name, str(path), *secret, *options[name]),
            shell=limited if name == side else 'exec "$@"',
            stdin=PIPE,
            stdout=PIPE,
        )
    near, far = sides[side], sides[other(side)]
    near.feed(SIZE)
    consumer = far.drain()
    far.stdin.close()
    near.read_all()
    status = near.wait()
    assert [word for word in UNSEEMLY if word in near.text] == [], near.text
    if status == 0:
        assert far.wait() == 0
        assert consumer.wait_end() == SIZE
        return
    assert status == 1
    assert "cannot listen" not in near.text
    if any("connected to" in line for line in far.lines) or side == "listen":
        assert far.wait() in (1, 3)  # it was told, or there was nobody
    else:
        far.popen.terminate()
        far.wait()


# Where there are but four descriptors, Python itself does not start. Under the tightest ones both
# sides fail before they differ.
LIMITS = [
    ("-n 5", False, ["connect"]),
    ("-n 8", True, ["listen"]),
    ("-n 9", False, ["connect", "listen"]),
    ("-n 13", False, ["connect"]),
    ("-n 16", False, ["listen"]),
    ("-v 20000", False, ["listen"]),
    ("-v 60000", False, ["connect"]),
    ("-v 200000", False, ["listen"]),
    ("-v 264000", True, ["connect", "listen"]),
]


@pytest.mark.parametrize(
    ("limit", "sealed", "side"),
    [
        pytest.param(*each, side, marks=[] if each[0] in ("-n 9", "-n 16") else pytest.mark.slow)
        for *each, sides in LIMITS
        for side in sides
    ],
)
def test_under_a_limit(
    start: Start, path: Path, key: Path, limit: str, sealed: bool, side: str
) -> None:
    check(start, path, limit, side, *(["--secret", str(key)] if sealed else []))


def test_what_is_missing_before_the_session_is_said_at_once(start: Start, path: Path) -> None:
    few = start.bpipe("listen", str(path), shell='ulimit -n 12; exec "$@"')
    assert few.wait() == 1
    assert few.lines == ["bpipe: too many open files: bpipe needs some twenty (ulimit -n)"]
    assert not path.exists()


@SIDES
def test_a_buffer_for_which_there_is_no_memory(start: Start, path: Path, side: str) -> None:
    greedy = start.bpipe(
        side, str(path), "--buffer", "1T", shell='ulimit -v 1000000; exec "$@"', stdin=PIPE
    )
    assert greedy.wait() == 1
    assert greedy.lines == [
        "bpipe: cannot allocate memory: a smaller --buffer needs less (ulimit -v)"
    ]


@SIDES
def test_a_passphrase_for_which_there_is_no_memory(
    start: Start, path: Path, key: Path, side: str
) -> None:
    key.write_text("seven wild geese over Uppsala")
    options = "--secret", str(key)
    poor = start.bpipe(side, str(path), *options, shell='ulimit -v 150000; exec "$@"', stdin=PIPE)
    assert poor.wait() == 1
    assert poor.lines == ["bpipe: cannot allocate memory: a passphrase takes 128 MiB for a moment"]


@SIDES
def test_what_fails_when_there_is_a_peer_is_told_to_it(start: Start, path: Path, side: str) -> None:
    failing = without(start, "pipes", side, str(path))
    peer = start.bpipe(other(side), str(path), stdin=PIPE)
    producer = peer.feed(None)
    assert finish(failing, peer) == [1, 1]
    for end in (failing, peer):
        assert "too many open files" in end.text
    producer.wait_broken()


def test_a_thread_that_runs_out_of_memory_ends_both(start: Start, path: Path) -> None:
    peer = start.bpipe("listen", str(path), stdout=PIPE)
    peer.wait_line("listening")
    failing = without(start, "memory", "connect", str(path))
    failing.feed(SIZE)
    assert finish(failing, peer) == [1, 1]
    assert [word for word in UNSEEMLY if word in failing.text] == []
    assert "cannot allocate memory" in peer.text


@pytest.mark.parametrize("threads", range(4))
@SIDES
def test_threads_that_cannot_be_started(start: Start, side: str, threads: int) -> None:
    """The first is for messages, the next one looks names up."""
    address, options = "localhost:0", []
    if side == "connect":
        port = start.bpipe("listen", address).address.rpartition(":")[2]
        address, options = f"localhost:{port}", ["--connect-timeout", "1"]
    failing = without(start, str(threads), side, address, *options)
    if side == "listen" and threads >= 2:
        address = failing.wait_line("listening on ").split()[3].rstrip(",;")
        peer = start.bpipe("connect", address, stdin=PIPE)
        assert peer.wait() == 1
        assert "cannot start a thread" in peer.text
    assert failing.wait() in ((1, 3) if side == "connect" else (1,))
    assert [word for word in UNSEEMLY if word in failing.text] == []
    assert re.search("cannot start a thread|resource temporarily unavailable", failing.text)


def test_no_device_folder(start: Start, path: Path) -> None:
    bpipe = without(start, "null", "connect", str(path))
    assert bpipe.wait() == 1
    assert bpipe.lines == ["bpipe: /nowhere/null: no such file or directory"]


@SIDES
def test_a_broken_installation_is_noticed_before_it_matters(
    start: Start, path: Path, key: Path, side: str
) -> None:
    bpipe = without(start, "cryptography", side, str(path), "--secret", str(key))
    assert bpipe.wait() == 1
    (line,) = bpipe.lines
    assert line.startswith("bpipe: a module cannot be loaded: ")
    assert "cryptography" in line
