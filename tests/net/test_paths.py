"""What a change in this machine's network means to those who use it."""

from __future__ import annotations

import pytest

from bpipe.net.netlink import Gone, Path, Way
from bpipe.net.paths import Paths, Watched

OURS, PEER, OTHER = b"\n\0\0\1", b"\n\0\0\2", b"\n\0\0\3"
PATH = Path(PEER, OURS)
WAY = Way(3, b"", b"")


class Kernel:
    """Knows the ways, and counts how often it is asked."""

    def __init__(self) -> None:
        self.ways: dict[Path, Way] = {PATH: WAY}
        self.asked = 0
        self.paths = Paths(self.ask)
        self.told: list[bool] = []

    def ask(self, path: Path) -> Way | None:
        self.asked += 1
        return self.ways.get(path)

    def watch(self, path: Path = PATH) -> Watched:
        return self.paths.watch(path, self.told.append)

    def change(self, way: Way | None, *gone: Gone) -> list[bool]:
        """This is the way from now on; returns what is told."""
        self.told.clear()
        self.ways.pop(PATH, None)
        if way is not None:
            self.ways[PATH] = way
        self.paths.tell(self.paths.changed(iter(gone)))
        return self.told


def test_a_way_that_goes_and_one_that_comes_are_told() -> None:
    kernel = Kernel()
    kernel.watch()
    assert kernel.change(None) == [False]
    assert kernel.change(None) == []
    assert kernel.change(WAY) == [True]
    assert kernel.change(WAY) == []


@pytest.mark.parametrize("other", [Way(4, b"", b""), Way(3, b"gate", b""), Way(3, b"", b"me")])
def test_another_way_is_told(other: Way) -> None:
    kernel = Kernel()
    kernel.watch()
    assert kernel.change(other) == [True]
    assert kernel.change(other) == []


@pytest.mark.parametrize("gone", [Gone(3), Gone(3, OURS)])
def test_what_was_away_for_a_moment_is_told(gone: Gone) -> None:
    kernel = Kernel()
    kernel.watch()
    assert kernel.change(WAY, gone) == [True]
    assert kernel.change(None, gone) == [False]


@pytest.mark.parametrize("gone", [Gone(4), Gone(3, OTHER), Gone(4, PEER)])
def test_what_does_not_concern_a_path_is_not(gone: Gone) -> None:
    kernel = Kernel()
    kernel.watch()
    assert kernel.change(WAY, gone) == []


def test_where_the_kernel_chooses_our_address_that_one_concerns_it() -> None:
    kernel, path = Kernel(), Path(PEER)
    kernel.ways[path] = Way(3, b"", OURS)
    kernel.watch(path)
    kernel.paths.tell(kernel.paths.changed([Gone(3, OTHER)]))
    assert kernel.told == []
    kernel.paths.tell(kernel.paths.changed([Gone(3, OURS)]))
    assert kernel.told == [True]


def test_a_path_that_the_kernel_never_had_a_way_for_is_not_told_to_be_gone() -> None:
    kernel = Kernel()
    kernel.ways.clear()
    kernel.watch()
    assert kernel.change(None, Gone(3)) == []
    assert kernel.change(WAY) == [True]


def test_many_of_one_path_cost_one_question() -> None:
    kernel = Kernel()
    for _ in range(5):
        kernel.watch()
    kernel.asked = 0
    assert kernel.change(None) == [False] * 5
    assert kernel.asked == 1


def test_who_is_forgotten_is_told_nothing() -> None:
    kernel = Kernel()
    watched = kernel.watch()
    assert kernel.paths
    kernel.paths.forget(watched)
    kernel.paths.forget(watched)
    assert not kernel.paths
    assert kernel.change(None) == []


def test_who_is_told_may_have_others_forgotten_and_watched() -> None:
    kernel = Kernel()

    def tell(there: bool) -> None:
        kernel.told.append(there)
        kernel.paths.forget(second)
        kernel.watch()

    kernel.paths.watch(PATH, tell)
    second = kernel.watch()
    assert kernel.change(None) == [False]
    assert kernel.change(WAY) == [True, True]
