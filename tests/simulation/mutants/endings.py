"""Mutants of the end: who may leave, and what it reports."""

from __future__ import annotations

from typing import Any

from bpipe.errors import LinkLost
from bpipe.net.link import Link
from bpipe.protocol import caller, patience
from bpipe.protocol.caller import Caller
from bpipe.protocol.channel import Channel
from bpipe.protocol.ending import Ending, Phase
from bpipe.protocol.patience import Patience
from bpipe.protocol.reader import BackedReader
from bpipe.protocol.session import Session
from bpipe.protocol.wire import Admission, Finish, Reason, Verdict
from bpipe.protocol.writer import BackedWriter
from tests.simulation.mutants.registry import Patch, begin, mutant


@mutant
def _say_stop_once(patch: Patch) -> None:
    """STOP forgotten on a new link"""

    def forget(self: Any) -> None:
        self._stop_due = self._session.history.links == 0

    begin(patch, forget)


@mutant
def _stop_at_the_cursor(patch: Patch) -> None:
    """STOP ending the stream before what was already sent"""

    def cut(self: BackedWriter) -> None:
        self.asked = False
        if self.mark is None or self.mark >= self.high:
            self.mark = self.acked

    patch.setattr(BackedWriter, "cut", cut)


@mutant
def _leave_without_an_answer(patch: Patch) -> None:
    """leaving when the own BYE is written, whatever the peer has heard"""
    settle = Session.settle

    def hasty(self: Any, now: float) -> None:
        settle(self, now)
        if self.phase is Phase.DONE and self.ending._bye_written:
            self.leave(self.verdict())

    patch.setattr(Session, "settle", hasty)


@mutant
def _close_with_unread_input(patch: Patch) -> None:
    """an ABORT destroyed by a close with unread input"""

    sent = Channel.sent

    def leave(self: Any, count: int, now: float) -> None:
        sent(self, count, now)
        if self._ending.abort and not self._abort_due and not self._lent:
            self._session.leave(self._session.failure)

    async def close(self: Any) -> None:
        if self.cause is None:
            self.cause = LinkLost("closed")
            self._unwatch()
            self._sock.close()
            self.lost.set_result(self.cause)

    patch.setattr(Channel, "sent", leave)
    patch.setattr(Link, "close", close)


@mutant
def _abort_once(patch: Patch) -> None:
    """ABORT forgotten on a new link"""

    def forget(self: Any) -> None:
        self._abort_due = self._ending.abort is None

    begin(patch, forget)


@mutant
def _stop_at_receipt(patch: Patch) -> None:
    """STOP naming what was received, not what was taken"""
    stop = BackedReader.stop

    def late(self: Any, *why: Any) -> None:
        first = self.stopped is None
        stop(self, *why)
        if first:
            self.stopped = self._ring.start

    patch.setattr(BackedReader, "stop", late)


@mutant
def _forget_who_was_turned_away(patch: Patch) -> None:
    """success although the producer had more when it was stopped"""
    finish = BackedWriter.finish
    patch.setattr(BackedWriter, "finish", lambda self, *, more=False, **kw: finish(self, **kw))


@mutant
def _count_what_an_aborter_drops(patch: Patch) -> None:
    """ACK for what is discarded after an ABORT"""
    receive = BackedReader.receive

    def count_all(self: Any, count: int) -> None:
        receive(self, count)
        if self.discarding:
            self._ring.release(self._ring.end)
            self._ring.skip(count)

    patch.setattr(BackedReader, "receive", count_all)


@mutant
def _take_success_back(patch: Patch) -> None:
    """a done end that reports the ABORT which it hears"""
    hear_abort = Ending.hear_abort

    def believe(self: Any, reason: int, message: bytes) -> None:
        if self.phase is Phase.DONE:
            self.phase = Phase.UP
        hear_abort(self, reason, message)

    patch.setattr(Ending, "hear_abort", believe)
    patch.setattr(Ending, "verdict", lambda self, *, done, cut_short: self.failure)


