"""What is said of a command line that cannot be run: one line on stderr."""

from __future__ import annotations

import contextlib
import sys


def complain(message: str) -> None:
    """Say this without the secrets and the control characters that are in it.

    A byte that is no text is a question mark, also where repr() has made an escape of it.
    """
    import re

    from bpipe.protocol.secret import conceal
    from bpipe.report.segments import printable

    message = re.sub(r"\\udc[89a-f][0-9a-f]", "?", message)
    say(f"bpipe: {printable(conceal(message))}")


def say(text: str) -> None:
    """Write this to stderr, if that can be."""
    if sys.stderr is not None:  # without one, print() would turn to stdout
        with contextlib.suppress(OSError):
            print(text, file=sys.stderr, flush=True)
