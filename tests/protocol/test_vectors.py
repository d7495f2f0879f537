"""The bytes in bpipe-protocol(7) are what both ends of bpipe say, and what a stranger computes.

The stranger has nothing but the page and the primitives; see ``tests/support/stranger.py``.
"""

from __future__ import annotations

import base64
import re
import unicodedata
from collections.abc import Iterator
from functools import partial
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from bpipe.protocol.block_writer import BlockWriter
from bpipe.protocol.blocks import Base
from bpipe.protocol.noise import CipherState, NoiseState
from bpipe.protocol.records import ITEMS, Record, RecordWriter
from bpipe.protocol.ring import fill
from bpipe.protocol.sealed import SealedFrames
from bpipe.protocol.secret import Secret
from bpipe.protocol.wire import Kind
from bpipe.protocol.writer import BackedWriter
from tests.support import stranger
from tests.support.blocks import File, digests, on_the_stream, put, raw
from tests.support.page import PROTOCOL, Said, said, tables, turns, values
from tests.support.stories import BUFFER_SIZE, SESSION_ID, Story, answer

NAME: Final = "B\u00fcro"
PASSPHRASE: Final = "sch\u00f6ne gr\u00fc\u00dfe"
GREETING: Final = 64 + 16  # bytes that the caller says of one, plain
SEALED_GREETING: Final = 128 + 32
ACK: Final = 16

Keys = Iterator[X25519PrivateKey]


def example_key() -> str:
    found = re.search(r"^\.Dl (bpipe1:\S+)$", PROTOCOL.read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def example_secret(name: str = "") -> Secret:
    return Secret.parse(example_key().encode(), name)


def example_bytes() -> bytes:
    return base64.urlsafe_b64decode(example_key().removeprefix("bpipe1:") + "=")


def private(first: int, count: int) -> Keys:
    """The private keys of greetings, in the order in which they are needed."""
    return (
        X25519PrivateKey.from_private_bytes(bytes([number]) * 32)
        for number in range(first, first + count)
    )


def use(monkeypatch: pytest.MonkeyPatch, keys: Keys) -> None:
    """The next greetings take these private keys."""
    noise = partial(NoiseState, generate=lambda: next(keys))
    monkeypatch.setattr("bpipe.protocol.sealed.NoiseState", noise)


def vector(label: str, occurrence: int = 0) -> bytes:
    """The value after this label in VECTORS."""
    return [data for name, data in values("VECTORS") if name == label][occurrence]


def sealed_hello(plain: bytes) -> bytes:
    """An M1 that says that it is sealed, and is not yet."""
    return plain[:6] + b"\1" + plain[7:]


def joined(by: str, pieces: list[Said]) -> bytes:
    return b"".join(piece.data for piece in pieces if piece.by == by)


# --- plain ---


def test_the_greeting_is_as_a_stranger_says_it() -> None:
    nowhere = stranger.Standing(0, 0, BUFFER_SIZE)
    hello = stranger.hello(stranger.OPEN, SESSION_ID, 1, nowhere, sealed=False)
    assert [each.data for each in said("EXAMPLE")[:2]] == [hello, stranger.accept(nowhere)]
    assert said("A lost link")[-1].data == stranger.refuse(1)


def test_the_example_is_what_the_two_ends_say() -> None:
    story = Story(b"hi\n")
    assert turns(story.link()) == turns(said("EXAMPLE"))
    assert story.answerer.taken == b"hi\n"
    for end in (story.caller, story.answerer):
        assert end.session.over
        assert end.session.failure is None


def test_the_example_with_records_is_what_the_two_ends_say() -> None:
    story = Story(b"hi\n", errors=b"oh\n")
    assert turns(story.link()) == turns(said("An example with records"))
    for end, kind, content in ((story.answerer, 1, b"hi\n"), (story.caller, 2, b"oh\n")):
        assert end.taken == bytes([kind, 0, 0, 0, 0, 0, 0, 3]) + content
        assert end.session.terms.records
        assert end.session.over
        assert end.session.failure is None


def test_the_example_with_a_file_is_what_the_two_ends_say() -> None:
    old, new = (b"a" * 64 + each * 64 + b"cc" for each in (b"b", b"B"))
    base = Base(len(old), 64)
    half, back = BackedWriter(BUFFER_SIZE), BackedWriter(BUFFER_SIZE)
    teller, sender = RecordWriter(back), BlockWriter(half)
    told = b"".join(digests(old, 64))
    for kind, content in (Record.BASE, base.pack()), (Record.DIGESTS, told):
        teller.wrote(fill(teller.space(len(content)), content), kind)
        sender.hear(kind, content)
    assert put(sender, new) == len(new)
    sender.end(whole=True)
    assert said("An example with a file") == [Said("A", raw(back)), Said("C", raw(half))]
    file = File(old, base)
    file.assembly.told(told)
    for record in on_the_stream(half):
        file.take(*record)
    assert file.content == new
    assert file.assembly.whole


def test_items_have_the_sizes_of_the_page() -> None:
    (rows,) = tables("A stream to a file")
    assert {Record[row["name"]]: int(row["size"]) for row in rows} == ITEMS


def test_a_lost_link_is_what_the_two_ends_say() -> None:
    story = Story(b"hello\n")
    cut = GREETING + ACK + 16 + len(b"hel")
    first, second = story.link(cut), story.link()
    greeting = 5  # M1 to M4, and the answerer's first ACK
    *in_the_page, refusal = said("A lost link")
    assert first[:greeting] == said("EXAMPLE")[:greeting]
    assert turns(first[greeting:] + second) == turns(in_the_page)
    assert story.answerer.taken == b"hello\n"
    assert answer(second[0].data) == refusal


# --- sealed ---


def test_the_sealed_example_is_what_the_two_ends_say(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, private(1, 2))
    story = Story(b"hi\n", example_secret())
    assert turns(story.link()) == turns(said("Example"))
    assert story.caller.session.resume_secret == vector("resume secret")
    assert story.answerer.session.resume_secret == vector("resume secret")


def test_a_sealed_link_is_resumed_as_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, private(1, 4))
    story = Story(b"hello\n", example_secret())
    story.link(SEALED_GREETING + 2 * ACK + 32 + len(b"hel"))
    *greeting, refusal = said("A lost link, sealed")
    resumed = story.link()
    assert resumed[: len(greeting)] == greeting
    assert story.answerer.taken == b"hello\n"
    use(monkeypatch, private(4, 1))
    assert answer(resumed[0].data, example_secret()) == refusal


