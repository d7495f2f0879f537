"""The secret that both ends share, and the key that is made of it.

A secret is a key that ``bpipe keygen`` made, 32 random bytes as one line of text; or the words that
``bpipe keygen --words`` made, 90 random bits that can be read aloud; or a passphrase. Nothing here
ever shows one: not in ``repr``, not in an error.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import unicodedata
from typing import Final

KEY_SIZE: Final = 32  # bytes
SHORTEST_PASSPHRASE: Final = 12  # characters
LONGEST_NAME: Final = 255  # bytes

_PREFIX: Final = "bpipe1:"
_DIGITS: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # of Crockford's base 32: no i, l, o, u
_AS_MEANT: Final = str.maketrans("ilo", "110", " -")
_RANDOM: Final = 18  # digits of the words; two more tell when one of them is wrong
_WORDS: Final = re.compile(r"[0-9a-z]{4}(?:[ -][0-9a-z]{4}){4}", re.IGNORECASE | re.ASCII)
_SECRETS: Final = re.compile(rf"{_PREFIX}[^\s'\"]*|\b{_WORDS.pattern}\b", re.IGNORECASE | re.ASCII)
_RUN: Final = re.compile(rf"\b[0-9a-z]{{{_RANDOM + 2}}}\b", re.IGNORECASE | re.ASCII)
_CONCEALED: Final = "(a secret)"
_SCRYPT_SALT: Final = b"bpipe/1 passphrase"
_SCRYPT_MEMORY: Final = 256 << 20  # bytes: N and r below need half of it


class Secret:
    """What proves that an end belongs here, made of bytes that nobody can guess.

    Ends that share it, and the ``name`` of their pipe, belong together: one secret serves many
    pipes, and a call for one is not answered by another. ``key`` goes into a greeting, and with
    ``mac_key`` its first message is authenticated (32 bytes each). ``guessable`` tells that it is
    made of a passphrase of which nobody knows how good it is.
    """

    __slots__ = ("guessable", "key", "mac_key")

    def __init__(self, secret: bytes, name: str = "", *, guessable: bool = False) -> None:
        info = normalize_name(name)
        self.key = hkdf(b"bpipe/1 key", secret, 1, info)[0]
        self.mac_key = hkdf(b"bpipe/1 mac", secret, 1, info)[0]
        self.guessable = guessable

    @classmethod
    def parse(cls, data: bytes, name: str = "") -> Secret:
        """The secret that a file with this content means; ValueError if it means none.

        ``name`` is that of the pipe. A passphrase takes some tenths of a second and 128 MiB of
        memory (scrypt, RFC 7914), and so do words.
        """
        salt = _SCRYPT_SALT + normalize_name(name)
        try:
            text = data.decode("utf-8-sig")  # without the mark that some editors put first
        except UnicodeDecodeError:
            raise ValueError("is not text: a key is made by bpipe keygen") from None
        text = text.removesuffix("\n").removesuffix("\r")
        if _PREFIX in text.lower():  # a key, or what was meant to be one
            return cls(_parse_key(text), name)
        if not text:
            raise ValueError("is empty: bpipe keygen makes a key")
        if (words := _parse_words(text)) is not None:
            return cls(_stretch(words.encode(), salt), name)
        # As RFC 8265 has it: one passphrase, whatever keyboard it was typed on.
        text = unicodedata.normalize("NFC", text)
        if len(text) < SHORTEST_PASSPHRASE:
            raise ValueError(
                f"is too short: a passphrase has at least {SHORTEST_PASSPHRASE} characters,"
                " and bpipe keygen makes a key"
            )
        return cls(_stretch(text.encode(), salt), name, guessable=True)

    def __repr__(self) -> str:
        return "Secret(...)"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a secret is not to be copied out of its process")


def hkdf(salt: bytes, material: bytes, count: int, info: bytes = b"") -> list[bytes]:
    """``count`` keys of 32 bytes: HKDF-SHA256 (RFC 5869)."""
    chaining = hmac.digest(salt, material, "sha256")
    keys = [b""]
    for number in range(1, count + 1):
        keys.append(hmac.digest(chaining, keys[-1] + info + bytes([number]), "sha256"))
    return keys[1:]


def normalize_name(name: str) -> bytes:
    """The name of a pipe as it goes into its keys: UTF-8, NFC. ValueError if it cannot be one."""
    try:
        data = unicodedata.normalize("NFC", name).encode()
    except UnicodeEncodeError:
        raise ValueError("is not text") from None
    if len(data) > LONGEST_NAME:
        raise ValueError(f"is longer than {LONGEST_NAME} bytes")
    return data


def generate() -> str:
    """A fresh key, as a line of text without its newline."""
    return _format_key(secrets.token_bytes(KEY_SIZE))


def generate_words() -> str:
    """Fresh words, such as ``jz2r-6v0k-...``: five groups that can be read aloud, and typed."""
    digits = "".join(secrets.choice(_DIGITS) for _ in range(_RANDOM))
    digits += _check_digits(digits)
    return "-".join(digits[start : start + 4] for start in range(0, len(digits), 4))


def conceal(text: str) -> str:
    """The same text without the keys and words that are in it."""
    return _RUN.sub(_conceal_run, _SECRETS.sub(_CONCEALED, text))


def _conceal_run(found: re.Match[str]) -> str:
    """Words without anything between them have digits that tell them from other text."""
    return found[0] if _parse_words(found[0]) is None else _CONCEALED


def _stretch(passphrase: bytes, salt: bytes) -> bytes:
    work = {"n": 1 << 17, "r": 8, "p": 1, "maxmem": _SCRYPT_MEMORY}
    try:
        return hashlib.scrypt(passphrase, salt=salt, dklen=KEY_SIZE, **work)
    except ValueError:  # so it is told, and the numbers are right
        raise MemoryError("a passphrase takes 128 MiB for a moment") from None


def _format_key(key: bytes) -> str:
    return _PREFIX + base64.urlsafe_b64encode(key).decode().rstrip("=")


def _parse_key(text: str) -> bytes:
    try:
        key = base64.b64decode(text.removeprefix(_PREFIX) + "=", altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_SIZE or _format_key(key) != text:
        raise ValueError("is a damaged key: copy the whole line that bpipe keygen wrote")
    return key


def _check_digits(digits: str) -> str:
    digest = hashlib.sha256(digits.encode()).digest()
    return "".join(_DIGITS[byte % len(_DIGITS)] for byte in digest[:2])


def _parse_words(text: str) -> str | None:
    """The 20 digits of these words; None if it is another passphrase; ValueError for a slip.

    How they are grouped and whether they are capitals makes no difference.
    """
    digits = text.lower().translate(_AS_MEANT)
    if abs(len(digits) - _RANDOM - 2) > 1 or not set(digits) <= set(_DIGITS):
        return None
    if len(digits) == _RANDOM + 2 and _check_digits(digits[:_RANDOM]) == digits[_RANDOM:]:
        return digits
    if _look_like_words(text):
        raise ValueError("has a wrong letter or digit: compare it with what bpipe keygen wrote")
    return None


def _look_like_words(text: str) -> bool:
    """Whether somebody has probably meant words: groups, with digits among their letters."""
    groups = re.split("[ -]+", text.lower())
    mixed = [group for group in groups if not (group.isdigit() or group.isalpha())]
    return len(groups) > 1 and len(mixed) * 2 >= len(groups)
