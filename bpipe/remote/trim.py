"""What is left of a source for a machine on which nobody reads it: its code, and no more.

Docstrings, comments, empty lines, most of its indents and most of its other spaces go, and so do
the types of arguments, of results and of most variables, and what is imported for these alone. That
is half of it. The rest does what it did: the tests compare the trees of both. It is looked for by
texts, as ruff formats them, and not in a tree, which would take ten times as long.
"""

from __future__ import annotations

import re
from typing import Final

_COMMENT: Final = re.compile(r"  # .*")
_COMMENT_ALONE: Final = re.compile(r"\n#.*")
_EMPTY: Final = re.compile(r"\n[ \n]*\n")
_NOTHING: Final = re.compile(r'\n( *)""\n(?=\1[^ \n])')  # and then something
_STRING: Final = re.compile(r'("""(?:.|\n)*?"""|"(?:[^"\\\n]|\\.)*"|' + r"'(?:[^'\\\n]|\\.)*')")
_BESIDE: Final = re.compile(r" (?:(?<!\s )(?=[^\w\s])|(?<=[^\w\s] )(?=\S|$))")  # what is no name

_BRACKETS: Final = r"\[(?:[^][]|\[(?:[^][]|\[[^][]*\])*\])*\]"  # with two more within
_TYPE: Final = rf"(?:[^][(),:=\n]|{_BRACKETS})+"
_FOR_TYPES: Final = re.compile(r"\nif TYPE_CHECKING:(?:\n .*)+")
_FUNCTION: Final = re.compile(r"def \w+\(.*?\)(?: -> [^\n]+)?:\n", re.DOTALL)
_RESULT: Final = re.compile(r"\) -> [^\n]+:\n$")
_ARGUMENT: Final = re.compile(rf"([(,]\s*\**\w+): {_TYPE}?(?=[,)\n]| =)")
_VARIABLE: Final = re.compile(rf"\n(\w+|  +\w+| +self\.\w+): {_TYPE}?(?= = )")  # not a field

_HEAD: Final = re.compile(r'(?:""\n|(?:from [\w.]+ )?import (?:\([^)]*\)|.*)\n)+')
_IMPORT: Final = re.compile(r"(from [\w.]+ )?import (?:\(([^)]*)\)|(.*))\n")


def trimmed(source: str) -> str:
    """The same code, shorter.

    Three quotes are nothing but the begin or the end of a string in it, and four spaces an indent.
    """
    parts = source.split('"""')
    for outside in range(0, len(parts), 2):
        code = _COMMENT_ALONE.sub("", _COMMENT.sub("", parts[outside]))
        parts[outside] = _EMPTY.sub("\n", code).replace("    ", " ")
    for inside in range(1, len(parts), 2):
        before = parts[inside - 1].rpartition("\n")[2]
        if not before.strip() and parts[inside + 1].startswith("\n"):
            parts[inside] = ""
    code = '"""'.join(parts).replace('""""""', '""')
    return _dense(_used(_untyped(_NOTHING.sub("\n", code))))


def _dense(code: str) -> str:
    """Without the spaces between words of which one is no name."""
    parts = _STRING.split(code)
    parts[::2] = [_BESIDE.sub("", outside) for outside in parts[::2]]
    return "".join(parts)


def _untyped(code: str) -> str:
    """Without types. A field of a class keeps its own, which a NamedTuple needs."""
    code = _FUNCTION.sub(_untyped_function, _FOR_TYPES.sub("", code))
    return _VARIABLE.sub(r"\n\1", code)


def _untyped_function(found: re.Match[str]) -> str:
    return _ARGUMENT.sub(r"\1", _RESULT.sub("):\n", found[0]))


def _used(code: str) -> str:
    """Without the imports at its begin of which nothing is left that has their names in it."""
    head = _HEAD.match(code)
    if head is None:
        return code
    body = code[head.end() :]

    def shorter(found: re.Match[str]) -> str:
        base, several, one = found.groups()
        names = [each.strip() for each in (several or one).split(",")]
        if base == "from __future__ ":
            return found[0]
        kept = [each for each in names if each and each.split()[-1].partition(".")[0] in body]
        return f"{base or ''}import {','.join(kept)}\n" if kept else ""

    return _IMPORT.sub(shorter, head[0]) + body
