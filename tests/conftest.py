"""The tests that draw their data draw the same each time, and no machine is too slow for them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support.scheduling import choose, prompt

settings.register_profile(
    "reproducible",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("reproducible")

for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):  # a shell ignores them for what is
    if signal.getsignal(number) is signal.SIG_IGN:  # in the background, and so would each bpipe
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def _limits_stay() -> Iterator[None]:
    """A command that a test runs in its own process limits no later test, nor what that starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bpipe.cli.keys.keep_out_of_dumps", lambda: None)
        yield


@pytest.fixture(autouse=True)
def _turns_stay() -> Iterator[None]:
    """No test leaves this thread patient: all that later tests start would be, too."""
    before = prompt()
    yield
    if before and not prompt():
        choose(os.SCHED_OTHER)
        pytest.fail("the thread of the tests was left patient")
