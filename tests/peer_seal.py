"""The sealing of the second implementation of bpipe's protocol: secrets, the handshake, frames.

It is written from the page bpipe-protocol(7) alone, and is an oracle for bpipe.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct
import unicodedata
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

DATA, FIN, ACK, STOP, PING, PONG, BYE, ABORT, CONFIRM, READY, RATE = range(1, 12)
OK, UNKNOWN, STALE, RANGE, BUSY, VERSION, FULL = range(7)
OPEN, RESUME, ACCEPT, REFUSE = 1, 2, 1, 2
CUT, RUNNING = 3, 4
BROKEN_PIPE, LOCAL_ERROR, INTERRUPTED, PROTOCOL = 1, 2, 3, 4
HEADER, M2 = struct.Struct(">4BLQ"), struct.Struct(">4B4s3Q")
M1 = struct.Struct(">4s4B16sQ4B4s3Q")
HEARTBEAT, CHUNK, MEMORY = 2.0, 16384, 1 << 20
REKEY_EVERY = 1 << 16  # sealings
DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"


class LinkLost(Exception):
    """A link is lost: counts is an error of protocol, and error one of those or a forgery."""

    def __init__(self, why: str, counts: bool = False, error: bool = False, code: int = 0) -> None:
        super().__init__(why)
        self.counts, self.error, self.code = counts, counts or error, code


class Frame(NamedTuple):
    """The header of a frame."""

    kind: int
    how: int = 0
    status: int = 0
    zero: int = 0
    length: int = 0
    number: int = 0


class Call(NamedTuple):
    """What an M1 says."""

    magic: bytes
    version: int
    opening: int
    sealed: int
    zero: int
    session: bytes
    epoch: int
    slot: int
    links: int
    live: int
    needs: int
    pad: bytes
    delivered: int
    received: int
    window: int


class Answer(NamedTuple):
    """What an M2 says."""

    answer: int
    status: int
    links: int = 0
    needs: int = 0
    pad: bytes = bytes(4)
    delivered: int = 0
    received: int = 0
    window: int = 0


class Keys(NamedTuple):
    """The keys that a secret and a name make."""

    k: bytes
    km: bytes


def mac(key: bytes, data: bytes) -> bytes:
    """Return the HMAC-SHA256 of data."""
    return hmac.digest(key, data, "sha256")


def read_secret(text: str, name: str) -> bytes:
    """Return the 32 bytes that the text of a secret stands for."""
    text = text.removeprefix("\ufeff").removesuffix("\n")
    if text.startswith("bpipe1:"):
        return base64.urlsafe_b64decode(text[7:] + "=")
    words = text.lower().translate(str.maketrans("oil", "011", " -"))
    if len(words) == 20 and set(words) <= set(DIGITS):
        digest = hashlib.sha256(words[:18].encode()).digest()
        if words[18:] == DIGITS[digest[0] % 32] + DIGITS[digest[1] % 32]:
            text = words
    salt, phrase = (unicodedata.normalize("NFC", t).encode() for t in (name, text))
    salt = b"bpipe/1 passphrase" + salt
    return hashlib.scrypt(phrase, salt=salt, n=1 << 17, r=8, p=1, maxmem=1 << 28, dklen=32)


def make_keys(text: str, name: str) -> Keys:
    """Return the keys that the text of a secret makes for the pipe of that name."""
    info = unicodedata.normalize("NFC", name).encode() + b"\x01"
    secret = read_secret(text, name)
    return Keys(*(mac(mac(salt, secret), info) for salt in (b"bpipe/1 key", b"bpipe/1 mac")))


class Cipher:
    """The key of one direction of a sealed link."""

    def __init__(self, key: bytes, count: int = 0) -> None:
        self.key, self.count = key, count

    def _nonce(self) -> bytes:
        if self.count and self.count % REKEY_EVERY == 0:
            last = bytes(4) + b"\xff" * 8
            self.key = AESGCM(self.key).encrypt(last, bytes(32), None)[:32]
        self.count += 1
        return bytes(4) + (self.count - 1).to_bytes(8, "big")

    def seal(self, plain: bytes, extra: bytes = b"") -> bytes:
        """Return the text encrypted, and its tag."""
        nonce = self._nonce()  # first, as it may replace the key
        return AESGCM(self.key).encrypt(nonce, plain, extra)

    def open(self, sealed: bytes, extra: bytes = b"") -> bytes:
        """Return the text that was sealed, or raise LinkLost."""
        nonce = self._nonce()
        try:
            return AESGCM(self.key).decrypt(nonce, sealed, extra)
        except InvalidTag:
            raise LinkLost("what came does not verify", error=True) from None


class Noise:
    """The handshake Noise_NNpsk0+psk2_25519_AESGCM_SHA256."""

    def __init__(self, prologue: bytes, keys: Keys) -> None:
        self.private, self.keys = X25519PrivateKey.generate(), keys
        self.ck = self.h = hashlib.sha256(b"Noise_NNpsk0+psk2_25519_AESGCM_SHA256").digest()
        self.cipher, self.remote = Cipher(b""), b""
        self._hash(prologue)
        self._psk(keys.k)

    def _hash(self, data: bytes) -> None:
        self.h = hashlib.sha256(self.h + data).digest()

    def _derive(self, data: bytes) -> tuple[bytes, bytes, bytes]:
        temp = mac(self.ck, data)
        one = mac(temp, b"\x01")
        two = mac(temp, one + b"\x02")
        return one, two, mac(temp, two + b"\x03")

    def _mix(self, data: bytes) -> None:
        self.ck, key, _ = self._derive(data)
        self.cipher = Cipher(key)

    def _psk(self, psk: bytes) -> None:
        self.ck, extra, key = self._derive(psk)
        self._hash(extra)
        self.cipher = Cipher(key)

    def _public(self, key: bytes, second: bool, psk: bytes) -> None:
        self._hash(key)
        self._mix(key)
        if not second:
            return
        try:
            self._mix(self.private.exchange(X25519PublicKey.from_public_bytes(self.remote)))
        except ValueError:
            raise LinkLost("a public key that cannot be", error=True) from None
        self._psk(psk)

    def write(self, payload: bytes, second: bool, psk: bytes = bytes(32)) -> bytes:
        """Return a message of the handshake."""
        key = self.private.public_key().public_bytes_raw()
        self._public(key, second, psk)
        sealed = self.cipher.seal(payload, self.h)
        self._hash(sealed)
        return key + sealed

    def read(self, message: bytes, second: bool, psk: bytes = bytes(32)) -> bytes:
        """Return the payload of a message of the handshake."""
        self.remote = message[:32]
        self._public(self.remote, second, psk)
        plain = self.cipher.open(message[32:], self.h)
        self._hash(message[32:])
        return plain

    def split(self) -> tuple[Cipher, Cipher]:
        """Return the ciphers of the caller and of the answerer."""
        one, two, _ = self._derive(b"")
        return Cipher(one), Cipher(two)

    def resume_secret(self) -> bytes:
        """Return the secret with which the session of this greeting is resumed."""
        return mac(self.ck, b"bpipe/1 resume" + self.h)


def seal_m1(raw: bytes, keys: Keys, noise: Noise) -> bytes:
    """Return the 128 bytes of an M1."""
    message = noise.write(raw[24:], False)
    return raw[:24] + mac(keys.km, raw[:24] + message)[:16] + message


def open_m1(raw: bytes, keys: Keys) -> tuple[bytes, Noise]:
    """Return what 128 bytes of M1 say, and the handshake."""
    if not hmac.compare_digest(raw[24:40], mac(keys.km, raw[:24] + raw[40:])[:16]):
        raise LinkLost("an M1 with another mac", error=True)
    noise = Noise(raw[:24], keys)
    return raw[:24] + noise.read(raw[40:], False), noise
