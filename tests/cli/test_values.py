"""The values of options, as people write them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bpipe.cli import values
from bpipe.cli.values import buffer, duration, heartbeat, interval, log, name, pause, size, when
from bpipe.errors import AddressError
from bpipe.report.settings import When


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("4096", 4096),
        (" 1 ", 1),
        ("1K", 1024),
        ("1k", 1024),
        ("64M", 64 << 20),
        ("64MB", 64 * 10**6),
        ("64MiB", 64 << 20),
        ("512GB", 512 * 10**9),
        ("1.5kb", 1500),
        ("1.5G", 3 << 29),
        ("2T", 2 << 40),
        ("100B", 100),
        ("0.5K", 512),
    ],
)
def test_a_size(text: str, value: int) -> None:
    assert size(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "M",
        "-1",
        "+1",
        "1P",
        "1 M",
        "1e3",
        "1.",
        ".5K",
        "0x10",
        "\uff11",
        "9" * 16,
        "1M\n1",
    ],
)
def test_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        size(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0.0),
        ("30", 30.0),
        ("1.5", 1.5),
        ("500ms", 0.5),
        ("2s", 2.0),
        ("2m", 120.0),
        ("1.5h", 5400.0),
        ("1d", 86400.0),
    ],
)
def test_a_duration(text: str, value: float) -> None:
    assert duration(text) == pytest.approx(value)


@pytest.mark.parametrize(
    "text", ["", "s", "-1", "1M", "1H", "1 s", "1e3", "inf", "nan", "1s2", "\uff12s", "1us"]
)
def test_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        duration(text)


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("1T", 1 << 40)])
def test_a_buffer(text: str, value: int) -> None:
    assert buffer(text) == value


@pytest.mark.parametrize("text", ["0", "0.9", "1025G", "2T"])
def test_no_buffer(text: str) -> None:
    with pytest.raises(ValueError, match="not possible: 1 byte to 1T"):
        buffer(text)


@pytest.mark.parametrize(
    ("parse", "least", "less"),
    [
        (heartbeat, "50ms", "49ms"),
        (interval, "100ms", "99ms"),
        (pause, "10ms", "9.9ms"),
    ],
)
def test_a_least_value(parse: Callable[[str], float], least: str, less: str) -> None:
    assert parse(least) == duration(least)
    with pytest.raises(ValueError, match=f"too short: at least {least}"):
        parse(less)


@pytest.mark.parametrize("text", ["disk", " ", "a b", "e\u0301", "x" * 255, "\u00e9" * 127])
def test_a_name(text: str) -> None:
    assert name(text) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the name is empty"),
        ("x" * 256, "the name is longer than 255 bytes"),
        ("\u00e9" * 128, "the name is longer than 255 bytes"),
        ("\udcff", "the name is not text"),
    ],
)
def test_no_name(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        name(text)


def test_when() -> None:
    assert [when(word) for word in ("auto", "always", "never")] == list(When)
    with pytest.raises(ValueError, match="'Auto' is not one of auto, always, never"):
        when("Auto")


def test_a_log_may_be_in_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert [log(text) for text in ("~/a", "-", "~a", "a/~/b")] == ["/home/me/a", "-", "~a", "a/~/b"]


@pytest.mark.parametrize(("text", "number"), [("1", 1), (" 8 ", 8)])
def test_links(text: str, number: int) -> None:
    assert values.links(text) == number


@pytest.mark.parametrize("text", ["", "0", "9", "10", "-1", "1.0", "x", "²"])
def test_no_number_of_links(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number of connections, from 1 to 8"):
        values.links(text)


def test_what_connections_go_out_from_and_how_they_deal_with_congestion() -> None:
    assert values.origin("lo") == "lo"
    with pytest.raises(AddressError, match="neither an address nor an interface"):
        values.origin("nowhere")
    assert values.congestion("reno") == "reno"
    with pytest.raises(ValueError, match="is not known here"):
        values.congestion("none")
