"""The results: samples by row, their medians, and how many times bpipe's are theirs."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bpipe.report.format import format_size

Sample = dict[str, float]


class Column(NamedTuple):
    """One figure of every row: ``over`` makes it from the samples that are called ``key``."""

    key: str
    title: str
    show: Callable[[float], str]
    over: Callable[[Iterable[float]], float] = statistics.median


@dataclass
class Table:
    """What one benchmark found. ``subjects`` are the rows that all others are compared with,
    by the first column."""

    title: str
    columns: list[Column]
    subjects: list[str]
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # what is missing, for one

    def add(self, row: str, sample: Sample) -> None:
        """One more round of this row."""
        self.samples.setdefault(row, []).append(sample)

    def value(self, row: str, column: Column) -> float:
        """A figure; nan if there is none."""
        found = [sample[column.key] for sample in self.samples.get(row, []) if column.key in sample]
        return column.over(found) if found else math.nan

    def ratio(self, subject: str, row: str) -> float:
        """The subject's first figure, divided by that of the row; nan if that means nothing."""
        value = self.value(row, self.columns[0])
        return self.value(subject, self.columns[0]) / value if value else math.nan

    @property
    def _compared(self) -> list[str]:
        return [subject for subject in self.subjects if subject in self.samples]

    def print(self) -> None:
        """For people, on stdout."""
        from rich import box
        from rich.console import Console
        from rich.table import Table as Drawing

        drawing = Drawing(title=self.title, title_justify="left", box=box.SIMPLE_HEAD)
        drawing.add_column("")
        for title in [column.title for column in self.columns]:
            drawing.add_column(title, justify="right")
        for subject in self._compared:
            drawing.add_column(f"{subject} /", justify="right")
        for row in self.samples:
            figures = [_shown(column.show, self.value(row, column)) for column in self.columns]
            ratios = [_shown("{:.2f}".format, self.ratio(each, row)) for each in self._compared]
            drawing.add_row(row, *figures, *ratios)
        console = Console(width=None if Console().is_terminal else 120)
        console.print(drawing)
        for note in self.notes:
            console.print(f"  {note}", highlight=False, markup=False)

    def as_json(self) -> str:
        """For programs: one line, with every sample."""
        rows: dict[str, Any] = {
            row: {
                "figures": {c.title: _finite(self.value(row, c)) for c in self.columns},
                "ratios": {each: _finite(self.ratio(each, row)) for each in self._compared},
                "samples": [{k: _finite(v) for k, v in each.items()} for each in samples],
            }
            for row, samples in self.samples.items()
        }
        return json.dumps({"title": self.title, "rows": rows, "notes": self.notes})


def _shown(show: Callable[[float], str], value: float) -> str:
    if math.isnan(value):
        return "-"
    return "never" if math.isinf(value) else show(value)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def show_rate(value: float) -> str:
    """Bytes per second, in GiB."""
    return f"{value / (1 << 30):.2f} GiB/s"


def show_middle_rate(value: float) -> str:
    """Bytes per second, in MiB."""
    return f"{value / (1 << 20):.0f} MiB/s"


def show_slow_rate(value: float) -> str:
    """Bytes per second, in kbit."""
    return f"{value * 8 / 1000:.0f} kbit/s"


def show_seconds(value: float) -> str:
    """Seconds, with as many digits as can matter."""
    return f"{value:.2f} s"


def show_milliseconds(value: float) -> str:
    """Seconds, in thousandths."""
    return f"{value * 1e3:.1f} ms"


def show_microseconds(value: float) -> str:
    """Seconds, in millionths."""
    return f"{value * 1e6:.0f} us"


def show_size(value: float) -> str:
    """Bytes."""
    return format_size(value)


def show_count(value: float) -> str:
    """A number of things."""
    return f"{value:.0f}"
