"""Whose a file is in the end, and who may use it; and when the run before died in between."""

from __future__ import annotations

import errno
import os
import random
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpipe.ends.disk import Disk
from bpipe.ends.part import Target
from bpipe.errors import TargetError
from tests.simulation.disk import Disk as Model
from tests.simulation.disk import Manners
from tests.simulation.system import FOLDER, HERE, Killed, System
from tests.support.targets import finish, needs_root, part_of, refusal, write

NOBODY = 65534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_a_new_file_has_the_usual_mode(path: Path) -> None:
    target = Target.open(str(path))
    write(target, b"12345")
    assert finish(target, 3)
    assert path.read_bytes() == b"123"
    assert mode(path) == 0o640
    assert not part_of(path).exists()
    target.close()


def test_an_old_file_keeps_its_mode(path: Path) -> None:
    path.touch()
    path.chmod(0o4751)
    target = Target.open(str(path))
    assert finish(target, 0)
    assert mode(path) == 0o751  # other content is not what was trusted with the rest
    target.close()


@needs_root
def test_an_old_file_keeps_its_owner_for_root(path: Path) -> None:
    path.touch(0o600)
    os.chown(path, NOBODY, NOBODY)
    target = Target.open(str(path))
    assert finish(target, 0)
    assert (path.stat().st_uid, path.stat().st_gid) == (NOBODY, NOBODY)
    target.close()


@needs_root
@pytest.mark.parametrize("number", [errno.EPERM, errno.EINVAL])
def test_without_its_group_a_file_is_for_no_other_group(path: Path, number: int) -> None:
    class Refusing(Disk):
        def chown(self, descriptor: int, user: int, group: int) -> None:
            raise OSError(number, "")

    path.touch()
    path.chmod(0o674)
    os.chown(path, -1, NOBODY)
    target = Target.open(str(path), Refusing())
    assert finish(target, 0)
    assert mode(path) == 0o644
    target.close()


# --- a run that dies meanwhile ---

ROOT, OTHER = 0, 2000


class User(System):
    """A process of this user, which dies when so many calls are made."""

    def __init__(self, disk: Model, user: int, left: int = -1) -> None:
        self._user = user
        self.left = left
        super().__init__(disk, self._count)

    def _count(self, what: str, seconds: float) -> None:
        self.left -= 1
        if self.left == 0:
            self.kill()

    def user(self) -> int:
        return self._user


def run(system: System, data: bytes) -> bool:
    """A whole run; returns whether it has come to its end."""
    try:
        target = Target.open(f"{FOLDER}/file", system)
        write(target, data)
        return finish(target, len(data))
    except Killed:
        return False
    finally:
        system.kill()


@pytest.mark.parametrize(
    ("user", "owner", "mode"),
    [
        (HERE, HERE, 0o444), (HERE, HERE, 0o500), (HERE, HERE, 0o644),
        (ROOT, OTHER, 0o640), (ROOT, OTHER, 0o400), (ROOT, ROOT, 0o444),
    ],
)  # fmt: skip
def test_whenever_a_run_dies_the_next_one_can_go_on(user: int, owner: int, mode: int) -> None:
    calls, lived = 0, False
    while not lived:
        calls += 1
        disk = Model(random.Random(1), Manners(), lambda: 1.0)
        disk.put("file", b"old", stat.S_IFREG | mode).owner = (owner, owner)
        lived = run(User(disk, user, calls), b"first")
        assert run(User(disk, user), b"again"), f"after {calls} calls"
        file = disk.names["file"]
        assert disk.seen("file") == b"again"
        assert (stat.S_IMODE(file.mode), file.owner[0]) == (mode, owner), f"after {calls} calls"
        assert "file.part" not in disk.names
    assert calls > 15


@pytest.mark.parametrize("late", [False, True])
def test_a_part_that_gets_no_name_is_ours_alone(path: Path, late: bool) -> None:
    path.write_bytes(b"old")
    path.chmod(0o644)
    target = Target.open(str(path))
    write(target, b"x")

    def change() -> bool:
        path.write_bytes(b"changed")
        return late

    assert late or not target.finish(1, lambda: False)
    if late:
        with pytest.raises(TargetError):
            target.finish(1, change)
    assert mode(part_of(path)) == 0o600
    target.close()


def test_a_part_that_others_could_read_is_ours_alone(path: Path) -> None:
    part_of(path).write_bytes(b"x")
    part_of(path).chmod(0o444)
    target = Target.open(str(path))
    assert target.lies == 1
    assert mode(part_of(path)) == 0o600
    target.close()


def test_what_cannot_look_like_the_old_file_stays(path: Path) -> None:
    class Refusing(Disk):
        def chmod(self, descriptor: int, mode: int) -> None:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    target = Target.open(str(path), Refusing())
    write(target, b"x")
    with pytest.raises(TargetError) as caught:
        finish(target, 1)
    assert str(caught.value) == f"cannot write {part_of(path)}: operation not permitted"
    assert target.kept
    target.close()


@needs_root
def test_only_the_owner_of_the_file_may_have_been_given_its_part(path: Path) -> None:
    path.write_bytes(b"old")
    part_of(path).write_bytes(b"x")
    os.chown(part_of(path), NOBODY, NOBODY)
    text = f"cannot write {part_of(path)}: it belongs to another user"
    assert refusal(path) == (text, True)
    os.chown(path, NOBODY, NOBODY)
    target = Target.open(str(path))
    assert part_of(path).stat().st_uid == 0
    assert finish(target, 1)
    assert path.stat().st_uid == NOBODY
    target.close()
