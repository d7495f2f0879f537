"""Any bytes give progress or a ProtocolError, and chunking never changes the outcome."""

from __future__ import annotations

import random
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.fuzz import check, main, mutated

pytestmark = pytest.mark.slow


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=5, max_size=400))
def test_any_bytes(data: bytes) -> None:
    check(data)


@settings(max_examples=1500, deadline=None)
@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_bytes_that_are_nearly_right(seed: int) -> None:
    check(mutated(random.Random(seed)))


def test_less_than_a_second_is_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []
    atheris = ModuleType("atheris")
    atheris.__spec__ = ModuleSpec("atheris", None)
    vars(atheris).update(
        instrument_all=lambda: None, Setup=lambda words, check: given.extend(words), Fuzz=sys.exit
    )
    monkeypatch.setitem(sys.modules, "atheris", atheris)
    monkeypatch.setattr(sys, "argv", ["tests.support.fuzz", "--seconds", "0.1"])
    with pytest.raises(SystemExit):
        main()
    assert given == ["tests.support.fuzz", "-max_total_time=1"]
