"""What takes the place of stdin and stdout; tests/cli/test_given.py has what contradicts itself."""

from __future__ import annotations

import pytest

from bpipe.cli.direction import Direction
from bpipe.cli.many import Many
from bpipe.ends.streams import Directions
from bpipe.net.address import Address
from bpipe.protocol.wire import FILE, RECORDS
from bpipe.run.session import Wanted


@pytest.mark.parametrize(
    ("many", "program", "wanted"),
    [
        (Many(), None, Wanted(Directions())),
        (Many(), ["cat", "-n"], Wanted(Directions(), ["cat", "-n"])),
        (Many(keep_open=True), ["cat"], Wanted(Directions(), ["cat"])),
        (Many(to=Address("far", 22)), None, Wanted(Directions(), None, Address("far", 22))),
        (Many(from_=Address("", 22)), None, Wanted(Directions())),
    ],
)
def test_what_is_joined(many: Many, program: list[str] | None, wanted: Wanted) -> None:
    assert many.ends(Direction(), program) == wanted


@pytest.mark.parametrize("many", [Many(), Many(keep_open=True)])
def test_what_goes_to_a_file(many: Many) -> None:
    wanted = many.ends(Direction(output="a", whole=True), None)
    assert wanted == Wanted(Directions(), output="a", whole=True)
    assert many.ends(Direction(recv_only=True, output="a"), None).needs == RECORDS | FILE


def test_how_many() -> None:
    assert Many().most == 64
    assert Many(max_sessions=3).most == 3