@mutant
def _open_anew(patch: Patch) -> None:
    """a session that was lost opened anew, as if nothing had been consumed"""
    refused = Caller.refused

    def paper_over(self: Caller, verdict: Verdict, now: float) -> None:
        unknown = verdict.admission is Admission.UNKNOWN
        if unknown and not (self.session.done or self.session.over):
            self.session.identify(None)
        else:
            refused(self, verdict, now)

    patch.setattr(Caller, "refused", paper_over)


@mutant
def _believe_that_nobody_knows(patch: Patch) -> None:
    """a session given up as soon as one listener does not know it"""
    patch.setattr(caller, "UNKNOWN_FOR", 0.0)


@mutant
def _believe_when_done(patch: Patch) -> None:
    """a done end that leaves as soon as one listener does not know it"""
    patch.setattr(caller, "UNKNOWN_LINGER", 0.0)


@mutant
def _report_a_refusal(patch: Patch) -> None:
    """a refusal that changes what a done end, or an aborting one, reports"""

    def leave(self: Caller, why: str) -> None:
        self.session.leave(self.session.lost(why))

    patch.setattr(Caller, "_leave", leave)


@mutant
def _abort_unheard(patch: Patch) -> None:
    """an aborting listener that leaves at once, because it has heard no frame"""
    abort = Session.abort

    def hasty(self: Session, reason: Reason, message: str, now: float) -> None:
        abort(self, reason, message, now)
        if self.phase is Phase.ABORTING and not (self.established or self.attached):
            self.leave(self.failure)

    patch.setattr(Session, "abort", hasty)


def _say_last(patch: Patch, due: str) -> None:
    """Have a frame that is due said after all the others."""
    small_frames = Channel._small_frames

    def late(self: Any, now: float) -> bytes:
        was = getattr(self, due)
        setattr(self, due, False)
        small = small_frames(self, now)
        setattr(self, due, was)
        return small + small_frames(self, now)

    patch.setattr(Channel, "_small_frames", late)


@mutant
def _acknowledge_before_stop(patch: Patch) -> None:
    """ACK of what is discarded before the STOP that says so"""
    _say_last(patch, "_stop_due")


@mutant
def _acknowledge_after_the_end(patch: Patch) -> None:
    """BYE, or ABORT, before the ACK of what is delivered"""
    _say_last(patch, "_ack_due")


@mutant
def _leave_untold(patch: Patch) -> None:
    """a done end that leaves before it could say so, and whose peer waits in vain"""
    until = Patience.until
    patch.setattr(Patience, "until", lambda self, **known: until(self, **{**known, "told": True}))


@mutant
def _blame_a_consumer(patch: Patch) -> None:
    """a consumer that has taken everything and leaves taken for a failure"""

    def blame(self: Session, message: str, now: float, *, untaken: bool = False) -> None:
        self.abort(Reason.BROKEN_PIPE, message, now)

    patch.setattr(Session, "consumer_gone", blame)


@mutant
def _believe_an_end(patch: Patch) -> None:
    """an end mark taken for the stream's own although there was more"""
    receive_mark = BackedReader.receive_mark
    patch.setattr(
        BackedReader, "receive_mark", lambda self, number, ended=None: receive_mark(self, number)
    )


@mutant
def _lose_how_it_ended(patch: Patch) -> None:
    """how a stream has ended lost in a replay"""
    resume = BackedWriter.resume

    def forget(self: BackedWriter, received: int, window: int) -> None:
        if self.mark is not None and self.high > self.mark:
            self.ended = Finish()
        resume(self, received, window)

    patch.setattr(BackedWriter, "resume", forget)


@mutant
def _never_ask(patch: Patch) -> None:
    """a producer that is never cut although the far consumer has gone"""
    patch.setattr(patience, "QUESTION", 10**9)
