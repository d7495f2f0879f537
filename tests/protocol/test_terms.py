from __future__ import annotations

import pytest

from bpipe.protocol.terms import Terms
from bpipe.protocol.wire import FILE, RECORDS, Position

PLAIN, NEEDY = Position(0, 0, 5), Position(0, 0, 5, needs=RECORDS)
WIDE = Position(0, 0, 1024)
FILED = Position(0, 0, 1024, needs=FILE | RECORDS)


@pytest.mark.parametrize("ours", [0, RECORDS])
@pytest.mark.parametrize("theirs", [PLAIN, NEEDY], ids=["plain", "needy"])
def test_there_are_records_if_either_end_needs_them(ours: int, theirs: Position) -> None:
    terms = Terms(ours)
    assert terms.records is (True if ours else None)
    assert terms.fit(theirs)
    terms.agree(theirs)
    assert terms.records is bool(ours or theirs.needs)


@pytest.mark.parametrize(
    "impossible",
    [PLAIN._replace(window=0), PLAIN._replace(links=9), Position(0, 0, 1024, needs=FILE)],
)
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


@pytest.mark.parametrize("ours", [0, RECORDS])
def test_a_stream_goes_to_a_file_if_the_peer_says_so(ours: int) -> None:
    terms = Terms(ours)
    terms.agree(FILED)
    assert (terms.records, terms.to_file) == (True, True)
    assert terms.fit(FILED)
    terms.forget()
    assert not terms.suit(WIDE._replace(needs=RECORDS))


def test_what_comes_from_a_peer_does_not_go_to_its_file() -> None:
    terms = Terms(FILE | RECORDS)
    assert terms.suit(WIDE)
    assert not terms.suit(FILED)  # neither would send
    assert not terms.suit(WIDE._replace(window=1023))
    terms.agree(WIDE)
    assert (terms.records, terms.to_file) == (True, False)


@pytest.mark.parametrize("ours", [0, RECORDS])
def test_who_begins_before_there_is_a_link_does_not_write_to_a_file(ours: int) -> None:
    terms = Terms(ours)
    terms.begin()
    assert terms.to_file is False
    assert not terms.suit(FILED)


@pytest.mark.parametrize("ours", [0, RECORDS])
def test_a_file_needs_a_window(ours: int) -> None:
    assert Terms(ours).suit(FILED)
    assert not Terms(ours).suit(FILED._replace(window=1023))
    assert not Terms(ours, window=1023).suit(FILED)
    assert Terms(ours, window=1023).suit(WIDE)


def test_all_of_it_is_sent_only_if_that_is_said() -> None:
    terms = Terms()
    assert not terms.whole
    terms.send_whole()
    assert terms.whole
