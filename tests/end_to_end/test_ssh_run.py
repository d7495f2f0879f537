"""``bpipe run --via``: into namespaces, and through a carrier that loses the end of a stream."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from pathlib import Path
from subprocess import PIPE
from typing import Final

import pytest

from tests.end_to_end.data import MIB, until
from tests.end_to_end.helpers import Start
from tests.end_to_end.recipes import Shell, need
from tests.end_to_end.remains import children
from tests.end_to_end.sshd import missing

pytestmark = pytest.mark.slow

DROPPER: Final = Path(__file__).with_name("dropper.py")
SIZE: Final = 6 * MIB


def test_into_namespaces_that_stay(start: Start, shell: Shell) -> None:
    need("unshare", "nsenter")
    if why := missing():
        pytest.skip(why)
    inside = start.program(
        "unshare", "-muinp", "--fork", "--mount-proc", "--kill-child", "sleep", "1000"
    )
    until(lambda: children(inside.pid), "somebody in the namespaces")
    [there] = children(inside.pid)
    via = f"nsenter -m -u -i -n -p -t {there}"
    # Words that a shell would change; and who is there has another process 1.
    command = "sh", "-c", 'printf "%s|" "$@"; cat; readlink /proc/self/ns/net >&2; exit 9', "sh"
    words = "a  b", "$HOME", "*", "'", ""
    run = shell.run("bpipe", "run", "--via", via, "--", *command, *words, stdin=PIPE, stdout=PIPE)
    first = "".join(f"{word}|" for word in words).encode()
    assert run.stdout.read(len(first)) == first
    consumer, producer = run.drain(), run.feed(None)
    consumer.wait_count(SIZE)
    os.kill(children(run.pid)[0], signal.SIGKILL)  # the carrier
    consumer.wait_count(consumer.count + SIZE)
    producer.finish()
    assert consumer.wait_end() == producer.written
    assert run.wait() == 9
    said = [line for line in run.lines if not line.startswith("bpipe: ")]
    assert said == [os.readlink(f"/proc/{there}/ns/net")]
    until(lambda: children(inside.pid) == [there], "nobody else there")


@pytest.mark.parametrize("way", ["up", "down"])
def test_the_end_that_a_carrier_loses_is_sent_again(shell: Shell, way: str) -> None:
    lose = [sys.executable, str(DROPPER), str(shell.folder), way, str(2 * MIB), str(2 * MIB), "--"]
    words = "sh", "-c", "cat; echo all >&2; exit 4"
    run = shell.run(
        *("bpipe", "run", "--heartbeat", "300ms", "--via", shlex.join(lose), "--", *words),
        stdin=PIPE,
        stdout=PIPE,
    )
    producer, consumer = run.feed(SIZE), run.drain()
    assert consumer.wait_end() == producer.written == SIZE
    assert run.wait() == 4
    assert [line for line in run.lines if not line.startswith("bpipe: ")] == ["all"]
    assert (shell.folder / "dropped").exists()
