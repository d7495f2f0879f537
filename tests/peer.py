"""A second implementation of the protocol of bpipe, as an oracle for it.

It is written from the page bpipe-protocol(7) alone, and shares no code with bpipe.  It joins its
stdin and stdout to those of the other end, checks everything that the page calls an error, and
says on stderr why each link was lost and, at the end, how many links and errors there were.
What the page allows to leave out is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import random
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from functools import partial

from tests.peer_conn import Conn
from tests.peer_doors import listen, resolve
from tests.peer_records import ERRORS, FILE, RECORDS, BadRecord, record, suit
from tests.peer_seal import (
    ACCEPT,
    BROKEN_PIPE,
    BUSY,
    CHUNK,
    CONFIRM,
    DATA,
    FULL,
    HEARTBEAT,
    INTERRUPTED,
    LOCAL_ERROR,
    M1,
    M2,
    MEMORY,
    OK,
    OPEN,
    PROTOCOL,
    RANGE,
    READY,
    REFUSE,
    RESUME,
    STALE,
    UNKNOWN,
    VERSION,
    Answer,
    Call,
    Frame,
    Keys,
    LinkLost,
    Noise,
    make_keys,
    open_m1,
    seal_m1,
)
from tests.peer_session import Incoming, Outgoing, Session
from tests.peer_slots import Gathered, SlotSession, Spread


class End:
    """One end: the session, its connections, and the loop."""

    def __init__(self, args: argparse.Namespace, fds: tuple[int, int], keys: Keys | None) -> None:
        self.caller, self.keys, self.now = args.role == "connect", keys, time.monotonic()
        stream = fds[1], args.window, args.slow, args.send_only
        self.most: int = args.links
        self.links: dict[int, Conn] = {}  # those that are attached, by slot
        self.session: Session = Session(self.caller, Outgoing(fds[0]), Incoming(*stream))
        if self.most > 1:
            spread, gathered = Spread(fds[0]), Gathered(*stream)
            self.session = SlotSession(self.caller, spread, gathered, self.links)
        self.session.allowed = args.allow
        self.conns: set[Conn] = set()
        self.epochs = [0] * 8  # of the links that were attached last
        self.errors, self.bound, self.next_try = 0, 0.05, 0.0
        self.needs, self.said = RECORDS * args.records, args.errors.encode()
        self.output = args.output
        self.needs |= (RECORDS | FILE) * bool(args.output)
        self.told_unknown, self.unknown_since, self.signal = False, 0.0, 0
        self.family, self.address = resolve(args.address)
        self.steps: dict[str, Callable[[Conn], bool]] = {
            "m1": self._m1, "confirm": self._confirm, "m2": self._m2, "ready": self._ready,
            "attached": self._frame, "closing": lambda conn: conn.take(len(conn.inp)) is None,
        }  # fmt: skip
        if self.caller:
            self.session.ident = os.urandom(16)
        else:
            self.listener = listen(self.family, self.address)

    def _say(self, text: str) -> None:
        print(f"peer: {text}", file=sys.stderr, flush=True)

    @property
    def link(self) -> Conn | None:
        """One of the links."""
        return next(iter(self.links.values()), None)

    @property
    def slots(self) -> int:
        """How many there may be at once."""
        return max(1, min(self.most, self.session.opened[1]))

    def _vacant(self) -> int | None:
        """Return a slot in which a link is missing, and nobody calls."""
        busy = {conn.slot for conn in self.conns}
        count = 1 if self.session.state == "new" else self.slots
        return next((slot for slot in range(count) if slot not in busy), None)

    def _dial(self, slot: int) -> None:
        conn = Conn(socket.socket(self.family), "dialling", self.now)
        conn.slot = slot
        self.conns.add(conn)
        code = conn.sock.connect_ex(self.address)
        if code not in (0, errno.EINPROGRESS):
            self._lost(conn, LinkLost(os.strerror(code), code=code))

    def _dialled(self, conn: Conn) -> None:
        code = conn.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise LinkLost(os.strerror(code), code=code)
        if self.family != socket.AF_UNIX and conn.sock.getsockname() == conn.sock.getpeername():
            raise LinkLost("a connection to itself")
        s = self.session
        s.epoch += 1
        opening = RESUME if s.confirmed else OPEN
        sealed = int(self.keys is not None)
        live = {each.slot for each in self.conns if each.call} - {conn.slot}
        conn.call = Call(b"bpip", 1, opening, sealed, 0, s.ident, s.epoch,
                         conn.slot, self.most, sum(1 << each for each in live),
                         self.needs, bytes(4),
                         s.inc.delivered, s.inc.received, s.inc.window)  # fmt: skip
        raw = M1.pack(*conn.call)
        if self.keys is not None:
            conn.noise = Noise(raw[:24], self.keys)
            raw = seal_m1(raw, self.keys, conn.noise)
        conn.out += raw
        conn.phase = "m2"

    def _m2(self, conn: Conn) -> bool:
        raw = conn.take(80 if self.keys else 32)
        if raw is None or conn.call is None:
            return False
        s = self.session
        if raw[0] not in (ACCEPT, REFUSE):
            raise LinkLost("an M2 with an unknown answer", error=True)
        if conn.noise is not None:
            resumed = raw[0] == ACCEPT and conn.call.opening == RESUME
            raw = raw[:1] + conn.noise.read(raw[1:], True, s.key if resumed else bytes(32))
        m2 = Answer(*M2.unpack(raw))
        if m2.status > FULL or (m2.answer == ACCEPT) != (m2.status == OK):
            raise LinkLost("an M2 whose status cannot be", error=True)
        if m2.status or m2.needs & ~(RECORDS | FILE):
            self._refused(m2.status or VERSION)
            raise LinkLost(f"refused: {m2.status}")
        opened = m2.window, m2.links, m2.needs
        wrong = any(m2.pad) or not m2.window or not 1 <= m2.links <= 8
        wrong = wrong or not suit(self.needs, m2.needs, s.inc.window, m2.window)
        changed = s.confirmed and opened != s.opened
        if wrong or changed or not s.fits(m2.delivered, m2.received):
            raise LinkLost(f"an M2 with {m2}", error=True)
        if conn.noise is not None:
            conn.tx, conn.rx = conn.noise.split()
            s.key = s.key if s.confirmed else conn.noise.resume_secret()
        s.confirmed, s.opened, s.window, conn.answer = True, opened, m2.window, m2
        conn.say(Frame(CONFIRM))
        conn.phase = "ready"
        return True

    def _refused(self, status: int) -> None:
        s = self.session
        if s.state == "new":
            if status == UNKNOWN:
                self.told_unknown = True
                s.begin(os.urandom(16))
            elif status in (RANGE, VERSION) or (status == BUSY and not self.told_unknown):
                s.leave = 3
        elif status == RANGE:
            s.leave = 4 if s.state == "open" else s.report()
        elif status in (UNKNOWN, VERSION):
            self.unknown_since = self.unknown_since or self.now
            if self.now - self.unknown_since >= (30 if s.state == "open" else 2):
                s.leave = 4 if s.state == "open" else s.report()

    def _ready(self, conn: Conn) -> bool:
        f = conn.header()
        if f is None or conn.answer is None:
            return False
        if f != Frame(READY, number=f.number):
            raise LinkLost(f"{f} in the place of READY", error=True)
        if not self.session.fits(conn.answer.delivered, f.number):
            raise LinkLost(f"READY {f.number} does not fit", error=True)
        if self.session.state == "new":
            self.session.state = "open"
        self._attach(conn, f.number)
        return True

    def _attach(self, conn: Conn, received: int) -> None:
        s = self.session
        conn.phase, self.links[conn.slot], self.unknown_since = "attached", conn, 0.0
        s.use_records(self.needs | s.opened[2])
        if not s.links:
            s.use_file(self.output, s.opened[2])
        if self.said and not s.links:
            s.out.put(record(self.said, ERRORS))
        s.resume(received)
        s.links += 1
        for other in [c for c in self.conns if c.call and c.slot == conn.slot and c is not conn]:
            self._close(other)

    def _start(self, conn: Conn) -> int:
        raw, sealed = bytes(conn.inp[:8]), self.keys is not None
        heads = [struct.pack(">4s4B", b"bpip", 1, opening, sealed, 0) for opening in (OPEN, RESUME)]
        if any(head.startswith(raw) for head in heads):
            return OK
        if sealed or raw[:4] != b"bpip" or raw[4:5] == b"\x01" or raw[6:7] not in (b"", b"\x00"):
            raise LinkLost(f"an M1 that begins with {raw.hex()}", error=True)
        return VERSION

    def _m1(self, conn: Conn) -> bool:
        status, s = self._start(conn), self.session
        raw = conn.take(8 if status else 128 if self.keys else 64)
        if raw is None:
            return False
        if status == OK:
            if self.keys is not None:
                raw, conn.noise = open_m1(raw, self.keys)
            conn.call = Call(*M1.unpack(raw))
            if any(conn.call.pad):
                raise LinkLost("an M1 with bytes 36 to 39", error=True)
            status = self._judge(conn.call)
        place = s.inc.delivered, s.inc.received, s.inc.window
        m2 = Answer(ACCEPT, OK, self.most, self.needs, bytes(4), *place)
        if status:
            silent = self.now - (self.link.heard_at if self.link else s.outage or self.now)
            m2 = Answer(REFUSE, status, received=int(silent) if status == BUSY else 0)
        raw, resumed = M2.pack(*m2), not status and conn.call and conn.call.opening == RESUME
        if conn.noise is not None:
            raw = raw[:1] + conn.noise.write(raw[1:], True, s.key if resumed else bytes(32))
            conn.rx, conn.tx = (None, None) if status else conn.noise.split()
        conn.out += raw
        conn.phase = "closing" if status else "confirm"
        return True

    def _judge(self, m: Call) -> int:
        s = self.session
        unknown = m.needs & ~(RECORDS | FILE)
        if unknown or m.slot > (0 if m.opening == OPEN else 7):
            return VERSION if unknown else STALE
        if m.opening == OPEN:
            if m.session == s.ident:
                return STALE
            if s.ident and (self.link or s.state != "new"):
                return BUSY
            begun = s.out.records, s.out.file is not None
            if s.links and begun != (bool((self.needs | m.needs) & RECORDS), m.needs & FILE > 0):
                return RANGE
            if not suit(self.needs, m.needs, s.inc.window, m.window):
                return RANGE
            right = not (m.delivered or m.received) and m.window and 1 <= m.links <= 8
            return OK if right else RANGE
        if m.session != s.ident:
            return UNKNOWN
        if m.slot >= self.slots or m.epoch <= self.epochs[m.slot]:
            return STALE
        same = (m.window, m.links, m.needs) == s.opened
        return OK if same and s.fits(m.delivered, m.received) else RANGE

    def _confirm(self, conn: Conn) -> bool:
        f, call, s = conn.header(), conn.call, self.session
        if f is None or call is None:
            return False
        if f != Frame(CONFIRM):
            raise LinkLost(f"{f} in the place of CONFIRM", error=True)
        if self._judge(call) != OK:
            raise LinkLost("a greeting that came too late")
        for slot, link in list(self.links.items()):
            dead = not call.live >> slot & 1 and self.epochs[slot] < call.epoch
            if call.opening == OPEN or slot == call.slot or dead:
                self._lost(link, LinkLost("replaced by another"))
        if call.opening == OPEN:
            self.epochs = [0] * 8
            s.begin(call.session)
            s.opened, s.window = (call.window, call.links, call.needs), call.window
            s.key = conn.noise.resume_secret() if conn.noise else s.key
        conn.slot, self.epochs[call.slot] = call.slot, call.epoch
        conn.say(Frame(READY, number=s.inc.received))
        self._attach(conn, call.received)
        return True

    def _frame(self, conn: Conn) -> bool:
        s = self.session
        if conn.head is None:
            conn.head = conn.header()
            if conn.head is None:
                return False
            s.check(conn.head)
            if conn.head.kind == DATA and conn.rx is None:
                s.hear(conn, self.now)
        payload = conn.take(conn.head.length)
        if payload is None:
            return False
        f, conn.head = conn.head, None
        s.take(f, payload, conn, self.now)
        return True

    def _close(self, conn: Conn) -> None:
        conn.sock.close()
        self.conns.discard(conn)
        conn.phase = "closed"

    def _lost(self, conn: Conn, why: LinkLost) -> None:
        phase, s = conn.phase, self.session
        self._close(conn)
        self.errors += why.error
        attached, done = self.links.get(conn.slot) is conn, s.state == "done"
        if attached:
            del self.links[conn.slot]
            if s.outage is None:
                self.bound, self.next_try = 0.05, self.now
            s.lost(why, conn, self.now)
        if phase not in ("closing", "dialling"):
            self._say(f"{'link' if attached else 'greeting'} lost: {why}")
        if (
            self.caller
            and why.code in (errno.ECONNREFUSED, errno.ENOENT)
            and done
            and not self.links
        ):
            s.leave = s.report()
        if not attached or self.next_try != self.now:
            self.next_try = self.now + random.random() * self.bound
            self.bound = min(1, 2 * self.bound)

    def _serve(self, conn: Conn, _: int) -> None:
        try:
            if conn.phase == "dialling":
                self._dialled(conn)
            if conn.phase != "closed":
                conn.receive(self.now)
            while conn.phase != "closed" and self.steps[conn.phase](conn):
                pass
        except LinkLost as why:
            self._lost(conn, why)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            conn = Conn(self.listener.accept()[0], "m1", self.now)
            self.conns.add(conn)

    def _pump(self) -> None:
        for conn in list(self.conns):
            attached = self.links.get(conn.slot) is conn
            age = self.now - (conn.heard_at if attached else conn.born)
            limit = {"attached": 3 * HEARTBEAT, "closing": 1}.get(conn.phase, 5)
            try:
                if age > limit or (attached and self.now - conn.frame_at > 30):
                    raise LinkLost("silent for too long")
                while attached and len(conn.out) < 2 * CHUNK:
                    said = self.session.next_frame(conn, self.now)
                    if said is None:
                        break
                    conn.say(*said)
                conn.flush(self.now)
            except LinkLost as why:
                self._lost(conn, why)

    def _deliver(self, gone: bool) -> None:
        if gone:
            self.session.abort(BROKEN_PIPE, self.now)
        else:
            self._stream(lambda: self.session.inc.deliver(self.now))
            self.session.out.settle()

    def _stream(self, what: Callable[[], None]) -> None:
        try:
            what()
        except BrokenPipeError:
            self.session.abort(BROKEN_PIPE, self.now)
        except BadRecord as error:
            self._say(str(error))
            self.session.abort(PROTOCOL, self.now)
        except OSError as error:
            self._say(str(error))
            self.session.abort(LOCAL_ERROR, self.now)

    def _waiting(self) -> bool:
        found: list[bool] = []
        self._stream(lambda: found.append(self.session.inc.waiting))
        return any(found)

    def _wanted(self) -> dict[int, tuple[int, Callable[[int], None]]]:
        s = self.session
        out, inc = s.out, s.inc
        wanted: dict[int, tuple[int, Callable[[int], None]]] = {}
        for conn in self.conns:
            write = select.POLLOUT if conn.out or conn.phase == "dialling" else 0
            wanted[conn.sock.fileno()] = select.POLLIN | write, partial(self._serve, conn)
        if not self.caller:
            wanted[self.listener.fileno()] = select.POLLIN, lambda _: self._accept()
        hungry = out.file is None or out.file.hungry
        if s.links and out.fd >= 0 and len(out.buf) < MEMORY and hungry:
            wanted[out.fd] = select.POLLIN, lambda _: self._stream(out.read)
        if s.links and inc.fd >= 0 and not (inc.unwanted or inc.discard):
            ready = select.POLLOUT if self._waiting() and self.now >= inc.next_at else 0
            wanted[inc.fd] = ready, lambda ev: self._deliver(bool(ev & select.POLLERR))
        return wanted

    def run(self) -> int:
        """Join the two streams, and return the exit status."""
        s = self.session
        while s.leave is None:
            self.now = time.monotonic()
            if self.signal and s.state != "aborting":
                s.abort(INTERRUPTED, self.now)
            if not self._waiting() and s.inc.fin:
                self._deliver(False)
            s.tick(self.link, self.now)
            slot = self._vacant() if self.caller and s.leave is None else None
            if slot is not None and self.now >= self.next_try:
                self._dial(slot)
            self._pump()
            s.tick(self.link, self.now)
            if s.leave is not None:
                break
            wanted = self._wanted()
            poller = select.poll()
            for fd, (events, _) in wanted.items():
                poller.register(fd, events)
            soon = any(each.ack_by or each.data_at for each in self.links.values())
            pause = 10 if soon else 30
            for fd, event in poller.poll(pause):
                self.now = time.monotonic()
                wanted[fd][1](event)
        return s.leave

    def farewell(self) -> None:
        """Close the link as the page says, and tell what there was."""
        for link in self.links.values():
            with contextlib.suppress(OSError):
                sock = link.sock
                sock.settimeout(1)
                sock.sendall(link.out)
                sock.shutdown(socket.SHUT_WR)
                until = time.monotonic() + 1
                while time.monotonic() < until and sock.recv(65536):
                    pass
        if not self.caller and self.family == socket.AF_UNIX:
            os.unlink(self.address)
        print(f"links {self.session.links}, errors {self.errors}", file=sys.stderr)


def main() -> int:
    """Run one end, and return its exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["listen", "connect"])
    parser.add_argument("address")
    parser.add_argument("--secret-file")
    parser.add_argument("--name", default="")
    parser.add_argument("--window", type=int, default=MEMORY)
    parser.add_argument("--slow", type=float, default=0.0)
    parser.add_argument("--links", type=int, default=1, help="that it would have at once")
    parser.add_argument("--send-only", action="store_true", help="take nothing (STOP with 0)")
    parser.add_argument("--records", action="store_true", help="need records")
    parser.add_argument("--errors", default="", help="what to say on stderr first; with --records")
    parser.add_argument("--output", default="", help="write a file")
    parser.add_argument("--allow", type=int, default=0, help="bytes a second for the peer")
    args = parser.parse_args()
    keys = None
    if args.secret_file:
        with open(args.secret_file, encoding="utf-8") as file:
            keys = make_keys(file.read(), args.name)
    null = os.open(os.devnull, os.O_RDWR)
    fds = os.dup(0), os.dup(1)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.set_blocking(fds[1], False)
    end = End(args, fds, keys)

    def on_signal(number: int, _: object) -> None:
        end.signal = number
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    status = end.run()
    end.farewell()
    if end.session.reason == INTERRUPTED:
        signal.signal(end.signal, signal.SIG_DFL)
        os.kill(os.getpid(), end.signal)
    return status


if __name__ == "__main__":
    sys.exit(main())
