"""``bpipe`` and ``python -m bpipe``."""

from __future__ import annotations

# The C half of `signal`: already loaded, while `signal` has imports of its own.
import _signal  # type: ignore[import-not-found]
import gc
import sys
from typing import NoReturn


def _pass(number: int, frame: object) -> None:
    """What a signal does that comes too early."""


def main() -> NoReturn:
    """Run the command line, and exit with its status."""
    if sys.version_info < (3, 11):  # pip asks before, but a single file comes to any Python
        found = ".".join(map(str, sys.version_info[:2]))
        sys.exit(f"bpipe: needs Python 3.11 or later, and this is {found}")
    # From here on ^C ends the process without a traceback, during the imports too; and a signal
    # that asks for something before the session can answer does not end it.
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    asking = ("SIGUSR1", "SIGUSR2", "SIGINFO")
    as_ssh = sys.argv[1:2] in (["ssh"], ["run"])  # which SIGUSR1 ends, as it ends ssh
    for name in asking[as_ssh:]:
        if hasattr(_signal, name):  # not ignored: that would be inherited
            _signal.signal(getattr(_signal, name), _pass)
    sys.modules["ssl"] = None  # type: ignore[assignment]  # asyncio does without, and starts sooner
    gc.disable()  # collecting during the imports costs a tenth of the start-up
    begun = None
    try:
        if sys.argv[1:2] == ["ssh"]:
            from bpipe.cli.early import begin

            begun = begin(sys.argv[2:])
        from bpipe.cli.app import run

        status: int | str = run(sys.argv[1:], begun)
    except (ImportError, OSError, MemoryError) as error:  # also while another one was told
        status = f"bpipe: cannot start: {str(error) or 'out of memory'}"
    if begun is not None:
        begun.abandon()
    sys.exit(status)


if __name__ == "__main__":
    main()
