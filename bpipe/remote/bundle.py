"""What is sent ahead to the far side: modules of bpipe, and what is to be done there, in one line.

An interactive interpreter reads that line, so it is one that every Python 3 compiles. It holds a
*parcel*, compressed and in base 85: words in JSON, ``boot``, which brings in the rest, and the
names and sources of that. Of these only the code is sent: see ``trim``. Where the holder runs
already, a relay is enough, whose line is short.
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

from bpipe.remote.trim import trimmed

if TYPE_CHECKING:  # that takes long, and is not used
    from importlib.abc import InspectLoader

LONGEST: Final = 60_000  # bytes of a line: each of them is sent for every session,
LONGEST_OF_SEVERAL: Final = 64_000  # and that has several links, and a stream to a file
RELAY: Final = ("bpipe.remote.relay",)
HOLDER: Final = (*RELAY, "bpipe.remote.starter", "bpipe.remote.holder")
COMPARING: Final = ("bpipe.comparison",)  # for a holder whose stream goes to a file
SEVERAL: Final = (  # for one whose session has several links
    "bpipe.protocol.slot_channel",
    "bpipe.protocol.owed",
    "bpipe.protocol.reassembly",
)

_BOOT: Final = "bpipe.remote.boot"
_LINE: Final = (
    "import base64,json,zlib;"
    "w,b,*m=zlib.decompress(base64.b85decode('%s')).decode().split('\\0');"
    "p=json.loads(w);p.update(boot=b,modules=dict(zip(m[::2],m[1::2])));"
    "exec(b,p);p['begin'](p)\n"
)
_IMPORT: Final = re.compile(r"\nfrom (bpipe[\w.]*) import (.*)")


def line(roots: tuple[str, ...], words: Mapping[str, Any]) -> bytes:
    """The line that brings in these modules, and what they need, and begins with these words."""
    parcel = [json.dumps(words), trimmed(source(_BOOT))]
    for name, text in modules(roots).items():
        parcel += name, text
    packed = zlib.compress("\0".join(parcel).encode(), 9)
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
    for base, names in _IMPORT.findall("\n" + text):
        inside = [f"{base}.{name}" for name in re.findall(r"\w+", names)]
        found += [base, *filter(_is_module, inside if _is_package(base) else ())]
    return found


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
