"""What was written is brought to the disk every few seconds."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from bpipe.ends.part import Target
from bpipe.ends.syncs import Syncs
from bpipe.engine import Engine
from tests.support.targets import FailingDisk


class Place:
    """A part, and a stream of which so much is written."""

    def __init__(self, path: Path) -> None:
        self.disk = FailingDisk()
        self.target = Target.open(str(path), self.disk)
        self.written = 0
        self.engine = SimpleNamespace(failure=None, nudge=lambda: None)
        self.syncs = Syncs(cast("Engine", self.engine), self.target, lambda: self.written)

    def during(self, action: Callable[[], object]) -> None:
        """Sync, and do this meanwhile."""
        sync = self.disk.sync_data

        def slow(descriptor: int) -> None:
            action()
            sync(descriptor)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.disk, "sync_data", slow)
            self.syncs.sync()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path / "file")
    yield place
    place.target.close()


def test_what_was_there_is_synced_first_and_then_only_what_is_new(place: Place) -> None:
    assert place.syncs.sync()
    assert place.disk.called == ["sync_data"]
    place.syncs.sync()
    assert place.disk.called == ["sync_data"]
    place.written = 5
    place.syncs.sync()
    assert place.disk.called == ["sync_data"] * 2
    assert place.syncs.good == 5


def test_what_is_written_during_a_sync_may_not_be_on_the_disk(place: Place) -> None:
    place.written = 5
    place.during(lambda: setattr(place, "written", 9))
    assert place.syncs.good == 5
    place.syncs.sync()
    assert place.syncs.good == 9


def test_an_error_is_kept_and_nothing_is_synced_after_it(place: Place) -> None:
    place.written = 5
    place.syncs.sync()
    place.written, place.disk.broken = 9, {"sync_data": errno.EIO}
    assert not place.syncs.sync()
    assert place.syncs.wanted()
    place.disk.broken = {}
    place.written = 12
    assert not place.syncs.sync()
    assert place.syncs.error is not None
    assert place.syncs.error.errno == errno.EIO
    assert place.syncs.good == 5


def test_who_stops_them_knows_whether_one_is_under_way(place: Place) -> None:
    stopped: list[bool] = []
    place.during(lambda: stopped.append(place.syncs.stop()))
    assert stopped == [False]
    assert place.syncs.stop()
    assert place.syncs.wanted()
    place.written = 5
    assert not place.syncs.sync()
    assert place.syncs.good == 0


def test_they_end_with_the_session(place: Place) -> None:
    assert not place.syncs.wanted()
    place.engine.failure = True
    assert place.syncs.wanted()
    assert not place.syncs.sync()
    assert place.disk.called == []
