"""What a secret is made of, and that it is never shown."""

from __future__ import annotations

import base64
import copy
import hashlib
import pickle
import re
import traceback
from typing import Any

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from hypothesis import given
from hypothesis import strategies as st

from bpipe.protocol import secret
from bpipe.protocol.secret import (
    KEY_SIZE,
    SHORTEST_PASSPHRASE,
    Secret,
    conceal,
    generate,
    generate_words,
    hkdf,
)

RAW = bytes(range(200, 232))
LINE = "bpipe1:" + base64.urlsafe_b64encode(RAW).decode().rstrip("=")
PASSPHRASE = "correct horse battery"


def derived(material: bytes) -> bytes:
    """What another implementation makes of a secret's bytes."""
    return HKDF(SHA256(), 32, salt=b"bpipe/1 key", info=b"").derive(material)


def stretched(passphrase: bytes) -> bytes:
    kdf = Scrypt(salt=b"bpipe/1 passphrase", length=32, n=2**17, r=8, p=1)
    return derived(kdf.derive(passphrase))


@pytest.fixture
def unstretched(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is stretched is what counts; the work costs half a second each time."""
    monkeypatch.setattr(secret, "_stretch", lambda text, salt: text)


# --- keys ---


@given(
    salt=st.binary(max_size=80),
    material=st.binary(max_size=80),
    count=st.integers(1, 5),
    info=st.binary(max_size=80),
)
def test_hkdf_is_that_of_rfc_5869(salt: bytes, material: bytes, count: int, info: bytes) -> None:
    whole = HKDF(SHA256(), 32 * count, salt=salt, info=info).derive(material)
    assert b"".join(hkdf(salt, material, count, info)) == whole


@given(st.binary(min_size=32, max_size=32))
def test_a_key_is_made_of_the_bytes_of_its_line(raw: bytes) -> None:
    line = b"bpipe1:" + base64.urlsafe_b64encode(raw).rstrip(b"=")
    assert Secret.parse(line + b"\n").key == Secret(raw).key == derived(raw)


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_the_end_of_a_keys_line_is_not_part_of_it(end: str) -> None:
    assert Secret.parse((LINE + end).encode()).key == derived(RAW)


def test_a_generated_key_is_a_line_that_can_be_parsed_and_no_other_is_the_same() -> None:
    lines = {generate() for _ in range(50)}
    assert len(lines) == 50
    for line in lines:
        assert line.startswith("bpipe1:")
        assert len(line) == 50
        assert line.isprintable()
        assert len(base64.urlsafe_b64decode(line.removeprefix("bpipe1:") + "=")) == KEY_SIZE
        Secret.parse(line.encode())


@pytest.mark.parametrize(
    "damaged",
    [
        "bpipe1:",
        LINE[:-1],
        LINE[:-4],
        LINE + "A",
        LINE + "AAAA",
        LINE + "\n\n",
        LINE + " ",
        LINE.replace(":", ": "),
        LINE[:20] + "\n" + LINE[20:],
        LINE[:20] + "!" + LINE[21:],
        LINE[:20] + "=" + LINE[21:],
        LINE[:20] + "ä" + LINE[21:],
        LINE + "\n" + LINE,
        "bpipe1:" + PASSPHRASE,
        " " + LINE,
        LINE.replace("bpipe1", "Bpipe1"),
        LINE[:-1] + chr(ord(LINE[-1]) + 1),  # the same bytes, as nobody writes them
    ],
)
def test_a_damaged_key_is_said_to_be_one_and_is_no_passphrase(damaged: str) -> None:
    with pytest.raises(ValueError, match="damaged key: copy the whole line"):
        Secret.parse(damaged.encode())


# --- words ---


def test_words_are_twenty_digits_that_can_be_read_aloud_and_no_others_are_the_same() -> None:
    made = {generate_words() for _ in range(50)}
    assert len(made) == 50
    for words in made:
        assert re.fullmatch(r"[0-9a-hj-km-np-tv-z]{4}(-[0-9a-hj-km-np-tv-z]{4}){4}", words)
    assert len(set("".join(made))) == 33  # all 32 of them, and the dash


WORDS = "0ytm-eqcc-nn22-733w-g815"


def test_words_are_stretched() -> None:
    words = Secret.parse(WORDS.encode())
    assert words.key == stretched(WORDS.replace("-", "").encode())
    assert not words.guessable


@pytest.mark.usefixtures("unstretched")
@pytest.mark.parametrize(
    "typed",
    [
        WORDS,
        WORDS + "\n",
        WORDS.upper(),
        WORDS.replace("-", " "),
        WORDS.replace("-", ""),
        WORDS.replace("0", "O").replace("1", "l"),
        WORDS.replace("1", "I"),
        "0y-tmeq cc nn2273-3wg815 ",
        "\ufeff" + WORDS,
    ],
)
def test_words_are_the_same_however_they_are_typed(typed: str) -> None:
    words = Secret.parse(typed.encode())
    assert words.key == derived(WORDS.replace("-", "").encode())
    assert not words.guessable


@pytest.mark.parametrize("place", range(0, len(WORDS), 3))
def test_a_slip_in_the_words_is_told(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret, "_stretch", None)
    for other in "9z":
        if WORDS[place] not in (other, "-"):
            with pytest.raises(ValueError, match="has a wrong letter or digit") as caught:
                Secret.parse((WORDS[:place] + other + WORDS[place + 1 :]).encode())
            assert "733w" not in str(caught.value)


@pytest.mark.parametrize(
    "slip", [WORDS + "0", WORDS[:-1], WORDS[:9] + WORDS[10:-1] + "9", WORDS.replace("-", "  ")[:-1]]
)
def test_a_slip_in_words_that_are_grouped_otherwise_is_told(slip: str) -> None:
    with pytest.raises(ValueError, match="has a wrong letter or digit"):
        Secret.parse(slip.encode())


def test_words_without_groups_are_not_repeated() -> None:
    words = WORDS.replace("-", "")
    assert secret.conceal(f"cannot resolve {words}: no") == "cannot resolve (a secret): no"
    assert words[:-1] in secret.conceal(f"cannot resolve {words[:-1]}6: no")


@pytest.mark.usefixtures("unstretched")
@pytest.mark.parametrize(
    "other",
    [
        PASSPHRASE,
        WORDS.replace("-", "") + "0",
        WORDS.replace("-", "")[:-1] + "6",  # whatever that was meant to be
        "cold-fern-glad-mint-wave",
        "0ytm-eqcc-nn22-733w-gu15",
        "\u0660ytm-eqcc-nn22-733w-g815",
    ],
)
def test_other_text_is_a_passphrase_that_can_be_guessed(other: str) -> None:
    parsed = Secret.parse(other.encode())
    assert parsed.guessable
    assert parsed.key == Secret(other.encode()).key


@pytest.mark.usefixtures("unstretched")
def test_neither_a_key_nor_words_can_be_guessed() -> None:
    assert not Secret.parse(LINE.encode()).guessable
    assert not Secret.parse(generate_words().encode()).guessable
    assert not Secret(RAW).guessable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"no such file: {LINE}", "no such file: (a secret)"),
        (f"'{LINE.upper()}', {WORDS}.", "'(a secret)', (a secret)."),
        (WORDS.upper().replace("-", " "), "(a secret)"),
        ("bpipe1:", "(a secret)"),
        ("far.example:7000 /run/a-b-c 192.0.2.1", "far.example:7000 /run/a-b-c 192.0.2.1"),
    ],
)
def test_what_is_said_does_not_have_a_secret_in_it(text: str, shown: str) -> None:
    assert conceal(text) == shown


# --- the name of the pipe ---


def test_each_pipe_has_keys_of_its_own() -> None:
    keys = [(each.key, each.mac_key) for each in (Secret(RAW), Secret(RAW, "a"), Secret(RAW, "b"))]
    assert len({key for pair in keys for key in pair}) == 6
    assert Secret.parse(LINE.encode(), "a").key == keys[1][0]


def test_a_name_is_the_same_from_whatever_keyboard() -> None:
    composed, decomposed = "B\u00fccher", "Bu\u0308cher"
    assert Secret(RAW, decomposed).mac_key == Secret(RAW, composed).mac_key


def test_a_passphrase_is_stretched_for_each_name() -> None:
    kdf = Scrypt(salt=b"bpipe/1 passphraseB\xc3\xbccher", length=32, n=2**17, r=8, p=1)
    expected = Secret(kdf.derive(PASSPHRASE.encode()), "B\u00fccher")
    assert Secret.parse(PASSPHRASE.encode(), "B\u00fccher").key == expected.key


@pytest.mark.parametrize(
    ("name", "fault"), [("x" * 256, "longer than 255 bytes"), ("\udcff", "not text")]
)
def test_what_cannot_be_a_name(name: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        Secret(RAW, name)
    assert Secret(RAW, "x" * 255)


# --- passphrases ---


def test_a_passphrase_is_stretched() -> None:
    assert Secret.parse(PASSPHRASE.encode()).key == stretched(PASSPHRASE.encode())


@pytest.mark.usefixtures("unstretched")
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_the_final_newline_is_not_part_of_a_passphrase(end: str) -> None:
    assert Secret.parse((PASSPHRASE + end).encode()).key == derived(PASSPHRASE.encode())


@pytest.mark.usefixtures("unstretched")
def test_the_mark_that_some_editors_put_first_is_not_part_of_a_secret() -> None:
    mark = "\ufeff".encode()
    assert Secret.parse(mark + PASSPHRASE.encode()).key == derived(PASSPHRASE.encode())
    assert Secret.parse(mark + LINE.encode()).key == derived(RAW)


@pytest.mark.usefixtures("unstretched")
@pytest.mark.parametrize("text", ["\n" + PASSPHRASE, PASSPHRASE + " ", PASSPHRASE + "\n\n"])
def test_everything_else_is_part_of_it(text: str) -> None:
    key = Secret.parse(text.encode()).key
    assert key == derived(text.removesuffix("\n").encode())
    assert key != derived(PASSPHRASE.encode())


@pytest.mark.usefixtures("unstretched")
def test_a_passphrase_is_the_same_from_whatever_keyboard() -> None:
    composed, decomposed = "K\u00e4sek\u00e4stchen", "Ka\u0308seka\u0308stchen"
    assert composed != decomposed
    assert Secret.parse(decomposed.encode()).key == derived(composed.encode())


def test_a_passphrase_for_which_there_is_no_memory_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    stretch = hashlib.scrypt

    def stretch_in_one_mebibyte(passphrase: bytes, **work: Any) -> bytes:
        return stretch(passphrase, **work | {"maxmem": 1 << 20})

    monkeypatch.setattr(hashlib, "scrypt", stretch_in_one_mebibyte)
    with pytest.raises(MemoryError, match="128 MiB"):
        Secret.parse(b"a passphrase of many words")


@pytest.mark.parametrize(
    "short",
    ["x", "x" * 11, "x" * 11 + "\n", "ä" * 11, "a\u0308" * 11, "x" * 11 + "\r\n"],
)
def test_a_passphrase_of_fewer_than_12_characters_is_too_short(
    short: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secret, "_stretch", None)
    with pytest.raises(ValueError, match="too short: a passphrase has at least 12 characters"):
        Secret.parse(short.encode())


@pytest.mark.parametrize("empty", ["", "\n", "\r\n"])
def test_an_empty_file_is_said_to_be_one(empty: str) -> None:
    with pytest.raises(ValueError, match="is empty"):
        Secret.parse(empty.encode())


@pytest.mark.usefixtures("unstretched")
def test_twelve_characters_are_enough() -> None:
    assert SHORTEST_PASSPHRASE == 12
    assert Secret.parse(("ä" * 12).encode()).key == derived(("ä" * 12).encode())


@pytest.mark.parametrize(
    "data", [b"\xff" * 40, RAW, b"bpipe1:\xff", "a passphrase".encode("utf-16")]
)
def test_what_is_not_text_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="is not text") as caught:
        Secret.parse(data)
    assert not isinstance(caught.value, UnicodeError)


# --- never shown ---


def test_a_secret_does_not_show_itself() -> None:
    shared = Secret(RAW)
    for text in (repr(shared), str(shared), f"{shared}", f"{shared!r:>20}", f"{[shared]}"):
        assert text.strip("[] ") == "Secret(...)"
    assert not hasattr(shared, "__dict__")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_secret_cannot_be_pickled(protocol: int) -> None:
    with pytest.raises(TypeError, match="not to be copied"):
        pickle.dumps(Secret(RAW), protocol)


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy])
def test_a_secret_cannot_be_copied(clone: object) -> None:
    assert callable(clone)
    with pytest.raises(TypeError, match="not to be copied"):
        clone(Secret(RAW))


def shown(key: bytes) -> list[str]:
    """The ways in which text could show this key."""
    return [repr(key)[2:-1], key.hex(), base64.b64encode(key).decode().rstrip("=")]


def test_a_traceback_through_who_holds_a_secret_does_not_show_it() -> None:
    def fail(shared: Secret) -> None:
        raise RuntimeError(f"with {shared}")

    try:
        fail(Secret(RAW))
    except RuntimeError as error:
        text = "".join(
            traceback.TracebackException.from_exception(error, capture_locals=True).format()
        )
    assert "Secret(...)" in text
    for form in shown(Secret(RAW).key):
        assert form not in text


@pytest.mark.parametrize(
    "data", [b"bpipe1:Q7wkz", b"Q7wkz", b"Q7wkz \xff", b"\xff" + LINE.encode()]
)
def test_the_traceback_of_what_cannot_be_parsed_shows_nothing_of_it(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^is ") as caught:
        Secret.parse(data)
    text = "".join(traceback.format_exception(caught.value))
    assert "Q7wkz" not in text
    assert LINE not in text
    assert "xff" not in text
