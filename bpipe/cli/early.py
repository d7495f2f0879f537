"""ssh is started before all else is loaded, which takes as long as it needs to shake hands."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Final

from bpipe.cli.ssh import Call, NotSsh, read
from bpipe.net.launch import MARK, OF_PROGRAMS, Launched
from bpipe.remote import PYTHON

_NO_OPTIONS: Final = {*OF_PROGRAMS, MARK, "BPIPE_SECRET_FILE"}  # ssh has no --secret
_DEADLY: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


def begin(words: Sequence[str]) -> Launched | None:
    """The ssh that these words ask for, with what it starts on the far side.

    None if they, or the environment, have an option that is not ssh's, or may not be right: that is
    looked at, and explained, in its time. Until it is taken a signal that ends us ends it, too.
    """
    try:
        call = read(words)
        if not isinstance(call, Call) or call.ours or any(map(_is_option, os.environ)):
            return None
        for descriptor in range(3):  # if one is closed, its number is not for what is opened here
            os.fstat(descriptor)
        launched = Launched((*call.first(), *PYTHON), apart=False)
    except (NotSsh, OSError, ValueError):
        return None

    def end(number: int, frame: object) -> None:
        launched.abandon()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    for number in _DEADLY:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, end)
    return launched


def _is_option(name: str) -> bool:
    """Whether this variable may stand for an option."""
    return name.startswith("BPIPE_") and name not in _NO_OPTIONS and os.environ[name] != ""
