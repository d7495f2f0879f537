"""The README's service: one backup after the other, also after a sender that was killed."""

from __future__ import annotations

import re
import shlex
import signal
import sys
import time
from pathlib import Path
from subprocess import PIPE

from tests.end_to_end.data import MIB, PATIENCE, pattern, until
from tests.end_to_end.helpers import Program, Start

README = Path(__file__).parents[2] / "README.md"
GIVE_UP = 1.0  # seconds, in the place of ten minutes
RESTART = 0.2  # seconds, in the place of two


def unit(folder: Path) -> str:
    """The command of the unit, as systemd would run it, with files in this folder."""
    found = re.search(r"^ *ExecStart=/bin/sh -c '([^']*)'$", README.read_text(), re.MULTILINE)
    assert found is not None
    command = re.sub(r"\\\n *", "", found[1])
    for ours, real in (("%t/bpipe", str(folder)), ("%%", "%"), ("$$", "$")):
        command = command.replace(ours, real)
    assert "--give-up-after 10m" in command
    return command.replace("10m", str(GIVE_UP))


def serve(start: Start, folder: Path) -> Program:
    """Run the service, and start it again when it ends."""
    script = folder / "bpipe"  # what is left after a failure ends by itself
    script.write_text(f'#!/bin/sh\nexec timeout 60 {shlex.quote(sys.executable)} -m bpipe "$@"\n')
    script.chmod(0o700)
    loop = f"for n in 1 2; do sh -c {shlex.quote(unit(folder))}; sleep {RESTART}; done"
    return start.program("env", f"-C{folder}", f"PATH={folder}:/usr/bin:/bin", "sh", "-c", loop)


def test_a_sender_that_is_killed_does_not_keep_the_next_backup_out(
    start: Start, path: Path
) -> None:
    folder, address = path.parent, str(path.with_name("in"))
    service = serve(start, folder)
    killed = start.bpipe("connect", address, "--send-only", stdin=PIPE)
    killed.feed(None)
    part = folder / "part"
    until(lambda: part.exists() and part.stat().st_size > MIB, "some of the first backup")
    killed.signal(signal.SIGKILL)
    began = time.monotonic()
    backup = folder / "backup"
    backup.write_bytes(pattern(0, 1_000_000))

    def sent() -> bool:
        with backup.open("rb") as stdin:
            return start.bpipe("connect", address, "--send-only", stdin=stdin).wait() == 0

    until(sent, "the next backup to come through", GIVE_UP + PATIENCE)
    assert time.monotonic() - began < GIVE_UP + RESTART + PATIENCE / 2
    until(lambda: list(folder.glob("*.tar")), "its name")
    [named] = folder.glob("*.tar")
    assert named.read_bytes() == backup.read_bytes()
    assert service.wait() == 0
