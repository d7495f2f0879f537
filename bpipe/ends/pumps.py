"""The pumps: one thread reads stdin into the pipe's writer, one writes its reader to stdout.

Theory of operation. stdin and stdout may be anything, and inherited: they can neither be set
non-blocking (that would leak to every process that shares them) nor all be given to the event
loop (regular files cannot be polled there). So each has a thread that does blocking calls on
memory lent by the rings; no byte is copied here.

Threads. The stdin pump is the only producer of the writer's ring, the stdout pump the only
consumer of the reader's; while it waits, each may lend that to the event loop (``inlet.py``,
``outlet.py``). Everything else they ask the event loop to do. The loop wakes a pump
through its ``Gate``, and only if it waits for something that is there; a pump that is blocked in
a read or a write of its own is left behind when the process ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import stat
import termios
import threading
from collections.abc import Callable
from typing import Final

from bpipe.ends.inlet import Inlet
from bpipe.ends.scheduling import Turns
from bpipe.ends.streams import leave_signals_to_the_main_thread
from bpipe.engine import Engine
from bpipe.errors import explain
from bpipe.net.clock import clock
from bpipe.net.outlet import LITTLE, Outlet, waiting
from bpipe.protocol.ring import Views
from bpipe.protocol.wire import Reason

LARGEST_READ: Final = 1 << 20  # bytes in one system call
LARGEST_WRITE: Final = 1 << 18  # smaller: a write counts as delivered when all of it returned
UNREAD_FOR: Final = 2.0  # seconds without a read after which a consumer is no longer waited for
SMALL_READS: Final = 16  # in a row, after which stdin is lent to the event loop

_BROKEN: Final = select.POLLERR | select.POLLHUP | select.POLLNVAL
# There is no consumer any more.
_GONE: Final = (errno.EPIPE, errno.ECONNRESET, errno.ESHUTDOWN, errno.ENOTCONN)
_LOOKS: Final = (0.001, 0.02)  # seconds between two looks at what it has not read: first, longest


CONSUMER_GONE: Final = "the consumer behind stdout closed its pipe"


class Gate:
    """Where a pump waits for the event loop, beside a descriptor of its own."""

    def __init__(self, descriptor: int, events: int) -> None:
        self._receiver, self._sender = os.pipe()
        os.set_blocking(self._receiver, False)
        os.set_blocking(self._sender, False)
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(self._receiver, select.POLLIN)
        self._poll_both = select.poll()
        self._poll_both.register(self._receiver, select.POLLIN)
        self._poll_both.register(descriptor, events)

    def wait(self, *, beside: bool) -> int:
        """Block until ``open``, or (``beside``) an event of the descriptor, which is returned."""
        events = 0
        for ready, what in (self._poll_both if beside else self._poll).poll():
            if ready == self._descriptor:
                events = what
            else:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._receiver, 64)
        return events

    def open(self) -> None:
        """Wake the pump. Called in the event loop's thread; does not block."""
        with contextlib.suppress(BlockingIOError):  # it was woken often enough
            os.write(self._sender, b"\0")


class Pump:
    """A thread between a descriptor and the pipe. ``ended``: the descriptor is closed.

    ``moved`` returns how many bytes have gone through the descriptor.
    """

    def __init__(
        self, engine: Engine, descriptor: int, events: int, moved: Callable[[], int]
    ) -> None:
        self.ended = False
        self._engine = engine
        self._descriptor = descriptor
        self._gate = Gate(descriptor, events)
        self._waiting = False  # set by the pump, cleared by whoever ends the wait
        self._parked = False  # it is at its gate, and does not leave it while it waits
        self._turns = Turns(moved)
        engine.observe(self._look)
        threading.Thread(target=self._main, name=type(self).__name__, daemon=True).start()

    def _main(self) -> None:
        leave_signals_to_the_main_thread()
        self._run()

    def _run(self) -> None:
        raise NotImplementedError

    def _wanted(self) -> bool:
        """Whether a pump that waits has something to do."""
        raise NotImplementedError

    def _look(self) -> None:
        """In the event loop's thread: something has happened; does the pump wait for it?"""
        if self._waiting and self._wanted():
            self._waiting = False
            self._gate.open()

    def _wait(self, *, beside: bool) -> int:
        """Block until the pump is wanted, or the descriptor has an event, which is returned."""
        self._waiting = True
        if self._wanted():  # it may have happened just before the loop could know of the wait
            self._waiting = False
            return 0
        self._parked = True
        events = 0
        while self._waiting and not events:  # else the gate was opened for the last wait
            events = self._gate.wait(beside=beside)
        self._parked = False
        return events

    def _idle(self) -> bool:
        """In the event loop's thread: whether the pump touches nothing before the loop wakes it.

        If its descriptor does so, it finds that to be broken.
        """
        return self._waiting and self._parked

    def _hung_up(self) -> bool:
        """Whether the descriptor is a terminal that is gone, which is no end of a stream.

        The system tells the foreground by SIGHUP, perhaps later; whoever is not told tells itself.
        """
        poll = select.poll()
        poll.register(self._descriptor, 0)
        with contextlib.suppress(OSError):  # it may be closed already
            if stat.S_ISCHR(os.fstat(self._descriptor).st_mode) and poll.poll(0):
                os.kill(os.getpid(), signal.SIGHUP)
                self._fail(Reason.INTERRUPTED, "its terminal has hung up")  # SIGHUP may be ignored
                return True
        return False

    def _fail(self, reason: Reason, message: str) -> None:
        self._engine.call(lambda: self._engine.abort(reason, message))


