"""A process that holds programs, and is there to be killed: ``python -m tests.support.holder``.

Each argument is the shell's words of one program. It says a line when all of them have started, and
does what it is told by lines then: it closes every stdin, and says so when that is done; and it
begins to cut them short, says so, and does no more.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import sys

from bpipe.ends.child import Child
from bpipe.ends.guard import Guard


async def main() -> None:
    loop = asyncio.get_running_loop()
    guard = Guard()
    children = [Child(shlex.split(each), os.environ, lambda: None, guard) for each in sys.argv[1:]]
    print(guard.pid, *(each.pid for each in children), flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    for each in children:
        each.close_stdin()
    while any(each.stdin >= 0 for each in children):
        await asyncio.sleep(0.005)
    print("closed", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    for each in children:
        each.cut_short(lambda: None)
    print("stopped", flush=True)
    sys.stdin.readline()  # and so they stay
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
