"""How help looks: arguments, each panel below its title, and the end of it as it stands."""

from __future__ import annotations

from typing import Annotated

import pytest
import typer

from bpipe.cli.layout import Command, Group, argument


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer(
        cls=Group,
        help="What it is for.",
        epilog="The end,\n  as it stands.\n",
        rich_markup_mode=None,
        add_completion=False,
    )

    @app.command(cls=Command, epilog="Examples:\n  one\n")
    def one(
        where: Annotated[str, argument("WHERE", "A place.")],
        fast: Annotated[
            bool, typer.Option("-f", "--fast", help="Hurry.", rich_help_panel="How")
        ] = False,
        size: Annotated[
            str, typer.Option(metavar="SIZE", help="Large.", rich_help_panel="What")
        ] = "1",
    ) -> None:
        """Do one thing."""

    @app.command(cls=Command)
    def other(what: Annotated[str, argument("[WHAT]", "A thing.")] = "x") -> None:
        """Do the other."""

    return app


def shown(app: typer.Typer, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    app([*arguments, "--help"], standalone_mode=False, prog_name="it")
    return capsys.readouterr().out.splitlines()


def test_the_program(app: typer.Typer, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(app, capsys)
    assert lines[0] == "Usage: it [OPTIONS] COMMAND [ARGS]..."
    assert "What it is for." in lines[2]
    commands, options = lines.index("Commands:"), lines.index("Options:")
    assert commands < options
    assert [line.split()[0] for line in lines[commands + 1 : commands + 3]] == ["one", "other"]
    assert lines[-3:] == ["", "The end,", "  as it stands."]


def test_a_command(app: typer.Typer, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(app, capsys, "one")
    assert lines[0] == "Usage: it one [OPTIONS] WHERE"
    heads = [line for line in lines if line.endswith(":")]
    assert heads == ["Arguments:", "How:", "What:", "Options:", "Examples:"]
    rows = {line.split("  ")[1]: line.split("  ")[-1] for line in lines if line[:2] == "  "}
    assert rows["WHERE"] == "A place."
    assert rows["-f, --fast"] == "Hurry."
    assert any(name.startswith("--size SIZE") for name in rows)
    assert lines[-2:] == ["Examples:", "  one"]


def test_an_argument_that_may_be_left_out(
    app: typer.Typer, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = shown(app, capsys, "other")
    assert lines[0] == "Usage: it other [OPTIONS] [WHAT]"
    assert "  [WHAT]  A thing." in lines
