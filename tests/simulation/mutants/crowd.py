"""Mutants of a server: who gets which session, and when there is room."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from bpipe.engine import Engine
from bpipe.errors import LinkLost
from bpipe.net.accepted import AcceptedLinks
from bpipe.net.backoff import Backoff
from bpipe.net.listener import Listener
from bpipe.pipe import BackedPipe
from bpipe.protocol import caller
from bpipe.protocol.session import Session
from bpipe.protocol.sessions import Sessions
from bpipe.protocol.wire import Admission, Hello, Opening
from bpipe.server import Handler, Server
from tests.simulation.crowd import PERIOD, PLACE
from tests.simulation.mutants.registry import Patch, worlds

crowd_mutant = worlds(PLACE, PERIOD)


@crowd_mutant
def _refuse_who_comes_back(patch: Patch) -> None:
    """a session refused for a limit when it resumes"""
    judge = Sessions.judge

    def forgetful(self: Any, hello: Hello, now: float) -> Any:
        if self._more is not None and self._vacant(now) is None:
            return Admission.FULL, None
        return judge(self, hello, now)

    patch.setattr(Sessions, "judge", forgetful)


@crowd_mutant
def _resume_the_first(patch: Patch) -> None:
    """one caller's link attached to another's session: the first that is up, whatever its id"""
    judge = Sessions.judge

    def careless(self: Any, hello: Hello, now: float) -> Any:
        admission, known = judge(self, hello, now)
        if known is not None and hello.opening is Opening.RESUME:
            known = next((each for each in self._sessions if each.established), known)
        return admission, known

    patch.setattr(Sessions, "judge", careless)


@crowd_mutant
def _drop_all_greetings(patch: Patch) -> None:
    """attaching a link drops the greetings of other sessions"""

    def drop(self: Any, session: Session, slot: int) -> None:
        for link in self._pending[:]:
            if link.greeting.channel is None and link.cause is None:
                link.fail(LinkLost("another greeting came first"))

    patch.setattr(Listener, "_drop_greetings", drop)


@crowd_mutant
def _keep_who_was_never_heard(patch: Patch) -> None:
    """a session in which nobody was ever heard keeps its place for ever"""
    replaceable = vars(Session)["replaceable"].fget

    def stubborn(self: Session) -> bool:
        return bool(replaceable(self)) and not self.history.links

    patch.setattr(Session, "replaceable", property(stubborn))


@crowd_mutant
def _forget_at_once(patch: Patch) -> None:
    """a caller that was let in and is away before it was heard loses its place to the next one"""

    def vacant(self: Any, now: float) -> Session | None:
        found = self._more()
        return found or next((each for each in self._sessions if each.replaceable), None)

    patch.setattr(Sessions, "_vacant", vacant)


@crowd_mutant
def _drop_who_was_heard(patch: Patch) -> None:
    """a session that is up, and has no link just now, gives way to the next caller"""

    def weak(self: Session) -> bool:
        return self.channel is None and not self.over

    patch.setattr(Session, "replaceable", property(weak))


@crowd_mutant
def _have_one_more(patch: Patch) -> None:
    """more sessions than there may be"""
    more = Server.more

    def lavish(self: Any) -> Session | None:
        self.most += 1
        try:
            return more(self)
        finally:
            self.most -= 1

    patch.setattr(Server, "more", lavish)


@crowd_mutant
def _have_one_less(patch: Patch) -> None:
    """FULL although there is room"""
    more = Server.more

    def stingy(self: Any) -> Session | None:
        return more(self) if len(self._tasks) + 1 < self.most else None

    patch.setattr(Server, "more", stingy)


@crowd_mutant
def _forget_to_make_room(patch: Patch) -> None:
    """a session that is over keeps its place"""

    def served(self: Any, pipe: BackedPipe) -> None:
        if self.stopped:
            self._tasks.pop(pipe, None)

    async def closed(self: Any) -> None:
        self._tasks.clear()
        self._listener.close()

    patch.setattr(Server, "_served", served)
    patch.setattr(Server, "wait_closed", closed)


@crowd_mutant
def _serve_early(patch: Patch) -> None:
    """a handler begun before its caller was heard"""

    async def attached(self: Any, pipe: BackedPipe) -> None:
        while not pipe.connected:
            await pipe.engine.changed()

    patch.setattr(Server, "_heard", attached)


@crowd_mutant
def _serve_again(patch: Patch) -> None:
    """a handler called again when its caller has come back"""

    async def handle(server: Any, handler: Handler, pipe: BackedPipe) -> None:
        await handler(pipe)
        if pipe.engine.session.history.links > 1 and not pipe.engine.session.over:
            await handler(pipe)

    _change_handler(patch, handle)


@crowd_mutant
def _believe_that_it_stays_full(patch: Patch) -> None:
    """FULL taken for final by the caller"""
    patch.setattr(caller, "_PASSING", (Admission.STALE,))


@crowd_mutant
def _lose_patience(patch: Patch) -> None:
    """a caller that was told that there is no room looks again after a minute"""
    refused = caller.Caller.refused
    delay = Backoff.next
    full: list[bool] = []

    def hear(self: Any, verdict: Any, now: float) -> None:
        full[:] = [True] * (verdict.admission is Admission.FULL)
        refused(self, verdict, now)

    def wait(self: Any) -> float:
        return 60.0 if full and full.pop() else delay(self)

    patch.setattr(caller.Caller, "refused", hear)
    patch.setattr(Backoff, "next", wait)


@crowd_mutant
def _stop_listening(patch: Patch) -> None:
    """a server that stops refuses who comes back"""
    stop = Server.stop

    def hasty(self: Any) -> None:
        stop(self)
        self._listener.close()

    patch.setattr(Server, "stop", hasty)


@crowd_mutant
def _stop_nobody(patch: Patch) -> None:
    """a server that was stopped waits for callers that were never heard"""

    async def heard(self: Any, pipe: BackedPipe) -> None:
        while not (pipe.engine.session.established and pipe.connected):
            await pipe.engine.changed()

    patch.setattr(Server, "_heard", heard)


@crowd_mutant
def _drop_the_wrong_link(patch: Patch) -> None:
    """a caller that comes back closes the link of another session, too"""
    drop = Listener._drop_links

    def wrong(self: Any, session: Session) -> None:
        for other, source in list(self._sources.items()):
            if other is not session:
                source.drop(0, LinkLost("the peer has come back over another connection"))
                break
        drop(self, session)

    patch.setattr(Listener, "_drop_links", wrong)


@crowd_mutant
def _give_to_another(patch: Patch) -> None:
    """a link handed to the session that was made last"""
    take = AcceptedLinks.take

    def misled(self: Any, link: Any) -> None:
        sources = list(self._listener._sources.values())
        take(sources[-1], link)

    patch.setattr(AcceptedLinks, "take", misled)


@crowd_mutant
def _fail_together(patch: Patch) -> None:
    """a handler that fails costs the others their links"""

    async def handle(server: Any, handler: Handler, pipe: BackedPipe) -> None:
        try:
            await handler(pipe)
        except Exception:
            for other in server._tasks:
                other.force_reconnect()
            raise

    _change_handler(patch, handle)


@crowd_mutant
def _serve_in_turn(patch: Patch) -> None:
    """a consumer that stalls makes the others wait"""

    async def handle(server: Any, handler: Handler, pipe: BackedPipe) -> None:
        before = list(server._tasks).index(pipe)
        for other in list(server._tasks)[:before]:
            while not (other.engine.session.over or pipe.engine.session.over):
                await asyncio.sleep(0.1)
        await handler(pipe)

    _change_handler(patch, handle)


@crowd_mutant
def _cancel_a_close(patch: Patch) -> None:
    """a close that is cancelled leaves its link open"""

    async def wait(self: Any) -> None:
        if self._supervisor is None:
            await self.source.close()
        else:
            await self._supervisor

    patch.setattr(Engine, "wait_closed", wait)


def _change_handler(patch: Patch, change: Callable[..., Awaitable[None]]) -> None:
    """Have this called in place of each handler: with the server, the handler, and the pipe."""
    init = Server.__init__

    def changed(self: Any, address: Any, handler: Handler, *rest: Any) -> None:
        async def handle(pipe: BackedPipe) -> None:
            await change(self, handler, pipe)

        init(self, address, handle, *rest)

    patch.setattr(Server, "__init__", changed)
