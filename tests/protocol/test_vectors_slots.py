"""The example with several links in bpipe-protocol(7) is what both ends of bpipe say."""

from __future__ import annotations

from bpipe.protocol.caller import Caller
from bpipe.protocol.greeting import AnswererGreeting, CallerGreeting
from bpipe.protocol.session import Session
from bpipe.protocol.sessions import Sessions
from bpipe.protocol.slot_channel import ACK_WITHIN
from tests.support import stranger
from tests.support.loopback import write
from tests.support.page import Said, said, turns
from tests.support.stories import BUFFER_SIZE, NOW, SESSION_ID, End

NAME = "An example with several links"


class Tale:
    """A caller and an answerer that would have three links."""

    def __init__(self) -> None:
        self.caller, self.answerer = (Session(BUFFER_SIZE, links=3) for _ in range(2))
        self._calls = Caller(self.caller, lambda: SESSION_ID)
        self._table = Sessions(lambda session: None)
        self._table.add(self.answerer)

    def link(self, slot: int) -> tuple[list[Said], End, End]:
        """All that is said on a new link there, and its ends."""
        caller, answerer = End("C", self.caller), End("A", self.answerer)
        caller.greeting = CallerGreeting(self._calls, NOW, slot=slot)
        answerer.greeting = AnswererGreeting(self._table, NOW)
        return self.talk(caller, answerer), caller, answerer

    def talk(self, near: End, far: End) -> list[Said]:
        """What these say to each other, one after the other."""
        heard: list[Said] = []
        while pieces := near.say():
            heard += pieces
            far.hear(b"".join(piece.data for piece in pieces))
            near, far = far, near
        return heard

    def later(self, near: End, far: End) -> list[Said]:
        """The same after the time in which something has to be said."""
        assert near.greeting.channel is not None
        near.greeting.channel.tick(NOW + ACK_WITHIN)
        return self.talk(near, far)


def test_the_example_is_what_the_two_ends_say() -> None:
    tale = Tale()
    first, slow, _ = tale.link(0)
    third, caller, answerer = tale.link(2)
    write(tale.caller, b"hel")
    lost = slow.say()
    write(tale.caller, b"lo\n")
    behind_a_gap = tale.talk(caller, answerer)
    soon = tale.later(answerer, caller)
    slow.lose()
    again = tale.talk(caller, answerer) + tale.later(caller, answerer)
    again += tale.later(answerer, caller)
    assert turns(first + third + lost + behind_a_gap + soon + again) == turns(said(NAME))
    assert answerer.taken == b"hello\n"
    assert tale.caller.writer.acked == 6


def test_the_greeting_of_another_slot_is_as_a_stranger_says_it() -> None:
    at = stranger.Standing(0, 0, BUFFER_SIZE)
    opening, resuming = [
        each.data for each in said(NAME) if each.by == "C" and each.data[:4] == b"bpip"
    ]
    plain = stranger.hello(stranger.OPEN, SESSION_ID, 1, at, sealed=False)
    assert opening == plain[:33] + b"\3" + plain[34:]
    plain = stranger.hello(stranger.RESUME, SESSION_ID, 2, at, sealed=False)
    assert resuming == plain[:32] + b"\2\3\1" + plain[35:]
