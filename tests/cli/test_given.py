"""What is typed, what the environment says, and what of both counts."""

from __future__ import annotations

import os
import re
from typing import Any, Final, NamedTuple

import pytest
import typer

from bpipe.cli.app import app, run
from bpipe.cli.given import AGAINST, PROGRAM, said, settle
from bpipe.run.exits import OF_BPIPE, USAGE

COMMANDS: Final = typer.main.get_command(app).commands  # type: ignore[attr-defined]
NOT_OPTIONS: Final = {"BPIPE_PEER", "BPIPE_SESSION", "BPIPE_CARRIER"}
WORDS: Final = {"ssh": ["far", "true"], "keygen": ["file"]}  # what has to be there
VALUES: Final = {
    "heartbeat": "3s",
    "status": "never",
    "rate": "2K",
    "bind": "lo",
    "congestion": "reno",
}
COMPANY: Final = {  # without which some are about nothing
    ("connect", "max_sessions"): ["--from", ":1"],
    ("listen", "max_sessions"): ["-k", "--to", "far:1"],
    ("connect", "name"): ["--ask-secret"],
    ("listen", "name"): ["--ask-secret"],
}
CONTRARY: Final = [
    (name, each.one, other)
    for name, command in COMMANDS.items()
    for each in AGAINST
    for other in each.others
    if {each.one, other} - {PROGRAM} <= {param.name for param in command.params}
    if PROGRAM not in (each.one, other) or name in ("listen", "connect")
]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("BPIPE_"):
            monkeypatch.delenv(name)


class Option(NamedTuple):
    """One option of one command."""

    command: str
    param: Any

    @property
    def value(self) -> str:
        """One that it can have."""
        return VALUES.get(self.param.name, "1")

    @property
    def words(self) -> list[str]:
        """How it is typed; an argument, too."""
        if self.param.param_type_name == "argument":
            return [self.value]
        flag = self.param.is_flag or self.param.count
        return [self.param.opts[-1]] if flag else [self.param.opts[-1], self.value]


OPTIONS: Final = {
    (name, param.name): Option(name, param)
    for name, command in COMMANDS.items()
    for param in command.params
}


def called(command: str, *words: str, program: bool = False) -> Any:
    """What a command line means, before anything is done."""
    words = (*words, *WORDS.get(command, []))
    obj = ["cat"] if program else None
    return COMMANDS[command].make_context(command, list(words), obj=obj)


@pytest.mark.parametrize(
    "option",
    [each for each in OPTIONS.values() if each.param.param_type_name == "option"],
    ids=lambda each: f"{each.command}{each.param.opts[-1]}",
)
def test_every_option_has_its_variable(option: Option, monkeypatch: pytest.MonkeyPatch) -> None:
    param = option.param
    name = "BPIPE_" + param.opts[-1].removeprefix("--").replace("-", "_").upper()
    assert param.envvar == {"BPIPE_SECRET": "BPIPE_SECRET_FILE"}.get(name, name)
    assert name not in NOT_OPTIONS
    without = called(option.command).params
    typed = called(option.command, *option.words).params
    assert typed != without
    monkeypatch.setenv(param.envvar, option.value)
    assert called(option.command).params == typed
    monkeypatch.setenv(param.envvar, "")
    assert called(option.command).params == without


# --- what contradicts what ---


def typed(command: str, *names: str) -> Any:
    """What a command line means that has these; one alone, in company."""
    words = [word for name in names if name != PROGRAM for word in OPTIONS[command, name].words]
    if len(names) == 1:
        words += COMPANY.get((command, names[0]), [])
    return called(command, *words, program=PROGRAM in names)


def refused(context: Any) -> str:
    """What is said of it, as it cannot be."""
    with pytest.raises(typer.BadParameter) as caught:
        settle(context)
    return said(caught.value)


def variables(command: str, *names: str) -> list[tuple[str, str]]:
    """Those of the environment that stand for these, and a value; not for arguments."""
    found = [OPTIONS[command, name] for name in names if (command, name) in OPTIONS]
    return [(each.param.envvar, each.value) for each in found if each.param.envvar is not None]


@pytest.mark.parametrize(("command", "one", "other"), CONTRARY)
def test_two_that_contradict_each_other_are_refused(command: str, one: str, other: str) -> None:
    line = refused(typed(command, one, other))
    assert "BPIPE_" not in line
    assert re.search("contradict each other|leave nothing|takes|: no -", line)


@pytest.mark.parametrize(
    ("command", "one", "other"), [each for each in CONTRARY if not {PROGRAM, "address"} & {*each}]
)
def test_two_variables_that_contradict_each_other_are_refused_and_named(
    monkeypatch: pytest.MonkeyPatch, command: str, one: str, other: str
) -> None:
    both = variables(command, one, other)
    for name, value in both:
        monkeypatch.setenv(name, value)
    line = refused(called(command))
    assert line == f"{both[0][0]} and {both[1][0]} contradict each other"


