"""Threads of a simulated process, which run one at a time, in virtual time.

Each is a thread of the system, for its code is what it is in production; but it runs only while
the world waits for it, from one call that may block to the next. So a seed is a seed.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from tests.simulation.loop import Loop, World
from tests.simulation.system import Killed

LOCAL = threading.local()


class Thread:
    """A thread of the process that has this loop. It begins when the world goes on."""

    def __init__(self, world: World, loop: Loop, work: Callable[[], None], name: str) -> None:
        self.ended = False
        self._world = world
        self._loop = loop
        self._work = work
        self._killed = False
        self._waits = 0  # the number of the wait that it is in; 0: it is in none
        self._count = 0
        self._go, self._back = threading.Lock(), threading.Lock()
        self._go.acquire()
        self._back.acquire()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        world.at(world.now, self._resume)

    # --- the world's side ---

    def _resume(self) -> None:
        """Let it run to where it would block."""
        if self.ended or self._loop.ended:
            return
        if (until := self._loop.awake_at) > self._world.now:
            self._world.at(until, self._resume)
            return
        self._world.turns += 1
        self._switch()

    def _switch(self) -> None:
        self._go.release()
        self._back.acquire()

    def kill(self) -> None:
        """It never comes back from where it is."""
        if not self.ended:
            self._killed = True
            self._switch()

    def wake(self) -> None:
        """It goes on, if it waits."""
        self._end_wait(self._waits)

    def _end_wait(self, number: int) -> None:
        if number and number == self._waits:
            self._waits = 0
            self._world.at(self._world.now, self._resume)

    # --- its own ---

    def _run(self) -> None:
        self._go.acquire()
        LOCAL.thread = self
        asyncio.events._set_running_loop(self._loop)  # type: ignore[arg-type]
        try:
            if not self._killed:
                self._work()
        except Killed:
            pass
        except BaseException as error:
            self._loop.errors.append(error)
        finally:
            asyncio.events._set_running_loop(None)
            self.ended = True
            self._back.release()

    def sleep(self, seconds: float) -> None:
        """Let the others go on for so long."""
        if not self._killed:
            self._world.at(self._world.now + seconds, self._resume)
            self._park()

    def wait(self, seconds: float | None = None) -> None:
        """The same until it is woken, or for so long."""
        if self._killed:
            raise Killed
        self._count += 1
        self._waits = self._count
        if seconds is not None:
            self._world.at(self._world.now + seconds, self._end_wait, self._waits)
        self._park()

    def _park(self) -> None:
        self._back.release()
        self._go.acquire()
        if self._killed:
            raise Killed


def current() -> Thread | None:
    """The simulated thread that calls; None in the loop's."""
    thread: Thread | None = getattr(LOCAL, "thread", None)
    return thread


class Gate:
    """In the place of the production one."""

    def __init__(self, descriptor: int | None, events: int, wanted: Callable[[], bool]) -> None:
        assert descriptor is None
        self._wanted = wanted
        self._thread: Thread | None = None  # that waits here

    def wait(self, *, beside: bool) -> int:
        """Until it is wanted."""
        self._wait(None)
        return 0

    def rest(self, seconds: float) -> None:
        """Until it is wanted, or so long."""
        self._wait(seconds)

    def _wait(self, seconds: float | None) -> None:
        self._thread = current()
        assert self._thread is not None
        if not self._wanted():
            self._thread.wait(seconds)
        self._thread = None

    def look(self) -> None:
        """Something has happened."""
        if self._thread is not None and self._wanted():
            self._thread.wake()

    def idle(self) -> bool:
        """Whether the thread waits."""
        return self._thread is not None

    def close(self) -> None:
        """The thread has ended."""


def starter(world: World, started: Callable[[Thread], None]) -> Callable[..., Any]:
    """What takes the place of the production's ``Pump``."""

    def start(end: Any, gate: Gate, work: Callable[[], None]) -> Thread:
        loop: Any = asyncio.get_running_loop()
        end.engine.observe(gate.look)
        thread = Thread(world, loop, work, type(end).__name__)
        started(thread)
        return thread

    return start
