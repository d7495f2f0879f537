"""What a command was given, on its command line or by the environment, and what cannot go together.

What is typed wins: a variable that contradicts it is passed over, and so is one that is about what
nobody has asked for. Two that are typed, or two variables, that contradict each other are refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, NoReturn

import typer

PROGRAM: Final = "program"  # not an option: what follows --
SENDS: Final = "sends"  # nor is this: what is read here goes to the peer
LOCAL: Final = "local"  # nor this: an address that is a Unix socket's


class Against(NamedTuple):
    """One option cannot be there with any of the others. The text has both names."""

    one: str
    others: tuple[str, ...]
    text: str = "{} and {} contradict each other"


class Needs(NamedTuple):
    """These options are about one of the others, and nothing without."""

    those: tuple[str, ...]
    others: tuple[str, ...]
    text: str


AGAINST: Final = (
    Against("send_only", ("recv_only",), "{} and {} leave nothing to do"),
    Against("output", ("send_only",), "{} is for what comes: no {}"),
    Against("output", ("max_sessions",), "{} takes one session at a time: no {}"),
    Against(PROGRAM, ("to", "from_", "output")),
    Against("to", ("output",)),
    Against("from_", ("output",)),
    Against("from_", ("whole",), "{1} is about one stream: no {0}"),
    Against(PROGRAM, ("send_only", "recv_only"), "a program takes both streams: no {1}"),
    Against("to", ("send_only", "recv_only"), "a connection takes both streams: no {1}"),
    Against("from_", ("send_only", "recv_only"), "a connection takes both streams: no {1}"),
    Against("via", ("address",), "{} takes the place of the address: no {}"),
    Against("via", ("ipv4", "ipv6"), "{} has no address: no {}"),
    Against("via", ("bind", "congestion"), "{} connects in its own way: no {}"),
    Against("ipv4", ("ipv6",)),
    Against("bind", (LOCAL,), "{} is about TCP, and not {}"),
    Against("congestion", (LOCAL,), "{} is about TCP, and not {}"),
    Against("secret", ("ask_secret",)),
    Against("insecure", ("secret", "ask_secret", "name")),
    Against("verbose", ("quiet",)),
)
NEEDS: Final = (
    Needs(
        ("keep_open",),
        (PROGRAM, "to", "output"),
        "-k serves each caller with a program (--), a service (--to) or a file (--output)",
    ),
    Needs(
        ("max_sessions", "drain"),
        ("keep_open", "from_"),
        "--max-sessions and --drain are about many (-k, --from)",
    ),
    Needs(
        ("name",),
        ("secret", "ask_secret"),
        "--name is only with a secret: --secret FILE, --ask-secret or BPIPE_SECRET_FILE",
    ),
    Needs(
        ("whole",),
        ("output", SENDS),
        "--whole is about what is sent, or a file (--output): here is neither",
    ),
)


_YES: Final = {"1", "true", "yes", "on", "t", "y"}
_NO: Final = {"0", "false", "no", "off", "f", "n", ""}
_PAIRS: Final = [(each.one, other, each.text) for each in AGAINST for other in each.others]


def settle(context: Any) -> None:
    """Take back what came from the environment and has no place here. Raises BadParameter."""
    _read_flags(context)
    given = _Given(context)
    for one, other, text in _PAIRS:
        if {one, other} <= given.typed:
            given.refuse(text, one, other)
        for typed, found in ((one, other), (other, one)):
            if typed in given.typed:
                given.take_back(found)
    for one, other in (pair[:2] for pair in _PAIRS if given.found.issuperset(pair[:2])):
        given.refuse("{} and {} contradict each other", one, other)
    for needs in NEEDS:
        if not given.has(*needs.others):
            if not given.typed.isdisjoint(needs.those):
                given.refuse(needs.text)
            for name in needs.those:
                given.take_back(name)


def _read_flags(context: Any) -> None:
    """Those of the environment, for click 8.2.1: it takes every text for a 1."""
    for param in _from_environment(context):
        if param.is_flag:
            word = os.environ[param.envvar].strip().lower()
            if word not in _YES | _NO:
                raise typer.BadParameter(word, ctx=context, param=param)
            context.params[param.name] = word in _YES


class _Given:
    """The names of what was typed, and of what was found in the environment."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._found = {param.name: param for param in _from_environment(context)}
        self.typed = {name for name in context.params if _source(context, name) == "COMMANDLINE"}
        if "address" in context.params and context.obj is not None:
            self.typed.add(PROGRAM)
        address = context.params.get("address") or ""
        if address.startswith("unix:") or "/" in address:
            self.typed.add(LOCAL)

    @property
    def found(self) -> set[str]:
        """What the environment has, and has not switched off."""
        return {name for name in self._found if self._context.params[name]}

    def has(self, *names: str) -> bool:
        """Whether any of these was given."""
        there = self.typed | self.found
        if "recv_only" in self._context.params and "recv_only" not in there:
            there.add(SENDS)
        return not there.isdisjoint(names)

    def take_back(self, name: str) -> None:
        """Be as if there were no variable for it; nothing if there is none."""
        if (param := self._found.pop(name, None)) is not None:
            source = self._context.get_parameter_source(name)
            self._context.set_parameter_source(name, type(source).DEFAULT)
            self._context.params[name] = 0 if param.count else False if param.is_flag else None

    def refuse(self, text: str, *names: str) -> NoReturn:
        """Say what is wrong with these."""
        raise typer.BadParameter(text.format(*map(self._shown, names)), ctx=self._context)

    def _shown(self, name: str) -> str:
        if name in ("address", LOCAL):
            return str(self._context.params["address"])
        return "--" if name == PROGRAM else f"--{name.rstrip('_').replace('_', '-')}"


def said(error: Any) -> str:
    """What a usage error says, with variables in the place of the options that they stand for."""
    message = " ".join(error.format_message().split()).rstrip(".").removeprefix("Invalid value: ")
    message = f"{message[:1].lower()}{message[1:]}"
    wrong: Any = getattr(error, "param", None)
    for param in _from_environment(error.ctx) if error.ctx else ():
        if param is wrong:
            return f"{param.envvar}: {_wrong_value(error, param)}"
        for name in param.opts:
            message = re.sub(rf"(?<![\w-]){name}(?![\w-])", param.envvar, message)
    return message


def _wrong_value(error: Any, param: Any) -> str:
    value = repr(os.environ[param.envvar])
    if param.count:
        return f"{value} is not how often {param.opts[-1]} is given"
    return f"{value} is neither 1 nor 0" if param.is_flag else str(error.message)


def _from_environment(context: Any) -> Iterator[Any]:
    """The options that have their values from there."""
    for param in context.command.params:
        if _source(context, param.name) == "ENVIRONMENT":
            yield param


def _source(context: Any, name: str) -> str:
    """COMMANDLINE, ENVIRONMENT or DEFAULT."""
    source = context.get_parameter_source(name)
    return source.name if source is not None else ""
