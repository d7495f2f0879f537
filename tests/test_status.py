from __future__ import annotations

import json
from dataclasses import replace

import pytest

from bpipe.status import State
from tests.support.statuses import BEFORE, over


@pytest.mark.parametrize("state", State)
def test_a_state_is_a_word_for_programs(state: State) -> None:
    assert str(state) == f"{state}" == state.value == state.name.lower()
    assert json.dumps(state) == f'"{state.value}"'


@pytest.mark.parametrize(("links", "reconnects"), [(0, 0), (1, 0), (2, 1), (10, 9)])
def test_every_link_after_the_first_is_a_reconnect(links: int, reconnects: int) -> None:
    assert replace(BEFORE, links=links).reconnects == reconnects


def test_what_is_written_and_not_confirmed_is_held() -> None:
    assert replace(BEFORE, written=10, confirmed=4).unconfirmed == 6


@pytest.mark.parametrize(
    ("links", "used", "up", "reconnects"),
    [
        ((1, 0), 1, 1, 0),
        ((1, 1), 2, 2, 0),
        ((0, 2), 1, 1, 1),
        ((-1, 1), 2, 1, 0),
        ((3, -1, 2), 3, 2, 3),
    ],
)
def test_of_several_links_only_those_that_have_replaced_another_are_reconnects(
    links: tuple[int, ...], used: int, up: int, reconnects: int
) -> None:
    status = over(links)
    assert (status.used, status.up, status.reconnects) == (used, up, reconnects)


def test_a_link_that_is_in_doubt_is_not_up() -> None:
    status = over((1, 1))
    slots = status.slots[0]._replace(silence=2.0), status.slots[1]
    assert replace(status, slots=slots).up == 1
