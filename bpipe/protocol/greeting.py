"""The first exchange on a fresh link: who are you, where were we.

Four messages of fixed size, the caller first: M1 (hello), M2 (verdict), M3 (CONFIRM), M4 (READY).
Nothing changes at the answerer before M3; at M3 it judges again, closes the session's old link,
and states in READY what it has received, which is final, because nothing else feeds that session
any more. The caller's own number, in M1, is final because it closed its old link before.

Where a session may have several links, both numbers may be old, which is harmless, and only the
link of the same slot is replaced.

A greeting is a ``Driver``, and so is the ``Channel`` that it ends in, so a link is driven in the
same way from its first byte to its last. A greeting never reads beyond its own messages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from bpipe.errors import LinkLost, ProtocolError
from bpipe.protocol.channel import Channel
from bpipe.protocol.frames import Frames
from bpipe.protocol.handshake import Handshake
from bpipe.protocol.ring import Views
from bpipe.protocol.session import Session
from bpipe.protocol.wire import (
    NOWHERE,
    Admission,
    Header,
    Hello,
    Kind,
    Opening,
    Position,
    Verdict,
    pack_verdict,
)

if TYPE_CHECKING:  # one side, or both, do without
    from bpipe.protocol.caller import Caller
    from bpipe.protocol.secret import Secret
    from bpipe.protocol.sessions import Sessions

GREETING_TIMEOUT: Final = 5.0  # seconds for all four messages


def begin(secret: Secret | None) -> Handshake:
    """A fresh handshake; ``cryptography`` is imported when the first one is sealed."""
    if secret is None:
        return Handshake()
    from bpipe.protocol.sealed import SealedHandshake

    return SealedHandshake(secret)


class Greeting:
    """One side of a greeting: it says one message, hears one of known size, and so on."""

    def __init__(
        self, secret: Secret | None, now: float, patience: float = GREETING_TIMEOUT
    ) -> None:
        self.slot = 0  # of the link that this is to be
        self.answered = False  # a message of the peer has come, and it was right
        self.channel: Channel | None = None  # once the session is attached
        self.done = False  # it is, and every message is written
        self.finished = False  # nothing more is said: close when all is written
        self._until = now + patience
        self._handshake = begin(secret)
        self._frames: Frames | None = None  # once the handshake is made
        self._out = memoryview(b"")
        self._said_at = now  # what the peer answers next
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
        self._out, self._said_at = self._out[count:], now

    def deadline(self) -> float:
        """When all has to be said and heard."""
        return self._until

    def tick(self, now: float) -> None:
        """Look at the clock. Raises LinkLost when the peer has taken too long."""
        if now >= self.deadline():
            raise LinkLost("no answer to the greeting", "silent")

    def lost(self, cause: LinkLost, now: float) -> None:
        """The link is gone: nothing of it is used any more."""
        if self.channel is not None:
            self.channel.detach(cause, now)

    def _attach(self, session: Session, position: Position, frames: Frames, now: float) -> None:
        if session.terms.slots_with(position) > 1:
            from bpipe.protocol.slot_channel import SlotChannel  # which few need

            round_trip = now - self._said_at  # of the last answer: nothing was in its way
            self.channel = SlotChannel(session, frames, now, self.slot, round_trip)
            session.attach(self.channel, position, now, self.slot)
        else:
            self.channel = Channel(session, frames, now)
            session.attach(self.channel, position, now)

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
    anything is made of it. It has to see to it that this greeting is the only one of its slot from
    then on, and that there is no link there; or to raise LinkLost. ``patience`` is for all four
    messages, in seconds; infinite for a carrier that may ask its user something first.
    """

    def __init__(
        self,
        caller: Caller,
        now: float,
        answered: Callable[[bool], None] = lambda accepted: None,
        patience: float = GREETING_TIMEOUT,
        slot: int = 0,
    ) -> None:
        super().__init__(caller.session.secret, now, patience)
        self.slot = slot
        self.session = caller.session
        self._caller = caller
        self._tell_answered = answered
        self._answerer = NOWHERE
        self._stated = self.session.position
        self._undecided = True  # the answerer may attach it
        hello = self._handshake.pack_hello(caller.hello(slot))
        self._say(hello, self._handshake.verdict_size)

    def lost(self, cause: LinkLost, now: float) -> None:
        super().lost(cause, now)
        self._decide()

    def _decide(self) -> None:
        """It is attached, or never will be."""
        if self._undecided:
            self._undecided = False
            self._caller.decided(self.slot)

    def _hear(self, message: bytes, now: float) -> None:
        if self.session.over:  # it has said how it ended: nothing more may move
            raise LinkLost("the session is over")
        if self._frames is None:
            resume_secret = self.session.resume_secret
            self._hear_verdict(self._handshake.unpack_verdict(message, resume_secret), now)
        else:
            self._hear_ready(self._frames, self._frames.unpack(message), now)

    @property
    def _void(self) -> bool:
        """Whether the old link has moved the session on since M1 was said: then M2 means nothing.

        An ACK may have made a RANGE of what was right. Where there are slots, nothing does.
        """
        reader, stated = self.session.reader, self._stated
        if self.session.terms.slots > 1:
            return False
        return reader.received != stated.received or reader.acknowledged > stated.delivered

    def _hear_verdict(self, verdict: Verdict, now: float) -> None:
        if self._void:
            raise LinkLost("the session has moved on during the greeting")
        if verdict.admission is not Admission.OK:
            self.answered = True
            self._tell_answered(False)
            self._caller.refused(verdict, now)
            raise LinkLost(self._caller.why(verdict.admission))
        if not self.session.fits(verdict.position):
            raise ProtocolError("the listener claims offsets that cannot be")
        self._tell_answered(True)
        self._answerer = verdict.position
        self._caller.confirming(self._handshake.resume_secret)
        self._frames = self._handshake.frames(caller=True)
        self._say(self._frames.pack(Kind.CONFIRM, 0), self._frames.size)

    def _hear_ready(self, frames: Frames, header: Header, now: float) -> None:
        position = self._answerer._replace(received=header.number)
        if header.kind is not Kind.READY or not self.session.fits(position):
            raise ProtocolError("the listener claims offsets that cannot be")
        self.session.establish()
        self._attach(self.session, position, frames, now)
        self._decide()
        self.done = True


