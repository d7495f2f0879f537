"""bpipe-events(5) has every event, field and code that the program can log, and no others."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import bpipe.errors
import bpipe.report
from bpipe.report.events import OfSession, name, to_json
from bpipe.report.output import LogError
from bpipe.report.totals import Totals

PACKAGE: Final = Path(bpipe.errors.__file__).parent
PAGE: Final = PACKAGE.parent / "man" / "bpipe-events.5"
ALWAYS: Final = {"time", "run", "session", "event"}


def section(title: str) -> str:
    return PAGE.read_text().partition(f".Sh {title}\n")[2].partition("\n.Sh ")[0]


def classes() -> dict[str, Any]:
    """The classes of all events, wherever they are."""
    found = {}
    for module in pkgutil.iter_modules(bpipe.report.__path__, "bpipe.report."):
        for each in vars(importlib.import_module(module.name)).values():
            if hasattr(each, "_fields") and hasattr(each, "words") and each is not OfSession:
                found[name(each)] = each
    return found


def fields_of(event: Any) -> set[str]:
    """Those that are logged."""
    fields = set(event._fields) - {"advice", "where"}  # which are only for people
    if "totals" in fields:
        fields = fields - {"totals"} | set(Totals._fields)
    return {field.rstrip("_") for field in fields}


def variables(text: str) -> set[str]:
    """What is marked as a variable."""
    lines = re.findall(r"^\.(?:It )?Va (.*)", text, re.MULTILINE)
    return {word for line in lines for word in re.findall(r"\w+", line.partition(" No ")[0])}


def table() -> dict[str, set[str]]:
    totals = variables(section("FIELDS").partition("\n.Em The totals\n")[2])
    rows = {}
    for event, cells in re.findall(r"^\.It Cm (\S+) Ta (.*)$", section("TABLE OF EVENTS"), re.M):
        rows[event] = variables(f".{cells}") | (totals if "the totals" in cells else set())
    return rows


def described() -> dict[str, str]:
    items = re.split(r"^\.It Cm ", section("EVENTS"), flags=re.MULTILINE)[1:]
    return dict(item.partition("\n.El\n")[0].split("\n", 1) for item in items)


def examples(text: str) -> list[str]:
    """The lines of the log, each of which is broken into several."""
    blocks = re.findall(r"^\.Bd -literal.*\n((?:.*\n)*?)\.Ed", text, re.MULTILINE)
    return [re.sub(r"\n +", " ", line) for block in blocks for line in re.split(r"\n(?={)", block)]


def test_the_table_has_every_event_with_every_field() -> None:
    assert table() == {event: fields_of(each) for event, each in classes().items()}


def test_every_event_and_every_field_is_explained() -> None:
    everywhere = variables(section("FIELDS"))
    assert everywhere >= ALWAYS | set(Totals._fields)
    texts = described()
    assert list(texts) == list(table())
    for event, fields in table().items():
        group = section("EVENTS").partition(f".It Cm {event}\n")[0].rpartition(".Ss ")[2]
        explained = variables(texts[event])
        assert explained <= fields | ALWAYS, event
        assert fields <= explained | everywhere | variables(group.partition(".Bl ")[0]), event


@pytest.mark.parametrize("event", classes())
def test_an_example_is_what_the_program_writes(event: str) -> None:
    assert examples(described()[event])
    for line in examples(described()[event]):
        compare(line.strip(), classes()[event])


def test_the_example_of_a_session_is_what_the_program_writes() -> None:
    [line] = examples(section("FIELDS"))
    compare(line.strip(), classes()["done"])


def compare(line: str, kind: Any) -> None:
    """Have the program write this line, from what is in it."""
    fields = json.loads(line)
    has_totals = "totals" in kind._fields
    totals = {each: fields.pop(each) for each in Totals._fields if has_totals}
    now, run = fields.pop("time"), fields.pop("run")
    assert fields.pop("event") == name(kind)
    session = fields.pop("session", None)
    values = {
        next(each for each in kind._fields if each.rstrip("_") == f): v for f, v in fields.items()
    }
    if totals:
        values["totals"] = Totals(**totals)
    event = kind(**values)
    assert to_json(OfSession(event, 1, session) if session else event, run, now) == line


def test_the_codes_are_those_of_the_program() -> None:
    documented = set(re.findall(r"^\.It Li (\S+)$", section("CODES"), re.MULTILINE))
    sources = [path.read_text() for path in PACKAGE.rglob("*.py")]
    assert {
        code for code in documented if any(f'"{code}"' in each for each in sources)
    } == documented
    able = [ast.parse(each) for each in sources if "bpipe.errors" in each or "code = " in each]
    given = {code for tree in able for code in codes(tree)} - {LogError.code}  # which has no log
    assert given <= documented
    assert set(bpipe.errors._CODES.values()) <= documented


def words(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Those of these that are one word."""
    for node in nodes:
        if isinstance(node, ast.Constant) and re.fullmatch(r"[a-z-]+", str(node.value)):
            yield str(node.value)


def codes(tree: ast.AST) -> Iterator[str]:
    """What is given as a code: to an error, by name, or as what all errors of a class have."""
    errors = {each for each, kind in vars(bpipe.errors).items() if isinstance(kind, type)}
    for node in ast.walk(tree):
        given: list[ast.expr] = []
        if isinstance(node, ast.Call):
            called = getattr(node.func, "id", getattr(node.func, "attr", ""))
            given = node.args[1:2] if called in errors else []
            given += [each.value for each in node.keywords if each.arg == "code"]
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in (
            "code",
            "_CODE",
        ):
            given = [node.value]
        for value in given:
            either = [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
            yield from words(either)
