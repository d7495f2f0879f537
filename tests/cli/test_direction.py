"""Which of the two streams is wanted, and what becomes of the one that comes."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from bpipe.cli.direction import Direction
from bpipe.ends.streams import Directions


def test_which_directions() -> None:
    assert Direction().directions() == Directions()
    assert Direction(send_only=True).directions() == Directions(send_only=True)
    assert Direction(recv_only=True).directions() == Directions(recv_only=True)
    assert Direction(recv_only=True, output="a", whole=True).directions().recv_only


@pytest.mark.parametrize(
    ("output", "path"),
    [(None, None), ("a", "a"), ("./-", "./-"), ("~/a", "/home/me/a"), ("~me", "~me")],
)
def test_where_the_file_is(
    monkeypatch: pytest.MonkeyPatch, output: str | None, path: str | None
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert Direction(output=output).path() == path


@pytest.mark.parametrize("output", ["", "-"])
def test_stdout_is_no_file(output: str) -> None:
    with pytest.raises(typer.BadParameter, match="the name of a file; without it, it is stdout"):
        Direction(output=output).path()


@pytest.mark.parametrize("log", ["f", "f.part", "link/f", "link/f.part", "folder/../f.part"])
def test_a_log_is_no_file_of_the_output_whatever_its_folder_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(typer.BadParameter, match="another file"):
        Direction(output="f").require_apart(log)
    with pytest.raises(typer.BadParameter, match="another file"):
        Direction(output=f"{tmp_path}/link/f").require_apart(log)
    Direction(output="folder/f").require_apart(log)
    Direction(output="f").require_apart("-")
