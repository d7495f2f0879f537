"""Mutants of time and memory."""

from __future__ import annotations

from typing import Any

from bpipe.protocol import liveness
from bpipe.protocol.channel import Channel
from bpipe.protocol.patience import Patience
from bpipe.protocol.ring import Ring
from tests.simulation.mutants.registry import Patch, mutant


@mutant
def _never_end_an_outage(patch: Patch) -> None:
    """giving up counted from the first outage of all"""
    patch.setattr(Patience, "outage_ended", lambda self: None)


@mutant
def _keep_the_timer(patch: Patch) -> None:
    """a timer that does not clear"""

    def tick(self: Any, now: float) -> None:
        if self.liveness.tick(now) or (self._ack_at is not None and now >= self._ack_at):
            self._ack_due = True

    small_frames = Channel._small_frames

    def keep(self: Any, now: float) -> bytes:
        ack_at = self._ack_at
        small = small_frames(self, now)
        self._ack_at = ack_at
        return small

    patch.setattr(Channel, "tick", tick)
    patch.setattr(Channel, "_small_frames", keep)


@mutant
def _believe_in_the_dead(patch: Patch) -> None:
    """a silent link that is never given up"""
    patch.setattr(liveness, "SILENCE", 10**9)


@mutant
def _believe_in_bytes(patch: Patch) -> None:
    """a link on which bytes come, and never a frame, that is never given up"""
    patch.setattr(liveness, "UNVERIFIED", 10**9)


@mutant
def _reuse_pages_early(patch: Patch) -> None:
    """a page of the ring freed while its last bytes are still held"""

    def release(self: Any, offset: int) -> None:
        page = self._page
        for number in range(-(-self.start // page), -(-offset // page)):
            self._free.append(self._table[number % len(self._table)])
        self.start = offset

    patch.setattr(Ring, "release", release)
