"""What no machine of a test has: of such a command only bpipe's own words are looked at."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.documentation.commands import Line

# No other programs: a kernel module, daemons, a cluster, and what brings packages.
PROGRAMS: Final = ("zfs", "docker", "kubectl", "pipx", "uv", "make", "systemctl")

_RECORD: Final = """#!{python} -IS
import json, sys
with open({file!r}, "a") as file:
    print(json.dumps(sys.argv[1:]), file=file)
"""


def is_parsed(line: Line) -> bool:
    """Whether it needs one of these programs."""
    return any(re.search(rf"(?<![\w/]){name} ", line.text) for name in PROGRAMS)


def words(text: str, folder: Path) -> list[list[str]]:
    """The words of each bpipe that a shell starts, where no other program does anything.

    The folder is the home, the only one that has programs, and where files are read.
    """
    called = folder / "called"
    called.touch()
    names = dict.fromkeys([*PROGRAMS, *re.findall(r" -- (\w+)", text)], "#!/bin/sh\n")
    names["bpipe"] = _RECORD.format(python=sys.executable, file=str(called))
    for name, script in names.items():
        (folder / name).write_text(script)
        (folder / name).chmod(0o700)
    for name in re.findall(r" < (\w\S*)", text):
        (folder / name).touch()
    environment = {"PATH": str(folder), "HOME": str(folder)}
    shell = ["/bin/sh", "-c", text]
    subprocess.run(shell, capture_output=True, cwd=folder, env=environment, timeout=20)
    return [json.loads(row) for row in called.read_text().splitlines()]
