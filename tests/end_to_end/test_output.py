"""Streams that become files, by the commands that people type, and what goes wrong with them."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE
from typing import Final

import pytest

from tests.end_to_end.data import MIB, until
from tests.end_to_end.helpers import Bpipe, Program, Start
from tests.end_to_end.recipes import need
from tests.end_to_end.sshd import Near, Sshd

pytestmark = pytest.mark.slow

STREAM: Final = random.Random(19).randbytes(3 * MIB)
OLD: Final = b"what was there before"
PATIENT: Final = "--give-up-after=500ms"
SMALL: Final = "--buffer=64K"  # so that what was sent is soon told
LISTEN: Final = sys.executable, "-m", "bpipe", "listen"

# EXT4_IOC_SHUTDOWN, and nothing is written any more, not even to the journal.
POWER_CUT: Final = """
import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack("I", 2))
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """FILE, in a folder of its own; what was there before."""
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "FILE").write_bytes(OLD)
    return folder / "FILE"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file that has the stream."""
    path = tmp_path / "source"
    path.write_bytes(STREAM)
    return path


def beside(file: Path) -> set[str]:
    """What lies in the folder besides FILE."""
    return {each.name for each in file.parent.iterdir()} - {file.name}


def send(start: Start, path: Path, source: Path, *options: str) -> Bpipe:
    """A sender of this file."""
    with source.open("rb") as opened:
        return start.bpipe("connect", f"unix:{path}", SMALL, PATIENT, *options, stdin=opened)


def receive(start: Start, path: Path, file: Path, *options: str) -> Bpipe:
    """A listener that writes to this file, and is ready."""
    where = "listen", f"unix:{path}", SMALL, PATIENT
    bpipe = start.bpipe(*where, "--output", str(file), *options)
    _ = bpipe.address
    return bpipe


# --- who is at work already ---


def test_a_second_receiver_and_a_second_sender_are_refused_and_a_lost_session_is_gone_on_from(
    start: Start, path: Path, file: Path, source: Path
) -> None:
    receiver = receive(start, path, file)
    sender = start.bpipe("connect", f"unix:{path}", SMALL, stdin=PIPE)
    half = len(STREAM) // 2
    sender.stdin.write(STREAM[:half])
    part = file.with_name("FILE.part")
    until(lambda: part.exists() and part.stat().st_size > half - 2 * MIB, "half of the stream")

    other = start.bpipe("listen", f"unix:{path}2", "--output", str(file))
    assert other.wait() == 1
    assert f"cannot write {part}: another bpipe is writing it" in other.text
    second = send(start, path, source)
    assert second.wait() == 3
    assert "busy" in second.text

    sender.popen.kill()
    assert receiver.wait() == 4
    assert receiver.lines[-1].endswith(
        f"what has come stays in {part}; the same commands go on from there"
    )
    assert file.read_bytes() == OLD
    size = part.stat().st_size
    assert part.read_bytes() == STREAM[:size]

    again = receive(start, path, file)
    assert "are here already" in again.wait_line(re.escape(str(file)))
    assert send(start, path, source).wait() == 0
    assert again.wait() == 0
    assert file.read_bytes() == STREAM
    assert beside(file) == set()


def within(start: Start, script: str) -> Program:
    """A shell in a mount namespace of its own, which runs this; skips the test without one."""
    need("unshare")
    if os.geteuid():
        pytest.skip("only root can mount")
    return start.program("unshare", "-m", "sh", "-c", script)


def mounted(receivers: Program) -> None:
    """Wait for its listener; skips the test where it could not mount."""
    until(lambda: "listening on" in receivers.text or not receivers.running, "a listener")
    if not receivers.running and receivers.wait() == 77:
        pytest.skip(f"this cannot be mounted here: {receivers.text}")


def test_without_room_the_part_stays_and_with_room_it_goes_on(
    start: Start, path: Path, tmp_path: Path, source: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    listen = shlex.join([*LISTEN, f"unix:{path}", SMALL, "--output", str(disk / "FILE")])
    script = f"""
        mount -t tmpfs -o size=1m none {disk} || exit 77
        {listen}; echo "first $? $(ls {disk}) $(stat -c %s {disk}/FILE.part)" >&2
        mount -o remount,size=8m {disk}
        {listen}; echo "second $? $(ls {disk})" >&2
        cmp {disk}/FILE {source} && echo equal >&2
    """
    receivers = within(start, script)
    mounted(receivers)
    first = send(start, path, source)
    assert first.wait() == 1
    assert "no space left on device" in first.text.lower()
    assert receivers.wait_line("^first ") == f"first 1 FILE.part {MIB}"
    receivers.wait_line("the same commands go on from there")
    receivers.wait_line("^bpipe: listening on ", times=2)
    assert send(start, path, source).wait() == 0
    assert receivers.wait_line("^second ") == "second 0 FILE"
    receivers.wait_line("^equal$")


def test_what_was_received_outlives_a_power_cut(
    start: Start, path: Path, tmp_path: Path, source: Path
) -> None:
    """A real one, as far as the file system can tell: it loses all that is not on its disk."""
    need("mkfs.ext4")
    image, disk = tmp_path / "image", tmp_path / "disk"
    disk.mkdir()
    with image.open("wb") as opened:
        opened.truncate(32 * MIB)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    listen = shlex.join([*LISTEN, f"unix:{path}", SMALL, "--output", str(disk / "FILE")])
    script = f"""
        mount -o loop {image} {disk} || exit 77
        echo old > {disk}/FILE
        sync -f {disk}/FILE
        {listen} || exit
        {shlex.join([sys.executable, "-c", POWER_CUT, str(disk)])}
        umount {disk}
        mount -o loop {image} {disk}
        cmp {disk}/FILE {source} && echo equal >&2
        umount {disk}
    """
    receiver = within(start, script)
    mounted(receiver)
    assert send(start, path, source).wait() == 0
    receiver.wait_line("^equal$")


# --- producers that fail ---


def test_what_a_failed_program_has_sent_gets_no_name(
    start: Start, path: Path, file: Path, source: Path
) -> None:
    receiver = receive(start, path, file)
    program = "--", "sh", "-c", f"head -c 1000000 {source}; exit 3"
    sender = start.bpipe("connect", f"unix:{path}", SMALL, *program)
    assert sender.wait() == receiver.wait() == 3
    assert file.read_bytes() == OLD
    assert file.with_name("FILE.part").read_bytes() == STREAM[:1_000_000]


def test_a_stream_that_ends_well_is_named_and_only_then(
    start: Start, path: Path, file: Path, source: Path
) -> None:
    receiver = receive(start, path, file)
    go = path.with_name("go")
    wait = f"cat {source}; exec >&-; until [ -e {go} ]; do sleep 0.02; done"
    sender = start.bpipe("connect", f"unix:{path}", SMALL, "--", "sh", "-c", wait)
    part = file.with_name("FILE.part")
    until(lambda: part.exists() and part.stat().st_size == len(STREAM), "all of it")
    assert file.read_bytes() == OLD
    go.touch()
    assert sender.wait() == receiver.wait() == 0
    assert file.read_bytes() == STREAM
    assert beside(file) == set()


# --- ssh ---


def test_a_copy_over_ssh_is_whole_or_it_has_no_name(
    near: Near, sshd: Sshd, file: Path, source: Path
) -> None:
    far = sshd.far()
    (far.home / "data").write_bytes(STREAM)
    output = "--output", str(file), SMALL
    dump = "dump() { head -c $1 data; echo 'dump: said' >&2; }; "
    failed = near.ssh(far, dump + "dump 1000000; exit 3", *output)
    assert failed.wait() == 3
    assert "dump: said" in failed.lines
    assert file.read_bytes() == OLD
    part = file.with_name("FILE.part")
    assert part.read_bytes() == STREAM[:1_000_000]

    killed = near.ssh(far, dump + "dump 2000000; kill -KILL $$", *output)
    assert killed.wait() == 137
    assert file.read_bytes() == OLD
    assert part.read_bytes() == STREAM[:2_000_000]

    assert near.ssh(far, dump + "dump 99999999", *output).wait() == 0
    assert file.read_bytes() == STREAM
    assert beside(file) == set()
    far.wait_no_process()


def test_a_kill_of_the_near_end_keeps_what_was_there(near: Near, sshd: Sshd, file: Path) -> None:
    far = sshd.far()
    (far.home / "data").write_bytes(STREAM)
    output = "--output", str(file), SMALL
    endless = near.ssh(far, "cat data; exec sleep 100", *output)
    part = file.with_name("FILE.part")
    until(lambda: part.exists() and part.stat().st_size == len(STREAM), "all of it")
    endless.signal(15)
    endless.wait()
    far.wait_no_process()
    assert file.read_bytes() == OLD
    assert part.read_bytes() == STREAM


# --- disks ---


@contextlib.contextmanager
def loop(image: Path) -> Iterator[Path]:
    """A disk that has this content."""
    need("losetup")
    run = subprocess.run(["losetup", "--show", "-f", image], capture_output=True, text=True)
    if run.returncode:
        pytest.skip(f"there is no loop device: {run.stderr.strip()}")
    device = run.stdout.strip()
    try:
        yield Path(device)
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


def test_a_disk_is_written_in_place_and_keeps_what_lies_behind(
    start: Start, path: Path, tmp_path: Path, source: Path
) -> None:
    image = tmp_path / "image"
    content = bytearray(STREAM + b"T" * MIB)
    content[MIB] ^= 255
    image.write_bytes(content)
    with loop(image) as disk:
        receiver = receive(start, path, disk)
        receiver.wait_line("is written in place")
        sender = send(start, path, source, "--log-json", str(tmp_path / "log"))
        assert sender.wait() == 0
        assert receiver.wait() == 0
        assert "(1,048,576 bytes) are as before" in receiver.lines[-1]
        assert disk.read_bytes() == STREAM + b"T" * MIB
    assert '"sent": 16384,' in (tmp_path / "log").read_text().splitlines()[-1]


def test_a_stream_that_is_longer_than_the_disk_fails(
    start: Start, path: Path, tmp_path: Path, source: Path
) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(MIB))
    with loop(image) as disk:
        receiver, sender = receive(start, path, disk), send(start, path, source)
        assert sender.wait() == receiver.wait() == 1
    why = f"longer than {disk}, which holds {MIB} bytes"
    assert receiver.lines[-1].endswith(f"{why}; what has come stays in {disk}")
    assert why in sender.lines[-1]
    assert sender.lines[-1].endswith("; what the other end keeps is not sent again")
