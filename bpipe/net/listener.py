"""Accepting: sockets that listen, and the links of the sessions that are called there."""

from __future__ import annotations

import random
import resource
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from bpipe.errors import Forged, LinkLost, ProtocolError
from bpipe.net.accepted import AcceptedLinks
from bpipe.net.acceptor import Acceptor, Host
from bpipe.net.bound import Bound
from bpipe.net.clock import clock as system_clock
from bpipe.net.link import Link
from bpipe.net.sockets import prepare
from bpipe.protocol.greeting import AnswererGreeting
from bpipe.protocol.session import Session
from bpipe.protocol.sessions import Sessions

if TYPE_CHECKING:
    from bpipe.protocol.secret import Secret

PENDING: Final = 64  # greetings under way at once, beside one for each link of each session
_SPARE: Final = 16  # descriptors that are left for the session, where few are allowed


class Supply(Protocol):
    """Makes sessions while there are callers for them."""

    def more(self) -> Session | None:
        """One more, whose source is started, or one that may give way; None if there is no room."""

    def told(self) -> None:
        """A caller was refused, or has to wait."""


class Door(Protocol):
    """Who accepts callers for a listener, if that does not do it itself."""

    def open(self) -> None:
        """Begin to accept. Again: no effect."""

    def close(self) -> None:
        """Let go of the address. Again: no effect."""


class Listener:
    """Accepts callers, greets them, and hands each link to the session that it belongs to.

    With a ``secret`` only who knows it is let in; without ``anywhere`` only processes of this one's
    user, where the system tells whose they are. It listens as long as one of its sessions lives:
    also while a link is up, because the caller may know before we do that this link is dead.
    One that has a ``supply`` listens until ``close``, and who is refused concerns only that.
    ``door`` makes what accepts callers, where more than their user is to be asked.
    """

    def __init__(
        self,
        bound: Bound,
        *,
        anywhere: bool = False,
        secret: Secret | None = None,
        supply: Supply | None = None,
        door: Callable[[Bound, Host], Door] | None = None,
        clock: Callable[[], float] = system_clock,
    ) -> None:
        self.name = bound.name
        self.exposed = bound.exposed
        self.refused = 0
        self.supply = supply
        self._door = door(bound, self) if door else Acceptor(bound, self, anywhere=anywhere)
        self._clock = clock
        self._heartbeat = 0.0  # the longest of its sessions'
        self._pending: list[Link] = []
        more = supply.more if supply else None
        self._sessions = Sessions(self._drop_links, secret, more, self._drop_slot)
        self._sources: dict[Session, AcceptedLinks] = {}
        self._first = bound.sockets[-1].fileno()  # of the descriptors that callers get
        self._room = self._find_room()
        if supply is not None:
            self._door.open()

    def source(self, session: Session) -> AcceptedLinks:
        """From now on a caller may have this session: its links."""
        source = self._sources[session] = AcceptedLinks(self, session)
        self._heartbeat = max(self._heartbeat, session.patience.limits.heartbeat)
        self._room = self._find_room()
        return source

    def open(self, session: Session) -> None:
        """Begin to accept callers, also for this session."""
        self._sessions.add(session)
        self._door.open()

    def release(self, session: Session) -> None:
        """This session needs no links any more; after the last one, stop listening.

        Again: no effect.
        """
        self._sessions.remove(session)
        last = self._sources.pop(session, None) is not None and not self._sources
        if last and self.supply is None:
            self.close()

    def close(self) -> None:
        """Let go of the address, and of everybody who is not attached."""
        self._door.close()
        for link in self._pending[:]:
            link.fail(LinkLost("the listener has ended"))

    # --- what the acceptor tells: see ``Host`` ---

    def welcome(self, sock: socket.socket, peer: str) -> None:
        """Begin to hear who this is.

        What has arrived is read at once: a caller that has greeted is kept when room is made.
        """
        prepare(sock, self._heartbeat)
        self._pending = [link for link in self._pending if not link.lost.done()]
        if len(self._pending) >= self._room:
            self.make_room("too many greetings")
        link = Link(sock, AnswererGreeting(self._sessions, self._clock()), peer, self._clock)
        self._pending.append(link)
        link.greeted.add_done_callback(lambda _: self._greeted(link))

    def turn_away(self) -> None:
        """This one does not belong here."""
        self.refused += 1
        self._tell()

    def make_room(self, why: str) -> bool:
        """Drop one at random: of those whose first message was right, or of the others.

        From the larger group: so silent callers cannot push out talking ones, nor replayed
        greetings fresh ones.
        """
        droppable = [link for link in self._pending if link.greeting.channel is None]
        heard = [link for link in droppable if link.greeting.answered]
        crowd = max(heard, [link for link in droppable if not link.greeting.answered], key=len)
        if not crowd:
            return False
        victim = random.choice(crowd)
        self._pending.remove(victim)
        victim.fail(LinkLost(why))
        return True

    def hold_up(self, cause: LinkLost) -> None:
        """This is why somebody has to wait."""
        for session in self._sources if self.supply is None else ():
            session.note(cause)
        self._tell()

    def _tell(self) -> None:
        """Something has happened that concerns no session, and so every one, if there are few."""
        if self.supply is not None:
            self.supply.told()
            return
        for source in list(self._sources.values()):
            source.drive()

    # --- links ---

    def _find_room(self) -> int:
        """How many greetings may be under way: callers do not get the last descriptors."""
        wanted = PENDING + sum(session.terms.links for session in self._sources)
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if limit == resource.RLIM_INFINITY:
            return wanted
        return max(1, min(wanted, limit - self._first - _SPARE))

    def _drop_links(self, session: Session) -> None:
        """Its caller is back over another link: what it had is dead, whatever we know of it."""
        for slot in range(session.terms.links):
            self._drop_slot(session, slot)

    def _drop_slot(self, session: Session, slot: int) -> None:
        """The same of the link in this slot."""
        cause = LinkLost("the peer has come back over another connection")
        self._sources[session].drop(slot, cause)
        for link in self._pending[:]:
            greeting = link.greeting
            if greeting.channel is not None and greeting.slot == slot and _session(link) is session:
                link.fail(cause)

    def _greeted(self, link: Link) -> None:
        if link.greeting.channel is None:
            if isinstance(link.cause, (ProtocolError, Forged)):
                self.turn_away()
            return
        session = _session(link)
        assert session is not None
        self._drop_greetings(session, link.slot)
        if link.cause is None:
            self._pending.remove(link)
            self._sources[session].take(link)
        self._sources[session].drive()  # what ends the session may have come already

    def _drop_greetings(self, session: Session, slot: int) -> None:
        """A link was attached in this slot: another CONFIRM for it would come too late.

        Also one for a session that the caller has given up: it would take this one, if nobody has
        been heard in it yet. Where there are many, it gets one of its own.
        """
        for link in self._pending[:]:
            greeting = link.greeting
            assert isinstance(greeting, AnswererGreeting)
            if greeting.hello is not None and greeting.hello.session == session.id:
                theirs = greeting.slot == slot
            else:
                theirs = greeting.session is session and self.supply is None
            if theirs and greeting.channel is None and link.cause is None:
                link.fail(LinkLost("another greeting came first"))


def _session(link: Link) -> Session | None:
    """Whose link this is, or is going to be; None before that is known."""
    greeting = link.greeting
    return greeting.session if isinstance(greeting, AnswererGreeting) else None
