"""Any bytes give progress or a ProtocolError, and chunking never changes the outcome."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import check, mutated


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=5, max_size=400))
def test_any_bytes(data: bytes) -> None:
    check(data)


@settings(max_examples=1500, deadline=None)
@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_bytes_that_are_nearly_right(seed: int) -> None:
    check(mutated(random.Random(seed)))
