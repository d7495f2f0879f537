"""The session of the second implementation of bpipe's protocol: streams, links, what frames do.

It is written from the page bpipe-protocol(7) alone, and is an oracle for bpipe.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import sys
import time

from tests.peer_conn import Conn
from tests.peer_records import ERRORS, FILE, RECORDS, Content, Receiver, Sender, record
from tests.peer_seal import (
    ABORT,
    ACK,
    BROKEN_PIPE,
    BYE,
    CHUNK,
    CONFIRM,
    CUT,
    DATA,
    FIN,
    HEARTBEAT,
    INTERRUPTED,
    PING,
    PONG,
    PROTOCOL,
    RATE,
    READY,
    RUNNING,
    STOP,
    Frame,
    LinkLost,
)


class Outgoing:
    """The stream that this end sends."""

    def __init__(self, fd: int) -> None:
        self.fd, self.buf = fd, bytearray()
        self.acked = self.sent = self.high = self.total = 0
        self.how: int | None = None
        self.stop: int | None = None
        self.answer_by: float | None = None
        self.untaken = self.records = False
        self.rate, self.next_at = 0, 0.0  # what the peer allows, and when the next frame may leave
        self.file: Sender | None = None  # if it goes to one

    @property
    def end(self) -> int:
        """The offset up to which the stream is known, the end mark included."""
        return self.total + (self.how is not None)

    def release(self) -> None:
        """Let the producer see a closed pipe."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    def read(self) -> None:
        """Take what the producer has."""
        if self.fd < 0:
            return
        data = os.read(self.fd, 65536)
        if data and self.answer_by is not None:
            self.cut()
        elif self.file:
            self.file.add(data)
            self.settle()
        elif data:
            self.put(record(data) if self.records else data)
        else:
            self.how = 0
        if not data:
            self.release()

    def settle(self) -> None:
        """Say what can be said of a stream to a file."""
        if self.file and self.how is None:
            self.put(self.file.due())
            self.how = 0 if self.file.done else None

    def put(self, data: bytes) -> None:
        """Put this on the stream."""
        self.buf += data
        self.total += len(data)

    def cut(self) -> None:
        """End the stream at its high, unless its FIN was sent already."""
        self.release()
        if self.high > self.total:
            return
        if self.how is None or self.total > self.high:
            self.how = CUT
        del self.buf[self.high - min(self.acked, self.total) :]
        self.total = self.high

    def ack(self, number: int) -> None:
        """Forget what is acknowledged."""
        del self.buf[: number - self.acked]
        self.acked = number

    def stopped(self, how: int, number: int, now: float) -> None:
        """Do what a STOP says."""
        if self.stop is not None:
            return
        self.stop = number
        if how == 1:
            self.ack(max(number, self.acked))
            self.answer_by = now + 2
            if self.total > number:
                self.cut()
            return
        if self.fd >= 0 and select.select([self.fd], [], [], 0)[0]:
            self.read()
        self.untaken = self.total > number and not self.records
        self.cut()

    def frame(self, window: int, now: float, upto: int | None = None) -> tuple[Frame, bytes] | None:
        """Return the next frame of the stream, which ends there at the latest."""
        if self.rate and now < self.next_at:
            return None
        most = max(1, min(CHUNK, self.rate // 25 - 48)) if self.rate else CHUNK
        size = (
            min(self.total, self.acked + window, self.sent + most, upto or self.total) - self.sent
        )
        self.next_at = now + (max(size, 0) + 48) / self.rate if self.rate else 0.0
        if size > 0:
            start = self.sent - self.acked
            made = Frame(DATA, length=size, number=self.sent), bytes(self.buf[start : start + size])
            self.sent += size
        elif self.how is not None and self.sent == self.total:
            made = Frame(FIN, self.how, number=self.sent), b""
            self.sent += 1
        else:
            return None
        self.high = max(self.high, self.sent)
        return made


class Incoming:
    """The stream that this end receives."""

    def __init__(self, fd: int, window: int, slow: float, unwanted: bool) -> None:
        self.fd, self.window, self.slow, self.unwanted = fd, window, slow, unwanted
        self.buf = bytearray()
        self.delivered = self.received = self.how = self.status = 0
        self.fin = self.ended = self.discard = False
        self.next_at = 0.0
        self.content: Content | None = None  # with records
        self.file: Sender | Receiver | None = None  # what takes it, in a session with a file

    @property
    def waiting(self) -> bool:
        """Whether there is something for the consumer."""
        if self.content and not self.discard:
            self.delivered += self.content.begin(self.buf)
            if self.fin and not (self.buf and self.content.left):
                self.delivered += self.content.end(self.buf, self.how == CUT)
            return self.content.left > 0 and len(self.buf) > 0
        return len(self.buf) > 0

    def take(self, data: bytes, fin: bool) -> None:
        """Keep what has come."""
        self.received += len(data) + fin
        self.fin = self.fin or fin
        if self.unwanted:
            self.delivered, self.ended = self.received, self.fin
        elif not self.discard:
            self.buf += data

    def deliver(self, now: float) -> None:
        """Give the consumer what it takes."""
        if self.waiting and now >= self.next_at and not self.discard:
            with contextlib.suppress(BlockingIOError):
                most = min(65536, self.content.left) if self.content else 65536
                errors = self.content is not None and self.content.kind == ERRORS
                if self.file and not errors:
                    self.file.take(self.content.kind if self.content else 0, bytes(self.buf[:most]))
                    size = min(most, len(self.buf))
                else:
                    size = os.write(2 if errors else self.fd, self.buf[:most])
                del self.buf[:size]
                self.delivered += size
                self.next_at = now + self.slow
                if self.content:
                    self.content.left -= size
        if self.fin and not (self.buf or self.ended or self.discard):
            if self.file:
                self.file.finish(self.how, self.status)
            os.close(self.fd)
            self.fd, self.ended = -1, True
            self.delivered += 1


def bad(wrong: bool, why: str) -> None:
    """Raise LinkLost if something is wrong."""
    if wrong:
        raise LinkLost(why, counts=True)


class Session:
    """What outlives the links."""

    def __init__(self, caller: bool, out: Outgoing, inc: Incoming) -> None:
        self.caller, self.out, self.inc = caller, out, inc
        self.state, self.since = "new", time.monotonic()
        self.ident, self.epoch, self.key = b"", 0, bytes(32)
        self.window, self.opened = 0, (0, 0, 0)
        self.outage: float | None = self.since
        self.row = self.links = self.reason = self.status = 0
        self.confirmed = self.bye_heard = self.settled = False
        self.leave: int | None = None
        self.allowed = 0  # bytes a second for the peer

    def begin(self, ident: bytes) -> None:
        """Start a session of that identifier in the place of one that was never heard."""
        self.ident, self.epoch, self.key, self.opened = ident, 0, bytes(32), (0, 0, 0)
        self.confirmed, self.outage, self.row = False, None, 0

    def fits(self, delivered: int, received: int) -> bool:
        """Return whether the peer's offsets in a greeting fit."""
        return self.out.acked <= delivered <= received <= self.out.high

    def resume(self, received: int) -> None:
        """Go on over a new link from there."""
        self.out.sent = received

    def report(self) -> int:
        """Return the exit status."""
        if self.state == "done":
            return 141 if self.out.untaken else 0
        if self.state == "aborting":
            return 141 if self.reason == BROKEN_PIPE else 1
        return self.status

    def _enter(self, state: str, now: float) -> None:
        self.state, self.since = state, now
        if state in ("aborting", "answering"):
            self.out.release()
            self.inc.discard = True

    def use_records(self, needed: int) -> None:
        """Cut both streams into records, if that is needed."""
        if needed & RECORDS and not self.out.records:
            self.out.records, self.inc.content = True, Content()

    def use_file(self, path: str, peers: int) -> None:
        """One of the two streams goes to a file: ours, if the peer has stated that."""
        inc, out, window = self.inc, self.out, min(self.inc.window, self.window)
        if peers & FILE:
            inc.file = out.file = Sender(window)
        elif path:
            inc.file = Receiver(path, window)
            out.put(inc.file.told())
            out.how = 0
            out.release()
        if inc.file:
            inc.content = Content(inc.file.kinds)

    def abort(self, reason: int, now: float) -> None:
        """Let the session fail for that reason."""
        if self.state == "done":
            self.leave = self.report()
        elif self.state in ("new", "open"):
            self.reason = reason
            self._enter("aborting", now)
            if not self.links:
                self.leave = self.report()

    def check(self, f: Frame) -> None:
        """Raise LinkLost if the header is an error of protocol."""
        inc = self.inc
        bad(f.kind not in range(1, 12), f"a frame of kind {f.kind}")
        if f.kind == FIN or (f.kind == BYE and inc.fin and inc.how in (CUT, RUNNING)):
            right = f.how <= (2 if f.kind == BYE else RUNNING)
            right = right and (f.how in (1, 2) or not f.status) and (f.how != 2 or f.status > 0)
        else:
            right = f.how <= (f.kind == STOP) and not f.status
        bad(not right or f.zero > 0, f"bytes 1 to 3 of {f}")
        least, most = {DATA: (1, 1 << 20), ABORT: (0, 512)}.get(f.kind, (0, 0))
        bad(not least <= f.length <= most, f"the length of {f}")
        self.check_number(f)

    def check_number(self, f: Frame) -> None:
        """The same of its number."""
        inc, out, n = self.inc, self.out, f.number
        if f.kind in (DATA, FIN):
            bad(inc.fin, "a stream after its FIN")
            bad(n != inc.received, f"{f}, and received is {inc.received}")
            bad(n + f.length > inc.delivered + inc.window and f.kind == DATA, "beyond the window")
        elif f.kind == ACK:
            bad(not out.acked <= n <= out.high, f"ACK {n}: not in {out.acked} to {out.high}")
        elif f.kind == STOP:
            least = min(out.acked, out.total)
            bad(not least <= n <= out.high, f"STOP {n}: not in {least} to {out.high}")
            bad(out.stop not in (None, n), f"STOP {n} after STOP {out.stop}")
        elif f.kind == BYE:
            bad(self.state in ("new", "open"), f"BYE to an end that is {self.state}")
            bad(n != 0, "BYE with a number")
        elif f.kind == RATE:
            bad(0 < n < 1024, f"RATE {n}")
        else:
            bad(f.kind in (CONFIRM, READY), "a greeting on an attached link")

    def hear(self, link: Conn, now: float) -> None:
        """A frame was heard."""
        if self.state == "new":
            self._enter("open", now)
        self.settled = self.settled or link.end_said
        idle = self.out.acked == self.out.end and self.inc.delivered == link.ack_said
        if idle and not link.heard:
            self.outage = None
        link.heard, link.frame_at = True, now

    def take(self, f: Frame, payload: bytes, link: Conn, now: float) -> None:
        """Do what a frame says."""
        inc, out = self.inc, self.out
        before = inc.received, out.acked
        self.hear(link, now)
        self.take_frame(f, payload, link, now)
        if before != (inc.received, out.acked) or f.kind == PONG:
            self.outage = None
        if before != (inc.received, out.acked):
            self.row = 0
        self.see_done(now)

    def take_frame(self, f: Frame, payload: bytes, link: Conn, now: float) -> None:
        """The same, whatever follows from it."""
        inc, out, n = self.inc, self.out, f.number
        out.rate = n if f.kind == RATE else out.rate
        if f.kind in (DATA, FIN):
            inc.how, inc.status = f.how, f.status
            inc.take(payload, f.kind == FIN)
        elif f.kind == ACK:
            out.ack(n)
        elif f.kind == STOP:
            out.stopped(f.how, n, now)
        elif f.kind == PING:
            link.pong = n
        elif f.kind == BYE:
            self.bye_heard = True
            if self.state == "aborting":
                self.leave = self.report()
        elif f.kind == ABORT and self.state != "answering":
            told = 141 if n == BROKEN_PIPE else 1
            self.status = told if self.state in ("new", "open") else self.report()
            print(f"peer: ABORT {n}: {payload!r}", file=sys.stderr)
            self._enter("answering", now)

    def due(self, link: Conn, now: float) -> bool:
        """Return whether an ACK is."""
        inc = self.inc
        if link.ack_said < 0 or (link.unanswered and now - link.unanswered >= 1):
            return True
        if inc.delivered == link.ack_said:
            return False
        news = inc.delivered - link.ack_said
        at_once = inc.ended or 4 * news >= min(inc.window, self.window)
        link.ack_by = link.ack_by or now + 0.01
        return at_once or self.state in ("aborting", "answering") or now >= link.ack_by

    def next_frame(self, link: Conn, now: float) -> tuple[Frame, bytes] | None:
        """Return what is to be said next over the link."""
        f, payload, silent = None, b"", min(link.sent_at, link.heard_at)
        if self.allowed and RATE not in link.said:
            f = Frame(RATE, number=self.allowed)
        elif self.inc.unwanted and not self.bye_heard and STOP not in link.said:
            f = Frame(STOP)
        elif self.due(link, now):
            link.ack_said, link.ack_by, link.unanswered = self.inc.delivered, None, None
            link.end_said = self.inc.ended
            f = Frame(ACK, number=link.ack_said)
        elif self.state == "aborting" and ABORT not in link.said:
            payload = b"the other implementation has failed"
            f = Frame(ABORT, length=len(payload), number=self.reason)
        elif link.pong is not None:
            f, link.pong = Frame(PONG, number=link.pong), None
        elif now - silent >= HEARTBEAT and now - link.ping_at >= HEARTBEAT:
            link.ping_at = now
            f = Frame(PING, number=random.getrandbits(64))
        elif self.state in ("done", "answering") and BYE not in link.said:
            f = Frame(BYE)
        elif self.state == "open":
            return self.stream(link, now)
        if f is not None:
            link.said.add(f.kind)
        return None if f is None else (f, payload)

    def stream(self, link: Conn, now: float) -> tuple[Frame, bytes] | None:
        """Return the next frame of the stream for this link."""
        return self.out.frame(self.window, now)

    def see_done(self, now: float) -> bool:
        """Be done if that is so; return whether no more than the ACK of the end mark lacks."""
        whole = self.out.how is not None and self.out.acked >= self.out.total and self.inc.ended
        if self.state == "open" and whole and self.out.acked == self.out.end:
            self._enter("done", now)
        return whole

    def lost(self, why: LinkLost, link: Conn, now: float) -> None:
        """An attached link is lost."""
        if self.outage is None:
            self.outage = now
        self.row += why.counts
        if self.state == "answering":
            self.leave = self.report()
        elif self.row >= 3:
            self.abort(PROTOCOL, now)

    def parted(self, link: Conn | None, now: float) -> bool:
        """Return whether BYE is said, and that is all."""
        written = link is not None and BYE in link.said and not link.out
        return written and (self.state == "answering" or (self.state == "done" and self.bye_heard))

    def tick(self, link: Conn | None, now: float) -> None:
        """See what has come to its end, or has taken too long."""
        out = self.out
        if out.answer_by is not None and out.how is None and now >= out.answer_by:
            out.cut()
        whole = self.see_done(now)
        if self.parted(link, now):
            self.leave = self.report()
        late = now - max(self.since, self.outage or now)
        if self.state == "aborting":
            brief = self.reason in (INTERRUPTED, PROTOCOL)
            self.leave = self.report() if now - self.since > (2 if brief else 30) else self.leave
        elif link is None and self.state == "done" and late > (30 if self.settled else 300):
            self.leave = self.report()
        elif link is None and self.state == "open" and self.outage is not None:
            self.leave = 4 if now - self.outage > (300 if whole else 86400) else self.leave
        elif self.caller and self.state == "new" and now - self.since > 30:
            self.leave = 3
