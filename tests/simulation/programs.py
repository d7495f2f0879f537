"""A simulated program: two pipes of a limited depth, what it does, and how it ends.

Everything is in virtual time. It runs on while the process that has started it is paused.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from bpipe.ends.consumer import UNREAD_FOR
from bpipe.ends.kin import PATIENCE
from bpipe.ends.program_streams import OUTPUT_LINGER
from bpipe.protocol.ring import Views
from bpipe.protocol.wire import Ended, Finish

if TYPE_CHECKING:
    from tests.simulation.program_ends import ProgramEnd

PATTERN = random.Random(0).randbytes(1 << 18)  # every stream
ROUNDING = 1e-4  # seconds

GOOD = Finish(Ended.EXITED)
ENDS = [GOOD, GOOD, GOOD, GOOD, GOOD, Finish(Ended.EXITED, 3), Finish(Ended.KILLED, 11)]
AFTER_SIGPIPE = [Finish(Ended.KILLED, 13), Finish(Ended.KILLED, 13), Finish(Ended.EXITED, 1), GOOD]
AFTER_SIGTERM = [Finish(Ended.KILLED, 15), Finish(Ended.KILLED, 15), Finish(Ended.EXITED, 7), GOOD]
AFTER_SIGKILL = Finish(Ended.KILLED, 9)


class Then(enum.Enum):
    """What a program does when it has read as much as it wants."""

    EXIT = "it ends"
    CLOSE = "it closes its stdin, and goes on"
    IGNORE = "it lets lie what comes, and goes on"


class Manner(NamedTuple):
    """What a program does; times are in seconds, counts in bytes. Its ``Plan`` says how quickly."""

    finish: Finish = GOOD  # how it ends by itself
    eats: int | None = None  # bytes that it reads; None: to the end
    then: Then = Then.EXIT
    answers: bool = False  # it writes what it has read, and nothing of its own
    fails_at: int | None = None  # bytes of output after which it ends, in the midst
    rests: float = 0.0  # before it reads, and again after the first bytes
    closes_output: bool = False  # when it has written everything
    lingers: float = 0.0  # from when it has read and written everything to its end
    after_sigpipe: Finish = AFTER_SIGPIPE[0]
    after_sigterm: Finish = AFTER_SIGTERM[0]
    deaf: float = 0.0  # how long it does not heed SIGTERM
    heir: float = 0.0  # how long it is survived by somebody who has its pipes
    depth: int = 1 << 16  # of each of its pipes
    notice: float = 0.0  # from its end until that is told
    talks: float = 0.0  # the share of what it writes that is for stderr, where that is carried

    @property
    def awaits(self) -> bool:
        """Whether its output may not end before its input does."""
        return self.answers or not (self.closes_output or self.eats == 0)


def make_manner(rng: random.Random) -> Manner:
    """Any of them."""
    return Manner(
        finish=rng.choice(ENDS),
        eats=rng.choice((None, None, None, None, 0, 1, 100, 3000)),
        then=rng.choice(list(Then)),
        answers=rng.random() < 0.3,
        fails_at=rng.choice((None, None, None, None, 0, 50, 2000)),
        rests=rng.choice((0.0, 0.0, 0.0, 1.0, 3.0, 8.0)),
        closes_output=rng.random() < 0.4,
        lingers=rng.choice((0.0, 0.0, 0.01, 0.5, 1.5, 4.0, 15.0)),
        after_sigpipe=rng.choice(AFTER_SIGPIPE),
        after_sigterm=rng.choice(AFTER_SIGTERM),
        deaf=rng.choice((0.0, 0.0, 0.5, 3.0, 30.0)),
        heir=rng.choice((0.0, 0.0, 0.0, 1.0, 5.0, 1000.0)),
        depth=rng.choice((1, 64, 1024, 1 << 16)),
        notice=rng.choice((0.0, 0.0, 0.002)),
    )


class NearManner(NamedTuple):
    """What becomes of the streams of who has called for a program elsewhere; in bytes, seconds."""

    leaves_at: int | None = None  # after so much of stdout its reader has gone
    rests: float = 0.0  # when the first thing for stderr has come: for so long nobody takes it
    idle_at: int | None = None  # after so much of stdin nothing comes for very long

    @classmethod
    def of(cls, rng: random.Random) -> NearManner:
        """Any of them."""
        return cls(
            leaves_at=rng.choice((None, None, None, None, 0, 100, 2000)),
            rests=rng.choice((0.0, 0.0, 1.0, 10.0)),
            idle_at=rng.choice((None, None, None, None, 0, 300)),
        )


def spread(data: bytes, views: Views) -> int:
    """Put this where these are; returns how much it was."""
    done = 0
    for view in views:
        count = min(len(view), len(data) - done)
        view[:count] = data[done : done + count]
        done += count
    return done


class Pipe:
    """A pipe, one of whose ends is watched by an event loop."""

    def __init__(self, depth: int) -> None:
        self.buffer = bytearray()
        self.ended = False  # nobody writes any more
        self.broken = False  # nobody reads any more
        self._depth = depth

    @property
    def readable(self) -> bool:
        return bool(self.buffer) or self.ended

    @property
    def writable(self) -> bool:
        return self.broken or len(self.buffer) < self._depth

    def read(self, limit: int) -> bytes:
        """Some bytes; none at the end. BlockingIOError while there are none."""
        if not self.readable:
            raise BlockingIOError
        data = bytes(self.buffer[:limit])
        del self.buffer[:limit]
        return data

    def write(self, data: bytes) -> int:
        """As many as there is room for. BlockingIOError while there is none."""
        if not self.writable:
            raise BlockingIOError
        if self.broken:
            raise BrokenPipeError(32, "Broken pipe")
        data = data[: self._depth - len(self.buffer)]
        self.buffer += data
        return len(data)


class SimulatedProgram:
    """One that was started for this end, and runs from now on: a ``Started``.

    ``ended`` is called in the loop of the end, when its end is noticed there.
    """

    def __init__(self, end: ProgramEnd, ended: Callable[[], None]) -> None:
        assert end.plan.manner is not None
        self.manner = end.plan.manner
        self.stdin: Any = Pipe(self.manner.depth)
        self.stdout: Any = Pipe(self.manner.depth)
        self.result: Finish | None = None  # as it is known to who has started it
        self.true: Finish | None = None  # how it has ended
        self.written = 0  # bytes
        self.denied = False  # its output was closed by the other side, before it did that
        self.was_cut = False  # somebody has begun to end it
        self._end = end
        self._ended = ended
        self.died_at = 0.0
        self._stopped_writing_at: float | None = None
        self._touched_at = end.world.now  # when it has read, or what lies there has come
        self._lay = 0  # offset of its stream up to which it has let bytes lie for long
        self._reads = self._writes = True
        self._reading = self._writing = True  # the next time is in the world's calendar
        self._closing = False  # its stdin
        self._done: list[Callable[[], None]] = []
        self._log(f"it begins: {self.manner}")
        self._after(self.manner.rests, self._read)
        self._after(end.plan.produce_every, self._write)

    # --- for the judge ---

    @property
    def accepted(self) -> int:
        """The bytes that it has read, or has let lie for long enough."""
        untouched = self._end.world.now - self._touched_at
        if untouched > UNREAD_FOR - ROUNDING and not self.stdin.broken:  # an heir may have it
            self._lay = max(self._lay, self._end.taken + len(self.stdin.buffer))
        return max(self._lay, self._end.taken)

    @property
    def whole(self) -> bool:
        """Whether all that it has written may be taken for all: it has not failed.

        Unless it goes on for long after its output; then nobody waits for what becomes of it.
        """
        since = self._stopped_writing_at
        if since is None or self.denied:
            return False
        until = self._end.world.now if self.true is None else self.died_at
        long = until - since > OUTPUT_LINGER - ROUNDING
        return long or (self.true is not None and not self.true.failed)

    @property
    def goes_on(self) -> bool:
        """Whether it has lived on for long after the end of its output."""
        since = self._stopped_writing_at
        until = self._end.world.now if self.true is None else self.died_at
        return since is not None and until - since > OUTPUT_LINGER - ROUNDING

    # --- what it does ---

    def _log(self, text: str) -> None:
        self._end.session.log("=", f"the program: {text}")

    def _after(self, mean: float, callback: Callable[[], None]) -> None:
        world = self._end.world
        world.at(world.now + self._end.rng.uniform(0.5, 1.5) * mean, callback)

    def _read_soon(self) -> None:
        if not self._reading:
            self._reading = True
            self._after(self._end.plan.consume_every, self._read)

    def _write_soon(self) -> None:
        if not self._writing:
            self._writing = True
            self._after(self._end.plan.produce_every, self._write)

    def _read(self) -> None:
        end, eats = self._end, self.manner.eats
        self._reading = False
        if not self._reads or self.stdin.broken:
            return
        if eats is not None and end.taken >= eats:
            self._has_enough()
            return
        if not self.stdin.readable:
            return
        limit = end.rng.randint(1, end.plan.appetite)
        data = self.stdin.read(limit if eats is None else min(limit, eats - end.taken))
        if not data:
            self._stop_reading()
            return
        first = end.taken == 0
        end.take(memoryview(data))
        self._touched_at = end.world.now
        end.loop.ready_to_write(self.stdin)
        self._write_soon()
        if first and self.manner.rests:
            self._reading = True
            self._after(self.manner.rests, self._read)
        else:
            self._read_soon()

    def _has_enough(self) -> None:
        if self.manner.then is Then.EXIT:
            self._die(self.manner.finish)
            return
        if self.manner.then is Then.CLOSE:
            self._break_input()
        self._stop_reading()

    def _stop_reading(self) -> None:
        self._reads = False
        self._write_soon()
        self._look_whether_done()

    def _write(self) -> None:
        self._writing = False
        if not self._writes:
            return
        end, fails_at = self._end, self.manner.fails_at
        if fails_at is not None and self.written >= fails_at:
            self._die(self.manner.finish)
            return
        left = (end.taken if self.manner.answers else end.plan.length) - self.written
        if left <= 0:
            if not (self.manner.answers and self._reads):
                self._has_written()
            return
        pipe = self._choose()
        if pipe.broken:
            self._die(self.manner.after_sigpipe)
        elif pipe.writable:
            most = end.rng.randint(1, max(2000, end.plan.length // 3))
            self.written += self._put(pipe, min(left, most))
            end.loop.ready_to_read(pipe)  # type: ignore[arg-type]
            self._write_soon()

    def _choose(self) -> Pipe:
        """Where it writes next."""
        stdout: Pipe = self.stdout
        return stdout

    def _put(self, pipe: Pipe, most: int) -> int:
        """Write what comes next; returns how much of it there was room for."""
        return pipe.write(PATTERN[self.written : self.written + most])

    def _has_written(self) -> None:
        self._writes = False
        if self.manner.closes_output:
            self._end_output()
        self._look_whether_done()

    def _look_whether_done(self) -> None:
        if not (self._reads or self._writes):
            world = self._end.world
            world.at(world.now + self.manner.lingers, self._die, self.manner.finish)

    # --- its end ---

    def _die(self, how: Finish) -> None:
        if self.true is not None:
            return
        world = self._end.world
        self._log(f"{how} with {self._end.taken} bytes read, {self.written} written")
        _ = self.accepted  # no more from here on
        self.true, self.died_at, self._writes = how, world.now, False
        if self._stopped_writing_at is None:
            self._stopped_writing_at = world.now
        if self.manner.heir and not self.was_cut:
            world.at(world.now + self.manner.heir, self._leave_nobody)
        else:
            self._leave_nobody()
        world.at(world.now + self.manner.notice, self._end.loop.call_soon, self._tell)

    def _leave_nobody(self) -> None:
        """Nobody has its pipes any more."""
        self._break_input()
        self._end_output()
        self._settle()

    def _break_input(self) -> None:
        _ = self.accepted
        self.stdin.broken = True
        self._end.loop.ready_to_write(self.stdin)

    def _end_output(self) -> None:
        if self._stopped_writing_at is None:
            self._stopped_writing_at = self._end.world.now
        self.stdout.ended = True
        self._end.loop.ready_to_read(self.stdout)

    def _tell(self) -> None:
        self.result = self.true
        self._end.note_exit()
        self._ended()
        self._settle()

    def _settle(self) -> None:
        if self.was_cut and self.result is not None and self.stdin.broken:
            for done in self._done:
                self._end.loop.call_soon(done)
            self._done.clear()

    def orphan(self) -> None:
        """What has started it was killed: the guard ends it."""
        if not self.was_cut:
            self.was_cut = True
            self._terminate()

    def _terminate(self) -> None:
        world, deaf = self._end.world, self.manner.deaf
        if self.true is not None:
            world.at(world.now, self._leave_nobody)
        elif deaf < PATIENCE:
            world.at(world.now + deaf, self._die, self.manner.after_sigterm)
        else:
            world.at(world.now + PATIENCE, self._die, AFTER_SIGKILL)

    # --- what is asked of it by who has started it ---

    @property
    def unread(self) -> int:
        return len(self.stdin.buffer)

    @property
    def deserted(self) -> bool:
        broken: bool = self.stdin.broken
        return broken

    @property
    def untaken(self) -> int:
        return len(self.stdout.buffer)

    def read(self, views: Views) -> int:
        done = spread(self.stdout.read(sum(map(len, views))), views)
        self._write_soon()
        return done

    def write(self, views: Views) -> int:
        if not self.stdin.buffer:
            self._touched_at = self._end.world.now
        count: int = self.stdin.write(b"".join(views))
        self._read_soon()
        return count

    def close_stdin(self) -> None:
        if not self._closing:
            self._closing = True
            self._end.loop.call_soon(self._close_stdin)  # when the guard has

    def _close_stdin(self) -> None:
        if not (self.stdin.broken or self._end.is_given_everything()):
            self._end.complain("sees an end of its stream, which is not whole")
        self._log("its stdin is closed")
        self.stdin.ended = True
        self._read_soon()

    def close_stdout(self) -> None:
        if self._stopped_writing_at is None:
            self.denied = True
        self.stdout.broken = True
        self._write_soon()

    def cut_short(self, done: Callable[[], None]) -> None:
        self._done.append(done)
        if not self.was_cut:
            self.was_cut = True
            self._log("it is cut short")
            if self.true is None and not self._end.is_cut():
                self._end.complain("is ended although its stream may go on")
            self._terminate()
        self._settle()

    def kill_now(self) -> None:
        self._die(AFTER_SIGKILL)
        self._leave_nobody()
