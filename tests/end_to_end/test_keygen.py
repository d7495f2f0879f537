"""A new secret: a file that only its owner can read."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from subprocess import PIPE

import pytest

from bpipe.cli.keys import load_secret
from tests.end_to_end.helpers import Start

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("umask", ["000", "777"])
def test_keygen_writes_a_key_that_only_its_owner_can_read(
    start: Start, tmp_path: Path, umask: str
) -> None:
    path = tmp_path / "key"
    keygen = start.bpipe("keygen", str(path), shell=f'umask {umask}; exec "$@"', stdout=PIPE)
    assert keygen.read_all() == b""
    assert keygen.wait() == 0
    assert keygen.lines == []
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert re.fullmatch(r"bpipe1:[A-Za-z0-9_-]{43}\n", path.read_text())
    load_secret(path)