class StdinPump(Pump):
    """Reads stdin until its end, or until nobody wants more; then closes it."""

    def __init__(self, engine: Engine, descriptor: int) -> None:
        self._full = False
        self._small = SMALL_READS  # reads in a row that were small; as if there had been some
        self._inlet = Inlet(engine, descriptor)
        engine.begin()
        super().__init__(engine, descriptor, select.POLLIN, lambda: engine.writer.written)

    def _wanted(self) -> bool:
        return self._engine.refusing or (self._full and self._engine.spacious)

    def _run(self) -> None:
        try:
            while not self._engine.refusing and self._move():
                self._turns.look()
        except OSError as error:
            if not self._hung_up():
                self._fail(Reason.LOCAL_ERROR, f"cannot read stdin: {explain(error)}")
        more = self._has_more()
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
        self.ended = True
        self._engine.call(lambda: self._engine.finish(more=more))

    def _has_more(self) -> bool:
        """Whether stdin holds bytes that nobody will take; looks without waiting."""
        if self._engine.writer.stopped is None:
            return False
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        with contextlib.suppress(OSError):
            return bool(poll.poll(0)) and os.read(self._descriptor, 1) != b""
        return False

    def _move(self) -> bool:
        """Wait for room and for bytes, and read them; returns whether there may be more."""
        if self._small >= SMALL_READS and self._inlet.possible:
            self._small = 0
            self._inlet.lend()
            return True
        views = self._engine.space(LARGEST_READ)
        self._full = not views
        if not self._wait(beside=bool(views)):
            return True
        try:
            count = os.readv(self._descriptor, views)
        except BlockingIOError:  # another process, which shares our stdin, was faster
            return True
        self._small = self._small + 1 if count < LITTLE else 0
        self._engine.writer.wrote(count)
        self._engine.nudge()
        if not count:
            self._hung_up()
        return count > 0


class StdoutPump(Pump):
    """Writes to stdout until the stream's end, closes it, and says that it is delivered."""

    def __init__(
        self, engine: Engine, descriptor: int, before: Callable[[Views], None] = lambda data: None
    ) -> None:
        self._before = before  # called in this thread with what is going to be written
        if Outlet.possible(descriptor):  # before the thread starts, which may close it at once
            engine.use_outlet(Outlet(descriptor, self._idle))
        super().__init__(engine, descriptor, 0, lambda: engine.reader.delivered)

    def _wanted(self) -> bool:
        return self._engine.reader.ready or self._engine.ending.failure is not None

    def _run(self) -> None:
        try:
            while self._engine.failure is None and self._move():
                self._turns.look()
        except OSError as error:
            if self._hung_up():
                return
            if error.errno in _GONE:
                self._say_that_it_has_gone(error)
            else:
                self._fail(Reason.LOCAL_ERROR, f"cannot write stdout: {explain(error)}")

    def _say_that_it_has_gone(self, error: OSError) -> None:
        message, left = CONSUMER_GONE, unread(self._descriptor)
        if left:
            message += f", and left {left} bytes there"
        untaken = left_bytes(self._descriptor, error)
        self._engine.call(lambda: self._engine.consumer_gone(message, untaken=untaken))

    def _move(self) -> bool:
        """Write what there is, or wait for it; returns whether there may be more."""
        reader = self._engine.reader
        if views := reader.readable(LARGEST_WRITE):
            self._before(views)
            reader.took(self._write(views))
            self._engine.nudge()
        elif reader.drained:
            self._wait_until_read()
            _close_writing(self._descriptor)
            self.ended = True
            self._engine.call(self._engine.delivered_end)
            return False
        elif self._wait(beside=True) & _BROKEN:
            raise _broken(self._descriptor)
        return True

    def _wait_until_read(self) -> None:
        """Wait until the consumer has read all that lies in its pipe, as long as it does read.

        One that waits for the end of this process first gets no further, so it is not waited for.
        Raises BrokenPipeError if the consumer goes before.
        """
        poll = select.poll()
        poll.register(self._descriptor, 0)
        pause, longest = _LOOKS
        left, since = unread(self._descriptor), clock()
        while left and clock() - since < UNREAD_FOR:
            if poll.poll(1000 * pause):
                raise _broken(self._descriptor)
            pause = min(2 * pause, longest)
            if (now_left := unread(self._descriptor)) < left:
                left, since = now_left, clock()

    def _write(self, views: list[memoryview]) -> int:
        try:
            return os.writev(self._descriptor, views)
        except BlockingIOError:  # somebody else has set O_NONBLOCK
            poll = select.poll()
            poll.register(self._descriptor, select.POLLOUT)
            poll.poll()
            return 0


def _broken(descriptor: int) -> OSError:
    """Why this descriptor's reader is gone."""
    number = 0
    if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    number = number or errno.EPIPE
    return OSError(number, os.strerror(number))


def left_bytes(descriptor: int, error: OSError) -> bool:
    """Whether a reader that has gone has left bytes there, as far as is known.

    Of a Unix socket the system tells. A TCP connection breaks only under bytes that nobody takes.
    """
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return unread(descriptor) > 0
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        return sock.family != socket.AF_UNIX or error.errno == errno.ECONNRESET


def unread(descriptor: int) -> int:
    """The bytes that the reader behind this descriptor has not taken; 0 where nobody knows.

    Of a TCP connection it is known only what the other system has not taken.
    """
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISFIFO(mode):
        return waiting(descriptor)
    return waiting(descriptor, termios.TIOCOUTQ) if stat.S_ISSOCK(mode) else 0


def _close_writing(descriptor: int) -> None:
    """Close stdout; OSError if the last bytes could not be kept.

    Where stdin is the same socket (under inetd, for one), a close would not end the stream.
    """
    if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            sock.shutdown(socket.SHUT_WR)
    os.close(descriptor)
