"""One M1 is one guess.

AES-GCM does not commit to its key: whoever knows several keys can make one message that verifies
under each of them (Len, Grubbs, Ristenpart: Partitioning Oracle Attacks, USENIX Security 2021).
Without the mac, each such M1 would try as many passphrases at a listener.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from bpipe.errors import Forged, ProtocolError
from bpipe.protocol.noise import NAME, NoiseState
from bpipe.protocol.sealed import MAC_SIZE, SealedHandshake
from bpipe.protocol.secret import Secret, hkdf
from bpipe.protocol.wire import HEAD_SIZE, Hello, Opening, Position, pack_hello

HELLO = Hello(Opening.OPEN, bytes(range(16)), 1, Position(0, 0, 100))
HEAD = pack_hello(HELLO, sealed=True)[:HEAD_SIZE]
PUBLIC = bytes([9]) + bytes(31)  # any point will do
CANDIDATES = [Secret(text) for text in (b"welcome12345", b"correct horse", b"hunter2hunter2")]

# --- GF(2^128), as GCM has it (NIST SP 800-38D, section 6.3) ---


def multiply(x: int, y: int) -> int:
    product = 0
    for bit in range(127, -1, -1):
        if x >> bit & 1:
            product ^= y
        y = y >> 1 ^ (0xE1 << 120 if y & 1 else 0)
    return product


def power(x: int, exponent: int) -> int:
    result = 1 << 127
    while exponent:
        if exponent & 1:
            result = multiply(result, x)
        x, exponent = multiply(x, x), exponent >> 1
    return result


def solve(rows: list[list[int]]) -> list[int]:
    """The unknowns of as many equations; each ends with its right side."""
    for at in range(len(rows)):
        inverse = power(rows[at][at], (1 << 128) - 2)
        rows[at] = [multiply(inverse, value) for value in rows[at]]
        for other in range(len(rows)):
            if other != at:
                factor = rows[other][at]
                rows[other] = [
                    value ^ multiply(factor, own)
                    for value, own in zip(rows[other], rows[at], strict=True)
                ]
    return [row[-1] for row in rows]


# --- an M1 for several keys ---


class Under(NamedTuple):
    """What the first message of a handshake is sealed with, under one secret."""

    key: bytes
    associated: bytes

    @classmethod
    def secret(cls, secret: Secret) -> Under:
        chaining = hashlib.sha256(NAME).digest()
        transcript = hashlib.sha256(chaining + HEAD).digest()
        chaining, mixed, _ = hkdf(chaining, secret.key, 3)
        transcript = hashlib.sha256(transcript + mixed).digest()
        transcript = hashlib.sha256(transcript + PUBLIC).digest()
        return cls(hkdf(chaining, PUBLIC, 2)[1], transcript)

    def encrypt(self, block: int) -> int:
        aes = Cipher(algorithms.AES(self.key), modes.ECB()).encryptor()
        return int.from_bytes(aes.update(block.to_bytes(16, "big")), "big")

    def equation(self, size: int) -> list[int]:
        """Of the first two blocks of the ciphertext, and the tag; a third block is zeros."""
        h = self.encrypt(0)
        first, second = (int.from_bytes(self.associated[at : at + 16], "big") for at in (0, 16))
        lengths = len(self.associated) * 8 << 64 | size * 8
        known = self.encrypt(1)  # of the nonce 0
        for block, exponent in ((first, 6), (second, 5), (lengths, 1)):
            known ^= multiply(block, power(h, exponent))
        return [power(h, 4), power(h, 3), 1 << 127, known]


def for_all(secrets: list[Secret]) -> bytes:
    """A first message that verifies under each of three secrets."""
    size = 40  # bytes of a hello
    *blocks, tag = solve([Under.secret(secret).equation(size) for secret in secrets])
    ciphertext = b"".join(block.to_bytes(16, "big") for block in blocks) + bytes(8)
    return PUBLIC + ciphertext + tag.to_bytes(16, "big")


def test_a_message_that_is_right_under_three_secrets_is_a_guess_at_one() -> None:
    message = for_all(CANDIDATES)
    for secret in CANDIDATES:
        assert len(NoiseState(HEAD, secret.key).read_first(message)) == 40
    mac = hmac.digest(CANDIDATES[0].mac_key, HEAD + message, "sha256")[:MAC_SIZE]
    with pytest.raises(ProtocolError, match="malformed"):  # he has guessed right, and said nothing
        SealedHandshake(CANDIDATES[0]).unpack_hello(HEAD + mac + message)
    for secret in CANDIDATES[1:]:
        with pytest.raises(Forged):
            SealedHandshake(secret).unpack_hello(HEAD + mac + message)
