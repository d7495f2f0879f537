"""Groups of options: what typer sees, what a command gets, and in which order the help has them."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pytest
import typer

from bpipe.cli.groups import CONNECTION, DIRECTION, SHOWN, flag, grouped, option, text


class First(NamedTuple):
    """Two options of different panels."""

    last: Annotated[bool, flag("--last", "-l", help="Shown last.", panel=SHOWN)] = False
    fast: Annotated[bool, flag("--fast", help="In the midst.", panel=CONNECTION)] = False


class Second(NamedTuple):
    """A value that is parsed, and one that is not."""

    number: Annotated[
        int, option(int, "--number", "N", "Of them.", panel=CONNECTION, hidden=False)
    ] = 7
    file: Annotated[Path | None, text("--file", help="Where.", panel=DIRECTION)] = None


def command(got: list[Any], **options: Any) -> typer.Typer:
    """An application with one command, which remembers what it was called with."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

    @app.command()
    @grouped(**options)
    def run(first: Annotated[str, typer.Argument()], one: First, two: Second) -> int:
        """What it does."""
        got.append((first, one, two))
        return 0

    return app


def call(app: typer.Typer, *arguments: str) -> None:
    app(list(arguments), standalone_mode=False)


def test_each_option_comes_in_its_group_and_the_others_have_their_defaults() -> None:
    got: list[Any] = []
    app = command(got)
    call(app, "x")
    call(app, "y", "--number", "9", "-l")
    call(app, "--fast", "--file", "/f", "z")
    assert got == [
        ("x", First(), Second()),
        ("y", First(last=True), Second(number=9)),
        ("z", First(fast=True), Second(file=Path("/f"))),
    ]
    assert isinstance(got[0][1], First)


def test_a_value_that_cannot_be_parsed_is_a_usage_error() -> None:
    with pytest.raises(Exception, match=r"invalid literal for int.* 'seven'") as caught:
        call(command([]), "x", "--number", "seven")
    assert hasattr(caught.value, "format_message")


@pytest.mark.parametrize("without", [("fast",), ("fast", "file", "last")])
def test_an_option_that_a_command_does_not_have(without: tuple[str, ...]) -> None:
    got: list[Any] = []
    app = command(got, without=without)
    call(app, "x")
    assert got == [("x", First(), Second())]
    for name in without:
        with pytest.raises(Exception, match=r"[Nn]o such option"):
            call(app, "x", f"--{name}")


def test_typer_sees_the_options_in_the_order_of_the_panels_and_arguments_first() -> None:
    @grouped()
    def run(one: First, two: Second, place: Annotated[str, typer.Argument()] = "here") -> int:
        """What it does."""
        return 0

    seen = inspect.signature(run).parameters
    assert list(seen) == ["place", "file", "fast", "number", "last"]
    assert [each.default for each in seen.values()] == ["here", None, False, 7, False]
    assert run.__doc__ == "What it does."
    assert run.__name__ == "run"
