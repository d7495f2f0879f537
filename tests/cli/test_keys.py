"""Where the secret comes from and goes to: what is refused is one line."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from bpipe.cli.app import run
from bpipe.cli.keys import write_key
from bpipe.run.exits import FAILED, USAGE


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command line that fails says, in one line; with a colon, its exit status before it."""
    status = run([*arguments])
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return f"{status}: {said.err.rstrip()}"


@pytest.mark.parametrize("what", ["file", "link", "folder"])
def test_keygen_never_overwrites(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    path = tmp_path / "key"
    if what == "file":
        path.write_text("precious")
    elif what == "link":
        path.symlink_to(tmp_path / "nothing")
    else:
        path.mkdir()
    said = f"{FAILED}: bpipe: {path} exists, and may be in use: name a new file"
    assert refused(capsys, "keygen", str(path)) == said
    assert what != "file" or path.read_text() == "precious"
    assert os.listdir(tmp_path) == ["key"]


def test_keygen_where_no_file_can_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "no" / "key"
    said = f"{FAILED}: bpipe: {path}: no such file or directory"
    assert refused(capsys, "keygen", str(path)) == said


def bad_files(folder: Path) -> dict[str, tuple[str, str]]:
    """Files that are no secret, and what is said about each."""

    def make(name: str, content: bytes, mode: int = 0o600) -> str:
        path = folder / name
        path.write_bytes(content)
        path.chmod(mode)
        return str(path)

    write_key(folder / "good")
    good = (folder / "good").read_bytes()
    return {
        "missing": (str(folder / "no"), "no such file; bpipe keygen makes one"),
        "group": (make("in group", good, 0o440), r"mode 0440.*, --secret <\(cat '.*/in group'\)"),
        "folder": (str(folder), "is a directory"),
        "open": (make("open", good, 0o640), r"mode 0640.*chmod 600 it, or, if you cannot"),
        "empty": (make("empty", b""), "empty.*keygen"),
        "newline": (make("newline", b"\n"), "empty.*keygen"),
        "short": (make("short", b"hunter2"), "too short.*12 characters.*keygen"),
        "damaged": (make("damaged", good[:-5] + b"\n"), "damaged.*whole line"),
        "two lines": (make("lines", good + good), "damaged.*whole line"),
        "binary": (make("binary", bytes(range(256))), "not text.*keygen"),
        "long": (make("long", b"x" * 5000), "4096 bytes.*keygen"),
    }


@pytest.mark.parametrize(
    "case",
    [*"missing folder group open empty newline short damaged binary long".split(), "two lines"],
)
def test_a_file_that_is_no_secret_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    file, said = bad_files(tmp_path)[case]
    line = refused(capsys, "connect", "localhost:1", "--secret", file)
    assert re.fullmatch(rf"{USAGE}: bpipe: the secret {re.escape(file)}.*", line)
    assert re.search(said, line)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "key"
    write_key(key)
    os.chown(key, 12345, -1)
    said = f"bpipe: the secret {key} belongs to another user: use a copy of your own"
    line = refused(capsys, "connect", "localhost:1", "--secret", str(key))
    assert line == f"{USAGE}: {said}"


@pytest.mark.parametrize("given", ["--secret=key", "--ask-secret"])
def test_insecure_and_a_secret_contradict_each_other(
    capsys: pytest.CaptureFixture[str], given: str
) -> None:
    option = given.partition("=")[0]
    said = f"--insecure and {option} contradict each other (bpipe listen --help explains)"
    line = refused(capsys, "listen", "0.0.0.0:0", "--insecure", given)
    assert line == f"{USAGE}: bpipe: {said}"
