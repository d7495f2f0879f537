"""The options that say how a session connects, how long it waits, and what it takes for that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from bpipe.cli import values
from bpipe.cli.completion import complete_congestion, complete_interface
from bpipe.cli.groups import CONNECTION, option

if TYPE_CHECKING:
    from bpipe.net.ways import Links
    from bpipe.protocol.patience import Limits
    from bpipe.protocol.rate import Bucket


class Tuning(NamedTuple):
    """How long to wait for what, in seconds, how much memory to take, in bytes, and how many
    connections, from where.
    """

    connect_timeout: Annotated[
        float,
        option(
            values.duration,
            "--connect-timeout",
            "TIME",
            "How long to try for the first connection; 0: one try. [default: 30s]",
            panel=CONNECTION,
        ),
    ] = 30.0
    give_up_after: Annotated[
        float | None,
        option(
            values.duration,
            "--give-up-after",
            "TIME",
            "The longest outage; 1h with many sessions, or a command. [default: 24h]",
            panel=CONNECTION,
        ),
    ] = None
    retry_max: Annotated[
        float | None,
        option(
            values.pause,
            "--retry-max",
            "TIME",
            "The longest pause between tries; 15s with --via. [default: 1s]",
            panel=CONNECTION,
        ),
    ] = None
    heartbeat: Annotated[
        float,
        option(
            values.heartbeat,
            "--heartbeat",
            "TIME",
            "A connection that is silent for three of these is given up. [default: 2s]",
            panel=CONNECTION,
        ),
    ] = 2.0
    buffer: Annotated[
        int | None,
        option(
            values.buffer,
            "--buffer",
            "SIZE",
            "Memory for each direction; 4M with many sessions. [default: 64M]",
            panel=CONNECTION,
        ),
    ] = None
    rate: Annotated[
        str | None,
        option(
            values.rate,
            "--rate",
            "SIZE",
            "At most so much a second, each way; @FILE: what that says, also when it changes.",
            panel=CONNECTION,
        ),
    ] = None

    links: Annotated[
        int | None,
        option(
            values.links,
            "--links",
            "N",
            "Connections at once, up to 8: for a way that is long and loses much, or for two ways."
            " [default: 1]",
            panel=CONNECTION,
        ),
    ] = None
    bind: Annotated[
        list[str] | None,
        option(
            values.origin,
            "--bind",
            "FROM",
            "Connect from this interface, or address of this machine; several take turns.",
            panel=CONNECTION,
            autocompletion=complete_interface,
        ),
    ] = None
    max_links: Annotated[
        int | None,
        option(
            values.links,
            "--max-links",
            "N",
            "How many connections a session may have at once. [default: 8]",
            panel=CONNECTION,
        ),
    ] = None
    congestion: Annotated[
        str | None,
        option(
            values.congestion,
            "--congestion",
            "NAME",
            "How TCP deals with congestion: cubic, for example, or bbr.",
            panel=CONNECTION,
            autocompletion=complete_congestion,
        ),
    ] = None

    def terms(self, buffer_size: int, usual: Limits, needs: int = 0) -> dict[str, Any]:
        """The memory of a session, and its times: these, where no others are asked for.

        ``needs``: what else it has to have, see ``protocol/terms.py``.
        """
        from bpipe.protocol.terms import SMALLEST_WINDOW  # not for help and TAB

        buffer_size = self.buffer or buffer_size
        if needs and buffer_size < SMALLEST_WINDOW:
            raise typer.BadParameter("--output needs a --buffer of at least 1K")
        give_up_after = usual.give_up_after if self.give_up_after is None else self.give_up_after
        limits = usual._replace(
            heartbeat=self.heartbeat,
            connect_timeout=self.connect_timeout,
            give_up_after=give_up_after,
            retry_max=self.retry_max,
        )
        return {"buffer_size": buffer_size, "limits": limits, "needs": needs}

    def bucket(self) -> Bucket | None:
        """What all sessions share that have a rate."""
        try:
            return None if self.rate is None else values.bucket(self.rate)
        except ValueError as error:
            raise typer.BadParameter(f"--rate: {error}") from None

    def calling(self) -> int | Links:
        """The links of a session that calls."""
        if not (self.bind or self.congestion):
            return self.links or 1
        from bpipe.net.ways import Links

        links = Links(self.links, tuple(self.bind or ()), self.congestion or "")
        try:
            links.total()
        except ValueError as error:
            raise typer.BadParameter(f"--bind: {error}") from None
        return links

    def listening(self) -> Links:
        """Those that a session may have that is called."""
        from bpipe.net.ways import MOST_LINKS, Links

        return Links(self.max_links or MOST_LINKS, congestion=self.congestion or "")
