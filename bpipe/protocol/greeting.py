"""The first exchange on a fresh link: who are you, where were we.

Four messages of fixed size, the caller first: M1 (hello), M2 (verdict), M3 (CONFIRM), M4 (READY).
Nothing changes at the answerer before M3; at M3 it judges again, closes the session's old link,
and states in READY what it has received, which is final, because nothing else feeds that session
any more. The caller's own number, in M1, is final because it closed its old link before.

Both sides lend memory like ``Session`` does, so one driver serves a link from its first byte to
its last: it asks the greeting until ``done``, and the session from then on. A greeting never
reads beyond its own messages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bpipe.errors import Forged, LinkLost, ProtocolError
from bpipe.protocol.frames import Frames
from bpipe.protocol.handshake import begin
from bpipe.protocol.ring import Views
from bpipe.protocol.session import Session
from bpipe.protocol.wire import Header, Hello, Kind, Opening, Position, Status, Verdict

GREETING_TIMEOUT: Final = 5.0  # seconds for all four messages
REMEMBERED: Final = 4096  # sealed M1s: the last ones that were right

_NOWHERE: Final = Position(0, 0, 0)
_REFUSALS: Final = {
    Status.UNKNOWN: "the listener does not know this session",
    Status.STALE: "the listener has seen a later greeting",
    Status.RANGE: "the listener stands at another place in the stream",
    Status.BUSY: "the listener is busy",
}


class Greeting:
    """One side of a greeting: it says one message, hears one of known size, and so on."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.answered = False  # a message of the peer has come, and it was right
        self.attached = False  # the session is: it has to be told when this link is lost
        self.done = False  # attached, and every message is written
        self.finished = False  # nothing more is said: close when all is written
        self._handshake = begin(session.secret)
        self._frames: Frames | None = None  # once the handshake is made
        self._out = memoryview(b"")
        self._in = bytearray()
        self._filled = 0

    def incoming(self) -> Views:
        """Where the next bytes from the link belong."""
        return [memoryview(self._in)[self._filled :]]

    def received(self, count: int, now: float) -> None:
        """``count`` bytes arrived; LinkLost or ProtocolError if the greeting fails by them."""
        self._filled += count
        if self._filled == len(self._in):
            message, self._in, self._filled = self._in, bytearray(), 0
            self._hear(bytes(message), now)
            self.answered = True
        else:
            self._hear_part(self._in[: self._filled])

    def outgoing(self, now: float) -> Views:
        """What to put on the link next."""
        return [self._out] if self._out else []

    def sent(self, count: int, now: float) -> None:
        """The first ``count`` bytes of it are on the link."""
        self._out = self._out[count:]

    def _say(self, message: bytes, expect: int) -> None:
        """Say this, and hear a message of ``expect`` bytes next."""
        self._out = memoryview(message)
        self._in = bytearray(expect)

    def _hear(self, message: bytes, now: float) -> None:
        raise NotImplementedError

    def _hear_part(self, part: bytearray) -> None:
        """A message has begun to arrive."""


class CallerGreeting(Greeting):
    """The caller's side.

    Several may wait for their verdict, also beside a link that is in doubt: until CONFIRM nothing
    changes at the answerer. ``answered`` is called with whether the verdict is good, before
    anything is made of it. It has to see to it that this greeting is the only one from then on, and
    that there is no link; or to raise LinkLost.
    """

    def __init__(
        self, session: Session, answered: Callable[[bool], None] = lambda accepted: None
    ) -> None:
        super().__init__(session)
        self._tell_answered = answered
        self._answerer = _NOWHERE
        self._stated = session.reader.received
        hello = self._handshake.pack_hello(session.hello())
        self._say(hello, self._handshake.verdict_size)

    def _hear(self, message: bytes, now: float) -> None:
        if self.session.over:  # it has said how it ended: nothing more may move
            raise LinkLost("the session is over")
        if self._frames is None:
            resume_secret = self.session.resume_secret
            self._hear_verdict(self._handshake.unpack_verdict(message, resume_secret))
        else:
            self._hear_ready(self._frames, self._frames.unpack(message), now)

    def _hear_verdict(self, verdict: Verdict) -> None:
        if verdict.status is not Status.OK:
            self._tell_answered(False)
            self.session.refused(verdict.status)
            raise LinkLost(_REFUSALS[verdict.status])
        if self.session.reader.received != self._stated:
            raise LinkLost("the session has moved on during the greeting")
        if not self.session.fits(verdict.position):
            raise ProtocolError("the listener claims offsets that cannot be")
        self._tell_answered(True)
        self._answerer = verdict.position
        self.session.confirming(self._handshake.resume_secret)
        self._frames = self._handshake.frames(caller=True)
        self._say(self._frames.pack(Kind.CONFIRM, 0), self._frames.size)

    def _hear_ready(self, frames: Frames, header: Header, now: float) -> None:
        position = self._answerer._replace(received=header.number)
        if header.kind is not Kind.READY or not self.session.fits(position):
            raise ProtocolError("the listener claims offsets that cannot be")
        self.session.attach(position, frames, now, caller=True)
        self.attached = self.done = True


