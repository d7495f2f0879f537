"""What each group of options means for those below, and which contradict each other."""

from __future__ import annotations

import os
import socket

import pytest

from bpipe.cli.options import Report, Where
from bpipe.errors import AddressError
from bpipe.net.address import Address
from bpipe.report.settings import Level, Settings, When


@pytest.mark.parametrize(
    ("where", "address", "meant", "family"),
    [
        (Where(), "far:7", "far:7", socket.AF_UNSPEC),
        (Where(port="8"), "far", "far:8", socket.AF_UNSPEC),
        (Where(ipv4=True), "far:7", "far:7", socket.AF_INET),
        (Where(ipv6=True), "far:7", "far:7", socket.AF_INET6),
        (Where(), "/tmp/s", "unix:/tmp/s", socket.AF_UNSPEC),
    ],
)
def test_where(where: Where, address: str, meant: str, family: int) -> None:
    parsed = where.parse(address)
    assert str(parsed) == meant
    assert parsed.family == family


def test_where_to_listen() -> None:
    assert Where().listening(None) == Address("", 27473)
    assert Where(port="8").listening("far") == Where(port="8").parse("far")
    with pytest.raises(AddressError):
        Where().listening("")


def test_where_a_socket_that_was_passed_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        monkeypatch.setattr("bpipe.net.activation.FIRST", sock.fileno())
        monkeypatch.setenv("LISTEN_FDS", "1")
        assert Where().listening(None) == Address("", 27473)  # it is for another process
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        here = Where().listening(None)
        assert (here.port, here.descriptor) == (sock.getsockname()[1], sock.fileno())
        for where, typed in ((Where(), str(here)), (Where(ipv4=True), None), (Where(), "")):
            with pytest.raises(AddressError, match=rf"passes a socket, {here}: type no address"):
                where.listening(typed)


@pytest.mark.parametrize(
    ("where", "address"), [(Where(port="x"), "far"), (Where(port="1"), "far:2"), (Where(), "a:b:c")]
)
def test_no_address(where: Where, address: str) -> None:
    with pytest.raises(AddressError):
        where.parse(address)


@pytest.mark.parametrize(
    ("report", "level"),
    [
        (Report(quiet=True), Level.QUIET),
        (Report(), Level.NORMAL),
        (Report(verbose=1), Level.VERBOSE),
        (Report(verbose=2), Level.TRACE),
        (Report(verbose=9), Level.TRACE),
    ],
)
def test_the_level(report: Report, level: Level) -> None:
    assert report.settings().level is level


def test_what_is_told() -> None:
    report = Report(When.NEVER, 5, "log", 2.0)
    assert report.settings() == Settings(Level.NORMAL, When.NEVER, 5, "log", 2.0)
