"""Every command of the documents, as it stands: typed at terminals of two machines, in the order in
which it is shown; and what it leaves behind.

What no machine of a test has is only parsed (``test_parsed.py``), and some recipes are run by
other tests, through cuts (``ELSEWHERE``). There is no command that nobody runs, and nothing is
listed that no document has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.documentation.cases import CASES, Case
from tests.documentation.commands import ROOT, Line, Recipe, crontab, documented
from tests.documentation.parsed import is_parsed
from tests.documentation.terminal import Terminal
from tests.documentation.world import World, world
from tests.end_to_end.recipes import need

pytestmark = pytest.mark.slow

END_TO_END: Final = Path("tests", "end_to_end")
ELSEWHERE: Final = {
    "A database into another": END_TO_END / "test_database.py",
    "A copy of a database server": END_TO_END / "test_database.py",
    "README.md: A file that goes on": END_TO_END / "test_output_recipe.py",
    "A file every night, by systemd": END_TO_END / "test_service.py",
    "A systemd service": END_TO_END / "test_service.py",
    "ssh that survives": END_TO_END / "test_ssh.py",
    "Any service": END_TO_END / "test_ssh.py",
    "The end that connects, in Python": Path("tests", "test_public.py"),
    "The end that listens, in Python": Path("tests", "test_public.py"),
    "Many callers, in Python": Path("tests", "test_public.py"),
    "README.md: Try it": Path(".ci", "run"),
}

TOOLS: Final = ("borg", "git", "nc", "restic", "rsync", "scp", "sftp", "zstd")  # may be missing

_LISTENS: Final = re.compile(
    r"bpipe listen\b|bpipe connect .*--from "
)  # and so has to be waited for
_STAYS: Final = re.compile(r" -k | --from ")  # and does not end by itself
_IN_PLACE_OF_SSH: Final = re.compile(r"['\"/]bpipe[ -]ssh")  # of another program
_NEEDS_A_KEY: Final = re.compile(r"bpipe (listen|connect) \S*:[0-9]")


def listed(recipe: Recipe) -> str:
    """Its name in one of the lists."""
    for name in (str(recipe), recipe.title):
        if name in ELSEWHERE or name in CASES:
            return name
    return ""


def runs(recipe: Recipe) -> bool:
    """Whether anything of it is run here."""
    return listed(recipe) in CASES


# --- no more and no less ---


def test_no_command_is_forgotten() -> None:
    for recipe in documented():
        if not listed(recipe):
            assert not recipe.files, f"{recipe} has a file that no test looks at"
            assert all(map(is_parsed, recipe.lines)), f"no test runs {recipe}"


def test_nothing_is_listed_that_no_document_has() -> None:
    assert {listed(recipe) for recipe in documented()} - {""} == {*CASES, *ELSEWHERE}


def test_who_is_said_to_run_it_takes_it_from_there() -> None:
    for title, place in ELSEWHERE.items():
        name = title.rpartition(": ")[2]
        takes = f'recipe("{name}")', f'units("{name}")', "README"
        assert any(each in (ROOT / place).read_text() for each in takes), title


# --- they are run ---


@pytest.fixture(scope="session")
def two_machines() -> Iterator[World]:
    """Which every recipe finds as if nobody had done anything so far."""
    with world() as machines:
        yield machines


RECIPES: Final = [recipe for recipe in documented() if runs(recipe)]
ALONE: Final = [recipe.lines[0] for recipe in RECIPES if len(recipe.lines) == 1]


def lines_of(recipe: Recipe) -> list[Line]:
    """What is typed of it: not what is a recipe of its own, too, which needs no other line."""
    lines = [line for line in recipe.lines if not is_parsed(line)]
    return lines if len(lines) == 1 else [line for line in lines if line not in ALONE]


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_it_does_what_it_says(two_machines: World, recipe: Recipe) -> None:
    case = CASES[listed(recipe)]
    text = "\n".join(line.text for line in recipe.lines)
    need(*(name for name in TOOLS if re.search(rf"\b{name}\b", text)))
    two_machines.renew()
    if _NEEDS_A_KEY.search(text) and not re.search(r"keygen|localhost:7000", text):
        two_machines.share_key()
    case.prepare(two_machines)
    said = follow(two_machines, lines_of(recipe), case)
    for file in recipe.files:
        variables, commands = crontab(file)
        assert commands, file
        for command in commands:
            two_machines.here.run("env", *variables, "sh", "-c", command, root=case.root)
    case.check(two_machines, said)


def follow(machines: World, lines: list[Line], case: Case) -> list[str]:
    """Type these lines, and wait for what they start; returns what each of them has said."""
    typed: list[tuple[Line, Terminal]] = []
    said: dict[int, str] = {}
    for number, line in enumerate(lines):
        machine = machines.far if line.far else machines.here
        terminal = machine.terminal(line.root)
        terminal.type(line.text)
        if line.text.startswith("export "):
            machine.exported.append(line.text)
        if case.asks is not None and "--ask-secret" in line.text:
            question, answer = case.asks
            terminal.wait_said(question)
            terminal.press(machines.here.path(answer).read_text())
        if _LISTENS.search(line.text) and not line.text.endswith("&"):
            terminal.wait_listening()
            typed.append((line, terminal))
            continue
        assert terminal.wait() == 0, terminal.said
        said[number] = terminal.said
        if _IN_PLACE_OF_SSH.search(line.text):
            assert "bpipe: " not in terminal.said
    for line, terminal in typed:
        if _STAYS.search(line.text):
            assert not terminal.waits, terminal.said
        else:
            assert terminal.wait() == 0, terminal.said
        said[lines.index(line)] = terminal.said
    return [said[number] for number in sorted(said)]
