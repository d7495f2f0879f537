"""What a command finds there is the same as under ssh."""

from __future__ import annotations

from subprocess import PIPE

import pytest

from tests.end_to_end.sshd import Near, Sshd

pytestmark = pytest.mark.slow

# Who it is, where, with what; and no descriptor of ours.
LOOK = r"""
env | grep -v '^SSH_C\|^_=\|^BPIPE_'; pwd; umask; ulimit -a; nice; tty
grep policy /proc/self/sched; cat /proc/self/oom_score_adj
grep '^Sig[BC]\|^Uid\|^Gid\|^Groups\|^Cap' /proc/self/status
ls /proc/self/fd | wc -l
"""


def test_what_a_command_finds_is_the_same(near: Near, sshd: Sshd) -> None:
    far = sshd.far("bash")
    found = []
    for client in ("ssh", "bpipe ssh"):
        program = near.shell.run(*client.split(), str(far), LOOK, stdout=PIPE)
        found.append(sorted(program.read_all().decode().splitlines()))
        assert program.wait() == 0
    assert found[0] == found[1]
