"""What a stream is to become: what is refused, who has the part, and how it gets its name."""

from __future__ import annotations

import errno
import os
import pty
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from bpipe.ends.disk import Disk
from bpipe.ends.part import Target
from bpipe.errors import TargetError
from tests.support.targets import (
    FailingDisk,
    Mapped,
    device,
    finish,
    needs_root,
    part_of,
    refusal,
    write,
)

__all__ = ["device"]

NOBODY = 65534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


# --- what is refused ---


def test_a_link_is_refused(path: Path) -> None:
    path.symlink_to("other")
    text = f"cannot write {path}: it is a link to other: name that itself"
    assert refusal(path) == (text, True)
    assert not part_of(path).exists()


def test_what_is_no_file_is_refused(path: Path) -> None:
    path.mkdir()
    assert refusal(path) == (f"cannot write {path}: it is a folder", True)
    text = f"cannot write {path}/: that is the name of a folder"
    assert refusal(f"{path}/") == (text, True)
    assert refusal(f"{path}/..")[1]
    assert refusal("")[1]
    path.rmdir()
    os.mkfifo(path)
    assert refusal(path) == (f"cannot write {path}: it is a FIFO", True)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        assert refusal(path) == (f"cannot write {path}: it is a socket", True)


def test_a_terminal_is_refused() -> None:
    master, terminal = pty.openpty()
    text, usage = refusal(os.ttyname(terminal))
    assert usage
    assert "it is a terminal" in text
    os.close(master)
    os.close(terminal)


def test_a_folder_that_is_missing_is_refused(path: Path) -> None:
    text = f"cannot write {path}/file: its folder: no such file or directory"
    assert refusal(path / "file") == (text, True)
    path.touch()
    assert refusal(path / "file") == (text.replace("no such file or", "not a"), True)


def test_what_the_system_refuses_is_no_wrong_thing(path: Path) -> None:
    text, usage = refusal(path.with_name("x" * 252))
    assert text.endswith("x.part: file name too long")
    assert not usage


def test_a_part_that_is_a_link_or_no_file_is_refused(path: Path) -> None:
    part = part_of(path)
    part.symlink_to(path)
    assert refusal(path) == (f"cannot write {part}: it is a link to {path}: name that itself", True)
    part.unlink()
    os.mkfifo(part)
    assert refusal(path) == (f"cannot write {part}: it is a FIFO", True)


def test_a_part_with_another_name_is_refused(path: Path) -> None:
    path.touch()
    os.link(path, part_of(path))
    text = f"cannot write {part_of(path)}: it has another name, too: remove one of them"
    assert refusal(path) == (text, True)


@pytest.mark.parametrize("number", [1000, 4242])
def test_what_belongs_to_another_user_is_refused(path: Path, number: int) -> None:
    path.touch()
    disk = Mapped(1000, number, path.stat().st_ino)
    assert refusal(path, disk) == (f"cannot write {path}: it belongs to another user", True)
    path.rename(part_of(path))
    text = f"cannot write {part_of(path)}: it belongs to another user"
    assert refusal(path, disk) == (text, True)
    assert os.listdir(path.parent) == ["file.part"]


@pytest.mark.parametrize("user", [0, 1000])
def test_a_file_system_may_know_us_by_another_number(path: Path, user: int) -> None:
    disk = Mapped(user, 4242)
    for data in (b"first", b"second"):
        target = Target.open(str(path), disk)
        write(target, data)
        assert finish(target, len(data))
        target.close()
        assert path.read_bytes() == data
    target = Target.open(str(path), disk)
    write(target, b"third")
    target.close()
    target = Target.open(str(path), disk)
    assert target.lies == 5
    target.close()
    assert sorted(os.listdir(path.parent)) == ["file", "file.part"]


@needs_root
def test_root_may_write_another_users_file_but_not_his_part(path: Path) -> None:
    path.touch()
    os.chown(path, NOBODY, NOBODY)
    Target.open(str(path)).close()
    path.rename(part_of(path))
    assert refusal(path)[1]
    path.touch()
    assert refusal(path)[1]


# --- what lies there ---


