from __future__ import annotations

import pytest

from bpipe.errors import ProtocolError
from bpipe.protocol.blocks import (
    MOST_BLOCKS,
    Base,
    Chain,
    Items,
    Total,
    block_size,
    pack_same,
    unpack_same,
)
from bpipe.protocol.records import Record
from tests.support.blocks import digests, total

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


@pytest.mark.parametrize(("length", "blocks"), [(0, 0), (1, 1), (64, 1), (65, 2), (128, 2)])
def test_the_last_block_may_be_short(length: int, blocks: int) -> None:
    base = Base(length, 64)
    assert base.blocks == blocks
    covered = [base.covers(offset) for offset in (0, 63, 64, 127, 128)]
    assert covered == [blocks > offset // 64 for offset in (0, 63, 64, 127, 128)]


def test_what_is_said_has_these_bytes() -> None:
    assert Base(0x102, 0x304).pack().hex() == "0000000000000102" + "00000304" + "00000000"
    assert pack_same(0x506).hex() == "0000000000000506"
    assert unpack_same(pack_same(2**64 - 1)) == 2**64 - 1
    whole = Total(7, bytes(range(32)))
    assert whole.pack() == bytes(7) + b"\7" + bytes(range(32))
    assert Total.unpack(whole.pack()) == whole


@pytest.mark.parametrize(
    "base",
    [Base(0, 64), Base(0, 2**32 - 1), Base(MOST_BLOCKS * 64, 64), Base(1, 250)],
    ids=str,
)
def test_a_base_that_can_be(base: Base) -> None:
    assert Base.unpack(base.pack(), capacity=1000) == base


@pytest.mark.parametrize(
    "item",
    [
        Base(0, 0).pack(),
        Base(0, 63).pack(),
        Base(MOST_BLOCKS * 64 + 1, 64).pack(),
        Base(1, 251).pack(),
        Base(100, 100).pack()[:-1] + b"\1",
    ],
    ids=bytes.hex,
)
def test_a_base_that_cannot_be(item: bytes) -> None:
    with pytest.raises(ProtocolError, match="a base that cannot be"):
        Base.unpack(item, capacity=1000)


def test_items_are_put_together_however_they_are_cut() -> None:
    items = Items()
    assert items.add(Record.SAME, b"1234") == []
    assert items.add(Record.SAME, b"56781") == [b"12345678"]
    assert items.add(Record.SAME, b"23456787654321012") == [b"12345678", b"76543210"]
    with pytest.raises(ProtocolError, match="no end"):
        items.add(Record.TOTAL, b"345678")


def test_items_of_one_kind_follow_those_of_another() -> None:
    items = Items()
    assert items.add(Record.SAME, b"12345678") == [b"12345678"]
    assert items.add(Record.TOTAL, bytes(40)) == [bytes(40)]


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 128, 300])
@pytest.mark.parametrize("piece", [1, 63, 64, 65, 1000])
def test_a_stream_is_hashed_block_by_block(length: int, piece: int) -> None:
    data = bytes(range(200)) * 2
    data = data[:length]
    chain = Chain(64)
    for at in range(0, length, piece):
        chain.add(memoryview(data)[at : at + piece])
    assert chain.length == length
    assert chain.between is (length % 64 == 0)
    assert chain.total() == total(data, 64)
    assert length == 0 or chain.last == digests(data, 64)[-1]


def test_blocks_whose_digests_are_known_are_not_hashed() -> None:
    data = bytes(range(250))
    chain = Chain(64)
    chain.add(memoryview(data)[:64])
    chain.skip(b"".join(digests(data, 64)[1:3]), 128)
    chain.add(memoryview(data)[192:])
    assert chain.total() == total(data, 64)
