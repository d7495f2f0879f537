"""A carrier that loses the end of a stream, and says that all is well, as ``kubectl exec`` does.

``dropper.py FOLDER WAY AT DROP -- COMMAND...`` runs the command, and is its stdin and stdout.
After AT bytes one way (``up`` or ``down``) it takes DROP more and forwards none of them; it ends
then, with status 0. It does so once: from then on there is a file ``dropped`` in the folder.
It is run by itself, without the tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading

folder, way, at, drop, _, *command = sys.argv[1:]
DONE = os.path.join(folder, "dropped")


def carry(source: int, sink: int, left: int) -> None:
    """Forward so many bytes, or all (-1); then swallow some, and end everything."""
    while left and (data := os.read(source, left if 0 < left < 1 << 16 else 1 << 16)):
        left -= len(data) if left > 0 else 0
        while data:
            data = data[os.write(sink, data) :]
    if left:
        os.close(sink)
        return
    swallow = int(drop)
    while swallow > 0 and (data := os.read(source, 1 << 16)):
        swallow -= len(data)
    open(DONE, "w").close()
    program.kill()
    os._exit(0)


program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
assert program.stdin is not None
assert program.stdout is not None
once = not os.path.exists(DONE)
ways = {"up": (0, program.stdin.fileno()), "down": (program.stdout.fileno(), 1)}
threads = [
    threading.Thread(target=carry, args=(*ends, int(at) if once and name == way else -1))
    for name, ends in ways.items()
]
threads[0].daemon = True
for thread in threads:
    thread.start()
threads[1].join()
os._exit(program.wait())
