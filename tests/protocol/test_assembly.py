from __future__ import annotations

import pytest

from bpipe.errors import ProtocolError
from bpipe.protocol.assembly import Assembly
from bpipe.protocol.blocks import Base, Total
from bpipe.status import Tally
from tests.support.blocks import digests, total

OLD = bytes(range(250))  # three blocks, and a short one
NEW = b"n" * 500


def begun(told: int = 4) -> Assembly:
    assembly = Assembly(Base(len(OLD), 64))
    for digest in digests(OLD, 64)[:told]:
        assembly.told(digest)
    return assembly


def add(assembly: Assembly, data: bytes) -> None:
    view = memoryview(data)
    assembly.data([view[:5], view[5:]])


def test_a_stream_is_put_together_from_both() -> None:
    assembly = begun()
    add(assembly, NEW[:64])
    assert assembly.same(2) == (64, 128)
    add(assembly, NEW[:100])
    assert (assembly.at, assembly.whole) == (292, False)
    assembly.total(total(NEW[:64] + OLD[64:192] + NEW[:100], 64))
    assert assembly.whole
    assert assembly.tally == Tally(250, 128, 164, incoming=True)


def test_the_last_block_of_a_base_may_be_short_and_ends_the_stream() -> None:
    assembly = begun()
    assert assembly.same(1) == (0, 64)
    assert assembly.same(3) == (64, 186)
    for more in (lambda: add(assembly, b"x"), lambda: assembly.same(1)):
        with pytest.raises(ProtocolError, match="has ended"):
            more()
    assembly.total(total(OLD, 64))
    assert assembly.tally == Tally(250, 250, 0, incoming=True)


def test_a_stream_may_end_within_the_base() -> None:
    assembly = begun()
    add(assembly, NEW[:10])
    assembly.total(total(NEW[:10], 64))
    assert assembly.tally == Tally(10, 0, 10, incoming=True)


def test_so_may_one_of_nothing() -> None:
    assembly = begun()
    assembly.total(total(b"", 64))
    assert assembly.whole


@pytest.mark.parametrize("count", [0, 3, 2**64 - 1])
def test_only_blocks_whose_digest_was_told_are_the_same(count: int) -> None:
    with pytest.raises(ProtocolError, match="cannot be the same"):
        begun(told=2).same(count)


def test_blocks_are_the_same_where_a_block_begins() -> None:
    assembly = begun()
    add(assembly, NEW[:63])
    with pytest.raises(ProtocolError, match="cannot be the same"):
        assembly.same(1)


def test_what_follows_the_total_is_no_part_of_the_stream() -> None:
    assembly = begun()
    assembly.total(total(b"", 64))
    for more in (
        lambda: add(assembly, b"x"),
        lambda: assembly.same(1),
        lambda: assembly.total(total(b"", 64)),
    ):
        with pytest.raises(ProtocolError):
            more()
    assert assembly.whole


@pytest.mark.parametrize(
    "wrong",
    [total(NEW[:65], 64), total(OLD[:64], 64), Total(65, total(NEW[:64], 64).digest)],
)
def test_what_is_not_what_was_sent_is_not_whole(wrong: Total) -> None:
    assembly = begun()
    add(assembly, NEW[:64])
    with pytest.raises(ProtocolError, match="not what was sent"):
        assembly.total(wrong)
    assert not assembly.whole
