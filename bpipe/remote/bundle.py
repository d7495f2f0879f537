"""What is sent ahead to the far side: modules of bpipe, and what is to be done there, in one line.

An interactive interpreter reads that line, so it is one statement that every Python 3 compiles. It
holds a *parcel*, JSON that is compressed and in base 85: the sources by names, and ``boot``, which
brings them in. Of the sources only the code is sent: without docstrings and comments they take half
the room. Where the holder runs already, a relay is enough, whose line is short.
"""

from __future__ import annotations

import base64
import functools
import importlib.util
import json
import re
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:  # that takes long, and is not used
    from importlib.abc import InspectLoader

LONGEST: Final = 1 << 16  # bytes of a line
RELAY: Final = ("bpipe.remote.relay",)
HOLDER: Final = (*RELAY, "bpipe.remote.starter", "bpipe.remote.holder")

_BOOT: Final = "bpipe.remote.boot"
_LINE: Final = (
    "import base64,json,zlib;"
    "p=json.loads(zlib.decompress(base64.b85decode('%s')).decode());"
    "exec(p['boot'],p);p['begin'](p)\n"
)
_COMMENT: Final = re.compile(r"(?:(?<=\n) *#|  # ).*")
_EMPTY: Final = re.compile(r"\n\n+")
_IMPORT: Final = re.compile(r"^from (bpipe[\w.]*) import (\([^)]*\)|.*)$", re.MULTILINE)


def line(roots: tuple[str, ...], words: Mapping[str, Any]) -> bytes:
    """The line that brings in these modules, and what they need, and begins with these words."""
    parcel = {**words, "boot": trimmed(source(_BOOT)), "modules": modules(roots)}
    packed = zlib.compress(json.dumps(parcel, separators=(",", ":")).encode(), 9)
    return (_LINE % base64.b85encode(packed).decode()).encode()


@functools.cache
def modules(roots: tuple[str, ...]) -> Mapping[str, str]:
    """These modules and all that they import on loading: what is left of their sources, by name."""
    found: dict[str, str] = {}
    wanted = list(roots)
    while wanted:
        name = wanted.pop()
        if name in found:
            continue
        parent = name.rpartition(".")[0]
        if not parent:
            found[name] = ""  # what it offers to programs is not needed
            continue
        text = found[name] = trimmed(source(name))
        wanted += [parent, *imported(text)]
    return found


def imported(text: str) -> list[str]:
    """The modules of bpipe that are imported by a source when it is loaded."""
    found = []
    for base, names in _IMPORT.findall(text):
        inside = [f"{base}.{name}" for name in re.findall(r"\w+", names)]
        found += [base, *filter(_is_module, inside if _is_package(base) else ())]
    return found


def trimmed(text: str) -> str:
    """A source without docstrings, comments, empty lines and most of its indents.

    Its code is the same. Three quotes are nothing but the begin or the end of a string in it, and
    four spaces are an indent.
    """
    parts = text.split('"""')
    for outside in range(0, len(parts), 2):
        code = _EMPTY.sub("\n", _COMMENT.sub("", parts[outside]))
        parts[outside] = code.replace("    ", " ")
    for inside in range(1, len(parts), 2):
        before = parts[inside - 1].rpartition("\n")[2]
        if not before.strip() and parts[inside + 1].startswith("\n"):
            parts[inside] = ""
    return '"""'.join(parts).replace('""""""', '""')


def source(name: str) -> str:
    """The source of a module, wherever it was loaded from."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    text = cast("InspectLoader", spec.loader).get_source(name)
    assert text is not None
    return text


def _is_module(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _is_package(name: str) -> bool:
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.submodule_search_locations is not None
