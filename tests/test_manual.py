"""The manual pages: the numbers and options are those of the program, and tables are complete.

The bytes in bpipe-protocol(7) are compared in ``protocol/test_vectors.py``.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from bpipe.cli.app import run
from bpipe.cli.examples import COMMAND_STATUS, EXIT_STATUS
from bpipe.protocol.records import Record
from bpipe.protocol.wire import Admission, Answer, Ended, Kind, Opening, Reason, Stop
from bpipe.run import exits
from tests.support.page import PROTOCOL, legends, tables

COMMAND: Final = PROTOCOL.parent / "bpipe.1"
README: Final = PROTOCOL.parent.parent / "README.md"


# --- the tables in bpipe-protocol(7) ---


def test_the_numbers_in_the_tables_are_those_of_the_wire() -> None:
    rows = re.findall(r"^\.It (\d+) Ta ([A-Z_]+) Ta", PROTOCOL.read_text(), re.MULTILINE)
    numbers = [*Kind, *Ended, *Opening, *Answer, *Admission, *Stop, *Reason, *Record]
    assert rows == [(str(number.value), number.name) for number in numbers]


def test_the_tables_of_the_states_are_complete_and_explained() -> None:
    states = legends("STATES")[0]
    (sends,), (happens,) = tables("What it sends"), tables("What happens to it")
    frames = [name for row in sends for name in row["frame"].split(", ")]
    assert sorted(frames) == sorted(kind.name for kind in Kind if kind < Kind.CONFIRM)
    events = [name for row in happens for name in row["event"].split(", ")]
    assert len(events) == len(set(events))
    assert {kind.name for kind in Kind} <= set(events)
    assert {admission.name for admission in Admission} - {"OK"} <= set(events)
    for rows in (sends, happens):
        assert list(rows[0])[1:] == states
    assert words_of(sends, 1) == set(legends("What it sends")[0])
    assert words_of(happens, 1) == set(legends("What happens to it")[0])


def test_the_other_tables_are_explained() -> None:
    (errors,), (might,) = tables("ERRORS OF PROTOCOL"), tables("SECURITY")
    assert words_of(errors, 1) == set(legends("ERRORS OF PROTOCOL")[0])
    assert words_of(might, 2) - {"yes", "no"} == set(legends("SECURITY")[0])


def words_of(rows: list[dict[str, str]], first: int) -> set[str]:
    """What is in the cells from this column on."""
    return {word for row in rows for word in list(row.values())[first:]}


# --- the options in bpipe(1) ---


def commands_of_the_program(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, str]]:
    """The help of each option of each command; "" is the program itself."""
    commands = {}
    todo = [""]
    while todo:
        command = todo.pop()
        assert run([*command.split(), "--help"]) == 0
        text = capsys.readouterr().out
        if not command:
            listed = text.partition("Commands:")[2].partition("\n\n")[0]
            todo += re.findall(r"^  (\w+)  ", listed, re.MULTILINE)
        commands[command] = {
            match[1]: " ".join(match[2].split())
            for match in re.finditer(r"^  (?:-\w, )?(--[\w-]+)((?:.|\n   )*)", text, re.MULTILINE)
        }
    return commands


def options_in_the_synopsis() -> dict[str, set[str]]:
    section = COMMAND.read_text().partition(".Sh SYNOPSIS\n")[2].partition("\n.Sh")[0]
    options = {}
    for form in section.split(".Nm\n")[1:]:
        command = re.match(r"\.Cm (\w+)", form)
        options[command[1] if command else ""] = set(long_options(form))
    return options


def options_described() -> dict[str, str]:
    """What the page says about each option."""
    described = {}
    for item in re.split(r"^\.(?:It|Ss|Sh) ", COMMAND.read_text(), flags=re.MULTILINE):
        head, _, text = item.partition("\n")
        if head.startswith("Fl "):
            described.update(dict.fromkeys(long_options(head), text))
    return described


def long_options(text: str) -> list[str]:
    return [f"-{name}" for name in re.findall(r"Fl (-[\w-]+)", text)]


def test_the_synopsis_has_the_options_of_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    commands = commands_of_the_program(capsys)
    assert set(commands) == {"", "connect", "listen", "ssh", "run", "keygen", "demo"}
    everywhere = {"--help"}
    for command, options in options_in_the_synopsis().items():
        assert options | everywhere == set(commands.pop(command))
    assert not commands


def test_an_option_takes_a_value_in_the_synopsis_if_it_does_in_the_program(
    capsys: pytest.CaptureFixture[str],
) -> None:
    synopsis = COMMAND.read_text().partition(".Sh DESCRIPTION")[0]
    documented = dict(re.findall(r"Fl (-[\w-]+)(?: (Ar \w+))?", synopsis))
    for command in ("", *commands_of_the_program(capsys)):
        run([*command.split(), "--help"])
        text = capsys.readouterr().out
        for option, value in re.findall(r"^  (?:-\w, )?-(-[\w-]+)( \S+)?(?:  |$)", text, re.M):
            if option != "-help":
                assert bool(documented[option]) == bool(value), option


def test_the_short_options_are_those_of_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    program = set()
    for command in ("connect", "listen"):
        run([command, "--help"])
        program |= set(re.findall(r"^  -(\w), -(-[\w-]+)", capsys.readouterr().out, re.MULTILINE))
    documented = re.findall(r"^\.It Fl (\w) , Fl (-[\w-]+)", COMMAND.read_text(), re.MULTILINE)
    assert sorted(documented) == sorted(program)


def test_every_option_is_described_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    described = options_described()
    commands = commands_of_the_program(capsys)
    assert set(described) == set().union(*commands.values())
    for options in commands.values():
        for option, help_text in options.items():
            default = re.search(r"\[default: (.+?)\]", help_text)
            if default is not None:
                assert f"The default is {default[1]}.\n" in described[option], option


# --- both ---


@pytest.mark.parametrize("page", [COMMAND, PROTOCOL], ids=lambda page: page.name)
def test_mandoc_has_nothing_to_complain_of(page: Path) -> None:
    mandoc = shutil.which("mandoc")
    if mandoc is None:
        pytest.skip("mandoc is not installed")
    lint = subprocess.run(
        [mandoc, "-T", "lint", "-W", "warning", page], capture_output=True, text=True, timeout=30
    )
    assert lint.stdout + lint.stderr == ""
    assert lint.returncode == 0


# --- exit statuses ---


def test_every_exit_status_is_told_wherever_they_are_listed() -> None:
    numbers = {0} | {number for number in vars(exits).values() if type(number) is int}
    page = COMMAND.read_text().partition(".Sh EXIT STATUS\n")[2].partition("\n.Sh")[0]
    readme = README.read_text().partition("**Exit status**: ")[2].partition("\n* ")[0]
    assert set(map(int, re.findall(r"^\.It (\d+)$", page, re.MULTILINE))) == numbers
    for text in (readme, EXIT_STATUS + COMMAND_STATUS):
        assert set(map(int, re.findall(r"\b\d+\b", text))) == numbers
