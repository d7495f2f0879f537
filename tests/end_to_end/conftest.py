"""The fixtures of the end-to-end tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.helpers import Start


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts processes and proxies, and ends them after the test."""
    with Start() as start:
        yield start


@pytest.fixture
def path() -> Iterator[Path]:
    """Where a Unix socket can be made: a short path, in a folder that is empty."""
    with tempfile.TemporaryDirectory(prefix="bp-") as folder:
        yield Path(folder, "s")
