"""What a command says, and what of it is told."""

from __future__ import annotations

from bpipe.net.utterance import LONGEST, REMEMBERED, Utterance


def said(*parts: bytes, before: Utterance | None = None) -> tuple[Utterance, list[str]]:
    """A run that has said this, and what was told of it."""
    told: list[str] = []
    utterance = Utterance(told.append, before)
    for part in parts:
        utterance.heard(part)
    utterance.flush()
    return utterance, told


def test_the_first_run_is_told_line_by_line_and_whole() -> None:
    assert said(b"one\ntw", b"o\n\nthree")[1] == ["one", "two", "three"]
    assert said(b"again\nagain\n")[1] == ["again", "again"]


def test_a_line_is_told_when_it_has_come() -> None:
    told: list[str] = []
    utterance = Utterance(told.append)
    utterance.heard(b"one\ntwo")
    assert told == ["one"]
    utterance.flush()
    assert told == ["one", "two"]
    utterance.heard(b" and more\n")
    assert told[2:] == [" and more"]


def test_of_a_later_run_only_what_the_last_one_has_not_said() -> None:
    first, _ = said(b"unreachable\n")
    second, told = said(b"unreachable\nrefused\n", before=first)
    assert told == ["refused"]
    assert said(b"unreachable\nrefused\n", before=second)[1] == []
    silent, _ = said(before=second)
    assert said(b"refused\n", before=silent)[1] == ["refused"]


def test_what_is_drawn_over_is_not_told() -> None:
    assert said(b"10%\r20%\r100%\r\n")[1] == ["100%"]
    assert said(b"ssh: no\r\n  \r\n")[1] == ["ssh: no"]


def test_a_line_without_an_end_is_told_in_parts() -> None:
    told = said(b"x" * (2 * LONGEST + 1))[1]
    assert [len(each) for each in told] == [LONGEST, LONGEST, 1]


def test_what_is_no_text_is_told_as_far_as_it_is() -> None:
    assert said(b"caf\xe9\n")[1] == ["caf\ufffd"]


def test_a_flood_is_not_remembered() -> None:
    flood = b"".join(b"%d\n" % number for number in range(REMEMBERED + 1))
    first, told = said(flood)
    assert len(told) == REMEMBERED + 1
    assert len(first.lines) == REMEMBERED
    assert said(flood, before=first)[1] == [str(REMEMBERED)]


def test_of_one_that_is_hushed_no_more_is_told_and_the_next_one_may_say_it() -> None:
    first, told = said(b"one\n")
    first.hush()
    first.heard(b"two\n")
    assert told == ["one"]
    assert said(b"one\ntwo\n", before=first)[1] == ["two"]
