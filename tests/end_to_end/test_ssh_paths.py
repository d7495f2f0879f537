"""``bpipe ssh`` over a network that swallows packets, and from a machine whose address changes."""

from __future__ import annotations

import subprocess
import time
from subprocess import PIPE

import pytest

from tests.bench import wire
from tests.bench.relay import Weather
from tests.end_to_end.data import MIB
from tests.end_to_end.recipes import Shell
from tests.end_to_end.sshd import Near, serve

pytestmark = pytest.mark.slow

NEW = "10.77.0.5"
DARK = 2.0  # seconds


def move(network: wire.Wire) -> None:
    """The near machine loses its address, and gets another one."""
    device = network.near[-1]
    for words in (["del", wire.NEAR], ["add", NEW]):
        ip = ["ip", "-n", device, "addr", words[0], f"{words[1]}/24", "dev", device]
        subprocess.run(ip, check=True)


def test_a_black_hole_and_a_new_address(shell: Shell) -> None:
    if why := wire.missing():
        pytest.skip(why)
    with (
        wire.Wire(Weather(delay=0.005)) as network,
        serve(address=wire.FAR, within=network.far) as sshd,
    ):
        near, far = Near(shell, sshd, network.near), sshd.far()
        options = "--heartbeat", "500ms"
        program = near.ssh(far, "cat; exit 3", *options, stdin=PIPE, stdout=PIPE)
        consumer, producer = program.drain(), program.feed(None, pause=0.05)
        consumer.wait_count(MIB)
        network.darken()
        time.sleep(DARK)  # that is how long it is dark
        network.lighten()
        consumer.wait_count(consumer.count + MIB)
        move(network)
        consumer.wait_count(consumer.count + 2 * MIB)
        producer.finish()
        assert consumer.wait_end() == producer.written
        assert program.wait() == 3
        far.wait_nothing_left()
