"""Which of the two streams is wanted."""

from __future__ import annotations

import pytest
import typer

from bpipe.cli.direction import Direction
from bpipe.ends.streams import Directions


def test_which_directions() -> None:
    assert Direction().directions() == Directions()
    assert Direction(send_only=True).directions() == Directions(send_only=True)
    assert Direction(recv_only=True).directions() == Directions(recv_only=True)


def test_what_contradicts_itself() -> None:
    with pytest.raises(typer.BadParameter, match="leave nothing to do"):
        Direction(True, True).directions()
