"""Several links in the second implementation of bpipe's protocol.

It is written from the page bpipe-protocol(7) alone, and is an oracle for bpipe.  New bytes go over
whichever link has room.  What that page allows to leave out is left out: nothing is repeated before
its link is closed, and nobody is asked what has arrived.
"""

from __future__ import annotations

from tests.peer_conn import Conn
from tests.peer_seal import ACK, BYE, DATA, FIN, READY, STOP, Frame, LinkLost
from tests.peer_session import Incoming, Outgoing, Session, bad

Pieces = list[tuple[int, int]]


class Spread(Outgoing):
    """The stream that this end sends: what each link owes, and what has to be sent again."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.owed: dict[Conn, Pieces] = {}
        self.given: Pieces = []

    def arrived(self, below: int) -> None:
        """The peer has all that is below."""
        for pieces in (self.given, *self.owed.values()):
            pieces[:] = [(max(start, below), end) for start, end in pieces if end > below]

    def lose(self, link: Conn) -> None:
        """This link brings nothing any more."""
        self.given += self.owed.pop(link, [])

    def frame_over(self, link: Conn, window: int, now: float) -> tuple[Frame, bytes] | None:
        """Return the next frame of the stream for this link."""
        new, again = self.sent, min(self.given, default=None)
        upto = None
        if again is not None:
            self.sent, upto = again
        start, made = self.sent, self.frame(window, now, upto)
        if made is not None:
            self.owed.setdefault(link, []).append((start, self.sent))
        if again is not None:
            self.given.remove(again)
            if upto is not None and self.sent < upto:
                self.given.append((self.sent, upto))
            self.sent = new
        return made


class Gathered(Incoming):
    """The stream that this end receives, in any order."""

    def __init__(self, fd: int, window: int, slow: float, unwanted: bool) -> None:
        super().__init__(fd, window, slow, unwanted)
        self.pieces: dict[int, bytes] = {}
        self.begun = 0  # the end of the furthest DATA
        self.mark: Frame | None = None

    def check_piece(self, f: Frame) -> None:
        """Raise LinkLost if this DATA or FIN cannot be."""
        end, edge = f.number + f.length, self.delivered + self.window
        bad(end > edge, f"{f}, and the window ends at {edge}")
        if f.kind == DATA:
            bad(self.mark is not None and end > self.mark.number, f"{f} behind {self.mark}")
            self.begun = max(self.begun, end)
        else:
            bad(self.mark not in (None, f), f"{f} after {self.mark}")
            bad(f.number < self.begun, f"{f}, and DATA goes to {self.begun}")

    def put(self, f: Frame, payload: bytes) -> None:
        """Keep what has come, and go on as far as there is no gap."""
        if f.kind == FIN:
            self.mark = f
        elif len(payload) > len(self.pieces.get(f.number, b"")):
            self.pieces[f.number] = payload
        for number in sorted(self.pieces):
            if number > self.received:
                break
            self.take(self.pieces.pop(number)[self.received - number :], False)
        if self.mark is not None and self.mark.number == self.received and not self.fin:
            self.how, self.status = self.mark.how, self.mark.status
            self.take(b"", True)


class SlotSession(Session):
    """A session that may have several links; ``lines`` are those that are attached, by slot."""

    def __init__(self, caller: bool, out: Spread, inc: Gathered, lines: dict[int, Conn]) -> None:
        super().__init__(caller, out, inc)
        self.spread, self.gathered, self.lines = out, inc, lines
        self.bye_said = False  # on a link that is lost, perhaps
        self.first_bye: float | None = None

    def fits(self, delivered: int, received: int) -> bool:
        return delivered <= received <= self.out.high

    def resume(self, received: int) -> None:
        self.spread.arrived(received)

    def check_number(self, f: Frame) -> None:
        if f.kind in (DATA, FIN):
            self.gathered.check_piece(f)
        elif f.kind in (ACK, READY):
            bad(f.number > self.out.high, f"{f}, and high is {self.out.high}")
        elif f.kind != STOP or self.out.stop != f.number:
            super().check_number(f)

    def take_frame(self, f: Frame, payload: bytes, link: Conn, now: float) -> None:
        if f.kind in (DATA, FIN):
            link.data_at = link.data_at or now
            self.gathered.put(f, payload)
        elif f.kind in (ACK, READY):
            self.spread.arrived(f.number)
            if f.kind == ACK and f.number > self.out.acked:
                self.out.ack(f.number)
        else:
            link.bye = link.bye or f.kind == BYE
            super().take_frame(f, payload, link, now)

    def due(self, link: Conn, now: float) -> bool:
        waits = link.data_at is not None and now >= link.data_at + 0.01
        return waits or super().due(link, now)

    def next_frame(self, link: Conn, now: float) -> tuple[Frame, bytes] | None:
        if link.ready_due:
            link.ready_due = False
            return Frame(READY, number=self.inc.received), b""
        made = super().next_frame(link, now)
        if made is not None and made[0].kind == ACK:
            link.ready_due, link.data_at = True, None
        return made

    def stream(self, link: Conn, now: float) -> tuple[Frame, bytes] | None:
        return self.spread.frame_over(link, self.window, now)

    def parted(self, link: Conn | None, now: float) -> bool:
        written = [link for link in self.lines.values() if BYE in link.said and not link.out]
        if written:
            self.bye_said, self.first_bye = True, self.first_bye or now
        if self.state == "answering":
            late = self.first_bye is not None and now >= self.first_bye + 1
            return late or (self.bye_said and len(written) == len(self.lines))
        there = any(link.bye for link in written) or (self.bye_said and not self.lines)
        return self.state == "done" and self.bye_heard and there

    def lost(self, why: LinkLost, link: Conn, now: float) -> None:
        self.spread.lose(link)
        for other in self.lines.values():
            other.ack_said = -1  # what was said on the one that is lost may be lost as well
        if not self.lines:
            super().lost(why, link, now)
