"""What is asked and told over rtnetlink, in bytes that a kernel has sent."""

from __future__ import annotations

import socket

import pytest

from bpipe.net.netlink import Gone, Path, Way, answer, gone, question

OURS, PEER = socket.inet_aton("10.1.2.3"), socket.inet_aton("10.1.2.9")
FAR = socket.inet_aton("1.2.3.4")
OURS_6 = socket.inet_pton(socket.AF_INET6, "fd07::1")
PEER_6 = socket.inet_pton(socket.AF_INET6, "fd07::2")

NEAR_WAY = bytes.fromhex(
    "680000001800000000000000c9172cdf02200000fe0000010002000008000f00fe000000080001000a010209"
    "0800040003000000080007000a010203080019000000000024000c0002000000"
) + bytes(28)
FAR_WAY = bytes.fromhex(
    "700000001800000000000000c9172cdf02202000fe0000010002000008000f00fe00000008000100010203040"
    "80002000a0102030800040003000000080005000a010201080019000000000024000c0002000000"
) + bytes(28)
VIA_WAY = bytes.fromhex(
    "800000001800000000000000c9172cdf02200000fe0000010002000008000f00fe000000080001000a050101"
    "0800040003000000080007000a010203160012000a00fd07000000000000000000000000000900000800190000"
    "00000024000c0002000000"
) + bytes(28)
WAY_6 = (
    bytes.fromhex(
        "9c0000001800000000000000c9172cdf0a808000fe0200010000000008000f00fe00000014000100fd070000"
        "00000000000000000000000214000200000000000000000000000000000000001400070"
        "0fd0700000000000000000000000000010800060000010000080004000300000024000c0002000000"
    )
    + bytes(28)
    + bytes.fromhex("0500140000000000")
)
OWN_WAY = bytes.fromhex(
    "680000001800000000000000c9172cdf02200000fe0000020002008008000f00fe000000080001000a010203"
    "0800040001000000080007000a010203080019000000000024000c0001000000"
) + bytes(28)
NO_WAY = bytes.fromhex(
    "440000000200000000000000c9172cdf9bffffff300000001a00010000000000000000000a80000000000000"
    "000000001400010020010db8000000000000000000000001"
)

DOWN = bytes.fromhex("2000000010000000000000000000000000000100030000000210000001000000")
RUNNING = bytes.fromhex("2000000010000000000000000000000000000100030000004310010000000000")
REMOVED = bytes.fromhex("20000000110000000000000000000000000001000300000002100000ffffffff")
ADDRESS_GONE = bytes.fromhex(
    "4c000000150000004f6b086bcf7600000218800003000000080001000a010203080002000a01020307000300"
    "76610000080008008000000014000600ffffffffffffffff74a5800074a58000"
)
ADDRESS_GONE_6 = bytes.fromhex(
    "480000001500000000000000000000000a4082000300000014000100fd070000000000000000000000000001"
    "14000600ffffffffffffffff9ea580009ea580000800080082000000"
)
ADDRESS_NEW = ADDRESS_GONE[:4] + b"\x14" + ADDRESS_GONE[5:]
ROUTE_GONE = bytes.fromhex(
    "3c000000190000000000000000000000021800"
    "00fe02fd010000000008000f00fe000000080001000a010200"
    "080007000a0102030800040003000000"
)


@pytest.mark.parametrize(
    ("data", "way"),
    [
        (NEAR_WAY, Way(3, b"", OURS)),
        (FAR_WAY, Way(3, socket.inet_aton("10.1.2.1"), b"")),
        (VIA_WAY, Way(3, b"\n\0" + socket.inet_pton(socket.AF_INET6, "fd07::9"), OURS)),
        (WAY_6, Way(3, b"", OURS_6)),
        (OWN_WAY, None),
        (NO_WAY, None),
        (b"", None),
    ],
)
def test_the_answer_is_a_way_to_another_machine_or_none(data: bytes, way: Way | None) -> None:
    assert answer(data) == way


def test_a_question_has_the_peer_and_what_is_known_of_our_side() -> None:
    assert question(Path(PEER)).hex() == (
        "240000001a0001000000000000000000022000000000000000000000080001000a010209"
    )
    assert question(Path(FAR, OURS, 3)).hex() == (
        "34000000"
        "1a000100"
        "00000000"
        "00000000"
        "02202000"
        "00000000"
        "00000000"
        "08000100"
        "01020304"
        "08000200"
        "0a010203"
        "08000400"
        "03000000"
    )
    assert question(Path(PEER_6))[16:18] == bytes([socket.AF_INET6, 128])


def test_a_device_that_does_not_run_and_an_address_that_is_removed_have_gone() -> None:
    assert list(gone(DOWN)) == [Gone(3)]
    assert list(gone(REMOVED)) == [Gone(3)]
    assert list(gone(ADDRESS_GONE)) == [Gone(3, OURS)]
    assert list(gone(ADDRESS_GONE_6)) == [Gone(3, OURS_6)]
    assert list(gone(RUNNING + ADDRESS_NEW + ROUTE_GONE)) == []


def test_several_messages_may_come_at_once() -> None:
    assert list(gone(DOWN + RUNNING + ADDRESS_GONE)) == [Gone(3), Gone(3, OURS)]


@pytest.mark.parametrize("whole", [DOWN, ADDRESS_GONE, NEAR_WAY, WAY_6])
def test_what_is_not_whole_says_nothing(whole: bytes) -> None:
    for length in range(len(whole)):
        assert list(gone(whole[:length])) == []
        assert answer(whole[:length]) is None


@pytest.mark.parametrize(
    "data",
    [
        bytes(16),  # a length of nothing would be read again for ever
        b"\x10\0\0\0\x10\0" + bytes(10),  # a device without a body
        b"\x10\0\0\0\x15\0" + bytes(10),
        b"\x10\0\0\0\x18\0" + bytes(10),
        ADDRESS_GONE[:24] + bytes(52),  # an attribute of no length
    ],
)
def test_junk_says_nothing(data: bytes) -> None:
    assert list(gone(data)) == []
    assert answer(data) is None


def test_a_route_without_a_device_is_by_none() -> None:
    short = NEAR_WAY[:28]
    assert answer(b"\x1c" + short[1:]) == Way(0, b"", b"")
