"""Commands with programs that no test can have: bpipe's own words are right all the same."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest

from bpipe.cli.app import run
from tests.documentation.commands import Line, documented
from tests.documentation.parsed import PROGRAMS, is_parsed, words

LINES: Final = [line for recipe in documented() for line in recipe.lines if is_parsed(line)]


def test_each_program_of_the_list_is_in_a_document() -> None:
    for name in PROGRAMS:
        assert any(name in line.text for line in LINES), name


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.text)
def test_its_words_are_understood(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []

    def start(*what: object, **more: object) -> int:
        started.append(what)
        return 0

    for place in ("cli.runs.run_session", "run.session.run_session", "run.service.run_service"):
        monkeypatch.setattr(f"bpipe.{place}", start)
    monkeypatch.setenv("BPIPE_SECRET_FILE", str(key(tmp_path)))
    found = words(line, tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert bool(found) == ("bpipe " in line.text)
    for each in found:
        assert run(each) == 0
    assert len(started) == len(found)


def key(folder: Path) -> Path:
    """What is needed before it would begin."""
    assert run(["keygen", str(folder / "key")]) == 0
    return folder / "key"


def test_wrong_words_are_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (wrong,) = words(Line("zfs send | bpipe connect far.example:7000 --naem home"), tmp_path)
    assert wrong == ["connect", "far.example:7000", "--naem", "home"]
    assert run(wrong) == 2
    assert "--naem" in capsys.readouterr().err
