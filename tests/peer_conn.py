"""One connection of the second implementation of bpipe's protocol.

It is written from the page bpipe-protocol(7) alone.
"""

from __future__ import annotations

import socket

from tests.peer_seal import HEADER, Answer, Call, Cipher, Frame, LinkLost, Noise


class Conn:
    """One connection, from its first byte to its last."""

    def __init__(self, sock: socket.socket, phase: str, now: float) -> None:
        sock.setblocking(False)
        self.sock, self.phase = sock, phase
        self.inp, self.out = bytearray(), bytearray()
        self.call: Call | None = None
        self.answer: Answer | None = None
        self.noise: Noise | None = None
        self.tx: Cipher | None = None
        self.rx: Cipher | None = None
        self.head: Frame | None = None
        self.born = self.sent_at = self.heard_at = self.frame_at = self.ping_at = now
        self.unanswered: float | None = None
        self.ack_by: float | None = None
        self.pong: int | None = None
        self.said: set[int] = set()
        self.ack_said = -1
        self.heard = self.end_said = self.shut = False
        self.slot = 0  # the rest is for several links
        self.data_at: float | None = None  # since the last ACK
        self.ready_due = self.bye = False  # the peer's BYE has come over it

    def receive(self, now: float) -> None:
        """Read what has come."""
        try:
            data = self.sock.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError as error:
            raise LinkLost(str(error), code=error.errno or 0) from None
        if not data:
            raise LinkLost("an end of file")
        self.inp += data
        self.heard_at = now
        self.unanswered = self.unanswered or now
        if self.head is not None and self.rx is None:
            self.frame_at = now

    def flush(self, now: float) -> None:
        """Write what is to be said, as far as that goes."""
        try:
            while self.out:
                del self.out[: self.sock.send(self.out)]
                self.sent_at, self.unanswered = now, None
            if self.phase == "closing" and not self.shut:
                self.shut = True
                self.sock.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            return
        except OSError as error:
            raise LinkLost(str(error)) from None

    def say(self, frame: Frame, payload: bytes = b"") -> None:
        """Put a frame into the line of what is to be said."""
        for part in (HEADER.pack(*frame), payload):
            if part:
                self.out += self.tx.seal(part) if self.tx else part

    def take(self, size: int) -> bytes | None:
        """Return so many bytes that have come, opened, or None if there are less as yet."""
        size += 16 if self.rx and size else 0
        if len(self.inp) < size:
            return None
        raw = bytes(self.inp[:size])
        del self.inp[:size]
        return self.rx.open(raw) if self.rx and raw else raw

    def header(self) -> Frame | None:
        """Return the header of the next frame when it is there."""
        raw = self.take(16)
        return None if raw is None else Frame(*HEADER.unpack(raw))
