"""A line that fits into any width: what is said more shortly first."""

from __future__ import annotations

import pytest

from bpipe.report.segments import ASCII, CAUSE, Segment, Span, columns, fit, printable, shortening

NAME = Segment(("the name", "name"), (2,), "bold")
EXTRA = Segment(("extra", ""), (1,))
LAST = Segment(("what is cut last",))


def text(segments: list[Segment], width: int) -> str:
    """The line without its styles."""
    return "".join(span.text for span in fit(segments, width))


@pytest.mark.parametrize(
    ("width", "said"),
    [
        (99, "the name  extra  what is cut last"),
        (33, "the name  extra  what is cut last"),
        (32, "the name  what is cut last"),
        (25, "name  what is cut last"),
        (21, "name  what is cut las"),
        (3, "nam"),
        (0, ""),
    ],
)
def test_the_lowest_rank_goes_first_and_what_has_none_is_cropped(width: int, said: str) -> None:
    assert text([NAME, EXTRA, LAST], width) == said


def test_each_part_has_its_style_and_what_is_empty_no_gap() -> None:
    empty = Segment(("",))
    assert fit([empty, NAME, empty, EXTRA], 80) == [
        Span("the name", "bold"),
        Span("  "),
        Span("extra"),
    ]


def test_a_text_that_can_be_cut_off_takes_the_room_that_is_left() -> None:
    cause = shortening("why it is so " * 8, ASCII.more)
    for width in range(CAUSE + 8, 100):
        said = text([NAME, EXTRA, cause], width)
        assert width - 2 <= len(said) <= width
        assert said.endswith("...")


@pytest.mark.parametrize(
    ("said", "width"), [("plain", 5), ("\u7ba1\u9053", 4), ("e\u0301", 1), ("\uff21", 2)]
)
def test_how_wide_a_terminal_shows_it(said: str, width: int) -> None:
    assert columns(said) == width


def test_what_a_terminal_would_act_upon_is_not_printed() -> None:
    assert printable("a\x1b[2Jb\nc\u7ba1") == "a?[2Jb?c\u7ba1"
