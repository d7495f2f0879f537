"""What a command does when its options are read: one pipe, or many."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import typer

from bpipe.cli.keys import choose_secret, credentials
from bpipe.cli.many import Many
from bpipe.cli.options import Trust, Tuning
from bpipe.net.address import Address
from bpipe.pipe import BUFFER_SIZE, BackedPipe
from bpipe.protocol.patience import Limits
from bpipe.report.settings import Settings
from bpipe.run.session import Wanted, run_session


class Run:
    """One address, and all that has to be known to listen there or to connect."""

    def __init__(
        self, address: Address, trust: Trust, tuning: Tuning, settings: Settings, *, listens: bool
    ) -> None:
        self.address = address
        self._trust = trust
        self._tuning = tuning
        self._settings = settings
        self._listens = listens

    def one(self, open_pipe: Callable[..., Awaitable[BackedPipe]], wanted: Wanted) -> int:
        """Open one pipe there, joined to this; returns the exit status."""
        terms = self._tuning.terms(BUFFER_SIZE, Limits())
        opened = partial(open_pipe, self.address, **self._trusted(), **terms)
        return run_session(opened, wanted, self._told, str(self.address), listens=self._listens)

    def serve(self, wanted: Wanted, many: Many) -> int:
        """Serve many callers there, each joined to one of these; returns the exit status."""
        from bpipe.ends.guard import Guard
        from bpipe.run.service import Plan, Serve, Sessions, Tell, run_service
        from bpipe.server import serve

        trusted = self._trusted()

        def opened(each: Serve, tell: Tell) -> AbstractAsyncContextManager[Sessions]:
            ends = wanted.apart(Guard(), tell)

            async def handle(pipe: BackedPipe) -> None:
                await each(pipe, ends())

            return serve(
                self.address, handle, max_sessions=many.most, **trusted, **self._terms_of_many()
            )

        plan = Plan(opened, str(self.address), many.most, many.drain or 0.0)
        return run_service(plan, self._told)

    def forward(self, dial: Callable[..., Awaitable[BackedPipe]], many: Many) -> int:
        """Carry each connection that is made at an address of this machine to there."""
        from bpipe.run.forward import Forwarder
        from bpipe.run.service import Plan, Serve, Sessions, Tell, run_service

        local = many.local()
        if str(local) == str(self.address):
            raise typer.BadParameter(f"{local} is both ends: what comes there would go there")
        dialled = partial(dial, self.address, **self._trusted(), **self._terms_of_many())

        def opened(carry: Serve, tell: Tell) -> AbstractAsyncContextManager[Sessions]:
            return Forwarder(local, dialled, carry, many.most, anywhere=self._trust.insecure)

        plan = Plan(opened, str(local), many.most, many.drain or 0.0, str(self.address))
        return run_service(plan, self._told)

    def _trusted(self) -> dict[str, Any]:
        """Who gets in; asks for the secret, if that is wanted."""
        collect_garbage()
        secret = choose_secret(self._trust, self._settings)
        self._told = self._settings._replace(credentials=credentials(self._trust))
        return {"insecure": self._trust.insecure, "secret": secret}

    def _terms_of_many(self) -> dict[str, Any]:
        from bpipe.server import BUFFER_SIZE, LIMITS

        return self._tuning.terms(BUFFER_SIZE, LIMITS)


def collect_garbage() -> None:
    """From here on (see ``__main__``). What was imported stays, and is not looked at again."""
    gc.freeze()
    gc.enable()
