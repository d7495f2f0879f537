from __future__ import annotations

import errno
import os
import re
import socket

import pytest

from bpipe import errors
from bpipe.errors import BpipeError, code_of, explain

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, BpipeError)
]


def tree() -> dict[str, str]:
    """The parent of each error, as the module's text shows it."""
    found: dict[str, str] = {}
    above: list[str] = []
    drawn = (errors.__doc__ or "").partition("::\n\n")[2].partition("\n\n")[0]
    for line in drawn.splitlines():
        name = line.strip(" │├└─").partition(" ")[0]
        depth = line.index(name) // 4 - 1
        found[name] = above[depth - 1] if depth else "Exception"
        above[depth:] = [name]
    return found


def test_the_tree_is_drawn_as_it_is() -> None:
    assert tree() == {kind.__name__: kind.__bases__[0].__name__ for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_has_one_line_for_people_and_one_word_for_programs(kind: type[BpipeError]) -> None:
    error = kind("something has happened")
    assert str(error) == "something has happened"
    assert re.fullmatch(r"[a-z-]+", error.code)
    assert kind("something", "special").code == "special"
    assert kind("something").code == error.code


@pytest.mark.parametrize(
    ("error", "text", "code"),
    [
        (
            ConnectionRefusedError(errno.ECONNREFUSED, "as Python has it"),
            "connection refused",
            "refused",
        ),
        (FileNotFoundError(errno.ENOENT, "x", "path"), "no such file or directory", "no-such-file"),
        (ConnectionResetError(errno.ECONNRESET, "x"), "connection reset by peer", "reset"),
        (BrokenPipeError(errno.EPIPE, "x"), "broken pipe", "closed"),
        (TimeoutError(errno.ETIMEDOUT, "x"), "connection timed out", "silent"),
        (OSError(errno.EHOSTUNREACH, "x"), "no route to host", "unreachable"),
        (OSError(errno.ENETDOWN, "x"), "network is down", "unreachable"),
        (OSError(errno.EMFILE, "x"), "too many open files", "emfile"),
        (OSError(987654, "x"), os.strerror(987654)[0].lower() + os.strerror(987654)[1:], "failed"),
        (OSError("Of no number"), "of no number", "failed"),
        (OSError(), "", "failed"),
        (socket.gaierror(), "", "failed"),
    ],
)
def test_what_the_system_says_in_words_for_people_and_for_programs(
    error: OSError, text: str, code: str
) -> None:
    assert explain(error) == text
    assert code_of(error) == code


@pytest.mark.parametrize("usage", [True, False])
def test_whether_a_file_is_the_wrong_one_or_cannot_be_used_now(usage: bool) -> None:
    error = errors.TargetError("a folder", usage=usage)
    assert (str(error), error.code, error.usage) == ("a folder", "output", usage)
