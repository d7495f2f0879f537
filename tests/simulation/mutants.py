"""Known ways to get this protocol wrong, each as a patch of the production code.

A mutant is a function that makes the change through a ``MonkeyPatch``. Most of them are mistakes
that somebody has really made in a pipe that resumes; the simulation has to notice every one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bpipe.errors import LinkLost
from bpipe.net.dialer import Dialer
from bpipe.net.link import Link
from bpipe.net.listener import Listener
from bpipe.protocol import liveness, session
from bpipe.protocol.ending import Ending
from bpipe.protocol.frames import Frames
from bpipe.protocol.greeting import Answerer, AnswererGreeting, CallerGreeting
from bpipe.protocol.patience import Patience
from bpipe.protocol.reader import BackedReader
from bpipe.protocol.ring import Ring
from bpipe.protocol.session import Session
from bpipe.protocol.traffic import Traffic
from bpipe.protocol.wire import Ended, Hello, Kind, Opening, Position, Reason, Status
from bpipe.protocol.writer import BackedWriter, Piece

Patch = pytest.MonkeyPatch
MUTANTS: dict[str, Callable[[Patch], None]] = {}


def mutant(change: Callable[[Patch], None]) -> Callable[[Patch], None]:
    """Enter this change into the list, under its docstring."""
    assert change.__doc__
    MUTANTS[change.__doc__] = change
    return change


# --- where a new link carries on ---


@mutant
def _resume_early(patch: Patch) -> None:
    """resume a byte early"""
    patch.setattr(
        BackedWriter, "resume", lambda self, received: setattr(self, "sent", max(0, received - 1))
    )


@mutant
def _resume_late(patch: Patch) -> None:
    """resume a byte late"""
    patch.setattr(
        BackedWriter,
        "resume",
        lambda self, received: setattr(self, "sent", min(received + 1, self.high)),
    )


@mutant
def _keep_half_a_header(patch: Patch) -> None:
    """a half-read header kept across links"""
    attach, detach = Session.attach, Session.detach

    def detach_and_keep(self: Any, cause: LinkLost, now: float) -> None:
        self.kept = self._traffic
        detach(self, cause, now)

    def attach_and_restore(self: Any, *where: Any, caller: bool) -> None:
        attach(self, *where, caller=caller)
        if (kept := getattr(self, "kept", None)) is not None:
            self._traffic.frames._header[:] = kept.frames._header
            self._traffic.frames._filled = kept.frames._filled

    patch.setattr(Session, "detach", detach_and_keep)
    patch.setattr(Session, "attach", attach_and_restore)


@mutant
def _forget_the_end_mark(patch: Patch) -> None:
    """end mark not replayed"""

    def resume(self: BackedWriter, received: int) -> None:
        self.sent = self.high if received == self.mark and self.high > received else received

    patch.setattr(BackedWriter, "resume", resume)


@mutant
def _keep_what_was_lent(patch: Patch) -> None:
    """a half-sent frame finished on the next link"""
    attach, detach = Session.attach, Session.detach

    def detach_and_keep(self: Any, cause: LinkLost, now: float) -> None:
        self.kept = self._traffic.lent if self._traffic else []
        detach(self, cause, now)

    def attach_and_restore(self: Any, *where: Any, caller: bool) -> None:
        attach(self, *where, caller=caller)
        self._traffic.lent = list(getattr(self, "kept", []))

    patch.setattr(Session, "detach", detach_and_keep)
    patch.setattr(Session, "attach", attach_and_restore)


# --- acknowledgement and window ---


@mutant
def _ignore_the_window(patch: Patch) -> None:
    """window ignored"""
    next_frame = BackedWriter.next_frame

    def greedy(self: BackedWriter, limit: int) -> Piece | None:
        window, self.window = self.window, 1 << 62
        try:
            return next_frame(self, limit)
        finally:
            self.window = window

    patch.setattr(BackedWriter, "next_frame", greedy)


@mutant
def _acknowledge_receipt(patch: Patch) -> None:
    """ACK on receipt"""
    patch.setattr(BackedReader, "delivered", property(lambda self: self.received))


@mutant
def _acknowledge_changes_only(patch: Patch) -> None:
    """ACK only when the number moved"""
    attach = Session.attach

    def quiet(self: Any, *where: Any, caller: bool) -> None:
        attach(self, *where, caller=caller)
        moved = self.reader.acknowledged != self.reader.delivered
        self._traffic.ack_due = self.links == 1 or moved

    patch.setattr(Session, "attach", quiet)


@mutant
def _done_by_greeting(patch: Patch) -> None:
    """done by greeting numbers"""
    attach = Session.attach

    def believe(self: Session, position: Position, *where: Any, caller: bool) -> None:
        attach(self, position, *where, caller=caller)
        self.writer.acknowledge(position.received)

    patch.setattr(Session, "attach", believe)


# --- greeting ---


@mutant
def _greet_in_parallel(patch: Patch) -> None:
    """two greetings of one caller at once, to their ends"""

    def go_on(self: Any, number: int, session: Session, accepted: bool) -> None:
        self._answered = number
        self.schedule.answered(number)

    patch.setattr(Dialer, "_go_on_alone", go_on)


@mutant
def _talk_meanwhile(patch: Patch) -> None:
    """a link in doubt that says more while another is asked for"""
    patch.setattr(Link, "hold", lambda self: None)


@mutant
def _believe_an_old_hello(patch: Patch) -> None:
    """a verdict believed although the session has moved on since the greeting was begun"""
    go_on_alone = Dialer._go_on_alone

    def credulous(self: Any, number: int, session: Session, accepted: bool) -> None:
        try:
            go_on_alone(self, number, session, accepted)
        except LinkLost:
            self._answered = number
            if self._link is not None:
                self._link.fail(LinkLost("replaced"))

    hear_verdict = CallerGreeting._hear_verdict

    def hear(self: Any, verdict: Any) -> None:
        self._stated = self.session.reader.received
        hear_verdict(self, verdict)

    patch.setattr(Dialer, "_go_on_alone", credulous)
    patch.setattr(CallerGreeting, "_hear_verdict", hear)


@mutant
def _state_ready_early(patch: Patch) -> None:
    """READY stated before the old link is closed"""
    hear_hello, hear = AnswererGreeting._hear_hello, AnswererGreeting._hear

    def remember(self: Any, hello: Hello) -> None:
        self.early = self.session.reader.received
        hear_hello(self, hello)

    def answer(self: Any, message: bytes, now: float) -> None:
        hear(self, message, now)
        if self.attached:
            self._say(self._frames.pack(Kind.READY, self.early), 0)

    patch.setattr(AnswererGreeting, "_hear_hello", remember)
    patch.setattr(AnswererGreeting, "_hear", answer)


@mutant
def _greet_beside_the_old_link(patch: Patch) -> None:
    """the caller greeting with its old link open"""
    fail = Link.fail

    def fail_but_listen(self: Any, cause: LinkLost, *, politely: bool = False) -> None:
        session = self.greeting.session
        traffic = session._traffic if self.greeting.attached else None
        if self.cause is not None or traffic is None or not hasattr(session.writer, "acked"):
            fail(self, cause, politely=politely)
            return
        close, sock = self._sock.close, self._sock
        patch_close = lambda: None  # noqa: E731
        sock.close = patch_close
        fail(self, cause, politely=politely)
        sock.close = close

        def hear_late() -> None:
            try:
                for _ in range(4):
                    count = sock.recvmsg_into(traffic.incoming(session.reader))[0]
                    if count:
                        list(traffic.received(count, session.reader, 0.0))
            except (OSError, LinkLost):
                pass
            close()

        self._loop.call_later(0.03, hear_late)

    patch.setattr(Link, "fail", fail_but_listen)


@mutant
def _ignore_ready(patch: Patch) -> None:
    """the caller carrying on from M2 instead of READY"""
    hear_ready = CallerGreeting._hear_ready

    def stale(self: Any, frames: Frames, header: Any, now: float) -> None:
        hear_ready(self, frames, header._replace(number=self._answerer.received), now)

    patch.setattr(CallerGreeting, "_hear_ready", stale)


@mutant
def _ignore_the_epoch(patch: Patch) -> None:
    """an old greeting taken for a new one"""
    judge = Answerer.judge

    def lenient(self: Answerer, hello: Hello) -> Status:
        if hello.opening is Opening.RESUME:
            hello = hello._replace(epoch=self.session.epoch + 1)
        return judge(self, hello)

    patch.setattr(Answerer, "judge", lenient)


@mutant
def _judge_once(patch: Patch) -> None:
    """a greeting judged at M1 only, and not dropped when a later one has come first"""

    def admit(self: Any, hello: Hello, now: float) -> None:
        self._drop_link()
        self.session.adopt(hello)
        self.session.attach(hello.position, now, caller=False)

    patch.setattr(Answerer, "admit", admit)
    patch.setattr(Listener, "_drop_greetings", lambda self: None)


# --- the end ---


@mutant
def _say_stop_once(patch: Patch) -> None:
    """STOP forgotten on a new link"""
    attach = Session.attach

    def forget(self: Session, *where: Any, caller: bool) -> None:
        attach(self, *where, caller=caller)
        assert self._traffic is not None
        self._traffic.stop_due = self.links == 1

    patch.setattr(Session, "attach", forget)


@mutant
def _stop_at_the_cursor(patch: Patch) -> None:
    """STOP ending the stream before what was already sent"""

    def stop(self: BackedWriter, offset: int) -> None:
        if self.stopped is None:
            self.stopped = offset
            if self.mark is None or self.mark >= self.high:
                self.mark = self.acked

    patch.setattr(BackedWriter, "stop", stop)


@mutant
def _leave_without_an_answer(patch: Patch) -> None:
    """leaving when the own BYE is written, whatever the peer has heard"""
    settle = Session.settle

    def hasty(self: Any, now: float) -> None:
        settle(self, now)
        if not self.over and self.done and self._ending.bye_written and not self._ending.abort:
            self._leave(self._verdict())

    patch.setattr(Session, "settle", hasty)


@mutant
def _close_with_unread_input(patch: Patch) -> None:
    """an ABORT destroyed by a close with unread input"""

    sent = Session.sent

    def leave(self: Any, count: int, now: float) -> None:
        sent(self, count, now)
        if (
            not self.over
            and self._ending.abort
            and not self._traffic.abort_due
            and not self._traffic.lent
        ):
            self._leave(self.failure)

    async def close(self: Any) -> None:
        if self.cause is None:
            self.cause = LinkLost("closed")
            self._unwatch()
            self._sock.close()
            self.lost.set_result(self.cause)

    patch.setattr(Session, "sent", leave)
    patch.setattr(Link, "close", close)


@mutant
def _abort_once(patch: Patch) -> None:
    """ABORT forgotten on a new link"""
    attach = Session.attach

    def forget(self: Session, *where: Any, caller: bool) -> None:
        attach(self, *where, caller=caller)
        assert self._traffic is not None
        self._traffic.abort_due = self._ending.abort is None

    patch.setattr(Session, "attach", forget)


@mutant
def _stop_at_receipt(patch: Patch) -> None:
    """STOP naming what was received, not what was taken"""
    stop = BackedReader.stop

    def late(self: Any) -> None:
        first = self.stopped is None
        stop(self)
        if first:
            self.stopped = self._ring.start

    patch.setattr(BackedReader, "stop", late)


@mutant
def _forget_who_was_turned_away(patch: Patch) -> None:
    """success although the producer had more when it was stopped"""
    finish = BackedWriter.finish
    patch.setattr(BackedWriter, "finish", lambda self, *, more=False: finish(self))


@mutant
def _count_what_an_aborter_drops(patch: Patch) -> None:
    """ACK for what is discarded after an ABORT"""
    receive = BackedReader.receive

    def count_all(self: Any, count: int) -> None:
        receive(self, count)
        if self.deaf:
            self._ring.release(self._ring.end)
            self._ring.skip(count)

    patch.setattr(BackedReader, "receive", count_all)


@mutant
def _take_success_back(patch: Patch) -> None:
    """a done end that reports the ABORT which it hears"""
    hear_abort, verdict = Ending.hear_abort, Ending.verdict
    patch.setattr(
        Ending,
        "hear_abort",
        lambda self, reason, message, *, done: hear_abort(self, reason, message, done=False),
    )
    patch.setattr(
        Ending,
        "verdict",
        lambda self, *, done, cut_short: verdict(
            self, done=done and not self.answering, cut_short=cut_short
        ),
    )


@mutant
def _open_anew(patch: Patch) -> None:
    """a session that was lost opened anew, as if nothing had been consumed"""
    refused = Session.refused

    def paper_over(self: Session, status: Status) -> None:
        if status is Status.UNKNOWN and not (self.done or self.over):
            self.id = None
        else:
            refused(self, status)

    patch.setattr(Session, "refused", paper_over)


# --- time and memory ---


@mutant
def _never_end_an_outage(patch: Patch) -> None:
    """giving up counted from the first outage of all"""
    patch.setattr(Patience, "outage_ended", lambda self: None)


@mutant
def _keep_the_timer(patch: Patch) -> None:
    """a timer that does not clear"""

    def tick(self: Traffic, now: float) -> None:
        if self.liveness.tick(now) or (self.ack_at is not None and now >= self.ack_at):
            self.ack_due = True

    def acknowledge(self: Traffic, reader: BackedReader) -> int:
        self.ack_due = False
        self.mark_lent = reader.done
        return reader.acknowledge()

    patch.setattr(Traffic, "tick", tick)
    patch.setattr(Traffic, "acknowledge", acknowledge)


@mutant
def _believe_in_the_dead(patch: Patch) -> None:
    """a silent link that is never given up"""
    patch.setattr(liveness, "SILENCE", 10**9)


@mutant
def _reuse_pages_early(patch: Patch) -> None:
    """a page of the ring freed while its last bytes are still held"""

    def release(self: Any, offset: int) -> None:
        page = self._page
        for number in range(-(-self.start // page), -(-offset // page)):
            self._free.append(self._table[number % len(self._table)])
        self.start = offset

    patch.setattr(Ring, "release", release)


# --- who may have taken what ---


@mutant
def _begin_early(patch: Patch) -> None:
    """a stream begun before its caller was heard, and begun again for the next one"""
    stream_frame = Session._stream_frame

    def eager(self: Any, traffic: Traffic) -> Any:
        established, self.established = self.established, True
        try:
            return stream_frame(self, traffic)
        finally:
            self.established = established

    def restart(self: BackedWriter) -> None:
        self.sent = self.high = self.window = 0

    patch.setattr(Session, "_stream_frame", eager)
    patch.setattr(BackedWriter, "restart", restart)


@mutant
def _leave_an_outage_behind(patch: Patch) -> None:
    """a session that gave way leaves its outage to the next caller"""
    adopt = Session.adopt

    def forgetful(self: Any, hello: Hello, resume_secret: bytes) -> None:
        since = self.patience.outage_since
        adopt(self, hello, resume_secret)
        self.patience.outage_since = since

    patch.setattr(Session, "adopt", forgetful)


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
        BackedReader, "receive_mark", lambda self, number, how=0: receive_mark(self, number)
    )


@mutant
def _lose_how_it_ended(patch: Patch) -> None:
    """how a stream has ended lost in a replay"""
    resume = BackedWriter.resume

    def forget(self: BackedWriter, received: int) -> None:
        if self.mark is not None and self.high > self.mark:
            self.ended = Ended.UNKNOWN
        resume(self, received)

    patch.setattr(BackedWriter, "resume", forget)


@mutant
def _never_ask(patch: Patch) -> None:
    """a producer that is never cut although the far consumer has gone"""
    patch.setattr(session, "QUESTION", 10**9)
