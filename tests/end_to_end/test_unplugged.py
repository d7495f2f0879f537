"""Interfaces that go and come back, of which the kernel tells: no timer would, within a minute."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from subprocess import PIPE

import pytest

from tests.bench import wire
from tests.bench.relay import Weather
from tests.bench.wire import FAR, Wire
from tests.end_to_end.helpers import Bpipe, Start

pytestmark = pytest.mark.slow

PAUSE = 0.3  # seconds until an interface goes again, if nobody has said anything
CALM = "--heartbeat", "60s", "--insecure"


@pytest.fixture
def network() -> Iterator[Wire]:
    """Two paths; what goes out without an address of ours takes the first one while it is there."""
    if why := wire.missing():
        pytest.skip(why)
    with Wire(Weather(delay=0.001), Weather(delay=0.001)) as network:
        near = network.near[-1]
        second = f"{near}1", "metric", "500"
        subprocess.run(
            ["ip", "-n", near, "route", "add", "10.77.0.0/24", "dev", *second], check=True
        )
        yield network


def pair(start: Start, network: Wire) -> tuple[Bpipe, Bpipe]:
    """A caller that is connected, and who listens."""

    def within(namespace: tuple[str, ...], *words: str) -> Bpipe:
        shell = f'exec {" ".join(namespace)} "$@"'
        return start.bpipe(*words, *CALM, shell=shell, stdin=PIPE, stdout=PIPE)

    listening = within(network.far, "listen", f"{FAR}:7000")
    assert listening.address_line
    calling = within(network.near, "connect", f"{FAR}:7000")
    for end in (calling, listening):
        end.wait_connected()
    return calling, listening


def move(source: Bpipe, sink: Bpipe, data: bytes) -> None:
    """These bytes come out at the other end."""
    source.stdin.write(data)
    assert sink.stdout.read(len(data)) == data


def said(end: Bpipe, words: str) -> bool:
    """Whether it has; an interface that goes before the kernel is heard is not told."""
    return any(words in line for line in end.lines)


def test_another_way_is_taken_when_the_interface_of_a_connection_goes(
    start: Start, network: Wire
) -> None:
    """Nothing is under way, so that nobody owes an answer that could be missed."""
    calling, listening = pair(start, network)
    move(calling, listening, b"before")
    while not said(calling, "and a new connection is answered;"):
        network.unplug()
        time.sleep(PAUSE)
        network.plug()
    network.unplug()
    for source, sink in ((calling, listening), (listening, calling)):
        move(source, sink, b"after")


def test_who_is_called_ends_a_connection_that_brings_nothing_over_a_path_that_is_back(
    start: Start, network: Wire
) -> None:
    calling, listening = pair(start, network)
    move(calling, listening, b"before")
    network.darken()
    far = network.far[-1]
    while not said(listening, "nothing was heard over a path that is back;"):
        for state in ("down", "up"):
            subprocess.run(["ip", "-n", far, "link", "set", far, state], check=True)
        time.sleep(PAUSE)
    network.lighten()
    for source, sink in ((calling, listening), (listening, calling)):
        move(source, sink, b"after")
