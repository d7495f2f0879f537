"""The manual pages: the example is what bpipe really says, and the options are those it has."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from collections import deque
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from bpipe.cli.app import run
from bpipe.cli.options import EXIT_STATUS
from bpipe.protocol.caller import Caller
from bpipe.protocol.driver import Driver
from bpipe.protocol.greeting import AnswererGreeting, CallerGreeting, Greeting
from bpipe.protocol.noise import NoiseState
from bpipe.protocol.secret import Secret
from bpipe.protocol.session import Session
from bpipe.protocol.sessions import Sessions
from bpipe.protocol.wire import Admission, Answer, Ended, Kind, Opening, Reason, Stop
from bpipe.run import exits

PAGES: Final = Path(__file__).parent.parent / "man"
COMMAND: Final = PAGES / "bpipe.1"
README: Final = PAGES.parent / "README.md"
PROTOCOL: Final = PAGES / "bpipe-protocol.7"

BUFFER_SIZE: Final = 1 << 20  # bytes: the example's window
SESSION_ID: Final = bytes(range(16))
NOW: Final = 0.0  # the example takes no time


# --- the example session in bpipe-protocol(7) ---


class Said(NamedTuple):
    """Bytes that one end has put on the link."""

    by: str  # C: the caller, A: the answerer
    data: bytes


class End:
    """One end of the example: a session and its greeting, driven as a link drives them.

    Its consumer takes everything at once.
    """

    def __init__(self, name: str, session: Session, greeting: Greeting) -> None:
        self.name = name
        self.session = session
        self.taken = b""
        self._greeting = greeting

    @property
    def _driver(self) -> Driver:
        if self._greeting.done and self._greeting.channel is not None:
            return self._greeting.channel
        return self._greeting

    def say(self) -> list[Said]:
        """Everything that there is to say now."""
        said = []
        while views := self._driver.outgoing(NOW):
            said.append(Said(self.name, b"".join(views)))
            self._driver.sent(len(said[-1].data), NOW)
        return said

    def hear(self, data: bytes) -> None:
        """These bytes arrive."""
        while data:
            view = self._driver.incoming()[0]
            count = min(len(view), len(data))
            view[:count] = data[:count]
            self._driver.received(count, NOW)
            data = data[count:]
        reader = self.session.reader
        for view in reader.readable(BUFFER_SIZE):
            self.taken += view
            reader.took(len(view))
        if reader.drained and not reader.done:
            self.session.deliver_mark()
            self.session.settle(NOW)


def example(secret: Secret | None = None) -> list[Said]:
    """What the two ends say to each other when the caller sends ``hi`` and the answerer nothing."""
    caller_session, answerer_session = (Session(BUFFER_SIZE, secret=secret) for _ in range(2))
    caller_session.writer.space(3)[0][:] = b"hi\n"
    caller_session.writer.wrote(3)
    caller_session.finish()
    answerer_session.finish()
    table = Sessions(lambda session: None, secret)
    table.add(answerer_session)
    calling = CallerGreeting(Caller(caller_session, lambda: SESSION_ID), NOW)
    caller = End("C", caller_session, calling)
    answerer = End("A", answerer_session, AnswererGreeting(table, NOW))
    under_way = deque(caller.say())
    said: list[Said] = []
    while under_way:
        said.append(under_way.popleft())
        end = answerer if said[-1].by == "C" else caller
        end.hear(said[-1].data)
        under_way.extend(end.say())
    assert (caller.taken, answerer.taken) == (b"", b"hi\n")
    for session in (caller_session, answerer_session):
        assert session.over
        assert session.failure is None
    return said


def turns(said: list[Said]) -> list[Said]:
    """The same, with what one end says in one go in one piece."""
    return [
        Said(by, b"".join(piece.data for piece in pieces))
        for by, pieces in itertools.groupby(said, lambda piece: piece.by)
    ]


def example_in_the_page(section: str) -> list[Said]:
    """The lines of hexadecimal digits in a section; each message begins with who says it."""
    said: list[Said] = []
    text = PROTOCOL.read_text().partition(f"\n.Sh {section}\n")[2].partition("\n.Sh ")[0]
    for line in text.splitlines():
        if match := re.match(r"([CA ]) ((?:[0-9a-f]{2} )*[0-9a-f]{2})(?:  |$)", line):
            by = match[1] if match[1] != " " else said[-1].by
            said.append(Said(by, bytes.fromhex(match[2])))
    return said


def test_the_example_session_is_what_the_two_ends_really_say() -> None:
    assert turns(example_in_the_page("EXAMPLES")) == turns(example())


def test_the_sealed_example_is_what_the_two_ends_really_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    private = map(X25519PrivateKey.from_private_bytes, (b"\x01" * 32, b"\x02" * 32))
    monkeypatch.setattr(
        "bpipe.protocol.sealed.NoiseState",
        partial(NoiseState, generate=lambda: next(private)),
    )
    key = re.search(r"^\.Dl (bpipe1:\S+)$", PROTOCOL.read_text(), re.MULTILINE)
    assert key is not None
    secret = Secret.parse(key[1].encode())
    assert turns(example_in_the_page("WITH A SECRET")) == turns(example(secret))


def test_the_numbers_in_the_tables_are_those_of_the_wire() -> None:
    rows = re.findall(r"^\.It (\d+) Ta ([A-Z_]+) Ta", PROTOCOL.read_text(), re.MULTILINE)
    numbers = [*Kind, *Ended, *Stop, *Reason, *Opening, *Answer, *Admission]
    assert rows == [(str(number.value), number.name) for number in numbers]


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
    assert set(commands) == {"", "connect", "listen", "keygen", "demo"}
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
    run(["connect", "--help"])
    program = re.findall(r"^  -(\w), -(-\w+)", capsys.readouterr().out, re.MULTILINE)
    assert re.findall(r"^\.It Fl (\w) , Fl (-\w+)", COMMAND.read_text(), re.MULTILINE) == program


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
    for text in (readme, EXIT_STATUS):
        assert set(map(int, re.findall(r"\b\d+\b", text))) == numbers
