"""Noise, as far as bpipe uses it: the only module that imports ``cryptography``.

``CipherState`` and ``SymmetricState`` are those of The Noise Protocol Framework, revision 34
(section 5), for X25519, AES-256-GCM and SHA-256; ``Handshake`` is the pattern NNpsk0+psk2::

    -> psk, e
    <- e, ee, psk

Both keys that go into it are shared, so no end has an identity of its own: who knows the secret
belongs here, and who knows the session's resume secret as well belongs to the session. What
travels is safe from somebody who learns both later, because ``ee`` is made of throw-away keys.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bpipe.errors import Forged
from bpipe.protocol.secret import KEY_SIZE, hkdf

NAME: Final = b"Noise_NNpsk0+psk2_25519_AESGCM_SHA256"
TAG_SIZE: Final = 16
PUBLIC_SIZE: Final = 32
REKEY_EVERY: Final = 1 << 16  # messages

NONCE_SIZE: Final = 12

SMALL: Final = 256  # bytes that are sooner copied than decrypted in place

_LAST: Final = (1 << 64) - 1  # the counter that is set aside for REKEY

Bytes = bytes | bytearray | memoryview


class CipherState:
    """The key of one direction, and the number of its next message. No number is used twice."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._counter = 0
        self._rekey_at = REKEY_EVERY
        self._in_place = hasattr(self._cipher, "decrypt_into")  # not in every version of it

    def encrypt(self, associated: Bytes, plain: Bytes) -> bytes:
        """``plain`` sealed: as many bytes, and a tag that covers ``associated`` as well."""
        nonce = self._next()
        return self._cipher.encrypt(nonce, plain, associated)

    def encrypt_into(self, associated: Bytes, plain: Bytes, into: memoryview) -> None:
        """The same, into memory of exactly the right length."""
        if not self._in_place:
            into[:] = self.encrypt(associated, plain)
            return
        nonce = self._next()
        self._cipher.encrypt_into(nonce, plain, associated, into)

    def decrypt(self, associated: Bytes, sealed: Bytes) -> bytes:
        """What was sealed; Forged if it was not sealed like this."""
        nonce = self._next()
        try:
            return self._cipher.decrypt(nonce, sealed, associated)
        except InvalidTag:
            raise Forged("what came was not sealed by the peer") from None

    def decrypt_into(self, associated: Bytes, sealed: Bytes, into: memoryview) -> None:
        """The same, into memory of exactly the right length, which is junk after Forged."""
        if not self._in_place or len(into) <= SMALL:
            into[:] = self.decrypt(associated, sealed)
            return
        nonce = self._next()
        try:
            self._cipher.decrypt_into(nonce, sealed, associated, into)
        except InvalidTag:
            raise Forged("what came was not sealed by the peer") from None

    def _next(self) -> bytes:
        """The nonce of the next message; the key is a fresh one when its turn has come."""
        number = self._counter
        if number == self._rekey_at:
            self._rekey_at += REKEY_EVERY
            last = _LAST.to_bytes(NONCE_SIZE, "big")
            self._cipher = AESGCM(self._cipher.encrypt(last, bytes(KEY_SIZE), b"")[:KEY_SIZE])
        self._counter = number + 1
        return number.to_bytes(NONCE_SIZE, "big")  # four zero bytes, and 64 bits


class SymmetricState:
    """What both ends know so far (Noise, section 5.2)."""

    def __init__(self, name: bytes) -> None:
        self._hash = name.ljust(32, b"\0") if len(name) <= 32 else hashlib.sha256(name).digest()
        self._chaining = self._hash
        self._cipher: CipherState | None = None

    def mix_hash(self, data: Bytes) -> None:
        self._hash = hashlib.sha256(self._hash + data).digest()

    def mix_key(self, material: bytes) -> None:
        self._chaining, key = hkdf(self._chaining, material, 2)
        self._cipher = CipherState(key)

    def mix_key_and_hash(self, psk: bytes) -> None:
        self._chaining, mixed, key = hkdf(self._chaining, psk, 3)
        self.mix_hash(mixed)
        self._cipher = CipherState(key)

    def encrypt_and_hash(self, plain: bytes) -> bytes:
        assert self._cipher is not None
        sealed = self._cipher.encrypt(self._hash, plain)
        self.mix_hash(sealed)
        return sealed

    def decrypt_and_hash(self, sealed: bytes) -> bytes:
        assert self._cipher is not None
        plain = self._cipher.decrypt(self._hash, sealed)
        self.mix_hash(sealed)
        return plain

    def split(self) -> tuple[CipherState, CipherState]:
        """The ciphers of what follows, once: the initiator's, and the responder's."""
        assert self._cipher is not None
        self._cipher = None
        first, second = hkdf(self._chaining, b"", 2)
        return CipherState(first), CipherState(second)

    def derive(self, purpose: bytes) -> bytes:
        """A secret of this handshake alone, for another purpose than its ciphers."""
        return hmac.digest(self._chaining, purpose + self._hash, "sha256")


class NoiseState:
    """One side of a handshake. The caller writes first and then reads; the answerer, vice versa.

    ``psk0`` and ``psk2`` are 32 bytes each. Whatever is read raises Forged if the other side does
    not know the same ones, or has seen other messages.
    """

    def __init__(
        self,
        prologue: bytes,
        psk0: bytes,
        generate: Callable[[], X25519PrivateKey] = X25519PrivateKey.generate,
    ) -> None:
        self.state = SymmetricState(NAME)
        self.state.mix_hash(prologue)
        self.state.mix_key_and_hash(psk0)
        self._generate = generate
        self._own: X25519PrivateKey | None = None
        self._other = b""

    def write_first(self, payload: bytes) -> bytes:
        return self._write_public() + self.state.encrypt_and_hash(payload)

    def read_first(self, message: bytes) -> bytes:
        self._read_public(message[:PUBLIC_SIZE])
        return self.state.decrypt_and_hash(message[PUBLIC_SIZE:])

    def write_second(self, payload: bytes, psk2: bytes) -> bytes:
        public = self._write_public()
        self._mix_shared()
        self.state.mix_key_and_hash(psk2)
        return public + self.state.encrypt_and_hash(payload)

    def read_second(self, message: bytes, psk2: bytes) -> bytes:
        self._read_public(message[:PUBLIC_SIZE])
        self._mix_shared()
        self.state.mix_key_and_hash(psk2)
        return self.state.decrypt_and_hash(message[PUBLIC_SIZE:])

    def _write_public(self) -> bytes:
        self._own = self._generate()
        public = self._own.public_key().public_bytes_raw()
        self._mix_public(public)
        return public

    def _read_public(self, public: bytes) -> None:
        self._other = public
        self._mix_public(public)

    def _mix_public(self, public: bytes) -> None:
        self.state.mix_hash(public)
        self.state.mix_key(public)  # as in every handshake with a psk (Noise, section 9.2)

    def _mix_shared(self) -> None:
        assert self._own is not None
        try:
            shared = self._own.exchange(X25519PublicKey.from_public_bytes(self._other))
        except ValueError:  # a point of low order, which would make a secret that all know
            raise Forged("what came was not sealed by the peer") from None
        self.state.mix_key(shared)
