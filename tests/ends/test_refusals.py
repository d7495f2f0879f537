"""What a stream to a file cannot be written to."""

from __future__ import annotations

import os
import stat

import pytest

from bpipe.ends.refusals import refusal

ROOT, US, OTHER = 0, 1000, 1001


def found(kind: int = stat.S_IFREG, user: int = US, names: int = 1) -> os.stat_result:
    return os.stat_result((kind | 0o600, 1, 1, names, user, user, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("what", "user", "part", "why"),
    [
        (found(), US, True, ""),
        (found(names=2), US, False, ""),
        (found(names=2), US, True, "it has another name, too: remove one of them"),
        (found(user=OTHER), US, False, "it belongs to another user"),
        (found(user=OTHER), US, True, "it belongs to another user"),
        (found(user=OTHER), ROOT, False, ""),
        (found(user=OTHER), ROOT, True, "it belongs to another user"),
        (found(stat.S_IFDIR), US, False, "it is a folder"),
        (found(stat.S_IFIFO), US, True, "it is a FIFO"),
        (found(stat.S_IFSOCK), US, False, "it is a socket"),
        (found(stat.S_IFBLK), US, True, "it is no file"),
    ],
)
def test_why_it_is_refused(what: os.stat_result, user: int, part: bool, why: str) -> None:
    assert refusal(what, user, part=part) == why


def test_root_may_have_given_a_part_to_its_heir() -> None:
    part = found(user=OTHER)
    assert refusal(part, ROOT, part=True, heir=OTHER) == ""
    assert refusal(part, ROOT, part=True, heir=US) == "it belongs to another user"
    assert refusal(part, US, part=True, heir=OTHER) == "it belongs to another user"
