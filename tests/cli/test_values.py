"""The values of options, as people write them and as they are shown."""

from __future__ import annotations

import pytest

from bpipe.cli.values import buffer, duration, format_duration, format_size, heartbeat, size


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


def test_a_heartbeat_has_a_least_value() -> None:
    assert heartbeat("50ms") == 0.05
    with pytest.raises(ValueError, match="too short: at least 50ms"):
        heartbeat("49ms")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1000 * 1024 - 1, "1000.0 KiB"),
        (1000 * 1024, "1.0 MiB"),
        (4.2 * (1 << 30), "4.2 GiB"),
        (3 << 40, "3.0 TiB"),
        (5000 << 40, "5000.0 TiB"),
    ],
)
def test_a_size_for_people(count: float, text: str) -> None:
    assert format_size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3595.0, "0ms"),  # a clock was set back
        (0.25, "0.25s"),
        (9.94, "9.9s"),
        (10, "10s"),
        (42.4, "42s"),
        (59.6, "1m00s"),
        (192, "3m12s"),
        (3599.6, "1h00m"),
        (7500, "2h05m"),
    ],
)
def test_a_duration_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 0.000078, 0.0042, 9.999])
def test_a_duration_for_people_has_no_exponent(seconds: float) -> None:
    assert "e" not in format_duration(seconds)
