"""What a stream to a file is, and what lies there before it: in every relation to the stream."""

from __future__ import annotations

import random
from collections.abc import Callable

Make = Callable[[random.Random, bytes], bytes]


def make_stream(rng: random.Random, length: int) -> bytes:
    """Bytes at random, runs of zeros, and pieces that were there before."""
    stream = bytearray()
    while len(stream) < length:
        count = rng.randint(1, max(1, length // 3))
        kind = rng.random()
        if kind < 0.25:
            stream += bytes(count)
        elif kind < 0.4 and stream:
            begin = rng.randrange(len(stream))
            stream += stream[begin : begin + count]
        else:
            stream += rng.randbytes(count)
    return bytes(stream[:length])


def _changed(rng: random.Random, stream: bytes) -> bytes:
    """Some bytes are others."""
    data = bytearray(stream)
    for _ in range(rng.choice((1, 1, 3)) if data else 0):
        data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
    return bytes(data)


def _inserted(rng: random.Random, stream: bytes) -> bytes:
    at = rng.randint(0, len(stream))
    return stream[:at] + rng.randbytes(rng.choice((1, 100))) + stream[at:]


def _torn(rng: random.Random, stream: bytes) -> bytes:
    """Zeros where something was not written."""
    data = bytearray(stream)
    for _ in range(3):
        begin = rng.randint(0, len(data)) // 64 * 64
        end = min(len(data), begin + rng.choice((64, 512, 4096)))
        data[begin:end] = bytes(end - begin)
    return bytes(data)


KINDS: dict[str, Make] = {
    "equal": lambda rng, stream: stream,
    "prefix": lambda rng, stream: stream[: rng.randint(0, len(stream))],
    "changed": _changed,
    "inserted": _inserted,
    "removed": lambda rng, stream: stream[rng.randint(0, 100) :],
    "extended": lambda rng, stream: stream + rng.randbytes(rng.choice((1, 500, 5000))),
    "zeros after it": lambda rng, stream: stream + bytes(rng.choice((1, 500, 5000))),
    "foreign": lambda rng, stream: rng.randbytes(rng.choice((1, len(stream), 2 * len(stream)))),
    "zeros": lambda rng, stream: bytes(rng.choice((1, len(stream), 2 * len(stream)))),
    "torn": _torn,
    "empty": lambda rng, stream: b"",
}


def make_base(rng: random.Random, stream: bytes) -> bytes | None:
    """What lies there; None: nothing does."""
    if rng.random() < 0.35:
        return None
    return KINDS[rng.choice(list(KINDS))](rng, stream)
