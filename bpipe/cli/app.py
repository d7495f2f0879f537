"""The commands and their options: this module parses, and calls one function."""

from __future__ import annotations

import contextlib
import gc
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from bpipe import __version__
from bpipe.cli import values
from bpipe.cli.values import FAILED, SECRET_VARIABLE, USAGE, Level, Usage, When
from bpipe.errors import AddressError, SecretError, explain

if TYPE_CHECKING:
    from bpipe.protocol.secret import Secret

_Value = TypeVar("_Value")

app = typer.Typer(
    name="bpipe",
    help="A pipe between two machines that does not break.",
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def run(arguments: list[str]) -> int:
    """Run the command line; returns the exit status. Usage errors are one line on stderr."""
    try:
        status = app(arguments, prog_name="bpipe", standalone_mode=False)
    except (AddressError, SecretError) as error:
        _complain(str(error))
        return USAGE
    except OSError as error:  # help, or the version, could not be written
        _complain(explain(error))
        return FAILED
    except Exception as error:
        if not hasattr(error, "format_message"):  # the base of the parser's errors has no name
            if "-vv" in arguments:
                raise
            _complain(f"an error in bpipe itself: {error!r} (-vv tells more)")
            return FAILED
        message = error.format_message().strip()
        if not message:
            return USAGE
        message = " ".join(message.split()).rstrip(".")
        _complain(f"{message[:1].lower()}{message[1:]} (bpipe --help explains)")
        return USAGE
    return status if isinstance(status, int) else 0


def _complain(message: str) -> None:
    if sys.stderr is not None:  # without one, print() would turn to stdout
        with contextlib.suppress(OSError):
            print(f"bpipe: {message}", file=sys.stderr, flush=True)


def _option(
    parse: Callable[[str], _Value], name: str, metavar: str, help: str, *, shown: str = ""
) -> Any:
    """An option whose text is parsed by this function; its ValueError becomes a usage error.

    ``shown`` is how people would write the default, if there is one.
    """
    help = f"{help} [default: {shown}]" if shown else help

    def convert(text: str | _Value) -> _Value:
        if not isinstance(text, str):
            return text  # the default
        try:
            return parse(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    return typer.Option(name, parser=convert, metavar=metavar, help=help, show_default=False)


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


def _complete(incomplete: str) -> list[str]:
    """The paths that ``unix:`` can be followed by; others, the shells complete by themselves."""
    import glob
    import os

    if not incomplete.startswith("unix:"):
        return []
    path = os.path.expanduser(incomplete.removeprefix("unix:"))
    return [
        f"unix:{found}{'/' * os.path.isdir(found)}"
        for found in sorted(glob.glob(glob.escape(path) + "*"))
    ]


_ADDRESS = (
    "HOST:PORT, HOST, :PORT, PORT, [IPv6]:PORT, unix:PATH, or a path with a slash;"
    " the port may be a second argument."
)
Port = Annotated[str | None, typer.Argument(metavar="[PORT]", show_default=False)]
SendOnly = Annotated[bool, typer.Option("--send-only", help="Take nothing from the peer.")]
RecvOnly = Annotated[bool, typer.Option("--recv-only", help="Do not read stdin.")]
Buffer = Annotated[
    int,
    _option(values.buffer, "--buffer", "SIZE", "Memory for each direction.", shown="64M"),
]
Heartbeat = Annotated[
    float,
    _option(
        values.heartbeat,
        "--heartbeat",
        "TIME",
        "A connection that is silent for three of these is given up.",
        shown="2s",
    ),
]
GiveUpAfter = Annotated[
    float,
    _option(values.duration, "--give-up-after", "TIME", "The longest outage.", shown="24h"),
]
SecretFile = Annotated[
    Path | None,
    typer.Option(
        "--secret",
        metavar="FILE",
        help="Encrypt, and let in only who has the same secret: a key of `bpipe keygen`, or a"
        " passphrase. [default: the file that BPIPE_SECRET_FILE names]",
        show_default=False,
    ),
]
AskSecret = Annotated[
    bool, typer.Option("--ask-secret", help="Ask for the secret on the terminal.")
]
Insecure = Annotated[
    bool,
    typer.Option(
        "--insecure",
        help="Without a secret, allow addresses that others can reach; nothing protects the data.",
    ),
]
StatusLine = Annotated[
    When, typer.Option("--status", help="When to draw the status line.", show_default=True)
]
Size = Annotated[
    int | None,
    _option(values.size, "--size", "SIZE", "How much is to come, for the percentage."),
]
LogJson = Annotated[
    str | None,
    typer.Option(
        "--log-json",
        metavar="FILE",
        help="Append the events as JSON; - is stderr.",
        show_default=False,
    ),
]
LogInterval = Annotated[
    float | None,
    _option(values.interval, "--log-interval", "TIME", "Tell the progress every so often."),
]
Verbose = Annotated[
    int,
    typer.Option(
        "-v", "--verbose", count=True, help="Say more; twice: every frame.", show_default=False
    ),
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing but errors.")]


@app.command()
def connect(
    address: Annotated[
        str, typer.Argument(metavar="ADDRESS", help=_ADDRESS, autocompletion=_complete)
    ],
    port: Port = None,
    send_only: SendOnly = False,
    recv_only: RecvOnly = False,
    buffer: Buffer = 64 << 20,
    heartbeat: Heartbeat = 2.0,
    connect_timeout: Annotated[
        float,
        _option(
            values.duration,
            "--connect-timeout",
            "TIME",
            "How long to wait for a listener; 0: one try.",
            shown="30s",
        ),
    ] = 30.0,
    give_up_after: GiveUpAfter = 86400.0,
    retry_max: Annotated[
        float,
        _option(
            values.duration, "--retry-max", "TIME", "The longest pause between tries.", shown="1s"
        ),
    ] = 1.0,
    secret: SecretFile = None,
    ask_secret: AskSecret = False,
    insecure: Insecure = False,
    status: StatusLine = When.AUTO,
    size: Size = None,
    log_json: LogJson = None,
    log_interval: LogInterval = None,
    verbose: Verbose = 0,
    quiet: Quiet = False,
) -> int:
    """Join stdin and stdout to a bpipe that listens."""
    from bpipe import pipe
    from bpipe.cli.session import run_session
    from bpipe.net.address import parse
    from bpipe.protocol.patience import Limits

    _collect_garbage()
    level = _level(verbose, quiet)
    usage = _usage(send_only, recv_only, level, status, size, log_json, log_interval)
    where = parse(address, port)
    limits = Limits(heartbeat, connect_timeout, give_up_after)
    shared = _secret(secret, ask_secret, insecure)
    return run_session(
        lambda: pipe.connect(
            where,
            insecure=insecure,
            secret=shared,
            retry_max=retry_max,
            buffer_size=buffer,
            limits=limits,
        ),
        usage,
        str(where),
        listens=False,
    )


@app.command()
def listen(
    address: Annotated[
        str, typer.Argument(metavar="[ADDRESS]", help=_ADDRESS, autocompletion=_complete)
    ] = ":27473",
    port: Port = None,
    send_only: SendOnly = False,
    recv_only: RecvOnly = False,
    buffer: Buffer = 64 << 20,
    heartbeat: Heartbeat = 2.0,
    give_up_after: GiveUpAfter = 86400.0,
    secret: SecretFile = None,
    ask_secret: AskSecret = False,
    insecure: Insecure = False,
    status: StatusLine = When.AUTO,
    size: Size = None,
    log_json: LogJson = None,
    log_interval: LogInterval = None,
    verbose: Verbose = 0,
    quiet: Quiet = False,
) -> int:
    """Join stdin and stdout to the bpipe that connects."""
    from bpipe import pipe
    from bpipe.cli.session import run_session
    from bpipe.net.address import parse
    from bpipe.protocol.patience import Limits

    _collect_garbage()
    level = _level(verbose, quiet)
    usage = _usage(send_only, recv_only, level, status, size, log_json, log_interval)
    where = parse(address, port)
    limits = Limits(heartbeat, give_up_after=give_up_after)
    shared = _secret(secret, ask_secret, insecure)
    return run_session(
        lambda: pipe.listen(
            where, insecure=insecure, secret=shared, buffer_size=buffer, limits=limits
        ),
        usage._replace(credentials=_credentials(secret, ask_secret, insecure)),
        str(where),
        listens=True,
    )


def _collect_garbage() -> None:
    """From here on (see ``__main__``). What was imported stays, and is not looked at again."""
    gc.freeze()
    gc.enable()


def _level(verbose: int, quiet: bool) -> Level:
    if verbose and quiet:
        raise typer.BadParameter("--verbose and --quiet contradict each other")
    return Level.QUIET if quiet else Level(min(Level.NORMAL + verbose, Level.TRACE))


def _usage(send_only: bool, recv_only: bool, *rest: Any) -> Usage:
    if send_only and recv_only:
        raise typer.BadParameter("--send-only and --recv-only leave nothing to do")
    return Usage(send_only, recv_only, *rest)


def _secret(path: Path | None, ask: bool, insecure: bool) -> Secret | None:
    """The secret that these options mean, or else the environment; None if there is none."""
    named = os.environ.get(SECRET_VARIABLE)
    if path is None and named and not ask:
        path = Path(named)
    if path is None and not ask:
        return None
    if path is not None and ask:
        raise typer.BadParameter("--secret and --ask-secret contradict each other")
    if insecure:
        given = "--ask-secret" if ask else f"the secret {path}"
        raise typer.BadParameter(f"--insecure and {given} contradict each other")
    from bpipe.cli.secret import ask_secret, load_secret

    return ask_secret() if path is None else load_secret(path)


def _credentials(path: Path | None, ask: bool, insecure: bool) -> str:
    """What the other end has to be given as well, of these options."""
    if ask or insecure:
        return "--ask-secret" if ask else "--insecure"
    name = str(path or os.environ.get(SECRET_VARIABLE) or "")
    if name.startswith(("/dev/", "/proc/")):
        return "--secret FILE"  # <(...)
    home = os.path.expanduser("~/")
    tilde, name = ("~/", name[len(home) :]) if name.startswith(home) else ("", name)
    return f"--secret {tilde}{shlex.quote(name)}" if name else ""


@app.command()
def keygen(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Where the key goes; a new file.")],
) -> int:
    """Make a key for --secret; the same file belongs on both machines."""
    from bpipe.cli.secret import write_key

    try:
        write_key(path)
    except FileExistsError:
        _complain(f"{path} exists, and may be in use: name a new file")
        return FAILED
    except OSError as error:
        _complain(f"{path}: {explain(error)}")
        return FAILED
    return 0


@app.command()
def demo(
    path: Annotated[
        Path | None,
        typer.Argument(metavar="[PATH]", help="What to send; by default Python's own library."),
    ] = None,
) -> int:
    """Send a folder over a network that keeps breaking."""
    from bpipe.cli.demo import run_demo

    _collect_garbage()
    return run_demo(path)
