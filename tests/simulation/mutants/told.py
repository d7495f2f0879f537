"""Mutants of what is made of it when the system says that a path goes, or is back."""

from __future__ import annotations

from typing import Any

from bpipe.net import lookout
from bpipe.net.dialer import Dialer
from bpipe.net.link import Link
from bpipe.protocol.liveness import Liveness
from tests.simulation.mutants.registry import Patch, worlds
from tests.simulation.told import PERIOD, PLACE

told = worlds(PLACE, PERIOD)


@told
def _wait_for_the_timer(patch: Patch) -> None:
    """a way that is back, and makes no attempt"""

    def told(self: Any, there: bool) -> None:
        if self._link is not None:
            self._link.doubt(away=not there)

    patch.setattr(Dialer, "_told", told)


@told
def _forget_the_lost_link(patch: Patch) -> None:
    """a way that is not looked out for where there is no link"""
    over = lookout.Lookout.over

    def only_links(self: Any, link: Link | None) -> None:
        if link is not None:
            over(self, link)
        else:
            self.end()

    patch.setattr(lookout.Lookout, "over", only_links)


@told
def _wait_for_the_caller(patch: Patch) -> None:
    """one that is called keeps a link over which nothing comes, although the way is back"""
    patch.setattr(lookout, "_prove", lambda link: None)


@told
def _end_it_silently(patch: Patch) -> None:
    """one that is called ends such a link, and its peer does not hear of it"""
    patch.setattr(lookout, "forget", lambda sock: None)


@told
def _trust_what_is_away(patch: Patch) -> None:
    """a link whose way is gone trusted until an answer is late"""

    def suspect(self: Any, now: float, *, away: bool) -> None:
        if not away:
            self.ping_due = True

    patch.setattr(Liveness, "suspect", suspect)
    patch.setattr(Link, "doubt", lambda self, *, away: None)


@told
def _never_trust_it_again(patch: Patch) -> None:
    """a link whose way is back left in doubt"""
    suspect = Liveness.suspect

    def once(self: Any, now: float, *, away: bool) -> None:
        suspect(self, now, away=True)

    patch.setattr(Liveness, "suspect", once)
