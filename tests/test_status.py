from __future__ import annotations

import json
from dataclasses import replace

import pytest

from bpipe.status import State
from tests.support.statuses import BEFORE


@pytest.mark.parametrize("state", State)
def test_a_state_is_a_word_for_programs(state: State) -> None:
    assert str(state) == f"{state}" == state.value == state.name.lower()
    assert json.dumps(state) == f'"{state.value}"'


@pytest.mark.parametrize(("links", "reconnects"), [(0, 0), (1, 0), (2, 1), (10, 9)])
def test_every_link_after_the_first_is_a_reconnect(links: int, reconnects: int) -> None:
    assert replace(BEFORE, links=links).reconnects == reconnects


def test_what_is_written_and_not_confirmed_is_held() -> None:
    assert replace(BEFORE, written=10, confirmed=4).unconfirmed == 6