class AnswererGreeting(Greeting):
    """The answerer's side; any number may be under way."""

    def __init__(self, sessions: Sessions, now: float) -> None:
        super().__init__(sessions.secret, now)
        self.hello: Hello | None = None  # once it has come
        self.session: Session | None = None  # which the caller asks for, and then gets
        self._sessions = sessions
        self._say(b"", self._handshake.hello_size)

    def sent(self, count: int, now: float) -> None:
        super().sent(count, now)
        self.done = self.channel is not None and not self._out

    def _hear_part(self, part: bytearray) -> None:
        if self.hello is None and not self._refuse_version(part):
            self._handshake.check_hello(part)

    def _hear(self, message: bytes, now: float) -> None:
        if self.hello is None:
            if not self._refuse_version(message):
                self._hear_hello(self._unpack_hello(message), now)
            return
        assert self._frames is not None
        if self._frames.unpack(message) != Header(Kind.CONFIRM, 0, 0):
            raise ProtocolError("a greeting without CONFIRM")
        self.session = self._sessions.admit(self.hello, self._handshake.resume_secret, now)
        self._attach(self.session, self.hello.position, self._frames, now)
        self._say(self._frames.pack(Kind.READY, self.session.reader.received), 0)

    def _refuse_version(self, hello: bytes | bytearray) -> bool:
        """Tell a caller of another version so, as soon as that can be told; returns whether."""
        other = self._handshake.is_other_version(hello)
        if other:
            self._refuse(pack_verdict(Verdict(Admission.VERSION, NOWHERE)))
        return other

    def _unpack_hello(self, message: bytes) -> Hello:
        if not self._handshake.sealed:
            return self._handshake.unpack_hello(message)
        self._sessions.recognize(message)
        hello = self._handshake.unpack_hello(message)
        self._sessions.remember(message)
        return hello

    def _hear_hello(self, hello: Hello, now: float) -> None:
        self.hello, self.slot = hello, hello.slot
        admission, self.session = self._sessions.judge(hello, now)
        if self.session is None:
            silence = self._sessions.silence(now) if admission is Admission.BUSY else 0
            refusal = Verdict(admission, NOWHERE._replace(received=silence))
            self._refuse(self._handshake.pack_verdict(refusal, b""))
            return
        resume_secret, position = self.session.resume_secret, self.session.position
        if hello.opening is Opening.OPEN:  # of one that it replaces
            resume_secret, position = b"", position._replace(delivered=0, received=0)
        verdict = Verdict(admission, position)
        packed = self._handshake.pack_verdict(verdict, resume_secret)
        self._frames = self._handshake.frames(caller=False)
        self._say(packed, self._frames.size)

    def _refuse(self, verdict: bytes) -> None:
        self.finished = True
        self._say(verdict, 0)
