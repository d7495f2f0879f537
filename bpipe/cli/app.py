"""The commands and their options: this module parses, and calls one function."""

from __future__ import annotations

import gc
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bpipe import __version__
from bpipe.cli import options
from bpipe.cli.complain import complain, say
from bpipe.cli.layout import Command, Group, argument
from bpipe.cli.options import address
from bpipe.ends.streams import Directions
from bpipe.errors import AddressError, SecretError, explain
from bpipe.report.settings import Level, Settings, When
from bpipe.run.exits import FAILED, USAGE
from bpipe.run.limits import describe

if TYPE_CHECKING:
    from bpipe.net.address import Address

app = typer.Typer(
    name="bpipe",
    cls=Group,
    help="A pipe between two machines that does not break.",
    epilog=options.EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def run(arguments: list[str]) -> int:
    """Run the command line; returns the exit status. Usage errors are one line on stderr."""
    try:
        if arguments[:1] in (["--install-completion"], ["--show-completion"]):
            from bpipe.cli.completion import shell_fault

            if fault := shell_fault():
                complain(fault)
                return USAGE
        status = app(arguments, prog_name="bpipe", standalone_mode=False)
    except (AddressError, SecretError) as error:
        complain(str(error))
        return USAGE
    except (OSError, MemoryError, ImportError) as error:  # help could not be written, for one
        complain(describe(error))
        return FAILED
    except Exception as error:
        if hasattr(error, "format_message"):  # the base of the parser's errors has no name
            _explain_usage(error, arguments)
            return USAGE
        if "-vv" in arguments:
            raise
        complain(f"an error in bpipe itself: {error!r} (-vv tells more)")
        return FAILED
    return status if isinstance(status, int) else 0


def _explain_usage(error: Any, arguments: list[str]) -> None:
    """Say what was wrong, and where it is explained; without any argument, explain."""
    if not arguments:
        say(error.ctx.get_help())
        return
    message = " ".join(error.format_message().split()).rstrip(".").removeprefix("Invalid value: ")
    command = error.ctx.command_path if error.ctx else "bpipe"
    complain(f"{message[:1].lower()}{message[1:]} ({command} --help explains)")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bpipe {__version__}")
        raise typer.Exit


@app.callback()
def _bpipe(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """A pipe between two machines that does not break."""


@app.command(cls=Command, epilog=options.CONNECT_EXAMPLES)
def connect(
    address: Annotated[str, address("ADDRESS")],
    port: options.Port = None,
    send_only: options.SendOnly = False,
    recv_only: options.RecvOnly = False,
    secret: options.SecretFile = None,
    ask_secret: options.AskSecret = False,
    insecure: options.Insecure = False,
    ipv4: options.IPv4 = False,
    ipv6: options.IPv6 = False,
    connect_timeout: options.ConnectTimeout = 30.0,
    give_up_after: options.GiveUpAfter = 86400.0,
    retry_max: options.RetryMax = 1.0,
    heartbeat: options.Heartbeat = 2.0,
    buffer: options.Buffer = 64 << 20,
    status: options.StatusLine = When.AUTO,
    size: options.Size = None,
    log_json: options.LogJson = None,
    log_interval: options.LogInterval = None,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> int:
    """Join stdin and stdout to a bpipe that listens."""
    from bpipe import pipe
    from bpipe.cli.keys import choose_secret
    from bpipe.protocol.patience import Limits
    from bpipe.run.process import run_session

    _collect_garbage()
    level = _level(verbose, quiet)
    directions = _directions(send_only, recv_only)
    settings = Settings(level, status, size, log_json, log_interval)
    where = _address(address, port, ipv4, ipv6)
    limits = Limits(heartbeat, connect_timeout, give_up_after)
    shared = choose_secret(secret, ask_secret, insecure, settings)
    open_pipe = partial(pipe.connect, where, insecure=insecure, secret=shared, retry_max=retry_max)
    open_pipe = partial(open_pipe, buffer_size=buffer, limits=limits)
    return run_session(open_pipe, directions, settings, str(where), listens=False)


@app.command(cls=Command, epilog=options.LISTEN_EXAMPLES)
def listen(
    address: Annotated[str, address("[ADDRESS]", ":27473")] = ":27473",
    port: options.Port = None,
    send_only: options.SendOnly = False,
    recv_only: options.RecvOnly = False,
    secret: options.SecretFile = None,
    ask_secret: options.AskSecret = False,
    insecure: options.Insecure = False,
    ipv4: options.IPv4 = False,
    ipv6: options.IPv6 = False,
    give_up_after: options.GiveUpAfter = 86400.0,
    heartbeat: options.Heartbeat = 2.0,
    buffer: options.Buffer = 64 << 20,
    status: options.StatusLine = When.AUTO,
    size: options.Size = None,
    log_json: options.LogJson = None,
    log_interval: options.LogInterval = None,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> int:
    """Join stdin and stdout to the bpipe that connects."""
    from bpipe import pipe
    from bpipe.cli.keys import choose_secret, credentials
    from bpipe.protocol.patience import Limits
    from bpipe.run.process import run_session

    _collect_garbage()
    level = _level(verbose, quiet)
    directions = _directions(send_only, recv_only)
    settings = Settings(level, status, size, log_json, log_interval)
    where = _address(address, port, ipv4, ipv6)
    limits = Limits(heartbeat, give_up_after=give_up_after)
    shared = choose_secret(secret, ask_secret, insecure, settings)
    settings = settings._replace(credentials=credentials(secret, ask_secret, insecure))
    open_pipe = partial(pipe.listen, where, insecure=insecure, secret=shared)
    open_pipe = partial(open_pipe, buffer_size=buffer, limits=limits)
    return run_session(open_pipe, directions, settings, str(where), listens=True)


def _collect_garbage() -> None:
    """From here on (see ``__main__``). What was imported stays, and is not looked at again."""
    gc.freeze()
    gc.enable()


def _level(verbose: int, quiet: bool) -> Level:
    if verbose and quiet:
        raise typer.BadParameter("--verbose and --quiet contradict each other")
    return Level.QUIET if quiet else Level(min(Level.NORMAL + verbose, Level.TRACE))


def _directions(send_only: bool, recv_only: bool) -> Directions:
    if send_only and recv_only:
        raise typer.BadParameter("--send-only and --recv-only leave nothing to do")
    return Directions(send_only, recv_only)


def _address(text: str, port: str | None, ipv4: bool, ipv6: bool) -> Address:
    import socket

    from bpipe.net.address import parse

    if ipv4 and ipv6:
        raise typer.BadParameter("--ipv4 and --ipv6 contradict each other")
    one = socket.AF_INET if ipv4 else socket.AF_INET6
    return parse(text, port, one if ipv4 or ipv6 else socket.AF_UNSPEC)


@app.command(cls=Command)
def keygen(
    path: Annotated[Path, argument("FILE", "Where it goes; a new file.")],
    words: Annotated[
        bool,
        typer.Option("--words", help="A key that can be read aloud, and typed at --ask-secret."),
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
    from bpipe.demo.demo import run_demo

    _collect_garbage()
    return run_demo(path)
