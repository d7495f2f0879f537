"""Commands with programs that no test can have, and those that help shows: bpipe's own words are
right all the same."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

import pytest

from bpipe.cli import examples
from bpipe.cli.app import run
from tests.documentation.commands import documented
from tests.documentation.parsed import PROGRAMS, is_parsed, words

LINES: Final = [line.text for each in documented() for line in each.lines if is_parsed(line)]
HELP: Final = [each for each in vars(examples).values() if isinstance(each, str)]
SHOWN: Final = re.findall(r"^ +(?:far\$ )?((?:.* [|&]+ )?bpipe \w+ .*)$", "\n".join(HELP), re.M)


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was to be started, and was not."""
    started: list[object] = []

    def start(*what: object, **more: object) -> int:
        started.append(what)
        return 0

    for place in ("cli.runs.run_session", "run.session.run_session", "run.service.run_service"):
        monkeypatch.setattr(f"bpipe.{place}", start)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("BPIPE_SECRET_FILE", str(tmp_path / ".bpipe.key"))
    assert run(["keygen", str(tmp_path / ".bpipe.key")]) == 0
    return started


def test_each_program_of_the_list_is_in_a_document() -> None:
    for name in PROGRAMS:
        assert any(name in line for line in LINES), name


@pytest.mark.parametrize("text", [*LINES, *dict.fromkeys(SHOWN)])
def test_its_words_are_understood(text: str, tmp_path: Path, started: list[object]) -> None:
    found = [each for each in words(text, tmp_path) if each[0] != "keygen"]
    assert found or "bpipe " not in text or "keygen" in text
    for each in found:
        assert run(each) == 0
    assert len(started) == len(found)


def test_wrong_words_are_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (wrong,) = words("zfs send | bpipe connect far.example:7000 --naem home", tmp_path)
    assert wrong == ["connect", "far.example:7000", "--naem", "home"]
    assert run(wrong) == 2
    assert "--naem" in capsys.readouterr().err
