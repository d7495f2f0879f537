"""The arguments and options of ``connect`` and ``listen``, in the groups that the help shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer

from bpipe.cli import values
from bpipe.cli.completion import complete_path, complete_when
from bpipe.cli.layout import argument
from bpipe.report.settings import When

_Value = TypeVar("_Value")

_DIRECTION: Final = "Direction"
_SECRET: Final = "Secret"
_CONNECTION: Final = "Connection and outages"
_SHOWN: Final = "What is shown"


def _option(
    parse: Callable[[str], _Value],
    name: str,
    metavar: str,
    help: str,
    *,
    group: str,
    shown: str = "",
    **more: Any,
) -> Any:
    """An option whose text is parsed by this function; its ValueError becomes a usage error.

    ``shown`` is how people would write the default, if there is one.
    """
    help = f"{help} [default: {shown}]" if shown else help

    def convert(text: str | _Value) -> _Value:
        if type(text) is not str:
            return text  # type: ignore[return-value]  # the default
        try:
            return parse(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    return typer.Option(
        name,
        parser=convert,
        metavar=metavar,
        help=help,
        show_default=False,
        rich_help_panel=group,
        **more,
    )


def _flag(*names: str, help: str, group: str) -> Any:
    return typer.Option(*names, help=help, show_default=False, rich_help_panel=group)


def address(metavar: str, default: str = "") -> Any:
    """The argument that says where to connect or to listen."""
    return argument(
        metavar,
        "HOST:PORT, HOST, :PORT, PORT, [IPv6]:PORT, unix:PATH, or a path with a slash."
        + (f" [default: {default}]" if default else ""),
        autocompletion=complete_path,
    )


Port = Annotated[
    str | None,
    argument(
        "[PORT]",
        "The port, if it is not in the address: a number, or a service's name. [default: 27473]",
    ),
]
SendOnly = Annotated[
    bool, _flag("--send-only", help="Take nothing from the peer.", group=_DIRECTION)
]
RecvOnly = Annotated[bool, _flag("--recv-only", help="Do not read stdin.", group=_DIRECTION)]
SecretFile = Annotated[
    Path | None,
    typer.Option(
        "--secret",
        metavar="FILE",
        help="Encrypt, and let in only who has the same secret: a key of `bpipe keygen`, or a"
        " passphrase. [default: the file that BPIPE_SECRET_FILE names]",
        show_default=False,
        rich_help_panel=_SECRET,
    ),
]
AskSecret = Annotated[
    bool, _flag("--ask-secret", help="Ask for the secret on the terminal.", group=_SECRET)
]
Insecure = Annotated[
    bool,
    _flag(
        "--insecure",
        help="Without a secret, allow addresses that others can reach; nothing protects the data.",
        group=_SECRET,
    ),
]
IPv4 = Annotated[bool, _flag("-4", "--ipv4", help="Use IPv4 only.", group=_CONNECTION)]
IPv6 = Annotated[bool, _flag("-6", "--ipv6", help="Use IPv6 only.", group=_CONNECTION)]
ConnectTimeout = Annotated[
    float,
    _option(
        values.duration,
        "--connect-timeout",
        "TIME",
        "How long to wait for a listener; 0: one try.",
        group=_CONNECTION,
        shown="30s",
    ),
]
GiveUpAfter = Annotated[
    float,
    _option(
        values.duration,
        "--give-up-after",
        "TIME",
        "The longest outage.",
        group=_CONNECTION,
        shown="24h",
    ),
]
RetryMax = Annotated[
    float,
    _option(
        values.pause,
        "--retry-max",
        "TIME",
        "The longest pause between tries.",
        group=_CONNECTION,
        shown="1s",
    ),
]
Heartbeat = Annotated[
    float,
    _option(
        values.heartbeat,
        "--heartbeat",
        "TIME",
        "A connection that is silent for three of these is given up.",
        group=_CONNECTION,
        shown="2s",
    ),
]
Buffer = Annotated[
    int,
    _option(
        values.buffer,
        "--buffer",
        "SIZE",
        "Memory for each direction.",
        group=_CONNECTION,
        shown="64M",
    ),
]
StatusLine = Annotated[
    When,
    _option(
        values.when,
        "--status",
        "WHEN",
        "When to draw the status line: auto, always or never.",
        group=_SHOWN,
        shown="auto",
        autocompletion=complete_when,
    ),
]
Size = Annotated[
    int | None,
    _option(
        values.size, "--size", "SIZE", "How much is to come, for the percentage.", group=_SHOWN
    ),
]
LogJson = Annotated[
    str | None,
    typer.Option(
        "--log-json",
        metavar="FILE",
        help="Append the events as JSON; - is stderr.",
        show_default=False,
        rich_help_panel=_SHOWN,
    ),
]
LogInterval = Annotated[
    float | None,
    _option(
        values.interval,
        "--log-interval",
        "TIME",
        "Tell the progress every so often.",
        group=_SHOWN,
    ),
]
Verbose = Annotated[
    int,
    typer.Option(
        "-v",
        "--verbose",
        count=True,
        help="Say more; twice: every frame.",
        show_default=False,
        rich_help_panel=_SHOWN,
    ),
]
Quiet = Annotated[bool, _flag("-q", "--quiet", help="Say nothing but errors.", group=_SHOWN)]

EXIT_STATUS: Final = """\
Exit status:
  0 all delivered, 1 failed, 2 usage, 3 never connected, 4 lost after it was up,
  141 a consumer closed its pipe

The manual: man bpipe
"""
CONNECT_EXAMPLES: Final = f"""\
Examples:
  tar c . | bpipe connect far.example:7000 --secret ~/.bpipe.key
  bpipe connect far.example:7000 --secret ~/.bpipe.key > backup.tar
  echo question | bpipe connect unix:/run/user/1000/sum
  ssh -o ProxyCommand='bpipe connect -q %h:7000' far.example

{EXIT_STATUS}"""
LISTEN_EXAMPLES: Final = f"""\
Examples:
  bpipe listen :7000 --secret ~/.bpipe.key | tar x -C /dst
  bpipe listen :7000 --secret ~/.bpipe.key < backup.tar
  bpipe listen unix:/run/user/1000/sum < answer
  bpipe listen localhost:7000 --recv-only > file

{EXIT_STATUS}"""
EXAMPLES: Final = """\
Example, between two machines:
  bpipe keygen ~/.bpipe.key && scp -p ~/.bpipe.key far.example:
  far$ bpipe listen :7000 --secret ~/.bpipe.key > backup.tar
  tar c . | bpipe connect far.example:7000 --secret ~/.bpipe.key

More: bpipe connect --help, bpipe listen --help, man bpipe
"""
