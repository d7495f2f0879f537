"""``bpipe`` and ``python -m bpipe``."""

from __future__ import annotations

# What the module `signal` is made of: it is there at once, while `signal` has imports of its own.
import _signal  # type: ignore[import-not-found]
import gc
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line, and exit with its status."""
    # From here on ^C ends the process without a traceback, during the imports too.
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    gc.disable()  # to look through what the imports make costs a tenth of the start-up
    from bpipe.cli.app import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
