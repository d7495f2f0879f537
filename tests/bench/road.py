"""A network of two machines, made of two namespaces and a wire that the kernel slows down.

Unlike ``wire.py``, it has no delay and no faults, and costs next to nothing: for large amounts.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
from types import TracebackType
from typing import Final

NEAR: Final = "10.78.0.1"
FAR: Final = "10.78.0.2"

_BURST: Final = 128 << 10  # bytes
_numbers = itertools.count()


class Road:
    """Each way it has this rate, in bits per second. Needs root; see ``missing``."""

    def __init__(self, rate: int) -> None:
        name = f"br{os.getpid() % 100000}-{next(_numbers)}"
        names = f"{name}n", f"{name}f"
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            for each in names:
                _ip("netns", "add", each)
                stack.callback(_ip, "netns", "delete", each)
            pair = "e", "netns", names[0], "type", "veth", "peer", "e", "netns", names[1]
            _ip("link", "add", *pair)
            for each, address in zip(names, (NEAR, FAR), strict=True):
                _ip("-n", each, "addr", "add", f"{address}/24", "dev", "e")
                for device in ("lo", "e"):
                    _ip("-n", each, "link", "set", device, "up")
                limit = "rate", str(rate), "burst", str(_BURST), "latency", "50ms"
                _run("tc", "-n", each, "qdisc", "add", "dev", "e", "root", "tbf", *limit)
            self._stack = stack.pop_all()
        self._near = names[0]
        self.near = ("ip", "netns", "exec", names[0])
        self.far = ("ip", "netns", "exec", names[1])

    def __enter__(self) -> Road:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def crossed(self) -> int:
        """The bytes that have crossed so far, both ways, with all headers."""
        [device] = json.loads(_ip("-n", self._near, "-s", "-j", "link", "show", "e"))
        counts = device["stats64"]
        crossed: int = counts["rx"]["bytes"] + counts["tx"]["bytes"]
        return crossed


def missing() -> str:
    """Why there can be no road here; empty if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    try:
        with Road(10**9):
            return ""
    except (OSError, subprocess.SubprocessError) as error:
        return f"no network namespaces with veth and tbf: {error}"


def _ip(*arguments: str) -> str:
    return _run("ip", *arguments)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
