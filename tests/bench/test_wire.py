"""The wire carries bytes, until it is cut, and again when it is whole."""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.bench import wire
from tests.bench.peers import BPIPE, Session
from tests.bench.processes import Children, read_byte, wait_listening
from tests.bench.relay import Weather
from tests.bench.wire import FAR, Wire

NO_WIRE = wire.missing()


@pytest.mark.skipif(NO_WIRE != "", reason=NO_WIRE)
@pytest.mark.parametrize(
    ("cut", "restore"),
    [
        (Wire.darken, Wire.lighten),
        (Wire.unplug, Wire.plug),
        (partial(Wire.unplug, far=True), partial(Wire.plug, far=True)),
    ],
)
def test_nothing_passes_a_wire_that_is_cut(
    tmp_path: Path, cut: Callable[[Wire], None], restore: Callable[[Wire], None]
) -> None:
    with Wire(Weather(delay=0.001)) as path, Children() as children:
        session = Session(children, BPIPE, tmp_path, host=FAR, near=path.near, far=path.far)
        receiver = session.listen().main
        sender = session.connect(stdin=subprocess.PIPE).main
        os.write(sender.stdin.fileno(), b"x")
        read_byte(receiver)
        cut(path)
        os.write(sender.stdin.fileno(), b"x")
        assert select.select([receiver.stdout], [], [], 0.3)[0] == []
        restore(path)
        read_byte(receiver)


@pytest.mark.skipif(NO_WIRE != "", reason=NO_WIRE)
def test_nothing_is_left_behind() -> None:
    def namespaces() -> set[str]:
        listed = subprocess.run(["ip", "netns", "list"], capture_output=True, check=True)
        return {line.split()[0] for line in listed.stdout.decode().splitlines()}

    with Wire() as path:
        names = {path.near[-1], path.far[-1]}
        assert names <= namespaces()
    assert not names & namespaces()


@pytest.mark.skipif(NO_WIRE != "", reason=NO_WIRE)
def test_what_has_the_address_of_a_path_takes_that_path() -> None:
    with Wire(Weather(), Weather(delay=0.001), congestion="reno") as paths, Children() as children:
        listen = [*paths.far, "nc", "-d", "-l", FAR, "4000"]
        receiver = children.start(listen, stdout=subprocess.PIPE)
        wait_listening(receiver, port=4000)
        paths.darken(0)
        connect = [*paths.near, "nc", "-s", wire.ends(1)[0], FAR, "4000"]
        sender = children.start(connect, stdin=subprocess.PIPE)
        os.write(sender.stdin.fileno(), b"x")
        read_byte(receiver)
        assert paths.crossed(1) > 160 > paths.crossed(0)  # which has a word of IPv6 at most
        seen = subprocess.run([*paths.near, "ss", "-tiH"], capture_output=True, check=True)
        assert b"reno" in seen.stdout


@pytest.mark.skipif(NO_WIRE != "", reason=NO_WIRE)
def test_a_path_that_was_unplugged_is_what_it_was_before() -> None:
    def routes(paths: Wire) -> list[bytes]:
        commands = [
            [*within, "ip", "route", "show", "table", "all"] for within in (paths.near, paths.far)
        ]
        return [subprocess.run(each, capture_output=True, check=True).stdout for each in commands]

    with Wire(Weather(), Weather(), congestion="reno") as paths:
        before = [set(each.splitlines()) for each in routes(paths)]
        for far in (False, True):
            paths.unplug(1, far=far)
            assert b"10.77.1.0/24" not in routes(paths)[far]
            paths.plug(1, far=far)
        assert [set(each.splitlines()) for each in routes(paths)] == before
