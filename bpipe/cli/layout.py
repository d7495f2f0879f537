"""How the help of a command looks: its options in groups, then examples."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from bpipe.cli.given import settle

_ARGUMENTS: dict[str, str] = {}  # by metavar: some typers with some clicks forget what is said


def argument(metavar: str, help: str, **more: Any) -> Any:
    """An argument of a command; the same metavar means the same everywhere."""
    _ARGUMENTS[metavar] = help
    return typer.Argument(metavar=metavar, help=help, show_default=False, **more)


class _Layout:
    """What both kinds of command share. It looks the same whichever typer draws it."""

    epilog: str | None
    short = True  # whether options have short names, too
    behind = ("", "", "")  # what may follow --: in the usage; its name, and what is said about it

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The parts of it. Some typers would draw boxes, whatever they are told."""
        self.format_usage(ctx, formatter)  # type: ignore[attr-defined]
        self.format_help_text(ctx, formatter)  # type: ignore[attr-defined]
        self.format_options(ctx, formatter)
        self.format_epilog(ctx, formatter)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """What follows the name of the command in its first line."""
        params = self.get_params(ctx)  # type: ignore[attr-defined]
        arguments = (param.metavar for param in params if _is_argument(param))
        return ["[OPTIONS]", *arguments, *filter(None, self.behind[:1])]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """The arguments, and each group of options below its title."""
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": []}
        for param in self.get_params(ctx):  # type: ignore[attr-defined]
            title = "Arguments" if _is_argument(param) else "Options"
            title = getattr(param, "rich_help_panel", None) or title
            groups.setdefault(title, []).append(_row(param, short=self.short))
        if self.behind[0]:
            groups["Arguments"].append(self.behind[1:])
        for title, rows in groups.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """What is written below all of it, line by line as it stands."""
        if self.epilog:
            formatter.write(f"\n{self.epilog}")


def _is_argument(param: Any) -> bool:
    return bool(param.param_type_name == "argument")


def _row(param: Any, *, short: bool) -> tuple[str, str]:
    """A parameter, and what is said about it."""
    if _is_argument(param):
        return param.metavar, _ARGUMENTS[param.metavar]
    names = sorted(param.opts, key=len)
    name = ", ".join(names if short else names[-1:])
    return f"{name} {param.metavar}" if param.metavar else name, param.help or ""


class Command(_Layout, TyperCommand):
    """A command with groups of options, which go together when it is called."""

    def invoke(self, ctx: Any) -> Any:
        """Do what it is for."""
        settle(ctx)
        return super().invoke(ctx)


class ProgramCommand(Command):
    """A command that may start a program here."""

    behind = ("[-- PROGRAM [ARG]...]", "PROGRAM", "Takes the place of stdin and stdout.")


class FarCommand(Command):
    """A command that starts one elsewhere."""

    behind = ("-- COMMAND [ARG]...", "COMMAND", "What runs there.")


class SshCommand(Command):
    """A command whose words are ssh's, but for long options before the destination."""

    short = False  # those are ssh's

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take what ssh would take out of them: that is the context's ``obj``."""
        from bpipe.cli.ssh import Call, NotSsh, read, so_far

        valued = {name for param in self.params if param.metavar for name in param.opts}
        if ctx.resilient_parsing:  # TAB was pressed
            return super().parse_args(ctx, ["--", *so_far(args, valued)])
        try:
            ctx.obj = read(args, valued)
        except NotSsh as error:
            raise typer.BadParameter(str(error), ctx=ctx) from None
        ours = ctx.obj.ours if isinstance(ctx.obj, Call) else []
        return super().parse_args(ctx, [*ours, "--", "DESTINATION", "COMMAND"])


class Group(_Layout, TyperGroup):
    """The program itself: options, and commands."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The same, for a group."""
        return ["[OPTIONS]", "COMMAND [ARGS]..."]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """The commands first."""
        self.format_commands(ctx, formatter)
        super().format_options(ctx, formatter)
