"""Takes the README's two pictures of a real outage, as text, and puts them into the README.

A tar goes through a proxy that freezes twice; the first is the terminal in the second outage, and
the second one its last line. They are text, as that is seen everywhere, in a terminal as well: a
page of an index shows neither pictures of the repository nor such as are written into the page.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path
from typing import Final

from tests.end_to_end.data import until
from tests.end_to_end.helpers import Proxy
from tests.end_to_end.screen import Screen

WIDTH: Final = 100  # columns
README: Final = Path(__file__).parents[2] / "README.md"

_TAKEN: Final = 1 << 16  # bytes that the far side takes at once, a few hundred times a second
_PICTURE: Final = re.compile(r"(?<=```text\n).*?(?=```)", re.DOTALL)


def main() -> None:
    """Run it, and take the pictures."""
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
    hasty = threading.Event()
    taking = listener.stdout.fileno(), hasty
    threading.Thread(target=_take_slowly, args=taking, daemon=True).start()
    try:
        outage = _outage(screen, proxy)
        hasty.set()
        proxy.thaw()
        screen.wait_line(r"bpipe: sent .* all delivered")
        [end] = [line for line in screen.lines if "all delivered" in line]
    finally:
        screen.end()
        proxy.end()
        listener.kill()
        listener.wait()
    _save(outage, [end])


def _outage(screen: Screen, proxy: Proxy) -> list[str]:
    """What is on the screen in the second outage."""
    here = f"localhost:{proxy.address.rpartition(':')[2]}"
    folder = sysconfig.get_path("stdlib")
    size = len(subprocess.run(["tar", "c", "-C", folder, "."], stdout=subprocess.PIPE).stdout)
    screen.enter(f"cd {folder}; clear")
    screen.wait_last(r"\$")
    screen.enter(f"tar c . | bpipe connect {here} --size {size >> 20}M")
    screen.wait_last(r"connected.* \d+\.\d MiB/s .*elapsed [4-9]s|connected.* [4-9]s")
    proxy.freeze()
    screen.wait_last(r"reconnecting +\d+s .*")
    proxy.thaw()
    screen.wait_last(r"connected.*")
    relayed = proxy.faults.relayed
    until(lambda: proxy.faults.relayed > relayed + (10 << 20), "more bytes")
    proxy.freeze()
    screen.wait_last(r"reconnecting +1\ds .*")
    text = "\n".join(screen.lines)
    return (
        text.replace(here, "far.example:7000").replace(proxy.address, "192.0.2.7:7000").split("\n")
    )


def _take_slowly(descriptor: int, hasty: threading.Event) -> None:
    while os.read(descriptor, _TAKEN):
        hasty.wait(0.004)


def _save(*pictures: list[str]) -> None:
    taken = iter(pictures)
    text = _PICTURE.sub(lambda _: "\n".join(next(taken)) + "\n", README.read_text())
    README.write_text(text)


if __name__ == "__main__":
    main()
