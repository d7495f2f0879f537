"""Mutants of who may send next where a file is received, and of what goes on then."""

from __future__ import annotations

import math
from typing import Any

from bpipe import server
from bpipe.net.listener import Listener
from bpipe.protocol import sessions
from bpipe.protocol.session import Session
from bpipe.protocol.sessions import Sessions
from bpipe.protocol.wire import FILE, Admission, Hello, Opening
from tests.simulation.mutants.registry import Patch, worlds
from tests.simulation.turns import PERIOD, PLACE

turn_mutant = worlds(PLACE, PERIOD)


@turn_mutant
def _ignore_the_link(patch: Patch) -> None:
    """a session that receives a file gives way while its link lives"""

    def deserted(session: Session, now: float) -> bool:
        return session.established and not session.over and session.terms.needs & FILE > 0

    patch.setattr(sessions, "deserted", deserted)
    patch.setattr(server, "deserted", deserted)


@turn_mutant
def _give_way_at_once(patch: Patch) -> None:
    """a sender that has lost its link for a moment loses its place to the next one"""
    patch.setattr(sessions, "DESERTED", 0.0)


@turn_mutant
def _never_give_way(patch: Patch) -> None:
    """a sender that does not come back waited for alone"""
    patch.setattr(sessions, "DESERTED", math.inf)


@turn_mutant
def _go_on_with_the_old_stream(patch: Patch) -> None:
    """the session of a sender that does not come back given to the next one"""
    admit = Sessions.admit

    def joined(self: Any, hello: Hello, resume_secret: bytes, now: float) -> Any:
        _, session = self.judge(hello, now)
        if session is None or hello.opening is Opening.RESUME or not session.established:
            return admit(self, hello, resume_secret, now)
        session.identify(hello.session, resume_secret)
        session.advance(hello.epoch)
        session.terms.forget()
        return session

    patch.setattr(Sessions, "admit", joined)


@turn_mutant
def _believe_an_opening(patch: Patch) -> None:
    """a session ended by who has asked for its place, and has not confirmed"""
    judge = Sessions.judge

    def hasty(self: Any, hello: Hello, now: float) -> Any:
        admission, session = judge(self, hello, now)
        if session is not None and hello.opening is Opening.OPEN and session.established:
            sessions._supersede(session)
            self._drop_link(session)
            return Admission.FULL, None
        return admission, session

    patch.setattr(Sessions, "judge", hasty)


@turn_mutant
def _refuse_for_good(patch: Patch) -> None:
    """BUSY although the sender is away, and gives way soon"""
    patch.setattr(Sessions, "_refusal", lambda self, now: Admission.BUSY)


@turn_mutant
def _let_the_address_go(patch: Patch) -> None:
    """the address let go with the session that gave way"""

    def release(self: Any, session: Session) -> None:
        self._sessions.remove(session)
        if self._sources.pop(session, None) is not None and self.supply is None:
            self.close()

    patch.setattr(Listener, "release", release)
