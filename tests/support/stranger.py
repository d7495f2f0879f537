"""The cryptography of bpipe-protocol(7), written once more from the page: nothing of bpipe is used.

What the page gives as bytes is compared with this, and with what the two ends of bpipe say.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
import unicodedata
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

PROTOCOL: Final = b"Noise_NNpsk0+psk2_25519_AESGCM_SHA256"
OPEN, RESUME = 1, 2
ACCEPT, REFUSE = 1, 2
HEAD: Final = struct.Struct(">4sBBBB16s")
HELLO: Final = struct.Struct(">QBBBB4xQQQ")
VERDICT: Final = struct.Struct(">BBB4xQQQ")
REKEY_EVERY: Final = 1 << 16
LAST: Final = (1 << 64) - 1


def nonce(number: int) -> bytes:
    return struct.pack(">IQ", 0, number)


def hkdf(salt: bytes, material: bytes, count: int, info: bytes = b"") -> list[bytes]:
    keys = HKDF(algorithm=SHA256(), length=32 * count, salt=salt, info=info).derive(material)
    return [keys[start : start + 32] for start in range(0, len(keys), 32)]


def normal(text: str) -> bytes:
    return unicodedata.normalize("NFC", text).encode()


def stretch(passphrase: str, name: str) -> bytes:
    """The secret that is made of a passphrase."""
    salt = b"bpipe/1 passphrase" + normal(name)
    return Scrypt(salt=salt, length=32, n=1 << 17, r=8, p=1).derive(normal(passphrase))


class Keys(NamedTuple):
    """What is made of a secret and the name of a pipe."""

    k: bytes
    km: bytes


def keys(secret: bytes, name: str = "") -> Keys:
    info = normal(name)
    return Keys(*(hkdf(salt, secret, 1, info)[0] for salt in (b"bpipe/1 key", b"bpipe/1 mac")))


def rekeyed(key: bytes) -> bytes:
    """The key after this one."""
    return AESGCM(key).encrypt(nonce(LAST), bytes(32), None)[:32]


class Direction:
    """One direction of a link: what is sealed with its key, one after the other."""

    def __init__(self, key: bytes, number: int = 0) -> None:
        self.key = key
        self.number = number

    def seal(self, plain: bytes) -> bytes:
        if self.number and self.number % REKEY_EVERY == 0:
            self.key = rekeyed(self.key)
        sealed = AESGCM(self.key).encrypt(nonce(self.number), plain, None)
        self.number += 1
        return sealed

    def frames(self, plain: bytes) -> bytes:
        """The same frames, sealed."""
        sealed = b""
        while plain:
            size = 16 + int.from_bytes(plain[4:8], "big")
            header, payload, plain = plain[:16], plain[16:size], plain[size:]
            sealed += self.seal(header)
            if payload:
                sealed += self.seal(payload)
        return sealed


class Handshake:
    """A sealed greeting, with the private keys of both sides."""

    def __init__(self, own: Keys, caller: bytes, answerer: bytes) -> None:
        self._keys = own
        self._caller, self._answerer = map(X25519PrivateKey.from_private_bytes, (caller, answerer))
        self.h = hashlib.sha256(PROTOCOL).digest() if len(PROTOCOL) > 32 else PROTOCOL.ljust(32)
        self.ck = self.h
        self._key = b""

    def m1(self, plain: bytes) -> bytes:
        """M1 sealed, from M1 plain (with sealed = 1)."""
        head, hello = plain[:24], plain[24:]
        self._mix_hash(head)
        self._mix_psk(self._keys.k)
        message = self._public(self._caller) + self._encrypt(hello)
        return head + hmac.digest(self._keys.km, head + message, "sha256")[:16] + message

    def m2(self, plain: bytes, psk2: bytes = bytes(32)) -> bytes:
        """M2 sealed, from M2 plain."""
        public = self._public(self._answerer)
        other = X25519PublicKey.from_public_bytes(self._caller.public_key().public_bytes_raw())
        self._mix_key(self._answerer.exchange(other))
        self._mix_psk(psk2)
        return plain[:1] + public + self._encrypt(plain[1:])

    def split(self) -> list[bytes]:
        """The key of what the caller says, and of what the answerer says."""
        return hkdf(self.ck, b"", 2)

    def resume_secret(self) -> bytes:
        return hmac.digest(self.ck, b"bpipe/1 resume" + self.h, "sha256")

    def _mix_hash(self, data: bytes) -> None:
        self.h = hashlib.sha256(self.h + data).digest()

    def _mix_key(self, material: bytes) -> None:
        self.ck, self._key = hkdf(self.ck, material, 2)

    def _mix_psk(self, psk: bytes) -> None:
        self.ck, mixed, self._key = hkdf(self.ck, psk, 3)
        self._mix_hash(mixed)

    def _public(self, private: X25519PrivateKey) -> bytes:
        public = private.public_key().public_bytes_raw()
        self._mix_hash(public)
        self._mix_key(public)
        return public

    def _encrypt(self, plain: bytes) -> bytes:
        """Each key seals one message of a handshake only, so the nonce is always 0."""
        sealed = AESGCM(self._key).encrypt(nonce(0), plain, self.h)
        self._mix_hash(sealed)
        return sealed


class Standing(NamedTuple):
    """What an end says of where it stands."""

    delivered: int
    received: int
    window: int


def hello(opening: int, session: bytes, epoch: int, standing: Standing, *, sealed: bool) -> bytes:
    """M1 as it is without a secret."""
    head = HEAD.pack(b"bpip", 1, opening, sealed, 0, session)
    return head + HELLO.pack(epoch, 0, 1, 0, 0, *standing)


def accept(standing: Standing) -> bytes:
    """M2 as it is without a secret."""
    return bytes([ACCEPT]) + VERDICT.pack(0, 1, 0, *standing)


def refuse(status: int) -> bytes:
    return bytes([REFUSE]) + VERDICT.pack(status, 0, 0, 0, 0, 0)
