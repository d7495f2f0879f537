"""Mutants of the greeting, and of who gets a session."""

from __future__ import annotations

from typing import Any

from bpipe.errors import Forged, LinkLost
from bpipe.net.dialer import Dialer
from bpipe.net.link import Link
from bpipe.net.listener import Listener
from bpipe.protocol.channel import Channel
from bpipe.protocol.frames import Frames
from bpipe.protocol.greeting import AnswererGreeting, CallerGreeting
from bpipe.protocol.sealed import SealedFrames
from bpipe.protocol.session import Session
from bpipe.protocol.sessions import Sessions
from bpipe.protocol.wire import Header, Hello, Kind, Opening
from bpipe.protocol.writer import BackedWriter
from tests.simulation.mutants.registry import Patch, mutant


@mutant
def _greet_in_parallel(patch: Patch) -> None:
    """two greetings of one caller at once, to their ends"""

    def go_on(self: Any, number: int, accepted: bool) -> None:
        self._answered = number
        self.schedule.answered(number)

    patch.setattr(Dialer, "_go_on_alone", go_on)


@mutant
def _keep_greetings_that_were_overtaken(patch: Patch) -> None:
    """a session whose caller was not heard yet taken by a greeting that the caller has given up"""
    drop = Listener._drop_greetings

    def forgetful(self: Any, session: Session, slot: int) -> None:
        supply, self.supply = self.supply, object()
        drop(self, session, slot)
        self.supply = supply

    patch.setattr(Listener, "_drop_greetings", forgetful)


@mutant
def _believe_an_old_hello(patch: Patch) -> None:
    """a verdict believed although the session has moved on since the greeting was begun"""
    go_on_alone = Dialer._go_on_alone

    def credulous(self: Any, number: int, accepted: bool) -> None:
        try:
            go_on_alone(self, number, accepted)
        except LinkLost:
            self._answered = number
            if self._link is not None:
                self._link.fail(LinkLost("replaced"))

    hear_verdict = CallerGreeting._hear_verdict

    def hear(self: Any, verdict: Any, now: float) -> None:
        self._stated = self.session.position
        hear_verdict(self, verdict, now)

    patch.setattr(Dialer, "_go_on_alone", credulous)
    patch.setattr(CallerGreeting, "_hear_verdict", hear)


@mutant
def _state_ready_early(patch: Patch) -> None:
    """READY stated before the old link is closed"""
    hear_hello, hear = AnswererGreeting._hear_hello, AnswererGreeting._hear

    def remember(self: Any, hello: Hello, now: float) -> None:
        hear_hello(self, hello, now)
        if self.session is not None:
            self.early = self.session.reader.received

    def answer(self: Any, message: bytes, now: float) -> None:
        hear(self, message, now)
        if self.channel is not None:
            self._say(self._frames.pack(Kind.READY, self.early), 0)

    patch.setattr(AnswererGreeting, "_hear_hello", remember)
    patch.setattr(AnswererGreeting, "_hear", answer)


@mutant
def _greet_beside_the_old_link(patch: Patch) -> None:
    """the caller greeting with its old link open"""
    fail = Link.fail

    def fail_but_listen(self: Any, cause: LinkLost, *, politely: bool = False) -> None:
        channel = self.greeting.channel
        if self.cause is not None or channel is None:
            fail(self, cause, politely=politely)
            return
        close, sock = self.sock.close, self.sock
        sock.close = lambda: None
        fail(self, cause, politely=politely)
        sock.close = close

        def hear_late() -> None:
            try:
                for _ in range(4):
                    count = sock.recvmsg_into(channel.incoming())[0]
                    if count:
                        channel.received(count, self._clock())
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
    judge = Sessions.judge

    def lenient(self: Sessions, hello: Hello, now: float) -> Any:
        if hello.opening is Opening.RESUME:
            hello = hello._replace(epoch=1 << 40)
        return judge(self, hello, now)

    patch.setattr(Sessions, "judge", lenient)


@mutant
def _judge_once(patch: Patch) -> None:
    """a greeting judged at M1 only, and not dropped when a later one has come first"""

    def admit(self: Any, hello: Hello, resume_secret: bytes, now: float) -> Session:
        session: Session = self._sessions[0]
        self._drop_link(session)
        if hello.opening is Opening.OPEN:
            session.restart()
            session.identify(hello.session, resume_secret)
        session.advance(hello.epoch)
        return session

    patch.setattr(Sessions, "admit", admit)
    patch.setattr(Listener, "_drop_greetings", lambda *_: None)


@mutant
def _begin_early(patch: Patch) -> None:
    """a stream begun before its caller was heard, and begun again for the next one"""
    outgoing = Channel.outgoing

    def eager(self: Any, now: float) -> Any:
        established, self._session.established = self._session.established, True
        try:
            return outgoing(self, now)
        finally:
            self._session.established = established

    def restart(self: BackedWriter) -> None:
        self.sent = self.high = self.window = 0

    patch.setattr(Channel, "outgoing", eager)
    patch.setattr(BackedWriter, "restart", restart)


@mutant
def _leave_an_outage_behind(patch: Patch) -> None:
    """a session that gave way leaves its outage to the next caller"""
    restart = Session.restart

    def forgetful(self: Any) -> None:
        since = self.patience.outage_since
        restart(self)
        self.patience.outage_since = since

    patch.setattr(Session, "restart", forgetful)


@mutant
def _skip_what_is_forged(patch: Patch) -> None:
    """a header whose tag is wrong taken for one of no importance"""
    unpack = SealedFrames.unpack

    def lenient(self: Any, data: bytes) -> Header:
        try:
            return unpack(self, data)
        except Forged:
            return Header(Kind.PONG, 0, 0)

    patch.setattr(SealedFrames, "unpack", lenient)
