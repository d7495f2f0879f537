"""Options that the environment has, in one that has nothing else, as that of cron."""

from __future__ import annotations

import os
import shlex
import signal
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.end_to_end.helpers import Start, finish

pytestmark = pytest.mark.slow


def cron(**variables: object) -> str:
    """What starts a command with these alone."""
    words = shlex.join(f"BPIPE_{name}={value}" for name, value in variables.items())
    return f'exec env -i "PATH=$PATH" "PYTHONPATH=$PYTHONPATH" {words} "$@"'


def test_all_of_it_can_come_from_there(start: Start, key: Path, tmp_path: Path) -> None:
    """Nothing is typed but the addresses: a file goes there, and its program is no variable's."""
    both = {"SECRET_FILE": key, "NAME": "nightly", "STATUS": "never"}
    file = tmp_path / "file"
    listener = start.bpipe("listen", "127.0.0.1:0", shell=cron(**both, OUTPUT=file))
    sender = cron(**both, OUTPUT=tmp_path / "wrong", QUIET=1, SEND_ONLY="", RECV_ONLY=0)
    program = ("--", "sh", "-c", "env | grep ^BPIPE_ | cut -d= -f1 | sort")
    caller = start.bpipe("connect", listener.address, *program, shell=sender)
    assert finish(caller, listener) == [0, 0]
    assert caller.text == ""
    assert "is on the disk" in listener.text
    assert file.read_text() == "BPIPE_PEER\nBPIPE_SESSION\n"
    assert not (tmp_path / "wrong").exists()


def test_an_outage_is_as_long_as_it_says(start: Start, key: Path) -> None:
    both = {"SECRET_FILE": key, "GIVE_UP_AFTER": 0}
    listener = start.bpipe("listen", "127.0.0.1:0", shell=cron(**both), stdin=PIPE)
    caller = start.bpipe("connect", listener.address, shell=cron(**both, VERBOSE=1), stdin=PIPE)
    caller.wait_connected()
    os.kill(caller.pid, signal.SIGKILL)
    caller.wait_whatever()
    assert listener.wait() == 4
    nobody = start.bpipe(
        "connect", listener.address, shell=cron(**both, CONNECT_TIMEOUT=0), stdin=PIPE
    )
    assert nobody.wait() == 3
