"""How a greeting and its frames lie on a link under a shared secret.

The greeting is a Noise handshake whose prologue is the plain head of M1; the second key that goes
into it is the session's resume secret where the caller resumes and is accepted, so only who
belongs to the session can finish such a greeting. Before the handshake's first message stands a
MAC of it: AES-GCM does not commit to one key, so without it one message could be made that is right
under several, and would try as many guesses at once; and junk costs no more than a hash.

A frame's header is sealed by itself, and so is its payload, each under the next number of its
direction: nothing of a header is believed, no length and no kind, before its tag has verified.
Until then whatever is wrong is Forged, which ends the link, and never a ProtocolError, which would
count against the peer.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from typing import Final

from bpipe.errors import Forged, ProtocolError
from bpipe.protocol.frames import Frames
from bpipe.protocol.handshake import Handshake
from bpipe.protocol.noise import PUBLIC_SIZE, TAG_SIZE, CipherState, NoiseState
from bpipe.protocol.ring import Views
from bpipe.protocol.secret import KEY_SIZE, Secret
from bpipe.protocol.wire import (
    HEAD_SIZE,
    HEADER_SIZE,
    HELLO_SIZE,
    VERDICT_SIZE,
    Answer,
    Header,
    Hello,
    Kind,
    Verdict,
    pack_data_header,
    pack_frame,
    pack_hello,
    pack_verdict,
    unpack_header,
    unpack_hello,
    unpack_verdict,
)

MAC_SIZE: Final = 16
LOOK_AHEAD: Final = 1024  # bytes that are read with a header

_NO_SECRET: Final = bytes(KEY_SIZE)  # the second key of a greeting that resumes nothing


class SealedHandshake(Handshake):
    """The messages of one greeting under a secret."""

    sealed = True
    hello_size = HELLO_SIZE + MAC_SIZE + PUBLIC_SIZE + TAG_SIZE
    verdict_size = VERDICT_SIZE + PUBLIC_SIZE + TAG_SIZE
    frame_size = HEADER_SIZE + TAG_SIZE

    def __init__(self, secret: Secret) -> None:
        self._secret = secret
        self._noise: NoiseState | None = None

    def pack_hello(self, hello: Hello) -> bytes:
        packed = pack_hello(hello, sealed=True)
        head, rest = packed[:HEAD_SIZE], packed[HEAD_SIZE:]
        self._noise = NoiseState(head, self._secret.key)
        message = self._noise.write_first(rest)
        return head + self._mac(head + message) + message

    def unpack_hello(self, data: bytes) -> Hello:
        self.check_hello(data)
        head, rest = data[:HEAD_SIZE], data[HEAD_SIZE:]
        mac, message = rest[:MAC_SIZE], rest[MAC_SIZE:]
        if not hmac.compare_digest(mac, self._mac(head + message)):
            raise Forged("the peer has another secret")
        self._noise = NoiseState(head, self._secret.key)
        return unpack_hello(head + self._noise.read_first(message), sealed=True)

    def _mac(self, data: bytes) -> bytes:
        return hmac.digest(self._secret.mac_key, data, "sha256")[:MAC_SIZE]

    def is_other_version(self, data: bytes | bytearray) -> bool:
        return False  # who cannot be known is told nothing

    def pack_verdict(self, verdict: Verdict, resume_secret: bytes) -> bytes:
        assert self._noise is not None
        packed = pack_verdict(verdict)
        key = self._second_key(packed[0], resume_secret)
        return packed[:1] + self._noise.write_second(packed[1:], key)

    def unpack_verdict(self, data: bytes, resume_secret: bytes) -> Verdict:
        assert self._noise is not None
        key = self._second_key(data[0], resume_secret)
        verdict = data[:1] + self._noise.read_second(data[1:], key)
        try:
            return unpack_verdict(verdict)
        except ProtocolError as error:  # no tag covers the first byte
            raise Forged(str(error)) from None

    @staticmethod
    def _second_key(answer: int, resume_secret: bytes) -> bytes:
        return resume_secret if answer == Answer.ACCEPT and resume_secret else _NO_SECRET

    def frames(self, *, caller: bool) -> Frames:
        assert self._noise is not None
        callers, answerers = self._noise.state.split()
        return SealedFrames(callers, answerers) if caller else SealedFrames(answerers, callers)

    @property
    def resume_secret(self) -> bytes:
        assert self._noise is not None
        return self._noise.state.derive(b"bpipe/1 resume")


class SealedFrames(Frames):
    """The frames of one link, sealed. A payload is encrypted from the writer's memory, and
    decrypted into the reader's: one pass each, and no copy but where the reader's memory wraps.

    A header tells nothing before it is there, so a little more than a header is read with it: a
    small frame comes in one piece.
    """

    size = SealedHandshake.frame_size
    around = size + TAG_SIZE

    def __init__(self, sending: CipherState, receiving: CipherState) -> None:
        super().__init__()
        self._sending = sending
        self._receiving = receiving
        self._outgoing = memoryview(b"")  # the last DATA frame that was packed
        self._header = memoryview(bytearray(self.size + LOOK_AHEAD))
        self._incoming = memoryview(b"")  # the body that is arriving

    # --- out ---

    def pack(
        self, kind: Kind, number: int, message: bytes = b"", how: int = 0, status: int = 0
    ) -> bytes:
        frame = pack_frame(kind, number, message, how, status)
        sealed = self._sending.encrypt(b"", frame[:HEADER_SIZE])
        return sealed + self._sending.encrypt(b"", message) if message else sealed

    def pack_data(self, number: int, payload: memoryview) -> Views:
        header = self._sending.encrypt(b"", pack_data_header(number, len(payload)))
        if len(payload) <= LOOK_AHEAD:
            return [memoryview(header + self._sending.encrypt(b"", payload))]
        size = self.size + len(payload) + TAG_SIZE
        if len(self._outgoing) < size:
            self._outgoing = memoryview(bytearray(size))
        self._outgoing[: self.size] = header
        self._sending.encrypt_into(b"", payload, self._outgoing[self.size : size])
        return [self._outgoing[:size]]

    # --- in ---

    def unpack(self, data: bytes | memoryview) -> Header:
        return unpack_header(self._receiving.decrypt(b"", data))

    def receive(self, count: int) -> Iterator[Header]:
        if body := min(count, self.missing):
            count -= body
            self.missing -= body
            if not self.missing:
                yield self._open(self._coming, self._incoming)
        self._filled += count
        while self._filled >= self.size:
            header = self._begin()
            if header is None:
                return
            yield header

    def _begin(self) -> Header | None:
        """A header is there, and perhaps more; returns it if the frame is."""
        header = self.unpack(self._header[: self.size])
        if header.kind is Kind.DATA:
            self._reader.check(header.number, header.length)
        end = self.size + (header.length + TAG_SIZE if header.length else 0)
        if end > self._filled:
            self._await(header, end)
            return None
        self._open(header, self._header[self.size :])
        self._filled -= end
        if self._filled:  # what follows it
            self._header[: self._filled] = self._header[end : end + self._filled]
        return header

    def _await(self, header: Header, end: int) -> None:
        """Of its body, which ends there, only some is there."""
        size, there = end - self.size, self._filled - self.size
        if len(self._incoming) < size:
            self._incoming = memoryview(bytearray(size))
        self._incoming[:there] = self._header[self.size : self._filled]
        self._coming, self.missing, self._filled = header, size - there, 0

    def _body(self) -> Views:
        size = self._coming.length + TAG_SIZE
        return [self._incoming[size - self.missing : size]]

    def _open(self, header: Header, memory: memoryview) -> Header:
        """The frame is there; its body begins this memory."""
        body = memory[: header.length + TAG_SIZE]
        if header.kind is Kind.DATA:
            self._open_payload(body, header.length)
        else:
            self.message = self._receiving.decrypt(b"", body) if header.length else b""
        return header

    def _open_payload(self, body: memoryview, length: int) -> None:
        """Decrypt it to where it belongs."""
        reader = self._reader
        views = reader.lend(length)
        if len(views) == 1 and len(views[0]) == length:
            self._receiving.decrypt_into(b"", body, views[0])
            reader.receive(length)
            return
        rest = memoryview(self._receiving.decrypt(b"", body))
        while rest:
            for view in reader.lend(len(rest)):
                view[:] = rest[: len(view)]
                reader.receive(len(view))
                rest = rest[len(view) :]
