from __future__ import annotations

import pytest

from bpipe.protocol.blocks import Base, block_size

MIB = 1 << 20
TIB = 1 << 40


@pytest.mark.parametrize(
    ("length", "window", "size"),
    [
        (0, 64 * MIB, MIB // 4),
        (TIB // 4, 64 * MIB, MIB // 4),
        (TIB // 4 + 1, 64 * MIB, MIB // 2),
        (4 * TIB, 64 * MIB, 4 * MIB),
        (4 * TIB, 4 * MIB, MIB),
        (4 * TIB, 5000, 1250),
        (0, 100, 64),
    ],
)
def test_blocks_are_as_large_as_digests_need_and_windows_allow(
    length: int, window: int, size: int
) -> None:
    assert block_size(length, window) == size


def test_what_digests_do_not_reach_is_no_base() -> None:
    assert Base.of(4 * TIB, 4 * MIB) == (TIB, MIB)
    assert Base.of(5, 4 * MIB) == (5, MIB // 4)
