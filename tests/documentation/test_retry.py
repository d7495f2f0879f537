"""The line of a crontab that tries again: after what, and after what not."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.documentation.commands import crontab, documented

# What it ends with first, and how long it sleeps then.
END: Final = {2: [], 1: [], 141: [], 3: ["60"], 4: ["60"], 137: ["60"]}


@pytest.mark.parametrize("status", END)
def test_it_tries_again_where_that_helps(status: int, tmp_path: Path) -> None:
    """Programs of ours are in the place of bpipe, which fails once, and of sleep."""
    (recipe,) = (each for each in documented() if each.title == "An image every night, by cron")
    (file,) = recipe.files
    _, (command,) = crontab(file)
    fails = "kill -9 $$" if status == 137 else f"exit {status}"
    scripts = {
        "bpipe": f"[ -e {tmp_path}/failed ] || {{ : > {tmp_path}/failed; {fails}; }}",
        "sleep": f"echo $1 >> {tmp_path}/slept",
    }
    for name, script in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o700)
    (tmp_path / "slept").touch()
    command = command.replace("/dev/sdb", "/dev/null")
    run = subprocess.run(["/bin/sh", "-c", command], env={"PATH": str(tmp_path)}, timeout=20)
    assert (tmp_path / "slept").read_text().split() == END[status]
    assert (run.returncode == 0) == bool(END[status])
