"""``connect --via`` with a command that reaches a listener's socket on another machine."""

from __future__ import annotations

from subprocess import PIPE

import pytest

from tests.end_to_end.data import MIB
from tests.end_to_end.helpers import finish
from tests.end_to_end.recipes import need
from tests.end_to_end.sshd import THERE, Near, Sshd

pytestmark = pytest.mark.slow


def test_a_listener_behind_ssh(near: Near, sshd: Sshd) -> None:
    need("nc")
    far = sshd.far()
    listener = near.shell.run("bpipe", "listen", f"unix:{far.home}/s", stdin=PIPE, stdout=PIPE)
    listener.wait_line("^bpipe: listening on ")
    via = f"ssh root@far nc -U {THERE / far.name}/s"
    caller = near.shell.run("bpipe", "connect", "--via", via, stdin=PIPE, stdout=PIPE)
    there, back = listener.drain(), caller.drain(5)
    near_end, far_end = caller.feed(None, pause=0.01), listener.feed(None, 5, pause=0.01)
    for _ in range(2):
        there.wait_count(there.count + MIB)
        back.wait_count(back.count + MIB)
        near.kill()
    near_end.finish()
    far_end.finish()
    assert there.wait_end() == near_end.written
    assert back.wait_end() == far_end.written
    assert finish(caller, listener) == [0, 0]
