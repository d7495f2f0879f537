"""What bpipe-protocol(7) says in bytes and in tables, as values."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Final, NamedTuple

PROTOCOL: Final = Path(__file__).parent.parent.parent / "man" / "bpipe-protocol.7"

_HEX: Final = r"((?:[0-9a-f]{2} )*[0-9a-f]{2})"


class Said(NamedTuple):
    """Bytes that one end has put on the link."""

    by: str  # C: the caller, A: the answerer
    data: bytes


def section(name: str) -> str:
    """The source of a section, or of a subsection."""
    text = PROTOCOL.read_text()
    found = re.search(rf"^\.(S[hs]) {re.escape(name)}\n", text, re.MULTILINE)
    assert found is not None, name
    ends = r"^\.Sh " if found[1] == "Sh" else r"^\.S[hs] "
    return re.split(ends, text[found.end() :], maxsplit=1, flags=re.MULTILINE)[0]


def said(name: str) -> list[Said]:
    """The hexadecimal digits in a section, as messages; each begins with who says it."""
    said: list[Said] = []
    for line in section(name).splitlines():
        if match := re.match(rf"([CA ]) {_HEX}(?:  |$)", line):
            by, before = (match[1], b"") if match[1] != " " else said.pop()
            said.append(Said(by, before + bytes.fromhex(match[2])))
    return said


def turns(said: list[Said]) -> list[Said]:
    """The same, with what one end says in one go in one piece."""
    return [
        Said(by, b"".join(piece.data for piece in pieces))
        for by, pieces in itertools.groupby(said, lambda piece: piece.by)
    ]


def values(name: str) -> list[tuple[str, bytes]]:
    """The values in a section, each after its label."""
    found: list[tuple[str, bytes]] = []
    for line in section(name).splitlines():
        if match := re.match(rf"(?!  ?[0-9a-f]|[CA] )(.{{14}}) {_HEX}$", line):
            label, data = match[1].strip(), bytes.fromhex(match[2])
            if not label:
                label, before = found.pop()
                data = before + data
            found.append((label, data))
    return found


def tables(name: str) -> list[list[dict[str, str]]]:
    """The tables of a section: rows, whose cells are found by their column."""
    found = []
    for text in section(name).split(".Bl -column ")[1:]:
        rows = re.findall(r"^\.It (.*)$", text.partition("\n.El\n")[0], re.MULTILINE)
        head, *body = (row.split(" Ta ") for row in rows)
        columns = [cell.removeprefix("Em ") for cell in head]
        found.append([dict(zip(columns, row, strict=True)) for row in body])
    return found


def legends(name: str) -> list[list[str]]:
    """The words that are explained below the tables of a section, list by list."""
    return [
        re.findall(r"^\.It (\S+)$", text.partition("\n.El\n")[0], re.MULTILINE)
        for text in section(name).split(".Bl -tag ")[1:]
    ]
