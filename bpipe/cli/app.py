"""The commands and their options: this module parses, and calls one function."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from bpipe import __version__
from bpipe.cli import examples, options
from bpipe.cli.complain import complain, say
from bpipe.cli.completion import complete_host
from bpipe.cli.direction import Direction
from bpipe.cli.far import Via, by, execute, over_ssh
from bpipe.cli.given import said
from bpipe.cli.groups import flag, grouped
from bpipe.cli.layout import Command, FarCommand, Group, ProgramCommand, SshCommand, argument
from bpipe.cli.many import Many
from bpipe.cli.options import Report, Trust, Where
from bpipe.cli.ssh import ForSsh
from bpipe.cli.tuning import Tuning
from bpipe.errors import AddressError, SecretError, explain
from bpipe.run.exits import FAILED, OF_BPIPE, USAGE
from bpipe.run.limits import describe

if TYPE_CHECKING:
    from bpipe.net.launch import Launched

_GUESSED: Final = ("send", "receive")
_NEITHER: Final = "no such command '{}': bpipe listen waits, bpipe connect calls; either may send"
_NOT_FAR: Final = (  # options that are about what is joined here, and how TCP connects
    *("send_only", "recv_only", "-o"),
    *("retry_max", "bind", "max_links", "congestion"),
)

app = typer.Typer(
    name="bpipe",
    cls=Group,
    help="A pipe between two machines that does not break.",
    epilog=examples.ALL,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def run(arguments: list[str], begun: Launched | None = None) -> int:
    """Run the command line; returns the exit status. Usage errors are one line on stderr.

    ``begun``: what was started already (see ``early``).
    """
    usage, failed = USAGE, FAILED
    if arguments[:1] == ["help"]:  # as git and docker have it
        arguments = [*arguments[1:2], "--help"]
    if arguments[:1] in (["ssh"], ["run"]):  # other statuses are those of the command
        usage = failed = OF_BPIPE
    arguments, program = _take_program(arguments)
    try:
        if arguments[:1] in (["--install-completion"], ["--show-completion"]):
            from bpipe.cli.completion import shell_fault

            if fault := shell_fault():
                complain(fault)
                return USAGE
        status = app(arguments, prog_name="bpipe", standalone_mode=False, obj=begun or program)
    except (AddressError, SecretError) as error:
        complain(str(error))
        return usage
    except (OSError, MemoryError, ImportError) as error:  # for example, help could not be written
        complain(describe(error))
        return failed
    except Exception as error:
        if hasattr(error, "format_message"):  # the base of the parser's errors has no name
            _explain_usage(error, arguments)
            return usage
        if "-vv" in arguments:
            raise
        complain(f"an error in bpipe itself: {error!r} (-vv tells more)")
        return failed
    return status if isinstance(status, int) else 0


def _take_program(arguments: list[str]) -> tuple[list[str], list[str] | None]:
    """What is before the first ``--``, and the program after it; None if there is no such word.

    A command that starts no program takes ``--`` as everybody does: what follows is no option.
    """
    if arguments[:1] not in (["connect"], ["listen"], ["run"]) or "--" not in arguments:
        return arguments, None
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def _explain_usage(error: Any, arguments: list[str]) -> None:
    """Say what was wrong, and where it is explained; without any argument, explain."""
    if not arguments:
        say(error.ctx.get_help())
        return
    command = error.ctx.command_path if error.ctx else "bpipe"
    wrong = _NEITHER.format(arguments[0]) if arguments[0] in _GUESSED else said(error)
    complain(f"{wrong} ({command} --help explains)")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bpipe {__version__}")
        raise typer.Exit


@app.callback()
def _bpipe(
    version: Annotated[
        bool,
        typer.Option(
            "-V",
            "--version",
            callback=_show_version,
            is_eager=True,
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    """A pipe between two machines that does not break."""


@app.command(cls=ProgramCommand, epilog=examples.CONNECT)
@grouped(without=("keep_open", "to", "max_links"))
def connect(
    context: typer.Context,
    *,
    address: Annotated[str | None, options.address("ADDRESS")] = None,
    where: Where,
    direction: Direction,
    many: Many,
    trust: Trust,
    tuning: Tuning,
    report: Report,
) -> int:
    """Join stdin and stdout to a bpipe that listens."""
    from bpipe.api import connect as open_pipe
    from bpipe.cli.runs import Run

    run = Run(where.calling(address), trust, tuning, report.settings(), listens=False)
    direction.require_apart(report.log_json)
    ends = many.ends(direction, context.obj)
    return run.one(open_pipe, ends) if many.from_ is None else run.forward(open_pipe, many)


@app.command(cls=ProgramCommand, epilog=examples.LISTEN)
@grouped(without=("connect_timeout", "retry_max", "from_", "via", "links", "bind"))
def listen(
    context: typer.Context,
    *,
    address: Annotated[str | None, options.address("[ADDRESS]", options.DEFAULT)] = None,
    where: Where,
    direction: Direction,
    many: Many,
    trust: Trust,
    tuning: Tuning,
    report: Report,
) -> int:
    """Join stdin and stdout to the bpipe that connects."""
    from bpipe.api import listen as open_pipe
    from bpipe.cli.runs import Run

    run = Run(where.listening(address), trust, tuning, report.settings(), listens=True)
    direction.require_apart(report.log_json)
    ends = many.ends(direction, context.obj)
    return run.serve(ends, many) if many.keep_open else run.one(open_pipe, ends)


@app.command(cls=SshCommand, epilog=examples.SSH)
@grouped(without=_NOT_FAR)
def ssh(
    context: typer.Context,
    *,
    destination: Annotated[
        str,
        argument(
            "DESTINATION", "HOST, USER@HOST or ssh://USER@HOST:PORT.", autocompletion=complete_host
        ),
    ],
    command: Annotated[list[str], argument("COMMAND...", "What runs there, in a shell.")],
    direction: Direction,
    tuning: Tuning,
    report: Report,
) -> int:
    """Run a command on another machine, as ssh does."""
    del destination, command  # the context has them, and ssh's options
    if isinstance(context.obj, ForSsh):
        return execute(context.obj.words)
    there = over_ssh(context.obj, context.find_root().obj)
    return there.run(direction, tuning, report.settings())


@app.command("run", cls=FarCommand, epilog=examples.RUN)
@grouped(without=_NOT_FAR)
def run_by(
    context: typer.Context, via: Via, direction: Direction, tuning: Tuning, report: Report
) -> int:
    """Run a command elsewhere, as --via starts one."""
    return by(via, context.obj).run(direction, tuning, report.settings())


@app.command(cls=Command)
def keygen(
    path: Annotated[Path, argument("FILE", "Where it goes; a new file.")],
    words: Annotated[
        bool,
        flag(
            "--words",
            help="A key that can be read aloud, and typed at --ask-secret.",
            panel="Options",
        ),
    ] = False,
) -> int:
    """Make a key for --secret; the same file belongs on both machines."""
    from bpipe.cli.keys import write_key

    if path == Path("-") or path == Path():
        raise typer.BadParameter("a key is written to a new file: name one")
    try:
        write_key(path, words=words)
    except FileExistsError:
        complain(f"{path} exists, and may be in use: name a new file")
        return FAILED
    except OSError as error:
        complain(f"{path}: {explain(error)}")
        return FAILED
    return 0


@app.command(cls=Command)
def demo(
    path: Annotated[
        Path | None, argument("[PATH]", "What to send; by default Python's own library.")
    ] = None,
) -> int:
    """Send a folder over a network that keeps breaking."""
    from bpipe.cli.runs import collect_garbage
    from bpipe.demo.demo import run_demo

    collect_garbage()
    return run_demo(path)
