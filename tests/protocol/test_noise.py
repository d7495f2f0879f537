"""Noise, against published vectors, against another implementation, and against bad points."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from bpipe.errors import Forged
from bpipe.protocol import noise
from bpipe.protocol.noise import (
    NAME,
    REKEY_EVERY,
    TAG_SIZE,
    CipherState,
    NoiseState,
    SymmetricState,
)
from tests.support.oracle import Oracle, oracle_warns

DATA = json.loads((Path(__file__).parent / "vectors" / "noise.json").read_text())
VECTORS = {vector["protocol_name"]: vector for vector in DATA["vectors"]}
PROLOGUE, PSK0, PSK2 = b"prologue", bytes(range(32)), bytes(range(32, 64))
KEY = b"k" * 32


keys = st.binary(min_size=32, max_size=32)
payloads = st.binary(max_size=100)


def private(data: bytes) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(data)


def always(ephemeral: bytes) -> Callable[[], X25519PrivateKey]:
    """What generates this throw-away key."""
    return lambda: private(ephemeral)


# --- published vectors ---


def test_the_vector_of_this_very_protocol() -> None:
    vector = VECTORS[NAME.decode()]
    psk0, psk2 = map(bytes.fromhex, vector["init_psks"])
    caller, answerer = (
        NoiseState(
            bytes.fromhex(vector[f"{side}_prologue"]),
            psk0,
            always(bytes.fromhex(vector[f"{side}_ephemeral"])),
        )
        for side in ("init", "resp")
    )
    messages = [
        (bytes.fromhex(each["payload"]), bytes.fromhex(each["ciphertext"]))
        for each in vector["messages"]
    ]
    (first, first_sealed), (second, second_sealed), *rest = messages
    assert caller.write_first(first) == first_sealed
    assert answerer.read_first(first_sealed) == first
    assert answerer.write_second(second, psk2) == second_sealed
    assert caller.read_second(second_sealed, psk2) == second
    sending, receiving = caller.state.split(), answerer.state.split()
    assert len(rest) == 2
    for turn, (plain, sealed) in enumerate(rest):  # the first by the initiator
        assert sending[turn].encrypt(b"", plain) == sealed
        assert receiving[turn].decrypt(b"", sealed) == plain


PATTERNS = {  # Noise, section 9.4; a message is what the initiator sends, or the responder
    "Noise_NNpsk0_25519_AESGCM_SHA256": (("psk", "e"), ("e", "ee")),
    "Noise_NNpsk2_25519_AESGCM_SHA256": (("e",), ("e", "ee", "psk")),
    NAME.decode(): (("psk", "e"), ("e", "ee", "psk")),
}


class Side:
    """One side of any of these patterns, token by token."""

    def __init__(self, vector: dict[str, Any], side: str) -> None:
        self.state = SymmetricState(vector["protocol_name"].encode())
        self.state.mix_hash(bytes.fromhex(vector[f"{side}_prologue"]))
        self._psks = list(map(bytes.fromhex, vector[f"{side}_psks"]))
        self._own = private(bytes.fromhex(vector[f"{side}_ephemeral"]))
        self._other = b""

    def write(self, tokens: tuple[str, ...], payload: bytes) -> bytes:
        public = self._own.public_key().public_bytes_raw()
        self._mix(tokens, public)
        return public + self.state.encrypt_and_hash(payload)

    def read(self, tokens: tuple[str, ...], message: bytes) -> bytes:
        self._other = message[:32]
        self._mix(tokens, self._other)
        return self.state.decrypt_and_hash(message[32:])

    def _mix(self, tokens: tuple[str, ...], public: bytes) -> None:
        for token in tokens:
            if token == "e":
                self.state.mix_hash(public)
                self.state.mix_key(public)
            elif token == "psk":
                self.state.mix_key_and_hash(self._psks.pop(0))
            else:
                peer = X25519PublicKey.from_public_bytes(self._other)
                self.state.mix_key(self._own.exchange(peer))


@pytest.mark.parametrize("name", PATTERNS)
def test_vectors_token_by_token(name: str) -> None:
    vector = VECTORS[name]
    sides = Side(vector, "init"), Side(vector, "resp")
    ciphers: list[tuple[CipherState, CipherState]] = []
    for turn, message in enumerate(vector["messages"]):
        plain, sealed = bytes.fromhex(message["payload"]), bytes.fromhex(message["ciphertext"])
        near, far = sides[turn % 2], sides[1 - turn % 2]
        if turn < 2:
            assert near.write(PATTERNS[name][turn], plain) == sealed
            assert far.read(PATTERNS[name][turn], sealed) == plain
            continue
        ciphers = ciphers or [side.state.split() for side in sides]
        assert ciphers[turn % 2][turn % 2].encrypt(b"", plain) == sealed
        assert ciphers[1 - turn % 2][turn % 2].decrypt(b"", sealed) == plain
    assert ciphers


# --- another implementation ---


def greet(
    caller: NoiseState | Oracle, answerer: NoiseState | Oracle, psk2: bytes, *payloads: bytes
) -> list[bytes]:
    """Let these two greet, either of which may be the oracle; returns what went over the wire."""
    first, second = payloads
    m1 = caller.write(first) if isinstance(caller, Oracle) else caller.write_first(first)
    assert first == (answerer.read if isinstance(answerer, Oracle) else answerer.read_first)(m1)
    if isinstance(answerer, Oracle):
        m2 = answerer.write(second)
    else:
        m2 = answerer.write_second(second, psk2)
    if isinstance(caller, Oracle):
        assert caller.read(m2) == second
    else:
        assert caller.read_second(m2, psk2) == second
    return [m1, m2]


@oracle_warns
@settings(max_examples=60)
@given(
    prologue=payloads,
    psks=st.tuples(keys, keys),
    ephemerals=st.tuples(keys, keys),
    first=payloads,
    second=payloads,
    messages=st.lists(st.tuples(st.booleans(), payloads, payloads), max_size=8),
)
def test_the_two_implementations_say_the_same_in_either_role(
    prologue: bytes,
    psks: tuple[bytes, bytes],
    ephemerals: tuple[bytes, bytes],
    first: bytes,
    second: bytes,
    messages: list[tuple[bool, bytes, bytes]],
) -> None:
    own = [NoiseState(prologue, psks[0], always(key)) for key in ephemerals]
    oracles = [
        Oracle(prologue, list(psks), caller=number == 0, ephemeral=key)
        for number, key in enumerate(ephemerals)
    ]
    assert greet(own[0], oracles[1], psks[1], first, second) == greet(
        oracles[0], own[1], psks[1], first, second
    )
    for mine, its in zip(own, oracles, strict=True):
        assert mine.state.derive(b"purpose") == its.derive(b"purpose")
    callers, answerers = own[0].state.split()
    received, sent = own[1].state.split()  # by the answerer
    for by_caller, associated, plain in messages:
        sending, receiving = (callers, received) if by_caller else (sent, answerers)
        near, far = oracles if by_caller else oracles[::-1]
        sealed = near.sending.encrypt_with_ad(associated, plain)
        assert sending.encrypt(associated, plain) == sealed
        assert receiving.decrypt(associated, sealed) == plain
        assert far.receiving.decrypt_with_ad(associated, sealed) == plain


def test_a_fresh_handshake_has_fresh_keys() -> None:
    first = {NoiseState(PROLOGUE, PSK0).write_first(b"") for _ in range(20)}
    assert len({message[:32] for message in first}) == 20


@pytest.mark.parametrize(("prologue", "psk0"), [(b"other", PSK0), (PROLOGUE, PSK2)])
def test_who_does_not_know_the_first_key_is_not_read(prologue: bytes, psk0: bytes) -> None:
    with pytest.raises(Forged):
        NoiseState(PROLOGUE, PSK0).read_first(NoiseState(prologue, psk0).write_first(b""))


@pytest.mark.parametrize("psk2", [PSK0, bytes(32)])
def test_who_does_not_know_the_second_key_is_not_read(psk2: bytes) -> None:
    caller, answerer = NoiseState(PROLOGUE, PSK0), NoiseState(PROLOGUE, PSK0)
    answerer.read_first(caller.write_first(b""))
    with pytest.raises(Forged):
        caller.read_second(answerer.write_second(b"", psk2), PSK2)


# --- the ciphers ---


class OldAESGCM:
    """AESGCM as `cryptography` had it before it could write into lent memory."""

    def __init__(self, key: bytes) -> None:
        cipher = AESGCM(key)
        self.encrypt, self.decrypt = cipher.encrypt, cipher.decrypt


@pytest.fixture(params=[AESGCM, OldAESGCM])
def any_library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "AESGCM", request.param)


def number_of(nonce: int) -> bytes:
    """Four zero bytes and a big-endian counter (Noise, section 12.3)."""
    return bytes(4) + nonce.to_bytes(8, "big")


@pytest.mark.usefixtures("any_library")
@pytest.mark.parametrize("size", [0, 1, 16, 1000, 1 << 20])
def test_into_lent_memory_goes_the_same(size: int) -> None:
    plain = bytes(range(251)) * (size // 251 + 1)
    plain = plain[:size]
    lent = memoryview(bytearray(b"#" * (size + TAG_SIZE + 2)))
    CipherState(KEY).encrypt_into(b"header", memoryview(plain), lent[1:-1])
    sealed = AESGCM(KEY).encrypt(number_of(0), plain, b"header")
    assert bytes(lent) == b"#" + sealed + b"#"
    assert CipherState(KEY).encrypt(b"header", plain) == sealed
    opened = memoryview(bytearray(b"#" * (size + 2)))
    CipherState(KEY).decrypt_into(b"header", lent[1:-1], opened[1:-1])
    assert bytes(opened) == b"#" + plain + b"#"
    assert CipherState(KEY).decrypt(b"header", lent[1:-1]) == plain


@pytest.mark.usefixtures("any_library")
@pytest.mark.parametrize("sealed", [bytes(20), b"", bytes(TAG_SIZE), bytes(TAG_SIZE - 1)])
def test_what_was_not_sealed_is_forged(sealed: bytes) -> None:
    with pytest.raises(Forged):
        CipherState(KEY).decrypt(b"", sealed)
    lent = memoryview(bytearray(max(0, len(sealed) - TAG_SIZE)))
    with pytest.raises(Forged) as caught:
        CipherState(KEY).decrypt_into(b"", sealed, lent)
    assert caught.value.__suppress_context__


def rekeyed(key: bytes) -> bytes:
    """Noise, section 4.2: the first 32 bytes of ENCRYPT(k, 2^64 - 1, empty, zeros)."""
    return AESGCM(key).encrypt(number_of(2**64 - 1), bytes(32), b"")[:32]


@pytest.mark.usefixtures("any_library")
def test_every_number_has_its_nonce_and_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "REKEY_EVERY", 4)
    sending, receiving = CipherState(KEY), CipherState(KEY)
    key = KEY
    for number in range(14):
        if number in (4, 8, 12):
            key = rekeyed(key)
        plain = struct.pack(">Q", number)
        expected = AESGCM(key).encrypt(number_of(number), plain, b"h")
        sealed = memoryview(bytearray(len(expected)))
        if number % 2:
            sending.encrypt_into(b"h", plain, sealed)
        else:
            sealed[:] = sending.encrypt(b"h", plain)
        assert sealed == expected
        opened = memoryview(bytearray(8))
        if number % 3:
            receiving.decrypt_into(b"h", sealed, opened)
        else:
            opened[:] = receiving.decrypt(b"h", sealed)
        assert opened == plain


def test_the_key_changes_before_message_65536_and_65536_later() -> None:
    cipher, key = CipherState(KEY), KEY
    assert REKEY_EVERY == 65536
    for number in range(2 * REKEY_EVERY + 2):
        if number in (REKEY_EVERY, 2 * REKEY_EVERY):
            key = rekeyed(key)
        sealed = cipher.encrypt(b"", b"")
        if number % REKEY_EVERY in (0, 1, REKEY_EVERY - 1):
            assert sealed == AESGCM(key).encrypt(number_of(number), b"", b"")


def test_rekey_as_the_other_implementation_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "REKEY_EVERY", 3)
    own = NoiseState(PROLOGUE, PSK0)
    oracle = Oracle(PROLOGUE, [PSK0, PSK2], caller=False)
    greet(own, oracle, PSK2, b"", b"")
    sending, receiving = own.state.split()
    for number in range(8):
        if number in (3, 6):
            oracle.receiving.rekey()
            oracle.sending.rekey()
        sealed = sending.encrypt(b"h", bytes([number]))
        assert oracle.receiving.decrypt_with_ad(b"h", sealed) == bytes([number])
        sealed = oracle.sending.encrypt_with_ad(b"h", bytes([number]))
        assert receiving.decrypt(b"h", sealed) == bytes([number])


# --- points that make a secret which all know ---

PRIME = 2**255 - 19
LOW_ORDER = (  # https://cr.yp.to/ecdh.html#validate, those below 2^255
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    PRIME - 1,
    PRIME,
    PRIME + 1,
)
TOP_BIT = 2**255  # X25519 ignores it (RFC 7748, section 5)


class Point:
    """Somebody's throw-away key that is none: what he shares with anybody is zero."""

    def __init__(self, point: int) -> None:
        self._point = point.to_bytes(32, "little")

    def public_key(self) -> Point:
        return self

    def public_bytes_raw(self) -> bytes:
        return self._point

    def exchange(self, _: X25519PublicKey) -> bytes:
        return bytes(32)


def with_point(point: int) -> NoiseState:
    return NoiseState(PROLOGUE, PSK0, lambda: cast(X25519PrivateKey, Point(point)))


@pytest.mark.parametrize("top", [0, TOP_BIT])
@pytest.mark.parametrize("point", LOW_ORDER)
def test_points_of_low_order_are_refused(point: int, top: int) -> None:
    answerer = NoiseState(PROLOGUE, PSK0)
    assert answerer.read_first(with_point(point + top).write_first(b"hello")) == b"hello"
    with pytest.raises(Forged):
        answerer.write_second(b"", PSK2)
    caller, answerer = NoiseState(PROLOGUE, PSK0), with_point(point + top)
    answerer.read_first(caller.write_first(b""))
    with pytest.raises(Forged):
        caller.read_second(answerer.write_second(b"", PSK2), PSK2)
