"""A line that fits into any width: parts of it, each of which can be said more shortly.

Theory of operation. The line consists of segments, each of which can be said at greater or lesser
length. As long as the line does not fit, something is said more shortly, in the order of what is
missed least.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Final, NamedTuple

CAUSE: Final = 24  # columns that a cause keeps as long as there is anything else to cut

_GAP: Final = "  "


class Glyphs(NamedTuple):
    """The characters that a terminal may not have."""

    full: str
    empty: str
    more: str


FINE: Final = Glyphs("█", "░", "…")
ASCII: Final = Glyphs("#", "-", "...")


class Span(NamedTuple):
    """A part of the line in one style, which is one of rich's."""

    text: str
    style: str = ""


class Segment(NamedTuple):
    """The same in several lengths, the longest first.

    Each rank belongs to one step from a length to the next; those of the lowest rank are taken
    first. One that is elastic takes what room is left in the end.
    """

    variants: tuple[str, ...]
    ranks: tuple[int, ...] = ()
    style: str = ""
    elastic: bool = False


def fit(segments: Sequence[Segment], width: int) -> list[Span]:
    """A line of these, at most ``width`` columns."""
    lengths = [[columns(variant) for variant in segment.variants] for segment in segments]
    chosen = [0] * len(segments)

    def excess() -> int:
        shown = [lengths[i][pick] for i, pick in enumerate(chosen) if lengths[i][pick]]
        return sum(shown) + len(_GAP) * (len(shown) - 1) - width

    steps = [(rank, i) for i, segment in enumerate(segments) for rank in segment.ranks]
    for _, i in sorted(steps):
        if excess() <= 0:
            break
        chosen[i] += 1
    for i, segment in enumerate(segments):
        while segment.elastic and chosen[i] and excess() <= 0:
            chosen[i] -= 1
        if segment.elastic and excess() > 0 and chosen[i] < len(segment.ranks):
            chosen[i] += 1
    spans: list[Span] = []
    for segment, pick in zip(segments, chosen, strict=True):
        if segment.variants[pick]:
            spans += [Span(_GAP)] if spans else []
            spans.append(Span(segment.variants[pick], segment.style))
    return _crop(spans, width)


def shortening(text: str, more: str) -> Segment:
    """A text that is cut off rather than left out, and after everything that may be left out."""
    shorter = [text[:length].rstrip() + more for length in range(len(text) - len(more), 0, -1)]
    ranks = [14 if columns(each) >= CAUSE else 17 for each in shorter]
    return Segment((text, *shorter, ""), (*ranks, 17), elastic=True)


def columns(text: str) -> int:
    """How wide a terminal shows this."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def printable(text: str) -> str:
    """The same without what a terminal would act upon."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _crop(spans: list[Span], width: int) -> list[Span]:
    """The first ``width`` columns."""
    cropped = []
    for text, style in spans:
        while columns(text) > width:
            text = text[:-1]
        width -= columns(text)
        cropped.append(Span(text, style))
    return cropped
