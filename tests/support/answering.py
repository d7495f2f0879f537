"""Who answers in memory: a table with one session, and greetings that a test drives."""

from __future__ import annotations

from bpipe.errors import LinkLost
from bpipe.protocol.channel import Channel
from bpipe.protocol.greeting import AnswererGreeting
from bpipe.protocol.secret import Secret
from bpipe.protocol.session import Session
from bpipe.protocol.sessions import Sessions
from bpipe.protocol.wire import Admission, Hello, Kind, Opening, Position
from tests.support.loopback import Stranger, drain, feed, write
from tests.support.peer import CUT, NOW, WINDOW, channel, lose

ID, OTHER = b"a" * 16, b"b" * 16
START = Position(0, 0, WINDOW)


def opening(session: bytes = ID, position: Position = START) -> Hello:
    """Somebody calls for the first time."""
    return Hello(Opening.OPEN, session, 1, position)


def resuming(epoch: int, position: Position = START, session: bytes = ID) -> Hello:
    """Somebody comes back."""
    return Hello(Opening.RESUME, session, epoch, position)


class Listener:
    """A session, and the table that it is in; the link is dropped when the table says so."""

    def __init__(
        self,
        written: bytes = b"",
        secret: Secret | None = None,
        needs: int = 0,
        buffer_size: int = WINDOW,
    ) -> None:
        self.session = Session(buffer_size, secret=secret, needs=needs)
        write(self.session, written)
        self.drops = 0
        self.table = Sessions(self._drop_link, secret)
        self.table.add(self.session)

    def _drop_link(self, session: Session) -> None:
        assert session is self.session
        self.drops += 1
        if session.attached:
            lose(session, LinkLost("the peer has come back"))

    def knock(self) -> AnswererGreeting:
        """A fresh link, over which nothing has come."""
        return AnswererGreeting(self.table, NOW)

    def greet(self, hello: Hello, now: float = NOW) -> tuple[AnswererGreeting, Stranger]:
        """A fresh link, and who calls; the first message has come."""
        resume_secret = self.session.resume_secret if hello.opening is Opening.RESUME else b""
        caller = Stranger(hello, self.session.secret, resume_secret)
        greeting = self.knock()
        feed(greeting, caller.hello, now)
        return greeting, caller

    def admit(self, hello: Hello) -> Stranger:
        """A greeting that succeeds."""
        greeting, caller = self.greet(hello)
        assert caller.read(drain(greeting, NOW)).admission is Admission.OK
        feed(greeting, caller.confirm, NOW)
        drain(greeting, NOW)
        assert greeting.done
        assert greeting.channel is channel(self.session)
        return caller

    def serve(self, epoch: int = 1) -> None:
        """Be in a session whose caller was heard, and which has lost its link."""
        caller = self.admit(opening()._replace(epoch=epoch))
        feed(self.channel, caller.frames.pack(Kind.ACK, 0), NOW)
        lose(self.session, CUT)

    @property
    def channel(self) -> Channel:
        """What speaks over the link that is attached."""
        return channel(self.session)
