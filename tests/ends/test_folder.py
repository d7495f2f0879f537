"""Where a file lies: the folder that it had in the beginning, and no other."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from bpipe.ends.part import Target
from bpipe.errors import TargetError
from tests.support.targets import finish, part_of, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


def not_named(target: Target, length: int) -> str:
    """Why it does not get its name."""
    with pytest.raises(TargetError) as caught:
        finish(target, length)
    assert not caught.value.usage
    assert not target.named
    return str(caught.value)


@pytest.mark.parametrize("again", [False, True])
def test_a_file_whose_folder_was_renamed_is_not_named(folder: Path, again: bool) -> None:
    path = folder / "file"
    target = Target.open(str(path))
    write(target, b"x")
    moved = folder.rename(folder.with_name("moved"))
    if again:
        folder.mkdir()
        path.write_bytes(b"precious")
    why = f"the folder of {path} was renamed or replaced meanwhile"
    assert not_named(target, 1) == why
    assert not target.kept
    target.close()
    assert part_of(moved / "file").read_bytes() == b"x"
    assert not (moved / "file").exists()
    assert not again or path.read_bytes() == b"precious"


def test_a_link_that_leads_to_another_folder_meanwhile_is_one_that_was_renamed(
    folder: Path,
) -> None:
    link = folder.with_name("link")
    link.symlink_to(folder)
    target = Target.open(str(link / "file"))
    link.unlink()
    link.symlink_to(folder.parent)
    assert "was renamed or replaced" in not_named(target, 0)
    target.close()


def test_a_folder_that_cannot_be_looked_at_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Target.open(str(folder / "file"))
    write(target, b"x")

    def fail(path: str) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(target.disk, "open_folder", fail)
    text = f"cannot write {folder}/file: its folder: too many open files"
    assert not_named(target, 1) == text
    with pytest.raises(TargetError, match="too many open files"):
        target.renew()
    target.close()
    assert part_of(folder / "file").read_bytes() == b"x"


@pytest.mark.parametrize("content", [b"", b"x"])
def test_the_next_session_is_in_the_folder_that_is_there_by_then(
    folder: Path, content: bytes
) -> None:
    path = folder / "file"
    path.write_bytes(b"12345")
    target = Target.open(str(path))
    write(target, content)
    moved = folder.rename(folder.with_name("moved"))
    with pytest.raises(TargetError, match="its folder: no such file"):
        target.renew()
    folder.mkdir()
    target.renew()
    assert (target.base, target.old) == (0, -1)
    write(target, b"new")
    assert finish(target, 3)
    assert path.read_bytes() == b"new"
    assert part_of(moved / "file").exists() is bool(content)
    assert (moved / "file").read_bytes() == b"12345"
    target.close()


def test_a_folder_in_which_nothing_can_be_made_is_told_at_once() -> None:
    if not os.path.exists("/proc/self/comm"):
        pytest.skip("there is no such folder here")
    with pytest.raises(TargetError) as caught:
        Target.open("/proc/self/comm")
    assert str(caught.value) == "cannot write /proc/self/comm.part: no such file or directory"


@pytest.mark.parametrize(("number", "works"), [(errno.EINVAL, True), (errno.EIO, False)])
def test_a_folder_that_cannot_be_synced_need_not_be(
    folder: Path, number: int, works: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "file"
    target = Target.open(str(path))
    sync = target.disk.sync

    def fail(descriptor: int) -> None:
        if descriptor != target.part:
            raise OSError(number, os.strerror(number))
        sync(descriptor)

    monkeypatch.setattr(target.disk, "sync", fail)
    if works:
        assert finish(target, 0)
    else:
        with pytest.raises(OSError, match="Input/output error"):
            finish(target, 0)
    assert target.named
    assert not target.kept
    target.close()
    assert path.exists()
