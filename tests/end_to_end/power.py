"""A power cut, made of what ``disk_actor`` has noted: what is lost of a part that was not synced.

Everything that was written since its last sync is there, or not, or torn, or zeros, page by page
and in any order; so are the length of the part, its name, and the new name of FILE.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Final

PAGE: Final = 4096
SECTOR: Final = 512


def cut(notes: Path, file: Path, rng: random.Random) -> str:
    """Damage what lies at the place of this FILE; returns what was done, in a word."""
    part = file.with_name(file.name + ".part")
    synced, old = notes / "synced", notes / "old"
    created = (notes / "created").exists()
    renamed = (notes / "renamed").exists() and not part.exists()  # else it was about to be
    written = part if part.exists() else file
    done = "nothing"
    if synced.exists() and written.exists():
        done = _damage(written, synced.read_bytes(), rng)
    if renamed and rng.random() < 0.5:
        file.rename(part)
        if old.exists():
            old.rename(file)
        done = "the name"
    if created and part.exists() and rng.random() < 0.1:
        part.unlink()
        done = "the part"
    for name in ("synced", "old", "renamed", "created"):
        (notes / name).unlink(missing_ok=True)
    return done


def _damage(path: Path, before: bytes, rng: random.Random) -> str:
    """The content of this file is somewhere between that and what it is now."""
    now = path.read_bytes()
    if now == before:
        return "nothing"
    manner = rng.choice(("all of it", "some pages", "some pages", "some pages", "nothing"))
    if manner == "nothing":
        return manner
    after = before if manner == "all of it" else mixed(before, now, rng)
    with path.open("r+b") as opened:  # it is the same file
        opened.write(after)
        opened.truncate()
    return manner


def mixed(before: bytes, now: bytes, rng: random.Random) -> bytes:
    """Each page that has changed is as before, or as it is now, or torn, or zeros."""
    likely = rng.random()  # to be there
    pages = []
    for at in range(0, max(len(before), len(now)), PAGE):
        old, new = (each[at : at + PAGE].ljust(PAGE, b"\0") for each in (before, now))
        if old != new and rng.random() > likely:
            border = rng.randrange(0, PAGE, SECTOR)
            new = rng.choice((old, bytes(PAGE), old[:border] + new[border:]))
        pages.append(new)
    shorter, longer = sorted((len(before), len(now)))
    length = rng.choice((len(before), len(now), rng.randint(shorter, longer)))
    return b"".join(pages)[:length]
