"""The status line: what is said at which width."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bpipe.report.line import gauge, line
from bpipe.report.meter import View
from bpipe.report.segments import ASCII, FINE, Glyphs, columns
from bpipe.status import State, Status, Tally
from tests.support.statuses import (
    AWAY,
    CALLER_AWAY,
    CALLING,
    COMPARING,
    EMPTY,
    FILING,
    LISTENING,
    MIB,
    RECEIVING,
    SENDING,
    over,
)


def text(status: Status, width: int, glyphs: Glyphs = ASCII, **view: Any) -> str:
    """The line without its styles."""
    values: dict[str, Any] = {"rate": 22.4 * MIB, "size": None, "elapsed": 192.3, **view}
    return "".join(span.text for span in line(View(status, **values), width, glyphs))


@pytest.mark.parametrize(
    ("status", "view", "said"),
    [
        (CALLING, {"elapsed": 3.0}, "connecting  attempt 3 now  connection refused"),
        (
            replace(CALLING, cause="no answer from far.example:7000", retry_in=3.7),
            {"elapsed": 3.0},
            "connecting  attempt 3 in 3s  no answer from far.example:7000",
        ),
        (
            replace(CALLING, cause="", retry_in=3.7),
            {"elapsed": 3.0},
            "connecting  attempt 3 in 3s  gives up in 27s  elapsed 3s",
        ),
        (
            replace(CALLING, cause="far.example:7000: connection reset by peer; is it bpipe?"),
            {"elapsed": 3.0},
            "connecting  connection reset by peer; is it bpipe?",
        ),
        (LISTENING, {"elapsed": 3.0}, "waiting for a caller at localhost:7000  elapsed 3s"),
        (SENDING, {}, "connected  sent 480.0 MiB  22.4 MiB/s  20.0 MiB held"),
        (SENDING, {"size": 4096 * MIB}, "connected  #----- 11%  480.0 MiB  22.4 MiB/s  2m42s left"),
        (AWAY, {}, "reconnecting 42s  no answer from far.example:7000  480.0 MiB"),
        (AWAY, {"size": 4096 * MIB}, "reconnecting 42s  no answer from far.example:7000  11%"),
        (CALLER_AWAY, {}, "reconnecting 42s  reset  sent 480.0 MiB  20.0 MiB held"),
        (RECEIVING, {}, "connected  received 290.0 MiB  22.4 MiB/s  10.0 MiB held"),
        (replace(SENDING, finished=True), {}, "finishing  sent 480.0 MiB  22.4 MiB/s  20.0 MiB"),
        (
            replace(SENDING, finished=True, confirmed=500 * MIB),
            {},
            "waiting for the peer  sent 500.0 MiB  22.4 MiB/s  3m12s",
        ),
        (
            replace(RECEIVING, peer_finished=True, finished=False, delivered=300 * MIB),
            {},
            "connected  received 300.0 MiB  22.4 MiB/s",
        ),
        (replace(RECEIVING, peer_finished=True), {}, "finishing  received 290.0 MiB  22.4 MiB/s"),
        (SENDING, {"quiet": 2.0}, "connected  sent 480.0 MiB  nothing moved for 2s"),
        (SENDING, {"quiet": 9.0}, "connected  sent 480.0 MiB  the far side takes nothing"),
        (
            replace(SENDING, written=544 * MIB),
            {},
            "connected  sent 480.0 MiB  22.4 MiB/s  64.0 MiB held: full",
        ),
        (replace(SENDING, silence=4.2), {}, "connected  sent 480.0 MiB  nothing heard for 4s"),
        (
            RECEIVING,
            {"quiet": 9.0},
            "connected  received 290.0 MiB  stdout takes nothing",
        ),
        (
            replace(RECEIVING, delivered=300 * MIB),
            {"quiet": 9.0},
            "connected  received 300.0 MiB  the far side sends nothing",
        ),
        (
            replace(SENDING, confirmed=500 * MIB),
            {"quiet": 9.0},
            "connected  sent 500.0 MiB  stdin gives nothing  3m12s",
        ),
        (
            replace(EMPTY, peer_finished=True),
            {"quiet": 9.0},
            "connected  sent 0 B  stdin gives nothing  elapsed 3m12s",
        ),
        (EMPTY, {"quiet": 9.0}, "connected to far.example:7000  sent 0 B  idle  elapsed 3m12s"),
        (replace(SENDING, state=State.FINISHING), {}, "finishing  sent 480.0 MiB  22.4 MiB/s"),
        (COMPARING, {}, "connected  9.8 GiB equal, 0.5 sent  22.4 MiB/s"),
        (
            COMPARING,
            {"size": 20_480 * MIB},
            "connected  51%  9.8 GiB equal, 0.5 sent  22.4 MiB/s",
        ),
        (FILING, {}, "connected  9.8 GiB equal, 0.5 received  22.4 MiB/s"),
        (replace(FILING, tally=Tally(0, 0, 9, True)), {}, "connected  received 490.0 MiB"),
        (
            replace(FILING, finished=True, peer_finished=True),
            {},
            "finishing  9.8 GiB equal, 0.5 received  22.4 MiB/s",
        ),
        (
            replace(FILING, finished=True),
            {"quiet": 9.0},
            "connected  9.8 GiB equal, 0.5 received  stalled",
        ),
        (
            replace(COMPARING, written=0, confirmed=0, finished=True),
            {},
            "finishing  9.8 GiB equal, 0.5 sent  22.4 MiB/s",
        ),
        (
            replace(SENDING, state=State.ABORTING),
            {},
            "telling the other end  sent 480.0 MiB  elapsed 3m12s",
        ),
    ],
)
def test_sixty_columns_say_what_matters(status: Status, view: dict[str, Any], said: str) -> None:
    assert text(status, 60, **view).startswith(said)


@pytest.mark.parametrize(
    ("status", "view", "said"),
    [
        (
            SENDING,
            {"size": 4096 * MIB},
            "connected to far.example:7000  ###----------------- 11%  sent 480.0 MiB of 4.0 GiB"
            "  22.4 MiB/s  2m42s left  20.0 MiB held until confirmed  round trip 23ms"
            "  3 reconnects  elapsed 3m12s",
        ),
        (
            replace(SENDING, received=5, delivered=5),
            {},
            "connected to far.example:7000  sent 480.0 MiB  received 5 B  22.4 MiB/s"
            "  20.0 MiB held until confirmed  round trip 23ms  3 reconnects  elapsed 3m12s",
        ),
        (
            AWAY,
            {},
            "reconnecting to far.example:7000, 42s  attempt 17 now"
            "  no answer from far.example:7000  gives up in 23h59m  sent 480.0 MiB"
            "  20.0 MiB of 64.0 MiB held until confirmed  3 reconnects  elapsed 3m12s",
        ),
        (
            CALLER_AWAY,
            {},
            "reconnecting 42s  waiting for the caller to come back  reset  gives up in 23h59m"
            "  sent 480.0 MiB  20.0 MiB of 64.0 MiB held until confirmed"
            "  3 reconnects  elapsed 3m12s",
        ),
        (
            RECEIVING,
            {},
            "connected to far.example:7000  received 290.0 MiB  22.4 MiB/s"
            "  10.0 MiB held for stdout  round trip 23ms  3 reconnects  elapsed 3m12s",
        ),
        (
            FILING,
            {},
            "connected to far.example:7000  10.0 GiB compared, 9.8 equal, 0.5 received"
            "  22.4 MiB/s  10.0 MiB held for the disk  round trip 23ms  3 reconnects"
            "  elapsed 3m12s",
        ),
        (
            CALLING,
            {"elapsed": 0.5},
            "connecting to far.example:7000  attempt 3 now  connection refused  gives up in 27s"
            "  elapsed 0s",
        ),
    ],
)
def test_two_hundred_columns_say_everything(
    status: Status, view: dict[str, Any], said: str
) -> None:
    assert text(status, 200, **view) == said


def test_the_next_attempt_is_told_rather_than_when_it_is_given_up() -> None:
    """ssh gives up after an hour, so that this is near all the time."""
    status = replace(AWAY, gives_up_in=3574.0, attempts=5, retry_in=9.3, cause="ssh: no route")
    said = text(status, 80)
    assert said.startswith("reconnecting 42s  attempt 6 in 9s  ssh: no route  sent 480.0 MiB")
    assert "gives up in 59m34s" in text(status, 110)


def test_the_cause_is_cut_last() -> None:
    """And with the time that is left, the size and the percentage are there at eighty columns."""
    status = replace(CALLING, cause="far.example:7000: " + "why it is so " * 8)
    assert text(status, 60) == "connecting  why it is so why it is so why it is so why it..."
    assert text(status, 30) == "connecting  why it is so wh..."
    assert text(status, 30, glyphs=FINE) == "connecting  why it is so why…"
    assert text(SENDING, 79, size=4096 * MIB) == (
        "connected  ##-------- 11%  sent 480.0 MiB of 4.0 GiB  22.4 MiB/s  2m42s left"
    )


@pytest.mark.parametrize("size", [None, 4096 * MIB])
@pytest.mark.parametrize(
    "status", [SENDING, CALLING, AWAY, RECEIVING, EMPTY, LISTENING, CALLER_AWAY, COMPARING, FILING]
)
def test_no_width_is_exceeded_and_more_columns_never_say_less(
    status: Status, size: int | None
) -> None:
    lengths = [len(text(status, width, size=size)) for width in range(1, 220)]
    assert all(length <= width for width, length in enumerate(lengths, 1))
    assert lengths == sorted(lengths)


def test_a_peer_cannot_write_to_the_terminal_and_wide_names_are_measured() -> None:
    status = replace(SENDING, peer="unix:/\x1b[2J/管道/e\u0301")
    assert text(status, 200).startswith("connected to unix:/?[2J/管道/e\u0301  sent")
    assert columns("管道e\u0301") == 5
    for width in range(1, 120):
        assert columns(text(status, width)) <= width


@pytest.mark.parametrize(
    ("part", "whole", "said"),
    [
        (0, 100, "----"),
        (1, 100, "#---"),
        (50, 100, "##--"),
        (51, 100, "###-"),
        (99, 100, "###-"),
        (100, 100, "####"),
    ],
)
def test_a_gauge_is_empty_or_full_only_if_that_is_true(part: int, whole: int, said: str) -> None:
    assert gauge(part, whole, 4, ASCII) == said


def test_a_hundred_per_cent_are_not_said_before_they_are_safe() -> None:
    almost = replace(SENDING, written=1000, confirmed=999, finished=True)
    assert "99%  sent 999 B of 1000 B" in text(almost, 200, size=1000)
    assert "100%  sent 1000 B of 1000 B" in text(replace(almost, confirmed=1000), 200, size=1000)


def test_what_is_said_about_a_file_is_not_held() -> None:
    assert "held" not in text(replace(FILING, received=FILING.delivered + 16), 200)
    assert "1.0 KiB held for the disk" in text(
        replace(FILING, received=FILING.delivered + 1024), 200
    )


def test_who_receives_a_file_waits_for_any_sender() -> None:
    away = replace(CALLER_AWAY, tally=FILING.tally)
    assert "  waiting for the caller to come back, or another  " in text(away, 200)


def test_it_is_the_disk_that_takes_nothing() -> None:
    assert "  the disk takes nothing  " in text(FILING, 200, quiet=9.0)


def test_of_a_file_a_hundred_per_cent_are_not_said_before_it_has_its_name() -> None:
    written = replace(FILING, received=5, delivered=5, tally=Tally(995, 995, 5, incoming=True))
    assert " 99%  " in text(written, 200, size=1000)
    assert " 100%  " in text(replace(written, state=State.FINISHING), 200, size=1000)


@pytest.mark.parametrize(
    ("status", "view", "told"),
    [
        (SENDING, {}, False),
        (SENDING, {"allowed": 22 * MIB}, False),
        (replace(SENDING, held_to=22 * MIB), {}, True),
        (RECEIVING, {"allowed": 22 * MIB}, True),
        (RECEIVING, {"allowed": 30 * MIB}, False),
        (replace(RECEIVING, held_to=22 * MIB), {}, False),
    ],
)
def test_a_rate_is_told_where_it_holds_up_what_moves(
    status: Status, view: dict[str, Any], told: bool
) -> None:
    said = text(status, 200, **view)
    assert ("22.4 MiB/s  at most 22.0 MiB/s" in said) is told
    assert ("at most" in said) is told


@pytest.mark.parametrize(
    ("links", "width", "said"),
    [
        ((1, 1, 1, -1), 200, "connected to far.example:7000  3 of 4 links  sent 480.0 MiB  "),
        ((1, 1, 1, -1), 60, "connected  3 of 4 links  sent 480.0 MiB  22.4 MiB/s"),
        ((1, 1, 1, -1), 40, "connected  480.0 MiB  22.4 MiB/s"),
        ((1, 1, 1, 1), 200, " held until confirmed  4 links  round trip 23ms  "),
        ((1, 1, 1, 1), 60, "connected  sent 480.0 MiB  22.4 MiB/s  20.0 MiB held  3m12s"),
    ],
)
def test_how_many_links_there_are_is_told_where_it_matters(
    links: tuple[int, ...], width: int, said: str
) -> None:
    told = text(over(links), width)
    assert told == said if width < 100 else said in told


def test_of_several_links_a_bar_leaves_room_for_how_many() -> None:
    said = text(over((1, 1, 1, -1)), 80, size=4096 * MIB)
    assert said == "connected  3 of 4 links  #----- 11%  sent 480.0 MiB  22.4 MiB/s  2m42s left"


@pytest.mark.parametrize(
    "status",
    [
        replace(over((-1, -1)), state=State.RECONNECTING, away=3.0),
        replace(over((1, -1)), state=State.FINISHING),
        replace(over((1, -1)), state=State.ABORTING),
        replace(over((-1, -1)), silence=3.0),
        SENDING,
    ],
)
def test_where_another_thing_matters_nothing_is_said_of_links(status: Status) -> None:
    assert " links" not in text(status, 200)
