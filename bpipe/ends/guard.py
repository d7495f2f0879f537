"""The guard: a small process that outlives bpipe, so that no program sees the end of a part.

When a process dies, the system closes what it held, and who reads a pipe of it sees an end of file.
So the guard holds a duplicate of each program's stdin. It has got it before the program starts, and
closes it when it is told to, which is said before we close ours; it answers, and only then do we.
If its socket ends instead, bpipe has died, and the guard cuts short what it still holds.

It is a fresh interpreter, not a fork: one of a process that has threads may stand still for ever,
and would keep all our memory. It gets the compiled code of three modules over its socket, so it
needs neither a file nor the rest of bpipe: 12 MB, of which 5 are its own. Nobody waits for its
start: what it is told until then lies in the socket, which keeps the pipes open, too.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import importlib.util
import marshal
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from bpipe.ends.vigil import ENDED, LET_GO, PIPE, RECORD, STARTED
from bpipe.net import spawn

if TYPE_CHECKING:  # that takes long, and is not used
    from importlib.abc import InspectLoader

_MODULES: Final = ("bpipe.net.processes", "bpipe.ends.kin", "bpipe.ends.vigil")
_BOOT: Final = """\
import marshal, os, sys
size, data = int(sys.argv[1]), b""
while len(data) < size:
    data += os.read(0, size - len(data)) or sys.exit()
for name, code in marshal.loads(data):
    module = sys.modules[name] = type(sys)(name)
    exec(code, vars(module))
module.main()
"""


AGAIN: Final = 3  # times that it is started anew for programs that run


class Held(NamedTuple):
    """A program, as far as the process has been told of it, so that it can be told again."""

    stdin: int
    mark: bytes
    pid: int = 0
    handle: int = -1
    ended: bool = False


class Guard:
    """Our side of it. The process is started with the first program, and anew if it has died."""

    def __init__(self) -> None:
        self.pid: int | None = None
        self._sock: socket.socket | None = None
        self._last = 0
        self._again = AGAIN
        self._held: dict[int, Held] = {}  # by keys
        self._letting_go: dict[int, Callable[[], None]] = {}
        self._outbox: collections.deque[tuple[bytes, list[int]]] = collections.deque()

    def hold(self, stdin: int, mark: bytes = b"") -> int:
        """Before a program starts: keep its stdin open. Returns the key that names it from now on.

        ``mark`` is what it is going to have in its environment (see ``kin``). ``stdin`` has to stay
        open until it is let go. Raises OSError.
        """
        if self._sock is None:
            self._start()
        self._last += 1
        self._held[self._last] = Held(stdin, mark)
        self._say(PIPE, self._last, 0, stdin, mark)
        return self._last

    def started(self, key: int, pid: int, handle: int) -> None:
        """The program runs; ``handle`` is its pidfd, or -1."""
        self._note(key, pid=pid, handle=handle)
        self._say(STARTED, key, pid, handle)

    def ended(self, key: int) -> None:
        """The program has ended by itself."""
        self._note(key, ended=True)
        self._say(ENDED, key)

    def let_go(self, key: int, closed: Callable[[], None]) -> None:
        """The program's stream has ended. ``closed`` is called when the guard holds it no more.

        It is called once, and later.
        """
        if self._sock is None or key not in self._held:
            self._held.pop(key, None)
            asyncio.get_running_loop().call_soon(closed)
            return
        self._letting_go[key] = closed
        self._say(LET_GO, key)

    def close(self) -> None:
        """What has not been let go is cut short by the process, which ends then."""
        self._leave()
        self._held.clear()

    def _leave(self) -> None:
        """Nothing more is said to the process, and nothing of it is waited for."""
        loop = asyncio.get_running_loop()
        if self._sock is not None:
            loop.remove_reader(self._sock)
            loop.remove_writer(self._sock)
            self._sock.close()
            self._sock = None
        for _, descriptors in self._outbox:
            _close(descriptors)
        self._outbox.clear()
        for key, closed in self._letting_go.items():
            del self._held[key]
            loop.call_soon(closed)
        self._letting_go.clear()

    def _start(self) -> None:
        code = marshal.dumps([(name, _code(name)) for name in _MODULES])
        ours, its = socket.socketpair()
        try:
            argv = [sys.executable, "-I", "-S", "-c", _BOOT, str(len(code)), "bpipe-guard"]
            blocked = signal.valid_signals()
            with its, open(os.devnull, "r+b", buffering=0) as null:
                standard = (its.fileno(), null.fileno(), null.fileno())
                pid = spawn.start(argv, _environment(), standard, blocked)
            ours.sendall(code)  # more than fits waits for its start, which is soon
        except OSError:
            ours.close()
            raise
        ours.setblocking(False)
        self._sock = ours
        self.pid = pid
        leaving = spawn.Exit(pid, lambda: leaving.reap())
        asyncio.get_running_loop().add_reader(ours, self._hear)
        for key, held in self._held.items():  # which one before had
            self._say(PIPE, key, 0, held.stdin, held.mark)
            if held.ended:
                self._say(ENDED, key)
            elif held.pid:
                self._say(STARTED, key, held.pid, held.handle)

    def _start_again(self) -> None:
        """It was killed: nobody holds anything but we. Not for ever: it may be this that kills."""
        self._leave()
        if self._held and self._again:
            self._again -= 1
            with contextlib.suppress(OSError):
                self._start()

    def _hear(self) -> None:
        assert self._sock is not None
        try:
            record = self._sock.recv(RECORD.size)
        except BlockingIOError:
            return
        except OSError:
            record = b""
        if len(record) < RECORD.size:
            self._start_again()
            return
        _, key, _, _ = RECORD.unpack(record)
        del self._held[key]
        self._letting_go.pop(key)()

    def _note(self, key: int, **what: Any) -> None:
        if key in self._held:
            self._held[key] = self._held[key]._replace(**what)

    def _say(
        self, what: bytes, key: int, pid: int = 0, descriptor: int = -1, mark: bytes = b""
    ) -> None:
        if self._sock is None or key not in self._held:
            return
        record = RECORD.pack(what, key, pid, mark)
        descriptors = [descriptor] if descriptor >= 0 else []
        if self._outbox or not _send(self._sock, record, descriptors):
            self._outbox.append((record, [os.dup(each) for each in descriptors]))
            asyncio.get_running_loop().add_writer(self._sock, self._flush)

    def _flush(self) -> None:
        """There is room for more in the socket."""
        assert self._sock is not None
        while self._outbox and _send(self._sock, *self._outbox[0]):
            _close(self._outbox.popleft()[1])
        if not self._outbox:
            asyncio.get_running_loop().remove_writer(self._sock)


def _send(sock: socket.socket, record: bytes, descriptors: Sequence[int]) -> bool:
    """Whether there was room for it."""
    try:
        socket.send_fds(sock, [record], descriptors)
    except BlockingIOError:
        return False
    except OSError:  # it has gone, and its end of the socket says so
        pass
    return True


def _close(descriptors: Sequence[int]) -> None:
    for each in descriptors:
        os.close(each)


def _code(name: str) -> object:
    """The compiled code of a module, wherever it was loaded from."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    return cast("InspectLoader", spec.loader).get_code(name)


def _environment() -> dict[str, str]:
    """What an interpreter may need to start; none of it is for people."""
    names = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    return {name: os.environ[name] for name in names if name in os.environ}
