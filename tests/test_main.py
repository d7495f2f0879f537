"""What a process does before it knows what it is for."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys
import bpipe.cli.app
from bpipe.__main__ import main

bpipe.cli.app.run = lambda words, begun: os.kill(os.getpid(), signal.SIGUSR1) or 7
main()
"""


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["connect", "far"], 7),
        (["ssh", "far", "x"], -signal.SIGUSR1),
        (["run", "--via", "x"], -signal.SIGUSR1),
    ],
)
def test_what_asks_for_something_ends_nobody_too_early_but_who_is_in_the_place_of_ssh(
    words: list[str], status: int
) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, *words], timeout=30)
    assert done.returncode == status


def test_what_is_slow_to_load_and_never_used_is_not_loaded() -> None:
    shows = "__import__('asyncio') and print(*sys.modules)"
    program = PROGRAM.replace("os.kill(os.getpid(), signal.SIGUSR1)", shows)
    done = subprocess.run(
        [sys.executable, "-c", program, "listen"], timeout=30, capture_output=True, text=True
    )
    assert "asyncio.sslproto" in done.stdout.split()
    assert "_ssl" not in done.stdout.split()
