"""The arguments and options of ``connect`` and ``listen``, in groups, and the end of their help."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from bpipe.cli import values
from bpipe.cli.completion import complete_path, complete_when
from bpipe.cli.groups import CONNECTION, SECRET, SHOWN, flag, option, text
from bpipe.cli.layout import argument
from bpipe.errors import AddressError
from bpipe.report.settings import Level, Settings, When

if TYPE_CHECKING:
    from bpipe.net.address import Address
    from bpipe.net.command import Via

VARIABLE: Final = "BPIPE_SECRET_FILE"  # the environment's name for --secret
DEFAULT: Final = ":27473"  # where a listener listens


def address(metavar: str, default: str = "") -> Any:
    """The argument that says where to connect or to listen."""
    return argument(
        metavar,
        "HOST:PORT, HOST, :PORT, PORT, [IPv6]:PORT, unix:PATH, unix:@NAME, or a path with a slash."
        + (f" [default: {default}]" if default else ""),
        autocompletion=complete_path,
    )


class Where(NamedTuple):
    """What says, beside the address, where to connect or to listen."""

    port: Annotated[
        str | None,
        argument(
            "[PORT]",
            "The port, if it is not in the address: a number, or a service's name."
            " [default: 27473]",
        ),
    ] = None
    via: Annotated[
        str | None,
        text(
            "--via",
            metavar="COMMAND",
            help="In place of ADDRESS: what this joins its stdin and stdout to, as in"
            " 'ssh far nc -U /run/x'.",
            panel=CONNECTION,
        ),
    ] = None
    ipv4: Annotated[bool, flag("-4", "--ipv4", help="Use IPv4 only.", panel=CONNECTION)] = False
    ipv6: Annotated[bool, flag("-6", "--ipv6", help="Use IPv6 only.", panel=CONNECTION)] = False

    def parse(self, address: str) -> Address:
        """What is meant. Raises AddressError."""
        import socket

        from bpipe.net.address import parse

        one = socket.AF_INET if self.ipv4 else socket.AF_INET6
        return parse(address, self.port, one if self.ipv4 or self.ipv6 else socket.AF_UNSPEC)

    def calling(self, address: str | None) -> Address | Via:
        """Where to connect. Raises AddressError."""
        if address is not None:
            return self.parse(address)
        if self.via is None:
            raise typer.BadParameter("name an ADDRESS, or a command with --via")
        from bpipe.net.command import Via

        try:
            return Via(self.via)
        except AddressError as error:
            raise typer.BadParameter(f"--via: {error}") from None

    def listening(self, address: str | None) -> Address:
        """Where to listen: the same, or the socket that this process was given. AddressError."""
        if "LISTEN_FDS" in os.environ:
            from bpipe.net.activation import passed

            if (here := passed(os.environ)) is not None:
                if address is not None or self.ipv4 or self.ipv6:
                    raise AddressError(f"LISTEN_FDS passes a socket, {here}: type no address")
                return here
        return self.parse(DEFAULT if address is None else address)


class Trust(NamedTuple):
    """Who gets in; see ``keys.py``."""

    secret: Annotated[
        Path | None,
        text(
            "-s",
            "--secret",
            envvar=VARIABLE,
            metavar="FILE",
            help="Encrypt, and let in only who has the same secret: what `bpipe keygen` made, or"
            " a passphrase. [default: the file that BPIPE_SECRET_FILE names]",
            panel=SECRET,
        ),
    ] = None
    ask_secret: Annotated[
        bool,
        flag(
            "--ask-secret",
            help="Ask for the secret on the terminal: the words of `bpipe keygen --words`.",
            panel=SECRET,
        ),
    ] = False
    name: Annotated[
        str | None,
        option(
            values.name,
            "--name",
            "TEXT",
            "The name of this pipe, the same on both ends: one secret serves many pipes, and none"
            " is taken for another.",
            panel=SECRET,
        ),
    ] = None
    insecure: Annotated[
        bool,
        flag(
            "--insecure",
            help="Without a secret, allow addresses that others can reach; nothing protects the"
            " data.",
            panel=SECRET,
        ),
    ] = False


class Report(NamedTuple):
    """What is told of it, and where."""

    status: Annotated[
        When,
        option(
            values.when,
            "--status",
            "WHEN",
            "When to draw the status line: auto, always or never. [default: auto]",
            panel=SHOWN,
            autocompletion=complete_when,
        ),
    ] = When.AUTO
    size: Annotated[
        int | None,
        option(
            values.size, "--size", "SIZE", "How much is to come, for the percentage.", panel=SHOWN
        ),
    ] = None
    log_json: Annotated[
        str | None,
        option(
            values.log,
            "--log-json",
            "FILE",
            "Append the events as JSON; - is stderr.",
            panel=SHOWN,
        ),
    ] = None
    log_interval: Annotated[
        float | None,
        option(
            values.interval,
            "--log-interval",
            "TIME",
            "Tell the progress every so often.",
            panel=SHOWN,
        ),
    ] = None
    verbose: Annotated[
        int,
        flag(
            "-v", "--verbose", count=True, min=0, help="Say more; twice: every frame.", panel=SHOWN
        ),
    ] = 0
    quiet: Annotated[bool, flag("-q", "--quiet", help="Say nothing but errors.", panel=SHOWN)] = (
        False
    )

    def settings(self) -> Settings:
        """The same for those who tell it."""
        loud = Level(min(Level.NORMAL + self.verbose, Level.TRACE))
        level = Level.QUIET if self.quiet else loud
        return Settings(level, self.status, self.size, self.log_json, self.log_interval)
