"""An asyncio event loop in virtual time: one per simulated process, all driven by one world.

It implements what the production code asks of a loop, over simulated sockets, so that the
production code runs as it is. Callbacks run without a context of their own, for speed.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.simulation.network import Socket

Callback = Callable[..., object]

RESOLUTION = 1e-6  # seconds


class World:
    """Virtual time, and everything that is going to happen in it."""

    def __init__(self) -> None:
        self.now = 1000.0  # seconds
        self.steps = 0
        self.turns = 0  # times that code of a process ran
        self._events: list[tuple[float, int, Callback, tuple[Any, ...]]] = []
        self._sequence = 0

    def clock(self) -> float:
        """What every process's clock says."""
        return self.now

    def at(self, when: float, callback: Callback, *args: Any) -> None:
        """Call this at that time; at the same time, in the order in which it was asked for."""
        self._sequence += 1
        heapq.heappush(self._events, (when, self._sequence, callback, args))

    def step(self) -> None:
        """Let the next thing happen."""
        when, _, callback, args = heapq.heappop(self._events)
        if when > self.now:
            self.now = when
        self.steps += 1
        callback(*args)

    @property
    def idle(self) -> bool:
        """Whether nothing will ever happen any more."""
        return not self._events


class Timer:
    """What ``call_at`` returns."""

    __slots__ = ("_args", "_callback", "_when")

    def __init__(self, when: float, callback: Callback, args: tuple[Any, ...]) -> None:
        self._when = when
        self._callback: Callback | None = callback
        self._args = args

    def when(self) -> float:
        """The loop's time at which it is due."""
        return self._when

    def cancel(self) -> None:
        """Forget it."""
        self._callback = None

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._callback is None

    def __call__(self) -> None:
        if self._callback is not None:
            callback, self._callback = self._callback, None
            callback(*self._args)


