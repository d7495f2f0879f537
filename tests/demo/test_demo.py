"""The demonstration, which has to tell the truth."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bpipe.demo import demo
from bpipe.demo.faults import Fault


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a few files, some of them odd."""
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    rng = random.Random(4)
    for number in range(20):
        (folder / "sub" / f"file {number}").write_bytes(rng.randbytes(rng.randrange(1 << 19)))
    (folder / "empty").touch()
    (folder / "two names").write_bytes(b"x")
    (folder / "second name").hardlink_to(folder / "two names")
    (folder / "link").symlink_to("empty")
    return folder


def run_demo(
    path: Path, scratch: Path, change: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run it in a process, after this change to it."""
    scratch.mkdir()
    program = f"import sys; from bpipe.demo import demo; {change}\nfrom bpipe.__main__ import main"
    return subprocess.run(
        [sys.executable, "-c", f"{program}\nmain()", "demo", str(path)],
        capture_output=True,
        text=True,
        timeout=90,
        env={**os.environ, "TMPDIR": str(scratch), **variables},
    )


def test_the_size_that_is_told_is_that_of_the_stream(folder: Path, tmp_path: Path) -> None:
    """So the percentage is there to the end."""
    (folder / ("long" * 40)).write_bytes(b"x" * 512)
    (folder / "\u00e4").write_bytes(b"x" * 513)
    files = dict(demo.files_under(folder, everything=True))
    stream = tmp_path / "stream"
    demo.pack(files, stream.open("wb"), {})
    assert demo.tar_size(files) == stream.stat().st_size


@pytest.mark.slow
def test_a_folder_arrives_and_the_breaks_are_told(folder: Path, tmp_path: Path) -> None:
    cuts = (
        "from bpipe.demo.faults import Cut, Fault; demo.random_cuts = lambda *_: "
        "[Cut(fault, True, 1000 * number) for number, fault in enumerate(Fault, 1)]"
    )
    done = run_demo(folder, tmp_path / "scratch", cuts)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"files +23 sent, 0 missing or different", done.stdout)
    assert re.search(r"exit status +0 at the sender, 0 at the receiver", done.stdout)
    assert "every byte arrived, once, in order" in done.stdout
    assert re.search(rf"breaks +{len(Fault)}, in \d+ connections", done.stdout)
    for fault in Fault:
        said = rf"  \d+\.\d s  {fault}, .* into a connection, sender to receiver"
        assert len(re.findall(said, done.stdout)) == 1
    assert list((tmp_path / "scratch").iterdir()) == []  # the copy is gone


@pytest.mark.slow
def test_a_file_that_does_not_arrive_is_told(folder: Path, tmp_path: Path) -> None:
    lose = (
        "demo.random_cuts = lambda *_: []; digest = demo._digest; "
        "demo._digest = lambda path: 'wrong' if path.name == 'file 3' else digest(path)"
    )
    done = run_demo(folder, tmp_path / "scratch", lose)
    assert done.returncode == 1
    assert re.search(r"files +23 sent, 1 missing or different", done.stdout)
    assert re.search(r"verdict +FAILED", done.stdout)


@pytest.mark.slow
def test_a_single_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(100_000))
    no_cuts = "demo.random_cuts = lambda *_: []"
    done = run_demo(file, tmp_path / "scratch", no_cuts, BPIPE_SECRET_FILE="/no/such/file")
    assert done.returncode == 0
    assert re.search(r"files +1 sent, 0 missing", done.stdout)
    assert re.search(r"breaks +0, in 1 connections", done.stdout)


@pytest.mark.slow
def test_an_interrupt_ends_it_and_removes_the_copy(folder: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with subprocess.Popen(
        [sys.executable, "-m", "bpipe", "demo", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch), "PYTHONUNBUFFERED": "1"},
    ) as process:
        try:
            assert process.stdout is not None
            while "into a connection" not in (line := process.stdout.readline()):
                assert line, "the demonstration has ended"
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGINT
    assert "Traceback" not in said
    assert list(scratch.iterdir()) == []


def test_a_receiver_that_does_not_start_is_told(tmp_path: Path) -> None:
    fail = "demo.HEARTBEAT = 'no'"
    done = run_demo(Path(__file__), tmp_path / "scratch", fail)
    assert done.returncode == 1
    assert re.fullmatch(
        r"bpipe: the demonstration failed: bpipe: .*'no' is not a time: .*\n", done.stderr
    )


def test_nothing_to_send(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.run_demo(tmp_path / "no") == 2
    assert re.fullmatch(r"bpipe: .*/no: no such file or folder\n", capsys.readouterr().err)


def test_what_is_sent_when_nothing_is_named(tmp_path: Path) -> None:
    for name in ("a.py", "test/b.py", "site-packages/c.py", "d/__pycache__/e", "d/f.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to("a.py")
    found = {name for name, _ in demo.files_under(tmp_path, everything=False)}
    assert found == {"a.py", "d/f.py"}
    everything = {name for name, _ in demo.files_under(tmp_path, everything=True)}
    assert everything == {"a.py", "test/b.py", "site-packages/c.py", "d/__pycache__/e", "d/f.py"}
