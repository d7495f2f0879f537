"""A secret is read, used, and never said: not by a process that talks, fails or is looked at."""

from __future__ import annotations

import base64
import binascii
import hashlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest

from bpipe.protocol.secret import Secret
from tests.end_to_end.helpers import Program, Start

pytestmark = pytest.mark.slow

RAW = hashlib.sha256(b"known").digest()
KEY = "bpipe1:" + base64.urlsafe_b64encode(RAW).decode().rstrip("=")
PASSPHRASE = "seven wild geese over Uppsala"
BREAK = """
import sys
from bpipe.cli.app import run
from {module} import {owner}

def broken(*arguments, **options):
    raise RuntimeError("broken on purpose")

{owner}.{name} = broken
sys.exit(run(sys.argv[1:]))
"""


def traces(text: str, raw: bytes) -> Iterator[bytes]:
    """The forms in which a secret could be found."""
    for data in (raw, Secret.parse(text.encode()).key):
        yield data
        yield binascii.hexlify(data)
        yield base64.b64encode(data).rstrip(b"=")
        yield base64.urlsafe_b64encode(data).rstrip(b"=")
        yield repr(data)[2:-1].encode()
    yield text.removeprefix("bpipe1:").encode()


def seen(program: Program) -> bytes:
    """What another process of the same user can see of this one."""
    parts = ("cmdline", "environ", "comm")
    return b"".join(Path(f"/proc/{program.pid}/{part}").read_bytes() for part in parts)


def check(text: str, found: bytes) -> None:
    """None of the forms of this secret is there."""
    raw = RAW if text == KEY else text.encode()
    assert [trace for trace in traces(text, raw) if trace in found] == []


@pytest.fixture
def file(tmp_path: Path, text: str) -> str:
    """The file with this secret."""
    path = tmp_path / "secret"
    path.touch(0o600)
    path.write_text(text + "\n")
    return str(path)


@pytest.mark.parametrize("text", [KEY, PASSPHRASE], ids=["key", "passphrase"])
def test_the_search_would_find_it(start: Start, text: str, file: str) -> None:
    careless = start.program("sh", "-c", f"cat {file} >&2; read line", text, stdin=PIPE)
    careless.wait_line(".")
    for found in (careless.text.encode(), seen(careless)):
        with pytest.raises(AssertionError):
            check(text, found)


@pytest.mark.parametrize("text", [PASSPHRASE], ids=["passphrase"])
def test_a_run_with_everything_that_there_is_to_say(
    start: Start, tmp_path: Path, text: str, file: str
) -> None:
    other = tmp_path / "other"
    other.touch(0o600)
    other.write_text("another secret, and a wrong one")
    shell = f'export BPIPE_SECRET_FILE={file}; exec "$@"'
    logs = [tmp_path / f"{number}.log" for number in range(2)]
    listens = ["listen", "127.0.0.1:0", "-vv", "--log-json", str(logs[0])]
    listener = start.bpipe(*listens, shell=shell, stdin=PIPE, stdout=PIPE)
    proxy = start.proxy(listener.address)
    stranger = start.bpipe(
        *("connect", "-vv", proxy.address, "--connect-timeout", "0", "--secret", str(other))
    )
    assert stranger.wait() == 3
    calls = ["connect", proxy.address, "-vv", "--log-json", str(logs[1])]
    caller = start.bpipe(*calls, shell=shell, stdin=PIPE, stdout=PIPE)
    caller.wait_connected()
    found = seen(listener) + seen(caller)
    for end in (listener, caller):
        end.signal(signal.SIGUSR1)
        end.wait_line("reconnects$")
    caller.signal(signal.SIGUSR2)
    caller.wait_back()
    busy = start.bpipe("connect", proxy.address, "-vv", shell=shell)
    assert busy.wait() == 3
    caller.stdin.write(b"12345")
    assert listener.stdout.read(5) == b"12345"
    listener.signal(signal.SIGKILL)
    listener.wait()
    again = start.bpipe("listen", listener.address, "-vv", shell=shell)
    caller.wait_line("does not know this session")
    caller.signal(signal.SIGINT)
    assert caller.wait() == -signal.SIGINT
    for end in (listener, stranger, caller, busy, again):
        found += end.text.encode()
    for log in logs:
        found += log.read_bytes()
        assert b"resumed" in found.lower()
    check(text, found)


# A passphrase is known only until it is stretched; from then on there is a key in its place.
@pytest.mark.parametrize(
    ("module", "owner", "name", "text"),
    [
        ("bpipe.protocol", "secret", "hkdf", PASSPHRASE),
        ("bpipe.protocol.secret", "Secret", "parse", KEY),
        ("bpipe.protocol.secret", "Secret", "parse", PASSPHRASE),
        ("bpipe.protocol.sealed", "SealedHandshake", "pack_hello", KEY),
        ("bpipe.engine", "Engine", "status", KEY),
    ],
    ids=lambda value: {KEY: "key", PASSPHRASE: "passphrase"}.get(value, value),
)
def test_a_failure_inside(
    start: Start, text: str, file: str, module: str, owner: str, name: str
) -> None:
    """Whatever is said about it."""
    code = BREAK.format(module=module, owner=owner, name=name)
    options = ["--connect-timeout", "0", "--secret", file, "-vv"]
    listener = start.bpipe("listen", "127.0.0.1:0", "--secret", file)
    failing = start.program(sys.executable, "-c", code, "connect", listener.address, *options)
    assert failing.wait_whatever() != 0
    assert "broken on purpose" in failing.text
    check(text, failing.text.encode() + listener.text.encode())