class Loop:
    """The event loop of one process; ``name`` is for the log."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self.errors: list[BaseException | str] = []  # what nobody has handled
        self.ended = False  # the process is: nothing of it runs any more
        self._world = world
        self._ready: deque[tuple[Callback, tuple[Any, ...]]] = deque()
        self._scheduled = False
        self._pause: tuple[int, float, bool] | None = None  # that begins soon, see `pause`
        self._paused_until = 0.0
        self._slept = 0.0
        self._readers: dict[Socket, tuple[Callback, tuple[Any, ...]]] = {}
        self._writers: dict[Socket, tuple[Callback, tuple[Any, ...]]] = {}
        self._queued: set[tuple[Socket, bool]] = set()
        self.sockets: dict[Socket, None] = {}  # that the process has, the oldest first
        self._tasks: list[asyncio.Task[Any]] = []

    # --- the simulation's side ---

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call this as code of the process."""
        self._world.turns += 1
        events._set_running_loop(self)  # type: ignore[arg-type]
        try:
            return function(*args)
        finally:
            events._set_running_loop(None)

    def pause(self, seconds: float, *, asleep: bool, after: int = 0) -> None:
        """Run nothing for a while; ``asleep``: the loop's clock stands still as well.

        It begins now, or ``after`` so many callbacks more: between two that run at one time.
        """
        if after:
            self._pause = after, seconds, asleep
            return
        began = max(self._paused_until, self._world.now)
        self._paused_until = max(began, self._world.now + seconds)
        if asleep:
            self._slept += self._paused_until - began

    @property
    def paused(self) -> bool:
        """Whether it runs nothing now."""
        return self._world.now < self._paused_until

    @property
    def awake_at(self) -> float:
        """When it runs again: now or before, if it is not paused."""
        return self._paused_until

    def stay_awake(self) -> None:
        """A pause that has not begun does not come any more."""
        self._pause = None

    def _pause_soon(self) -> bool:
        """One more callback has run; returns whether the pause begins."""
        assert self._pause is not None
        after, seconds, asleep = self._pause
        self._pause = (after - 1, seconds, asleep) if after > 1 else None
        if after == 1:
            self.pause(seconds, asleep=asleep)
        return after == 1

    def end(self) -> None:
        """The process is gone."""
        self.ended = True
        self._ready.clear()
        self._readers.clear()
        self._writers.clear()

    def kill(self) -> None:
        """SIGKILL: the kernel closes the sockets."""
        self.run(self._close_sockets)
        self.end()

    def _close_sockets(self) -> None:
        for sock in list(self.sockets):
            sock.close()

    @property
    def unfinished(self) -> int:
        """How many tasks have not ended."""
        return sum(not task.done() for task in self._tasks)

    def dispose(self) -> None:
        """The simulation is over: let go of everything that still waits."""
        self.run(self._close_tasks)
        self.end()

    def _close_tasks(self) -> None:
        for task in self._tasks:
            coroutine = task.get_coro()
            while not task.done() and coroutine is not None:
                with contextlib.suppress(RuntimeError):  # it waits for something else now
                    coroutine.close()
                    break

    def _schedule(self) -> None:
        """Something is ready: there has to be a next round."""
        if not self._scheduled:
            self._scheduled = True
            self._world.at(max(self._world.now, self._paused_until), self._iterate)

    def _iterate(self) -> None:
        """One round: everything that is ready now."""
        self._scheduled = False
        ready = self._ready
        if self.paused:
            if ready:
                self._schedule()
            return
        self._world.turns += 1
        events._set_running_loop(self)  # type: ignore[arg-type]
        try:
            for _ in range(len(ready)):
                callback, args = ready.popleft()
                try:
                    callback(*args)
                except Exception as error:
                    self.call_exception_handler({"exception": error})
                if self.ended:
                    return
                if self._pause and self._pause_soon():
                    break
        finally:
            events._set_running_loop(None)
        if ready:
            self._schedule()

    # --- what sockets tell ---

    def ready_to_read(self, sock: Socket) -> None:
        """Call the reader of this socket, as long as it stays readable."""
        self._queue(sock, False)

    def ready_to_write(self, sock: Socket) -> None:
        """Call the writer of this socket, as long as it stays writable."""
        self._queue(sock, True)

    def _queue(self, sock: Socket, writing: bool) -> None:
        watched = self._writers if writing else self._readers
        event = sock, writing
        if sock in watched and event not in self._queued:
            self._queued.add(event)
            self._ready.append((self._fire, event))
            self._schedule()

    def _fire(self, sock: Socket, writing: bool) -> None:
        self._queued.discard((sock, writing))
        watched = self._writers if writing else self._readers
        if sock not in watched or not (sock.writable if writing else sock.readable):
            return
        callback, args = watched[sock]
        callback(*args)
        if sock in watched and (sock.writable if writing else sock.readable):
            self._queue(sock, writing)

    # --- the production code's side ---

    def time(self) -> float:
        return self._world.now - self._slept

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_soon(self, callback: Callback, *args: Any, context: Any = None) -> Any:
        if not self.ended:
            self._ready.append((callback, args))
            self._schedule()

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Callback, *args: Any, context: Any = None) -> Any:
        return self.call_at(self.time() + delay, callback, *args)

    def call_at(self, when: float, callback: Callback, *args: Any, context: Any = None) -> Any:
        timer = Timer(when, callback, args)
        self._world.at(when + self._slept, self._expire, timer)
        return timer

    def _expire(self, timer: Timer) -> None:
        if timer.cancelled() or self.ended:
            return
        if timer.when() > self.time():  # the machine slept meanwhile, or the sum was rounded
            soon = self._world.now + RESOLUTION
            self._world.at(max(soon, timer.when() + self._slept), self._expire, timer)
        else:
            self.call_soon(timer)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)  # type: ignore[arg-type]

    def create_task(self, coro: Coroutine[Any, Any, Any], **_: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self)  # type: ignore[arg-type]
        self._tasks.append(task)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(context.get("exception") or str(context.get("message")))

    def add_reader(self, fd: Any, callback: Callback, *args: Any) -> None:
        self._readers[fd] = callback, args
        if fd.readable:
            self.ready_to_read(fd)

    def remove_reader(self, fd: Any) -> bool:
        return self._readers.pop(fd, None) is not None

    def add_writer(self, fd: Any, callback: Callback, *args: Any) -> None:
        self._writers[fd] = callback, args
        if fd.writable:
            self.ready_to_write(fd)

    def remove_writer(self, fd: Any) -> bool:
        return self._writers.pop(fd, None) is not None

    async def sock_recv(self, sock: Any, nbytes: int) -> bytes:
        while True:
            try:
                buffer = bytearray(nbytes)
                count = sock.recvmsg_into([memoryview(buffer)])[0]
                return bytes(buffer[:count])
            except BlockingIOError:
                await self._until(self.add_reader, self.remove_reader, sock)

    async def sock_sendall(self, sock: Any, data: Any) -> None:
        while data:
            try:
                data = data[sock.sendmsg([memoryview(data)]) :]
            except BlockingIOError:
                await self._until(self.add_writer, self.remove_writer, sock)

    async def _until(self, add: Callback, remove: Callback, sock: Socket) -> None:
        future = self.create_future()
        add(sock, lambda: None if future.done() else future.set_result(None))
        try:
            await future
        finally:
            remove(sock)
