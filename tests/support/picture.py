"""Makes ``man/outage.svg``, the picture in the README, of a real outage.

A tar goes through a proxy that freezes twice; the picture is taken in the second outage.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from tests.end_to_end.data import until
from tests.end_to_end.helpers import Proxy
from tests.end_to_end.screen import Screen

WIDTH: Final = 118  # columns
PICTURE: Final = Path(__file__).parents[2] / "man" / "outage.svg"

_TAKEN: Final = 1 << 16  # bytes that the far side takes at once, a few hundred times a second


def main() -> None:
    """Run it, and take the picture."""
    listener = subprocess.Popen(
        [sys.executable, "-m", "bpipe", "listen", "127.0.0.1:0", "--recv-only"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert listener.stdout is not None
    assert listener.stderr is not None
    proxy = Proxy(listener.stderr.readline().decode().split()[3].rstrip(","))
    screen = Screen(WIDTH)
    threading.Thread(target=_take_slowly, args=(listener.stdout.fileno(),), daemon=True).start()
    try:
        port = proxy.address.rpartition(":")[2]
        screen.enter(f"cd {sysconfig.get_path('stdlib')}; PS1='$ '")
        screen.wait_line(r".*PS1=.*")
        screen.wait_last(r"\$")
        before = len(screen.output) - len("$ ")
        screen.enter(f"tar c . | bpipe connect localhost:{port} --size 300M")
        screen.wait_last(r"connected.* \d+\.\d MiB/s .*elapsed [4-9]s|connected.* [4-9]s")
        proxy.freeze()
        screen.wait_last(r"reconnecting.* 3s .*")
        proxy.thaw()
        screen.wait_last(r"connected.*")
        relayed = proxy.faults.relayed
        until(lambda: proxy.faults.relayed > relayed + (10 << 20), "more bytes")
        proxy.freeze()
        screen.wait_last(r"reconnecting.* 7s .*")
        _save(screen.output[before:].decode())
    finally:
        screen.end()
        proxy.end()
        listener.kill()
        listener.wait()


def _take_slowly(descriptor: int) -> None:
    pause = threading.Event()
    while os.read(descriptor, _TAKEN):
        pause.wait(0.004)


def _save(output: str) -> None:
    drawn = r"\x1b\[\?7l\r\n[^\n]*?\r\x1b\[A\x1b\[\?7h"
    shown = re.sub(drawn + r"\r\x1b\[2K \x1b\[J\r", "", output)  # what was erased again
    shown = re.sub(r"\x1b\[\?7[hl]|\x1b\[A|\r", "", shown)
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(shown))
    svg = re.sub(r"<!--.*?-->\s*", "", console.export_svg(title="bpipe"))
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # nothing is fetched for it
    PICTURE.write_text(re.sub(r"[ \t]+$", "", svg, flags=re.MULTILINE))


if __name__ == "__main__":
    main()
