"""What a command does when its options are read: one pipe, or many."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

import typer

from bpipe.api import BUFFER_SIZE
from bpipe.cli.keys import choose_secret, credentials
from bpipe.cli.many import Many
from bpipe.cli.options import Trust
from bpipe.cli.tuning import Tuning
from bpipe.net.address import Address, to_listen_at
from bpipe.pipe import BackedPipe
from bpipe.protocol.patience import Limits
from bpipe.report.settings import Settings
from bpipe.run.session import Hear, Wanted, run_session

if TYPE_CHECKING:
    from bpipe.ends.local import Ends
    from bpipe.ends.part import Target
    from bpipe.net.command import Command, Via
    from bpipe.net.ways import Links
    from bpipe.run.service import Plan


class Run:
    """One place, and all that has to be known to listen there or to connect.

    It is an address, or the command whose runs are the connections.
    """

    def __init__(
        self,
        place: Address | Via,
        trust: Trust,
        tuning: Tuning,
        settings: Settings,
        *,
        listens: bool,
    ) -> None:
        self.place = place
        self._links = tuning.listening() if listens else tuning.calling()
        self._trust = trust
        self._tuning = tuning
        self._settings = settings._replace(rate=tuning.bucket())
        self._listens = listens

    def one(self, open_pipe: Callable[..., Awaitable[BackedPipe]], wanted: Wanted) -> int:
        """Open one pipe there, joined to this; returns the exit status."""
        terms = self._terms(BUFFER_SIZE, Limits(), wanted.needs)
        trusted = self._trusted()

        def opened(hear: Hear) -> Awaitable[BackedPipe]:
            return open_pipe(self._where(hear), **trusted, **terms)

        place = self.place
        if self._listens and isinstance(place, Address):
            place = to_listen_at(place, sealed=trusted["secret"] is not None)
        wanted, told = self._known(wanted), self._inviting(wanted)
        return run_session(opened, wanted, told, str(place), listens=self._listens)

    def _inviting(self, wanted: Wanted) -> Settings:
        """What is told, with what has to be typed at the other end: a service wants a --from."""
        told = self._told
        if wanted.service is None:
            return told
        return told._replace(credentials=f"{told.credentials} --from localhost:PORT".lstrip())

    def _known(self, wanted: Wanted) -> Wanted:
        """The same, with what is known of who is going to be at the other end."""
        over_tcp = isinstance(self.place, Address) and self.place.path is None
        return wanted._replace(anybody=self._trust.insecure and over_tcp)

    def _where(self, hear: Hear) -> Address | Command:
        """What one session connects to, or listens at; ``hear`` is told what a command says."""
        return self.place if isinstance(self.place, Address) else self.place.command(hear)

    def serve(self, wanted: Wanted, many: Many) -> int:
        """Serve many callers there, each joined to one of these; returns the exit status."""
        from bpipe.ends.guard import Guard
        from bpipe.run.service import Plan, Serve, Sessions, Told, run_service
        from bpipe.server import Server, Terms

        assert isinstance(self.place, Address)
        address, trusted = self.place, self._trusted()
        most = many.most if wanted.output is None else 1
        terms = Terms(**trusted, **self._terms_of_many(most, wanted.needs))
        where = to_listen_at(address, sealed=terms.secret is not None)

        def opened(
            each: Serve, told: Told, target: Target | None
        ) -> AbstractAsyncContextManager[Sessions]:
            ends: Callable[[], Ends]
            if target is not None:
                ends = partial(wanted.ends_at, target, more=True)
            else:
                ends = wanted.apart(Guard(), told.program)

            async def handle(pipe: BackedPipe) -> None:
                if wanted.whole:
                    pipe.engine.session.terms.send_whole()
                await each(pipe, ends())

            return Server(where, handle, most, terms)

        drain, wanted = many.drain or 0.0, self._known(wanted)
        plan = Plan(opened, str(where), most, drain, target=wanted.target, tells=wanted.tells)
        return run_service(self._with_links(plan), self._inviting(wanted))

    def forward(self, dial: Callable[..., Awaitable[BackedPipe]], many: Many) -> int:
        """Carry each connection that is made at an address of this machine to there."""
        from bpipe.run.forward import Forwarder
        from bpipe.run.service import Plan, Serve, Sessions, Told, run_service

        local = many.from_
        assert local is not None
        if str(local) == str(self.place):
            raise typer.BadParameter(f"{local} is both ends: what comes there would go there")
        terms = {**self._trusted(), **self._terms_of_many(many.most)}

        def opened(carry: Serve, told: Told, _: object) -> AbstractAsyncContextManager[Sessions]:
            def dialled() -> Awaitable[BackedPipe]:
                return dial(self._where(told.carrier), **terms)

            return Forwarder(local, dialled, carry, many.most, anywhere=self._trust.insecure)

        plan = Plan(opened, str(local), many.most, many.drain or 0.0, str(self.place))
        return run_service(self._with_links(plan), self._told)

    def _trusted(self) -> dict[str, Any]:
        """Who gets in; asks for the secret, if that is wanted."""
        collect_garbage()
        secret = choose_secret(self._trust, self._settings)
        self._told = self._settings._replace(credentials=credentials(self._trust))
        return {"insecure": self._trust.insecure, "secret": secret}

    def _with_links(self, plan: Plan) -> Plan:
        from bpipe.net.ways import links_of

        return plan._replace(links=links_of(self._links_of_many(plan.most)).total())

    def _links_of_many(self, most: int) -> int | Links:
        """Those of each of so many sessions: as many as all of them can have."""
        from bpipe.net.ways import links_of
        from bpipe.run.limits import affordable

        links = links_of(self._links)
        wanted = links.total()
        fewer = max(len(links.bind), affordable(most, wanted))
        return self._links if fewer == wanted else links._replace(most=fewer)

    def _terms_of_many(self, most: int, needs: int = 0) -> dict[str, Any]:
        from bpipe.server import BUFFER_SIZE, LIMITS

        terms = self._terms(BUFFER_SIZE, LIMITS, needs)
        return {**terms, "links": self._links_of_many(most)}

    def _terms(self, buffer_size: int, usual: Limits, needs: int) -> dict[str, Any]:
        """Also what all sessions share."""
        terms = self._tuning.terms(buffer_size, usual, needs)
        return {**terms, "rate": self._settings.rate, "links": self._links}


def collect_garbage() -> None:
    """From here on (see ``__main__``). What was imported stays, and is not looked at again."""
    gc.freeze()
    gc.enable()
