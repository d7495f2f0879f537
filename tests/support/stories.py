"""Two ends of bpipe that talk to each other in memory, as the examples of the page have it."""

from __future__ import annotations

from collections import deque
from typing import Final

from bpipe.errors import LinkLost
from bpipe.protocol.caller import Caller
from bpipe.protocol.channel import Channel
from bpipe.protocol.driver import Driver
from bpipe.protocol.greeting import AnswererGreeting, CallerGreeting, Greeting
from bpipe.protocol.records import Record, RecordWriter
from bpipe.protocol.secret import Secret
from bpipe.protocol.session import Session
from bpipe.protocol.sessions import Sessions
from bpipe.protocol.wire import RECORDS
from tests.support.page import Said

BUFFER_SIZE: Final = 1 << 20  # bytes: the window of both ends
SESSION_ID: Final = bytes(range(16))
NOW: Final = 0.0  # they take no time
ALL: Final = 1 << 20  # bytes: more than anybody says


class End:
    """One end: a session and its greeting, driven as a link drives them.

    Its consumer takes everything at once.
    """

    def __init__(self, name: str, session: Session) -> None:
        self.name = name
        self.session = session
        self.taken = b""
        self.greeting: Greeting

    @property
    def _driver(self) -> Driver:
        if self.greeting.done and self.greeting.channel is not None:
            return self.greeting.channel
        return self.greeting

    def say(self) -> list[Said]:
        """Everything that there is to say now."""
        said = []
        while views := self._driver.outgoing(NOW):
            said.append(Said(self.name, b"".join(views)))
            self._driver.sent(len(said[-1].data), NOW)
        return said

    def hear(self, data: bytes) -> None:
        """These bytes arrive."""
        while data:
            view = self._driver.incoming()[0]
            count = min(len(view), len(data))
            view[:count] = data[:count]
            self._driver.received(count, NOW)
            data = data[count:]
        reader = self.session.reader
        for view in reader.readable(BUFFER_SIZE):
            self.taken += view
            reader.took(len(view))
        if reader.drained and not reader.done:
            self.session.deliver_mark()
            self.session.settle(NOW)

    def lose(self) -> None:
        """The link is gone."""
        assert isinstance(self.greeting.channel, Channel)
        self.greeting.channel.detach(LinkLost("cut"), NOW)


class Story:
    """The caller sends ``text``, and the answerer an empty stream.

    With ``errors`` the caller needs records, and these are what the answerer sends.
    """

    def __init__(self, text: bytes, secret: Secret | None = None, errors: bytes = b"") -> None:
        needs = RECORDS if errors else 0
        caller = Session(BUFFER_SIZE, secret=secret, needs=needs)
        answerer = Session(BUFFER_SIZE, secret=secret)
        if errors:
            write_record(caller, text, Record.DATA)
            write_record(answerer, errors, Record.ERRORS)
        else:
            caller.writer.space(len(text))[0][:] = text
            caller.writer.wrote(len(text))
        for session in (caller, answerer):
            session.finish()
        self.caller, self.answerer = End("C", caller), End("A", answerer)
        self._calls = Caller(caller, lambda: SESSION_ID)
        self._table = Sessions(lambda session: None, secret)
        self._table.add(answerer)

    def link(self, arriving: int = ALL) -> list[Said]:
        """What is said over one link; of what the caller says, only so many bytes get through."""
        caller, answerer = self.caller, self.answerer
        caller.greeting = CallerGreeting(self._calls, NOW)
        answerer.greeting = AnswererGreeting(self._table, NOW)
        under_way = deque(caller.say())
        said = []
        while under_way:
            by, data = under_way.popleft()
            if by == "C":
                data = data[:arriving]
                arriving -= len(data)
            if data:
                said.append(Said(by, data))
                end = answerer if by == "C" else caller
                end.hear(data)
                under_way.extend(end.say())
        if not caller.session.over:
            caller.lose()
            answerer.lose()
        return said


def write_record(session: Session, content: bytes, kind: Record) -> None:
    """The session's end sends this."""
    records = RecordWriter(session.writer)
    records.space(len(content))[0][:] = content
    records.wrote(len(content), kind)


def answer(hello: bytes, secret: Secret | None = None) -> Said:
    """What a listener that was started anew says to this M1."""
    table = Sessions(lambda session: None, secret)
    session = Session(BUFFER_SIZE, secret=secret)
    table.add(session)
    end = End("A", session)
    end.greeting = AnswererGreeting(table, NOW)
    end.hear(hello)
    (said,) = end.say()
    assert end.greeting.finished
    return said
