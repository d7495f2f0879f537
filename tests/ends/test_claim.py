"""Who has the part of a file: one receiver, whoever comes and goes meanwhile."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from bpipe.ends.disk import Disk
from bpipe.ends.part import Target
from bpipe.errors import TargetError
from tests.support.targets import finish, part_of, refusal, write

NOBODY = 65534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_second_receiver_is_refused(path: Path) -> None:
    target = Target.open(str(path))
    write(target, b"x")
    text = f"cannot write {part_of(path)}: another bpipe is writing it"
    assert refusal(path) == (text, False)
    target.close()
    again = Target.open(str(path))
    assert again.base == 1
    again.close()


class Slow(Disk):
    """Somebody is quicker, once."""

    def __init__(self, action: Callable[[], object], moment: str) -> None:
        self._actions = [action]
        self._moment = moment

    def lock(self, descriptor: int) -> bool:
        if self._moment == "lock" and self._actions:
            self._actions.pop()()
        return super().lock(descriptor)

    def open(self, name: str, flags: int, folder: int) -> int:
        if self._moment == "open" and self._actions and name.endswith(".part"):
            self._actions.pop()()
        return super().open(name, flags, folder)


@pytest.mark.parametrize("there", [False, True])
def test_a_part_that_is_renamed_before_it_is_locked_is_let_go(path: Path, there: bool) -> None:
    if there:
        part_of(path).write_bytes(b"theirs")
    disk = Slow(lambda: part_of(path).rename(path), "lock")
    target = Target.open(str(path), disk)
    assert target.lies == 0
    write(target, b"ours")
    assert part_of(path).read_bytes() == b"ours"
    assert path.read_bytes() == (b"theirs" if there else b"")
    target.close()


def test_one_that_another_has_just_finished_is_no_reason_to_refuse(path: Path) -> None:
    other = Target.open(str(path))
    write(other, b"theirs")
    disk = Slow(lambda: part_of(path).rename(path), "lock")  # and it has its lock still
    target = Target.open(str(path), disk)
    assert target.lies == 0
    target.close()
    other.close()


@pytest.mark.parametrize("there", [False, True])
def test_a_part_that_comes_or_goes_meanwhile_is_opened(path: Path, there: bool) -> None:
    part = part_of(path)
    if there:
        part.touch()
    disk = Slow(part.unlink if there else part.touch, "open")
    target = Target.open(str(path), disk)
    assert part.exists()
    target.close()


def test_a_part_that_never_stays_is_given_up(path: Path) -> None:
    class Restless(Disk):
        def lock(self, descriptor: int) -> bool:
            part_of(path).unlink()
            return super().lock(descriptor)

    assert refusal(path, Restless()) == (f"cannot write {part_of(path)}: it keeps changing", False)


def test_nobody_else_can_read_the_part(path: Path) -> None:
    target = Target.open(str(path))
    assert mode(part_of(path)) == 0o600
    target.close()


def test_an_empty_part_goes_when_it_is_closed(path: Path) -> None:
    target = Target.open(str(path))
    assert part_of(path).exists()
    target.close()
    target.close()
    assert not part_of(path).exists()


def test_where_nothing_can_be_locked_nothing_is_left(path: Path) -> None:
    class Lockless(Disk):
        def lock(self, descriptor: int) -> bool:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    text = f"cannot write {part_of(path)}: no locks available"
    assert refusal(path, Lockless()) == (text, False)
    assert not part_of(path).exists()
    part_of(path).touch()
    assert refusal(path, Lockless()) == (text, False)
    assert part_of(path).exists()


# --- what is the part of another file ---


def test_the_part_of_another_receiver_is_no_file_to_write(path: Path) -> None:
    target = Target.open(str(path))
    text = f"cannot write {part_of(path)}: another bpipe is writing it"
    assert refusal(part_of(path)) == (text, False)
    assert not part_of(part_of(path)).exists()
    assert finish(target, 0)
    target.close()


def test_a_file_that_would_be_a_part_is_no_part_meanwhile(path: Path) -> None:
    part = part_of(path)
    part.write_bytes(b"old")
    target = Target.open(str(part))
    text = f"cannot write {part}: another bpipe is writing it"
    assert refusal(path) == (text, False)
    for _ in range(2):  # with -k, what was named is what is to be replaced next
        target.renew()
        write(target, b"new")
        assert finish(target, 3)
        assert part.read_bytes() == b"new"
    target.close()
    target = Target.open(str(path))
    assert target.lies == 3
    target.close()


def test_a_part_that_comes_meanwhile_is_not_replaced(path: Path) -> None:
    target = Target.open(str(part_of(path)))
    other = Target.open(str(path))
    write(other, b"theirs")
    with pytest.raises(TargetError) as caught:
        finish(target, 0)
    assert str(caught.value) == f"{part_of(path)} was changed by somebody else meanwhile"
    target.close()
    assert finish(other, 6)
    assert path.read_bytes() == b"theirs"
    other.close()


# --- and what has its name in the end ---


def test_what_another_receiver_writes_gets_no_name(path: Path) -> None:
    """Somebody has removed the part, and begun anew: the first one looked dead."""
    target = Target.open(str(path))
    write(target, b"12345")
    part_of(path).unlink()
    other = Target.open(str(path))
    write(other, b"unfinished")
    with pytest.raises(TargetError) as caught:
        finish(target, 5)
    why = f"{part_of(path)} was renamed or removed by somebody else meanwhile"
    assert (str(caught.value), caught.value.usage) == (why, False)
    assert not path.exists()
    assert not target.kept
    target.close()
    assert part_of(path).read_bytes() == b"unfinished"
    assert finish(other, 10)
    other.close()


@pytest.mark.parametrize("how", ["removed", "renamed", "replaced"])
@pytest.mark.parametrize("late", [False, True])
def test_a_part_that_is_not_there_gets_no_name(path: Path, how: str, late: bool) -> None:
    path.write_bytes(b"old")
    target, moved = Target.open(str(path)), path.with_name("moved")
    write(target, b"12345")

    def meanwhile() -> bool:
        part_of(path).rename(moved)
        if how == "removed":
            moved.unlink()
        elif how == "replaced":
            part_of(path).write_bytes(b"other")
        return True

    if not late:
        meanwhile()
    with pytest.raises(TargetError, match="was renamed or removed by somebody else"):
        target.finish(5, meanwhile if late else lambda: True)
    assert not target.there
    target.cut(1)
    target.remove()
    target.close()
    assert path.read_bytes() == b"old"
    assert how != "renamed" or moved.read_bytes() == b"12345"
    assert how != "replaced" or part_of(path).read_bytes() == b"other"
