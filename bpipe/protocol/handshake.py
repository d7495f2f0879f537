"""How the messages of a greeting lie on a link that is not sealed; ``sealed.py`` has the other way.

An object of this module belongs to one greeting. What it makes of the last message is the link's
``Frames``, with which CONFIRM and READY are said already.
"""

from __future__ import annotations

from bpipe.protocol.frames import Frames
from bpipe.protocol.wire import (
    HELLO_SIZE,
    VERDICT_SIZE,
    Hello,
    Verdict,
    check_hello_prefix,
    is_other_version,
    pack_hello,
    pack_verdict,
    unpack_hello,
    unpack_verdict,
)


class Handshake:
    """The messages of one greeting. What comes raises LinkLost if it is not what it should be."""

    sealed = False
    hello_size = HELLO_SIZE  # bytes
    verdict_size = VERDICT_SIZE
    frame_size = Frames.size  # of CONFIRM and of READY

    def is_other_version(self, data: bytes | bytearray) -> bool:
        """Whether an M1 that begins like this is to be told that it is of another version."""
        return is_other_version(data)

    def check_hello(self, data: bytes | bytearray) -> None:
        """ProtocolError as soon as these first bytes cannot become an M1 that is answered."""
        check_hello_prefix(data, sealed=self.sealed)

    def pack_hello(self, hello: Hello) -> bytes:
        """M1."""
        return pack_hello(hello)

    def unpack_hello(self, data: bytes) -> Hello:
        """What M1 says."""
        return unpack_hello(data)

    def pack_verdict(self, verdict: Verdict, resume_secret: bytes) -> bytes:
        """M2. ``resume_secret``: of the session that the caller asks for; empty for a new one."""
        return pack_verdict(verdict)

    def unpack_verdict(self, data: bytes, resume_secret: bytes) -> Verdict:
        """What M2 says."""
        return unpack_verdict(data)

    def frames(self, *, caller: bool) -> Frames:
        """How M3, M4 and everything after them lies on the link; once M2 is packed or unpacked."""
        return Frames()

    @property
    def resume_secret(self) -> bytes:
        """What the next greetings of a session that begins with this one have to know."""
        return b""
