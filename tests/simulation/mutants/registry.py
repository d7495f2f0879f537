"""The list of mutants, and what several of them need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bpipe.protocol.channel import Channel
from bpipe.protocol.frames import Frames
from bpipe.protocol.session import Session

Patch = pytest.MonkeyPatch
MUTANTS: dict[str, Callable[[Patch], None]] = {}
PLACES: dict[str, tuple[int, int]] = {}  # of those that only show in some worlds: see `worlds`


def mutant(change: Callable[[Patch], None]) -> Callable[[Patch], None]:
    """Enter this change into the list, under its docstring."""
    assert change.__doc__
    MUTANTS[change.__doc__] = change
    return change


def worlds(place: int, period: int) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """The same for one that only shows in one world of so many, beginning with the one there."""

    def enter(change: Callable[[Patch], None]) -> Callable[[Patch], None]:
        assert change.__doc__
        PLACES[change.__doc__] = place, period
        return mutant(change)

    return enter


def begin(patch: Patch, change: Callable[[Any], None]) -> None:
    """Have every channel begin with this change, which may ask how many links there were."""
    init = Channel.__init__

    def changed(self: Any, session: Session, frames: Frames, now: float) -> None:
        init(self, session, frames, now)
        change(self)

    patch.setattr(Channel, "__init__", changed)
