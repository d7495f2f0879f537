"""The commands that README.md and the manual pages tell people to type, with who types them where.

In README.md they are indented by four spaces; a line that is indented by more goes on with the
one before it. In the pages they are displays in which somebody has a prompt; a line without one
goes on with the one before it. ``far$`` is typed on the machine far.example, all else on this one;
``#`` is root's. Nothing here runs anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
README: Final = ROOT / "README.md"
RECIPES: Final = ROOT / "man" / "bpipe-recipes.7"
MANUAL: Final = ROOT / "man" / "bpipe.1"

_PROMPT: Final = re.compile(r"(far)?([$#]) ")
_FILE: Final = re.compile(r"\[\w+\]\n|bpipe: ")  # the file of a unit; what bpipe says
_WHEN: Final = re.compile(r"(?:[\d*]\S* ){5}(?=\S)")
_ESCAPES: Final = {  # of roff
    **{r"\e": "\\", r"\-": "-", r"\&": "", r"\(aq": "'"},
    **{r"\(dq": '"', r"\(ti": "~", r"\(ha": "^", r"\(ga": "`"},
}


class Line(NamedTuple):
    """What is typed at one prompt, as it stands; it may have several rows."""

    text: str
    far: bool = False  # typed on the other machine
    root: bool = False  # by root


class Recipe(NamedTuple):
    """Lines that belong together, in the order in which they are typed."""

    document: str  # the name of the file
    title: str
    lines: tuple[Line, ...]
    files: tuple[str, ...] = ()  # what is shown, and not typed

    def __str__(self) -> str:
        return f"{self.document}: {self.title}"


def documented() -> list[Recipe]:
    """All recipes of all documents. Of two that have the same commands, the first."""
    found = [*page(RECIPES.name, RECIPES.read_text())]
    found += page(MANUAL.name, section(MANUAL.read_text(), "EXAMPLES"))
    found += readme(README.read_text())
    distinct: dict[object, Recipe] = {}
    for each in found:
        lines = [line._replace(text=one_row(line.text)) for line in each.lines]
        distinct.setdefault((*lines, *each.files), each)
    return [*distinct.values()]


def one_row(text: str) -> str:
    """The same in one row, for people, and to compare it."""
    return " ".join(text.replace("\\\n", " ").split())


def crontab(text: str) -> tuple[list[str], list[str]]:
    """The variables and the commands of such a file; no commands: it is no such file."""
    rows = text.splitlines()
    variables = [row for row in rows if re.match(r"[A-Z_]+=", row)]
    return variables, [_WHEN.sub("", row, count=1) for row in rows if _WHEN.match(row)]


def readme(text: str, document: str = README.name) -> Iterator[Recipe]:
    """The recipes of a text in Markdown.

    A title is what stands in bold at the start of a paragraph; else it is that of the section.
    """
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    blocks: list[tuple[str, str]] = []
    title = ""
    for paragraph in re.split(r"\n\n+", text.strip("\n")):
        if found := re.match(r"#+ (.*)", paragraph):
            title = found[1]
        elif found := re.match(r"\*\*([^*]*)\*\*", paragraph):
            title = found[1]
        elif paragraph.startswith("    "):
            blocks.append((title, re.sub("^ {4}", "", paragraph, flags=re.MULTILINE)))
    yield from _recipes(document, ((title, *_typed_or_shown(block)) for title, block in blocks))


def _typed_or_shown(block: str) -> tuple[list[Line], list[str]]:
    """The lines of an indented block, or the block."""
    if _FILE.match(block):
        return [], [block.strip()]
    rows = re.findall(r"^\S.*(?:\n[ \t].*)*", block, re.MULTILINE)
    return [_line(row) for row in rows], []


def page(document: str, text: str) -> Iterator[Recipe]:
    """The recipes of a manual page, or of a section of it.

    A title is that of the subsection; where there is none, what the paragraph begins with.
    """
    yield from _recipes(document, _displays(text))


def section(text: str, name: str) -> str:
    """A section of a manual page, from its heading to the next one; empty if there is none."""
    found = re.search(rf"^\.Sh {re.escape(name)}\n(?:(?!\.Sh ).*\n)*", text, re.MULTILINE)
    return found[0] if found else ""


def _displays(text: str) -> Iterator[tuple[str, list[Line], list[str]]]:
    """The title of each display, what is typed in it, or what is shown."""
    parts = re.split(r"^\.Bd -literal.*\n((?:.*\n)*?)\.Ed$", text, flags=re.MULTILINE)
    heading = ""
    for before, block in zip(parts[::2], parts[1::2], strict=False):
        for found in re.finditer(r"^\.S([hs]) (.*)$", before, re.MULTILINE):
            heading = _plain(found[2].strip('"')) if found[1] == "s" else ""
        block = _plain(block)
        if not _PROMPT.match(block):
            yield heading or _beginning(before), [], [block.strip()]
            continue
        rows = re.split(r"^(?=(?:far)?[$#] )", block, flags=re.MULTILINE)[1:]
        yield heading or _beginning(before), [_line(row.rstrip("\n")) for row in rows], []


def _beginning(text: str) -> str:
    """What the last paragraph begins with, up to a full stop or a colon at the end of a row."""
    paragraph = re.split(r"^\.(?:Pp|S[hs] .*|Ed)\n", text, flags=re.MULTILINE)[-1]
    rows = re.findall(r"^(?:\.[A-Z][a-z] )?(.*)$", paragraph.strip(), re.MULTILINE)
    return re.split(r"[.:;](?: |$)", _plain(" ".join(rows)))[0].strip()


def _plain(text: str) -> str:
    """The same without the escapes of roff."""
    return re.sub(r"\\(?:\(..|.)", lambda found: _ESCAPES.get(found[0], found[0]), text)


def _line(row: str) -> Line:
    """A line, of which the prompt is known and taken away."""
    prompt = _PROMPT.match(row)
    if prompt is None:
        return Line(row)
    return Line(row[prompt.end() :], far=prompt[1] == "far", root=prompt[2] == "#")


def _recipes(
    document: str, blocks: Iterable[tuple[str, list[Line], list[str]]]
) -> Iterator[Recipe]:
    """One for each title, with all that stands below it."""
    found: dict[str, tuple[list[Line], list[str]]] = {}
    for title, lines, files in blocks:
        below = found.setdefault(title, ([], []))
        below[0].extend(lines)
        below[1].extend(files)
    for title, (lines, files) in found.items():
        yield Recipe(document, title, tuple(lines), tuple(files))
