"""Whether there is a scheduling policy to choose, and what there is to choose from."""

from __future__ import annotations

import contextlib
import os

import pytest


def prompt() -> bool:
    """Whether this thread is scheduled as others are, and may choose to be otherwise."""
    with contextlib.suppress(AttributeError, OSError):
        return hasattr(os, "SCHED_BATCH") and os.sched_getscheduler(0) == os.SCHED_OTHER
    return False


CHOOSING = pytest.mark.skipif(not prompt(), reason="there is no policy to choose here")


def choose(policy: int) -> None:
    """Have this thread scheduled so."""
    os.sched_setscheduler(0, policy, os.sched_param(0))