def test_a_name_alone_is_in_the_folder_where_we_are(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    target = Target.open("file")
    assert part_of(path).exists()
    target.close()


def test_the_base_is_the_part_and_the_file_beyond_it(path: Path) -> None:
    path.write_bytes(bytes(10))
    part_of(path).write_bytes(bytes(4))
    target = Target.open(str(path))
    assert (target.lies, target.base) == (4, 10)
    write(target, bytes(20))
    target.renew()
    assert (target.lies, target.base) == (20, 20)
    target.close()


# --- how it gets its name ---


def test_a_session_that_has_failed_gives_no_name(path: Path) -> None:
    target = Target.open(str(path))
    write(target, b"x")
    assert not target.finish(1, lambda: False)
    target.close()
    assert part_of(path).read_bytes() == b"x"
    assert not path.exists()


def change(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"y")


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.rename(path)


@pytest.mark.parametrize("how", [change, replace, Path.unlink, lambda path: path.chmod(0o600)])
@pytest.mark.parametrize("late", [False, True])
def test_a_base_that_has_changed_is_replaced_by_nobody(
    path: Path, how: Callable[[Path], object], late: bool
) -> None:
    path.write_bytes(b"12345")
    target = Target.open(str(path))
    target.disk.settle(target.disk.stat(target.old))
    write(target, b"x")

    def meanwhile() -> bool:
        how(path)
        return True

    if not late:
        how(path)
    with pytest.raises(TargetError) as caught:
        target.finish(1, meanwhile if late else lambda: True)
    assert str(caught.value) == f"{path} was changed by somebody else meanwhile"
    assert not caught.value.usage
    target.close()
    assert part_of(path).read_bytes() == b"x"


def test_a_file_that_comes_meanwhile_is_replaced_by_nobody(path: Path) -> None:
    target = Target.open(str(path))
    path.write_bytes(b"theirs")
    with pytest.raises(TargetError):
        finish(target, 0)
    assert path.read_bytes() == b"theirs"
    target.renew()
    assert finish(target, 0)
    target.close()


def test_everything_is_on_the_disk_before_the_name_is(path: Path) -> None:
    disk = FailingDisk()
    target = Target.open(str(path), disk)
    assert finish(target, 0)
    assert disk.called == ["truncate", "sync_data", "sync", "rename", "sync"]
    target.close()


@pytest.mark.parametrize("what", ["truncate", "sync_data", "sync"])
def test_what_fails_before_the_name_is_raised(path: Path, what: str) -> None:
    disk = FailingDisk()
    target = Target.open(str(path), disk)
    write(target, b"x")
    disk.broken[what] = errno.EIO
    with pytest.raises(OSError, match="Input/output error"):
        finish(target, 1)
    assert not path.exists()
    target.close()


def test_a_rename_that_fails_leaves_the_part(path: Path) -> None:
    disk = FailingDisk()
    target = Target.open(str(path), disk)
    write(target, b"x")
    disk.broken["rename"] = errno.EACCES
    with pytest.raises(TargetError) as caught:
        finish(target, 1)
    assert (str(caught.value), target.kept) == (f"cannot write {path}: permission denied", True)
    target.close()
    assert part_of(path).read_bytes() == b"x"


# --- and if it does not ---


def test_a_part_that_is_removed_is_made_anew_for_the_next(path: Path) -> None:
    target = Target.open(str(path))
    write(target, b"x")
    assert target.remove()
    assert not part_of(path).exists()
    target.renew()
    assert (target.lies, target.base) == (0, 0)
    assert part_of(path).exists()
    write(target, b"y")
    assert finish(target, 1)
    assert not target.remove()
    target.renew()
    assert (target.lies, target.base) == (0, 1)
    target.close()


def test_what_has_the_name_of_the_part_by_now_is_not_removed(path: Path) -> None:
    target = Target.open(str(path))
    part_of(path).unlink()
    part_of(path).touch()
    assert target.remove()
    assert part_of(path).exists()
    target.close()


def test_a_part_that_cannot_be_removed_is_told(path: Path) -> None:
    disk = FailingDisk()
    target = Target.open(str(path), disk)
    disk.broken["unlink"] = errno.EROFS
    assert not target.remove()
    target.close()


def test_what_is_not_to_be_believed_is_cut_off(path: Path) -> None:
    target = Target.open(str(path))
    write(target, b"12345")
    target.cut(9)
    assert part_of(path).read_bytes() == b"12345"
    target.cut(2)
    assert part_of(path).read_bytes() == b"12"
    target.close()


def test_what_a_thread_may_be_at_work_on_is_not_closed(path: Path) -> None:
    target = Target.open(str(path))
    target.abandon()
    target.close()
    write(target, b"x")
    os.close(target.part)


# --- block devices ---


def test_a_device_that_the_system_uses_is_refused(device: Callable[[int], Path]) -> None:
    path = device(1 << 20)
    held = os.open(path, os.O_RDWR | os.O_EXCL)  # as if it were mounted
    assert refusal(path) == (f"cannot write {path}: the device is in use", False)
    os.close(held)


def test_a_device_is_written_in_place(device: Callable[[int], Path]) -> None:
    path = device(1 << 20)
    target = Target.open(str(path))
    assert target.device
    assert target.part_path == str(path)
    assert (target.base, target.lies) == (1 << 20, 1 << 20)
    write(target, b"12345")
    text, usage = refusal(path)
    assert text == f"cannot write {path}: the device is in use"
    assert not usage
    target.renew()
    assert not target.finish(5, lambda: False)
    assert finish(target, 5)
    target.cut(2)
    assert not target.remove()
    target.close()
    assert not part_of(path).exists()
    assert path.read_bytes() == b"12345" + bytes((1 << 20) - 5)


def test_a_file_that_is_a_device_by_now_is_none_any_more(path: Path) -> None:
    class Changing(Disk):
        def lstat(self, name: str, folder: int) -> os.stat_result | None:
            found = super().lstat(name, folder)
            if found is None or name != path.name:
                return found
            return os.stat_result((stat.S_IFBLK | 0o600, *found[1:]))

    target = Target.open(str(path), Changing())
    write(target, b"x")
    path.write_bytes(b"a device")
    with pytest.raises(TargetError, match="it has just become another"):
        target.renew()
    target.close()
    assert path.read_bytes() == b"a device"
