"""Noise_NNpsk0+psk2_25519_AESGCM_SHA256 by another implementation: the package noiseprotocol."""

from __future__ import annotations

import hmac
from typing import Any

import pytest
from noise.connection import Keypair, NoiseConnection  # type: ignore[import-untyped]

# What it says when its throw-away key is given to it, as a test may have to.
oracle_warns = pytest.mark.filterwarnings("ignore:One of ephemeral keypairs:UserWarning")


class Oracle:
    """One side of a handshake."""

    def __init__(
        self, prologue: bytes, psks: list[bytes], *, caller: bool, ephemeral: bytes = b""
    ) -> None:
        self._connection = NoiseConnection.from_name(b"Noise_NNpsk0+psk2_25519_AESGCM_SHA256")
        self._connection.set_psks(psks=psks)
        self._connection.set_prologue(prologue)
        if caller:
            self._connection.set_as_initiator()
        else:
            self._connection.set_as_responder()
        if ephemeral:
            self._connection.set_keypair_from_private_bytes(Keypair.EPHEMERAL, ephemeral)
        self._connection.start_handshake()
        self._state = self._connection.noise_protocol.handshake_state.symmetric_state

    def write(self, payload: bytes) -> bytes:
        """The next message of the handshake."""
        return bytes(self._connection.write_message(payload))

    def read(self, message: bytes) -> bytes:
        """What the other side's message says."""
        return bytes(self._connection.read_message(message))

    def derive(self, purpose: bytes) -> bytes:
        """HMAC-SHA256(ck, purpose || h)."""
        return hmac.digest(self._state.ck, purpose + self._state.h, "sha256")

    @property
    def sending(self) -> Any:
        """The cipher of what this side says after the handshake."""
        return self._connection.noise_protocol.cipher_state_encrypt

    @property
    def receiving(self) -> Any:
        """The cipher of what it hears."""
        return self._connection.noise_protocol.cipher_state_decrypt
