"""A command that is started before anything else: who has it, and who sees to its end."""

from __future__ import annotations

import os

import pytest

from bpipe.net.carrier import Carrier
from bpipe.net.command import Command
from bpipe.net.launch import MARK, Launched
from bpipe.net.utterance import Utterance
from tests.support.carriers import SHORT
from tests.support.pairs import run

pytestmark = pytest.mark.slow  # real processes; the default Python only

SAYS_MARK = ["sh", "-c", f'printf "${MARK}"; cat']


@pytest.mark.parametrize("apart", [True, False], ids=["apart", "ours"])
def test_it_runs_on_a_connection_and_has_a_mark(apart: bool) -> None:
    launched = Launched(SAYS_MARK, apart=apart)
    launched.sock.setblocking(True)
    assert launched.sock.recv(100).decode() == launched.value
    assert (os.getsid(launched.pid) == launched.pid) == apart
    launched.abandon()
    with pytest.raises(ChildProcessError):
        os.waitpid(launched.pid, 0)
    launched.abandon()


def test_our_options_are_not_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BPIPE_OUTPUT", "BPIPE_SECRET_FILE", "BPIPE_SESSION", "BPIPE_PEER", MARK):
        monkeypatch.setenv(name, "x")
    launched = Launched(["sh", "-c", "env | grep ^BPIPE_ | sort; cat"], apart=True)
    launched.sock.setblocking(True)
    said = launched.sock.makefile()
    lines = [f"{MARK}={launched.value}\n", "BPIPE_PEER=x\n", "BPIPE_SESSION=x\n"]
    assert [said.readline() for _ in lines] == lines
    launched.abandon()


def test_one_that_is_not_there_is_told() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        Launched(["no such program"], apart=False)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_carrier_takes_it() -> None:
    async def check() -> None:
        launched = Launched(SAYS_MARK, apart=False)
        carrier = Carrier(SAYS_MARK, Utterance(print), apart=False, grace=SHORT, launched=launched)
        assert carrier.pid == launched.pid
        launched.abandon()
        os.kill(carrier.pid, 0)
        with carrier.sock:
            carrier.release()
            await carrier.gone

    run(check)


def test_it_is_the_first_run_of_a_command_and_only_that() -> None:
    async def check() -> None:
        launched = Launched(["cat"], apart=False)
        command = Command(["cat"], begun=launched)
        first, second = await command.connect(0), await command.connect(1)
        assert first.sock is launched.sock
        assert second.sock is not launched.sock
        await command.close()
        for each in (first, second):
            each.sock.close()

    run(check)


def test_a_command_that_never_connects_ends_it() -> None:
    async def check() -> None:
        launched = Launched(["cat"], apart=False)
        await Command(["cat"], begun=launched).close()
        with pytest.raises(ChildProcessError):
            os.waitpid(launched.pid, 0)

    run(check)
