"""The manual pages: the numbers and options are those of the program, and tables are complete.

The bytes in bpipe-protocol(7) are compared in ``protocol/test_vectors.py``.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from bpipe.cli.app import run
from bpipe.cli.examples import COMMAND_STATUS, EXIT_STATUS
from bpipe.protocol.records import Record
from bpipe.protocol.wire import Admission, Answer, Ended, Kind, Opening, Reason, Stop
from bpipe.run import exits
from tests.support.page import PROTOCOL, legends, tables

COMMAND: Final = PROTOCOL.parent / "bpipe.1"
EVENTS: Final = PROTOCOL.parent / "bpipe-events.5"
RECIPES: Final = PROTOCOL.parent / "bpipe-recipes.7"
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
    assert sorted(frames) == sorted(kind.name for kind in set(Kind) - {Kind.CONFIRM, Kind.READY})
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


def section(name: str) -> str:
    return COMMAND.read_text().partition(f".Sh {name}\n")[2].partition("\n.Sh")[0]


class Described(NamedTuple):
    """What the page says about an option."""

    group: str
    head: str
    text: str

    def takes_a_value(self) -> bool:
        return " Ar " in self.head

    def only(self) -> set[str]:
        """The commands that alone have it; none: listen and connect."""
        return set(self.head.partition(" Pq Cm ")[2].split(" , ")) - {""}


def options_described() -> dict[str, Described]:
    described = {}
    for group in section("OPTIONS").split("\n.Ss ")[1:]:
        title, _, items = group.partition("\n")
        for item in re.split(r"^\.It ", items, flags=re.MULTILINE)[1:]:
            head, _, text = item.partition("\n")
            [option] = long_options(head)
            assert option not in described
            described[option] = Described(title, head, text)
    return described


def options_of(command: str) -> set[str]:
    """Those that a command has, as the page says."""
    described = options_described()
    own = {option for option, each in described.items() if command in each.only()}
    if command in ("listen", "connect"):
        last = described["--help"].group
        both = {each for each, of in described.items() if not of.only() and of.group != last}
        return own | both
    if command in ("ssh", "run"):
        intro = section("OPTIONS").partition("\n.Ss ")[0]
        return own | set(long_options(intro.partition("have these of them:\n")[2]))
    return own


def long_options(text: str) -> list[str]:
    return [
        f"-{name}" for line in text.split("\n") for name in re.findall(r" (-[a-z][\w-]*)", line)
    ]


def test_the_page_has_the_options_of_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    commands = commands_of_the_program(capsys)
    assert set(commands) == {"", "connect", "listen", "ssh", "run", "keygen", "demo"}
    assert set(options_described()) == set().union(*commands.values())
    for command, options in commands.items():
        if command:
            assert options_of(command) | {"--help"} == set(options), command


def test_the_synopsis_names_no_option_that_a_command_does_not_have(
    capsys: pytest.CaptureFixture[str],
) -> None:
    commands = commands_of_the_program(capsys)
    for form in section("SYNOPSIS").split(".Nm\n")[1:]:
        command = re.match(r"\.Cm (\w+)", form)
        options = commands.pop(command[1] if command else "")
        assert set(long_options(form)) <= set(options)
    assert not commands


def test_groups_short_forms_and_values_are_those_of_the_program(
    capsys: pytest.CaptureFixture[str],
) -> None:
    described = options_described()
    for command in ("connect", "listen"):
        run([command, "--help"])
        groups = re.findall(
            r"^([A-Z].+):\n((?:  .*\n|\n(?=  ))+)", capsys.readouterr().out, re.MULTILINE
        )
        for group, text in groups:
            if group in ("Arguments", "Options", "Examples", "Exit status"):
                continue
            for short, option, value in re.findall(
                r"^  (?:(-\w), )?(--[\w-]+)( \S+)?(?:  |$)", text, re.MULTILINE
            ):
                each = described[option]
                assert (each.group, each.takes_a_value()) == (group, bool(value)), option
                assert re.findall(r"Fl (\w) ,", each.head) == [short[1:]] * bool(short), option


def test_every_default_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    described = options_described()
    for options in commands_of_the_program(capsys).values():
        for option, help_text in options.items():
            default = re.search(r"\[default: (.+?)\]", help_text)
            if default is not None:
                assert f"The default is {default[1]}.\n" in described[option].text, option


def test_the_variables_that_are_named_are_those_of_options(
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = set().union(*commands_of_the_program(capsys).values())
    known = {f"BPIPE_{option[2:].replace('-', '_').upper()}" for option in options}
    known |= {"BPIPE_", "BPIPE_SECRET_FILE", "BPIPE_PEER", "BPIPE_SESSION", "BPIPE_CARRIER"}
    named = set(re.findall(r"BPIPE_[A-Z_]*", section("ENVIRONMENT VARIABLES")))
    assert named <= known
    assert "BPIPE_GIVE_UP_AFTER" in named
    run(["listen", "--help"])
    assert "BPIPE_GIVE_UP_AFTER for --give-up-after" in capsys.readouterr().out


# --- both ---


@pytest.mark.parametrize("page", [COMMAND, EVENTS, PROTOCOL, RECIPES], ids=lambda page: page.name)
def test_mandoc_has_nothing_to_complain_of(page: Path) -> None:
    mandoc = shutil.which("mandoc")
    if mandoc is None:
        pytest.skip("mandoc is not installed")
    lint = subprocess.run(
        [mandoc, "-T", "lint", "-W", "warning", page], capture_output=True, text=True, timeout=30
    )
    assert lint.stdout + lint.stderr == ""
    assert lint.returncode == 0


@pytest.mark.parametrize("page", [COMMAND, EVENTS, PROTOCOL, RECIPES], ids=lambda page: page.name)
def test_what_a_page_refers_to_is_there(page: Path) -> None:
    headings = re.findall(r"^\.S[hs] \"?(.*?)\"?$", page.read_text(), re.MULTILINE)
    text = page.read_text()
    assert {each for each in re.findall(r"^\.Sx \"?(.*?)\"?(?: [.,:)])*$", text, re.M)} <= set(
        headings
    )
    pages = {f"{each.stem} {each.suffix[1:]}" for each in COMMAND.parent.glob("*.[1-8]")}
    ours = set(re.findall(r"^\.Xr (bpipe\S*) (\d)", text, re.MULTILINE))
    assert {" ".join(each) for each in ours} <= pages


def test_the_examples_are_recipes() -> None:
    """So each of them is tried where those are."""
    assert set(displays(section("EXAMPLES"))) <= set(displays(RECIPES.read_text()))


def displays(text: str) -> list[str]:
    return re.findall(r"^\.Bd -literal.*\n((?:.*\n)*?)\.Ed$", text, re.MULTILINE)


# --- exit statuses ---


def test_every_exit_status_is_told_wherever_they_are_listed() -> None:
    numbers = {0} | {number for number in vars(exits).values() if type(number) is int}
    table = re.findall(r"^\.It (\d+) Ta ", section("EXIT STATUS"), re.MULTILINE)
    detail = re.findall(r"^\.It (\d+)$", section("EXIT STATUSES IN DETAIL"), re.MULTILINE)
    readme = README.read_text().partition("**Exit status**: ")[2].partition("\n* ")[0]
    assert set(map(int, table)) == set(map(int, detail)) == numbers
    for text in (readme, EXIT_STATUS + COMMAND_STATUS):
        assert set(map(int, re.findall(r"\b\d+\b", text))) == numbers