class Answerer:
    """What a listener decides about those who call it; it serves one session.

    ``drop_link`` closes the session's live link, if there is one, and detaches it.
    """

    def __init__(self, session: Session, drop_link: Callable[[], None]) -> None:
        self.session = session
        self._drop_link = drop_link
        self._remembered: dict[bytes, None] = {}  # oldest first

    def recognize(self, message: bytes) -> None:
        """Forged if this sealed M1 has been right before: somebody repeats what he overheard.

        No caller says the same twice; and to find that out costs less than to answer.
        """
        if message in self._remembered:
            raise Forged("a greeting that has come before")

    def remember(self, message: bytes) -> None:
        """This sealed M1 was right."""
        self._remembered[message] = None
        if len(self._remembered) > REMEMBERED:
            del self._remembered[next(iter(self._remembered))]

    def judge(self, hello: Hello) -> Status:
        """Whether this caller may come in, as things stand now. Changes nothing."""
        session = self.session
        if hello.opening is Opening.OPEN:
            if session.id == hello.session:
                return Status.STALE
            if not session.yielding:
                return Status.BUSY
            fresh = hello.position[:2] == (0, 0) and hello.position.window >= 1
            return Status.OK if fresh else Status.RANGE
        if session.id != hello.session or session.over:
            return Status.UNKNOWN
        if hello.epoch <= session.epoch:
            return Status.STALE
        return Status.OK if session.fits(hello.position) else Status.RANGE

    def admit(self, hello: Hello, frames: Frames, resume_secret: bytes, now: float) -> None:
        """CONFIRM has come: judge again, close the old link and attach this one."""
        if self.judge(hello) is Status.OK:
            self._drop_link()
        if self.judge(hello) is not Status.OK:
            raise LinkLost("the session has moved on during the greeting")
        self.session.adopt(hello, resume_secret)
        self.session.attach(hello.position, frames, now, caller=False)


class AnswererGreeting(Greeting):
    """The answerer's side; any number may be under way."""

    def __init__(self, answerer: Answerer) -> None:
        super().__init__(answerer.session)
        self.hello: Hello | None = None  # once it has come
        self._answerer = answerer
        self._say(b"", self._handshake.hello_size)

    def sent(self, count: int, now: float) -> None:
        super().sent(count, now)
        self.done = self.attached and not self._out

    def _hear_part(self, part: bytearray) -> None:
        if self.hello is None:
            self._handshake.check_hello(part)

    def _hear(self, message: bytes, now: float) -> None:
        if self.hello is None or self._frames is None:
            self._hear_hello(self._unpack_hello(message))
            return
        if self._frames.unpack(message) != Header(Kind.CONFIRM, 0, 0):
            raise ProtocolError("a greeting without CONFIRM")
        self._answerer.admit(self.hello, self._frames, self._handshake.resume_secret, now)
        self.attached = True
        self._say(self._frames.pack(Kind.READY, self.session.reader.received), 0)

    def _unpack_hello(self, message: bytes) -> Hello:
        if not self._handshake.sealed:
            return self._handshake.unpack_hello(message)
        self._answerer.recognize(message)
        hello = self._handshake.unpack_hello(message)
        self._answerer.remember(message)
        return hello

    def _hear_hello(self, hello: Hello) -> None:
        self.hello = hello
        status = self._answerer.judge(hello)
        self.finished = status is not Status.OK
        position = _NOWHERE if self.finished else self.session.position
        resume_secret = self.session.resume_secret if hello.opening is Opening.RESUME else b""
        verdict = self._handshake.pack_verdict(Verdict(status, position), resume_secret)
        self._frames = self._handshake.frames(caller=False)
        self._say(verdict, 0 if self.finished else self._frames.size)
