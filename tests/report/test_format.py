"""Sizes and times as people read them."""

from __future__ import annotations

import pytest

from bpipe.report.format import format_duration, format_size, format_sizes


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


G = 1 << 30


@pytest.mark.parametrize(
    ("counts", "texts"),
    [
        ((12 * G, 11.8 * G, 0.2 * G), ["12.0 GiB", "11.8", "0.2"]),
        ((12 * G, 12 * G, 3 << 20), ["12.0 GiB", "12.0", "3.0 MiB"]),
        ((G, 0, 3000 * G), ["1.0 GiB", "0", "2.9 TiB"]),
        ((500, 492, 8), ["500 B", "492", "8"]),
        ((0, 0, 2048), ["0 B", "0", "2.0 KiB"]),
    ],
)
def test_sizes_that_belong_together_have_one_unit(
    counts: tuple[float, ...], texts: list[str]
) -> None:
    assert format_sizes(*counts) == texts


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
