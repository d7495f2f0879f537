from __future__ import annotations

import pytest

from bpipe.protocol.terms import Terms
from bpipe.protocol.wire import RECORDS, Position

PLAIN, NEEDY = Position(0, 0, 5), Position(0, 0, 5, needs=RECORDS)


@pytest.mark.parametrize("ours", [0, RECORDS])
@pytest.mark.parametrize("theirs", [PLAIN, NEEDY], ids=["plain", "needy"])
def test_there_are_records_if_either_end_needs_them(ours: int, theirs: Position) -> None:
    terms = Terms(ours)
    assert terms.records is (True if ours else None)
    assert terms.fit(theirs)
    terms.agree(theirs)
    assert terms.records is bool(ours or theirs.needs)


@pytest.mark.parametrize("impossible", [PLAIN._replace(window=0), PLAIN._replace(links=9)])
def test_terms_that_cannot_be_do_not_suit(impossible: Position) -> None:
    assert not Terms().suit(impossible)
    assert not Terms().fit(impossible)


@pytest.mark.parametrize("other", [PLAIN._replace(window=6), PLAIN._replace(links=2), NEEDY])
def test_a_peer_never_changes_its_terms(other: Position) -> None:
    terms = Terms()
    terms.agree(PLAIN)
    assert terms.fit(PLAIN._replace(received=3))
    assert not terms.fit(other)


@pytest.mark.parametrize("ours", [0, RECORDS])
def test_who_begins_before_there_is_a_link_stays_with_that(ours: int) -> None:
    terms = Terms(ours)
    assert terms.begin() is terms.records is bool(ours)
    assert terms.suit(PLAIN)
    assert terms.suit(NEEDY) is bool(ours)


@pytest.mark.parametrize("ours", [0, RECORDS])
def test_another_peer_may_state_others_but_what_has_begun_stays(ours: int) -> None:
    terms = Terms(ours)
    terms.agree(PLAIN)
    terms.forget()
    assert terms.fit(PLAIN._replace(window=6))
    assert terms.suit(NEEDY) is terms.fit(NEEDY) is bool(ours)