@pytest.mark.parametrize(("command", "one", "other"), CONTRARY)
def test_what_is_typed_wins(
    monkeypatch: pytest.MonkeyPatch, command: str, one: str, other: str
) -> None:
    for here, there in ((one, other), (other, one)):
        for name, value in variables(command, there):
            monkeypatch.setenv(name, value)
            context = typed(command, here)
            assert context.params[there]
            settle(context)
            assert context.params[there] in (False, 0, None)
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("line", "variable", "counts"),
    [
        ("listen", "drain", False),
        ("listen -k --to far:1", "drain", True),
        ("listen", "max_sessions", False),
        ("connect far --from :1", "max_sessions", True),
        ("listen", "keep_open", False),
        ("listen -o f", "keep_open", True),
        ("listen", "name", False),
        ("listen --ask-secret", "name", True),
        ("listen --insecure", "name", False),
        ("listen", "whole", True),
        ("listen -R", "whole", False),
        ("listen -R -o f", "whole", True),
        ("ssh", "whole", False),
        ("ssh --output f", "whole", True),
    ],
)
def test_a_variable_is_passed_over_where_nobody_asks_for_what_it_is_about(
    monkeypatch: pytest.MonkeyPatch, line: str, variable: str, counts: bool
) -> None:
    command, *words = line.split()
    [(name, value)] = variables(command, variable)
    monkeypatch.setenv(name, value)
    context = called(command, *words)
    settle(context)
    assert bool(context.params[variable]) == counts


@pytest.mark.parametrize("address", ["unix:s", "./s", "unix:@s"])
@pytest.mark.parametrize(
    ("command", "option"),
    [("connect", "bind"), ("connect", "congestion"), ("listen", "congestion")],
)
def test_what_is_about_tcp_is_not_for_a_unix_socket(
    monkeypatch: pytest.MonkeyPatch, command: str, option: str, address: str
) -> None:
    context = called(command, *OPTIONS[command, option].words, address)
    assert refused(context) == f"--{option} is about TCP, and not {address}"
    for name, value in variables(command, option):
        monkeypatch.setenv(name, value)
    context = called(command, address)
    settle(context)
    assert not context.params[option]
    context = called(command, "far:1")
    settle(context)
    assert context.params[option]


def test_a_flag_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("0", "no", "false"):
        monkeypatch.setenv("BPIPE_VERBOSE", "1")
        monkeypatch.setenv("BPIPE_QUIET", value)
        context = called("listen")
        settle(context)
        assert (context.params["verbose"], context.params["quiet"]) == (1, False)


# --- what is wrong names its variable ---


@pytest.mark.parametrize(
    ("line", "name", "value", "wrong"),
    [
        ("listen", "BPIPE_HEARTBEAT", "x", "BPIPE_HEARTBEAT: 'x' is not a time: write seconds"),
        ("listen", "BPIPE_BUFFER", "0", "BPIPE_BUFFER: a buffer of 0 is not possible"),
        ("listen", "BPIPE_STATUS", "x", "BPIPE_STATUS: 'x' is not one of auto, always, never"),
        ("listen", "BPIPE_QUIET", "x", "BPIPE_QUIET: 'x' is neither 1 nor 0"),
        ("listen", "BPIPE_VERBOSE", "-1", "BPIPE_VERBOSE: '-1' is not how often --verbose is"),
        ("listen", "BPIPE_TO", "a:b:c", "BPIPE_TO: an address is HOST:PORT"),
        ("listen", "BPIPE_OUTPUT", "-", "BPIPE_OUTPUT takes the name of a file"),
        ("listen -o f", "BPIPE_BUFFER", "9", "--output needs a BPIPE_BUFFER of at least 1K"),
        ("listen -o f", "BPIPE_LOG_JSON", "f", "BPIPE_LOG_JSON needs another file than --output"),
        ("connect", "BPIPE_VIA", "/no/x", "BPIPE_VIA: /no/x: there is no such program"),
        ("connect far", "BPIPE_FROM", ":x", "BPIPE_FROM: "),
        ("ssh", "BPIPE_SIZE", "x", "BPIPE_SIZE: 'x' is not a size"),
        ("run", "BPIPE_VIA", "'", "BPIPE_VIA: no closing quotation: '"),
        ("keygen", "BPIPE_WORDS", "x", "BPIPE_WORDS: 'x' is neither 1 nor 0"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_variable(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    name: str,
    value: str,
    wrong: str,
) -> None:
    monkeypatch.setenv(name, value)
    command, *words = line.split()
    status = OF_BPIPE if command in ("ssh", "run") else USAGE
    assert run([command, *words, *WORDS.get(command, [])]) == status
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"bpipe: {wrong}")
    assert err.endswith(f" (bpipe {command} --help explains)\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("listen", "BPIPE_VERBOSE and BPIPE_QUIET contradict each other"),
        ("listen -q -k -S", "-k serves each caller with .* or a file \\(--output\\)"),
    ],
)
def test_what_was_passed_over_is_not_named(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], line: str, told: str
) -> None:
    for name in ("VERBOSE", "QUIET", "OUTPUT"):
        monkeypatch.setenv(f"BPIPE_{name}", "1")
    assert run(line.split()) == USAGE
    err = capfd.readouterr().err
    assert re.fullmatch(rf"bpipe: {told} \(bpipe listen --help explains\)\n", err)
