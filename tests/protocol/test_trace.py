from __future__ import annotations

from bpipe.protocol.trace import Traced


def test_what_is_told_is_told_from_then_on() -> None:
    traced, told = Traced(), list[tuple[str, str]]()
    traced.log("=", "before")
    traced.trace_to(lambda sign, text: told.append((sign, text)))
    traced.log(">", "after")
    assert told == [(">", "after")]


def test_a_number_is_raised_with_each_change() -> None:
    traced = Traced()
    before = traced.change
    traced.changed()
    assert traced.change > before