def test_the_sealed_example_is_the_plain_one_as_a_stranger_seals_it() -> None:
    own = stranger.keys(example_bytes())
    hello, verdict, *frames = said("EXAMPLE")
    m1, m2, *sealed = said("Example")
    greeting = stranger.Handshake(own, b"\1" * 32, b"\2" * 32)
    assert greeting.m1(sealed_hello(hello.data)) == m1.data
    assert greeting.m2(verdict.data) == m2.data
    assert vector("h") == greeting.h
    assert vector("ck") == greeting.ck
    assert [vector("caller's key"), vector("answerer's key")] == greeting.split()
    assert vector("resume secret") == greeting.resume_secret()
    for by, key in zip("CA", greeting.split(), strict=True):
        assert stranger.Direction(key).frames(joined(by, frames)) == joined(by, sealed)


def test_the_sealed_resumption_is_as_a_stranger_seals_it() -> None:
    own = stranger.keys(example_bytes())
    caller, answerer = (stranger.Standing(count, count, BUFFER_SIZE) for count in (1, 0))
    hello = stranger.hello(stranger.RESUME, SESSION_ID, 2, caller, sealed=True)
    m1, m2, confirm, ready, refusal = (each.data for each in said("A lost link, sealed"))
    accepted = stranger.Handshake(own, b"\3" * 32, b"\4" * 32)
    assert accepted.m1(hello) == m1
    assert accepted.m2(stranger.accept(answerer), vector("resume secret")) == m2
    for key, kind, sealed in zip(accepted.split(), (9, 10), (confirm, ready), strict=True):
        assert stranger.Direction(key).frames(bytes([kind]) + bytes(15)) == sealed
    refused = stranger.Handshake(own, b"\3" * 32, b"\4" * 32)
    refused.m1(hello)
    assert refused.m2(stranger.refuse(1)) == refusal


# --- keys ---


def test_the_keys_are_those_of_the_secret_and_of_the_name() -> None:
    decomposed = unicodedata.normalize("NFD", NAME)
    for name, which in (("", ""), (NAME, ", named"), (decomposed, ", named")):
        in_the_page = vector(f"K{which}"), vector(f"KM{which}")
        assert stranger.keys(example_bytes(), name) == in_the_page
        secret = example_secret(name)
        assert (secret.key, secret.mac_key) == in_the_page


def test_a_passphrase_has_one_normal_form_and_goes_with_the_name() -> None:
    decomposed = unicodedata.normalize("NFD", PASSPHRASE)
    assert decomposed != PASSPHRASE
    for name, which, passphrase in (("", "", decomposed), (NAME, ", named", PASSPHRASE)):
        stretched = stranger.stretch(passphrase, name)
        assert vector(f"secret{which}") == stretched
        key = vector(f"K{which}", 1)
        assert stranger.keys(stretched, name).k == key
        assert Secret.parse(passphrase.encode(), name).key == key


# --- REKEY ---


def callers_frames() -> SealedFrames:
    """The frames of the example's caller when the nonce 65535 is the next."""
    frames = SealedFrames(CipherState(vector("caller's key")), CipherState(bytes(32)))
    for _ in range(stranger.REKEY_EVERY - 1):
        frames.pack(Kind.PING, 0)
    return frames


def test_rekey_between_two_frames_and_between_a_header_and_its_payload() -> None:
    *pings, data = said("VECTORS")
    frames = callers_frames()
    assert frames.pack(Kind.PING, 1) + frames.pack(Kind.PING, 2) == joined("C", pings)
    packed = callers_frames().pack_data(0, memoryview(b"hi\n"))
    assert b"".join(packed) == data.data


def test_rekey_is_as_a_stranger_does_it() -> None:
    *pings, data = said("VECTORS")
    assert stranger.rekeyed(vector("caller's key")) == vector("after")
    for plain, sealed in (
        (b"".join(bytes([5]) + bytes(14) + bytes([token]) for token in (1, 2)), joined("C", pings)),
        (bytes([1]) + bytes(6) + b"\3" + bytes(8) + b"hi\n", data.data),
    ):
        direction = stranger.Direction(vector("caller's key"), stranger.REKEY_EVERY - 1)
        assert direction.frames(plain) == sealed
