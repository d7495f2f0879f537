"""What happens in a world in which a stream becomes a file: who dies, and what fails, and when."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.simulation.bases import make_stream
from tests.simulation.disk import Inode
from tests.simulation.file_ends import NAME, PART, Receiver

if TYPE_CHECKING:
    from tests.simulation.files import Files

Event = Callable[[], None]

CALLS = (  # to the system, and how many of them are made before something happens, at most
    ("any", 100), ("write", 20), ("write", 4), ("read", 10), ("sync", 4), ("rename", 1),
    ("truncate", 1), ("chmod", 1), ("sync data", 3), ("copy", 5), ("punch", 3),
)  # fmt: skip
OF_THE_FILE = ("copy", 3), ("copy", 3), ("read", 8), ("sync data", 3), ("lstat", 3), ("rename", 1)


class Trouble:
    """All of it, in one world."""

    def __init__(self, files: Files) -> None:
        self.counts: Counter[str] = Counter()  # to see that it happens
        self._files = files
        self._rng = files.rng
        self._at_calls: list[tuple[str, int, Event]] = []  # what, and how many more
        self._cues: list[tuple[int, Event]] = []  # bytes that a sender has read
        self._plan()

    def _plan(self) -> None:
        rng = self._rng
        deaths = [self._kill_receiver, self._cut_power, self._kill_sender]
        events = [
            *deaths, *deaths, self._kill_both, self._interrupt, self._fill, self._pause,
            self._fail_sync, self._fail_folder, self._fail_write, self._fail_read, self._change,
            self._reconnect, self._rival,
        ]  # fmt: skip
        if rng.random() < 0.4:  # one thing, again and again
            events = [rng.choice(events)]
        for _ in range(rng.choice((0, 1, 2, 3, 5, 8))):
            self._plan_one(rng.choice(events), rng.random())

    def _plan_one(self, event: Event, how: float) -> None:
        rng, files = self._rng, self._files
        if how < 0.4 or event == self._change:
            self._plan_at_call(event)
        elif how < 0.8:
            self._cues.append((rng.randint(0, len(files.stream)), event))
        else:
            span = files.faults_until - files.world.now
            delay = rng.choice((rng.random() * 0.1, rng.random(), rng.random() * span))
            files.world.at(files.world.now + delay, self._happen, event)

    def _plan_at_call(self, event: Event) -> None:
        """Just before a call to the system, or just after it."""
        what, most = self._rng.choice(OF_THE_FILE if event == self._change else CALLS)
        self._at_calls.append((what, self._rng.randint(1, most), event))

    # --- when ---

    def look(self) -> None:
        """The sender may have come to where something is to happen."""
        for cue in self._cues[:]:
            if self._files.sender.written >= cue[0]:
                self._cues.remove(cue)
                self._files.world.at(self._files.world.now, self._happen, cue[1])

    def called(self, receiver: Receiver, what: str) -> bool:
        """A process makes a call to the system; returns whether something may come before it."""
        files, hit = self._files, False
        if files.calm or not receiver.in_session:
            return hit
        before, self._at_calls = self._at_calls, []
        for kind, left, event in before:
            now = left - (kind in ("any", what))
            if now:
                self._at_calls.append((kind, now, event))
            else:
                delay = self._rng.choice((0.0, 0.0, 0.001, 0.1))
                files.world.at(files.world.now + delay, self._happen, event)
                hit = self._rng.random() < 0.7
        return hit

    def _happen(self, event: Event) -> None:
        if self._files.calm or self._files.settled:
            return
        what = event.__name__.strip("_").replace("_", " ")
        self.counts[what] += 1
        self._files.note("%", what)
        event()
        if self._rng.random() < 0.5:
            self._plan_at_call(self._rng.choice((self._kill_receiver, self._cut_power)))

    # --- what ---

    def _kill_receiver(self) -> None:
        part = self._files.disk.names.get(PART)
        if part is None or not part.haunted:  # no later run could know that
            self._files.receiver.kill()

    def _kill_sender(self) -> None:
        self._files.sender.kill()

    def _kill_both(self) -> None:
        self._kill_receiver()
        self._kill_sender()

    def _cut_power(self) -> None:
        """Of the machine that has the file."""
        self._files.judge.power_is_cut()
        self._files.receiver.kill()
        self._files.disk.lose_power()
        self._files.note("%", f"of {NAME}: {_words(self._files.disk.names.get(NAME))}")
        self._files.note("%", f"of {PART}: {_words(self._files.disk.names.get(PART))}")

    def _interrupt(self) -> None:
        self._rng.choice((self._files.receiver, self._files.sender)).interrupt()

    def _rival(self) -> None:
        self._files.start_rival()

    def _pause(self) -> None:
        """One of them is stopped for a while."""
        end = self._rng.choice((self._files.receiver, self._files.sender))
        seconds, asleep = self._rng.choice((0.5, 5.0, 30.0)), self._rng.random() < 0.5
        self._files.judge.paused = True
        end.loop.pause(seconds, asleep=asleep, after=self._rng.choice((0, 0, 5)))

    def _reconnect(self) -> None:
        self._rng.choice((self._files.receiver, self._files.sender)).reconnect()

    def _fill(self) -> None:
        """There is little room left on the disk."""
        manners = self._files.disk.manners
        manners.capacity = (
            manners.capacity - self._files.disk.room + self._rng.choice((0, 1000, 5000))
        )
        manners.full = self._rng.choice((errno.ENOSPC, errno.EDQUOT))

    def _fail_sync(self) -> None:
        self._files.disk.faults.syncs = [0] * self._rng.randint(0, 2) + [self._errno()]

    def _errno(self) -> int:
        return self._rng.choice((errno.EIO, errno.EIO, errno.ENOSPC, errno.EDQUOT))

    def _fail_folder(self) -> None:
        self._files.disk.faults.folders = [errno.EIO]

    def _fail_write(self) -> None:
        self._files.disk.faults.writes = {self._rng.randint(0, len(self._files.stream)): errno.EIO}

    def _fail_read(self) -> None:
        self._files.disk.faults.reads = {self._rng.randint(0, len(self._files.stream)): errno.EIO}

    def _change(self) -> None:
        """Somebody else writes to the file, or puts another one in its place."""
        inode, rng = self._files.disk.names.get(NAME), self._rng
        data = make_stream(rng, rng.choice((10, len(self._files.stream))))
        if inode is not None and rng.random() < 0.7 and inode.data:
            part = len(self._files.disk.seen(PART) or b"")  # what lies beyond may be taken from it
            begin = min(part, len(inode.data) - 1) if rng.random() < 0.8 else 0
            inode.write(rng.randrange(begin, len(inode.data)), b"changed")
        else:
            inode = self._files.disk.put(NAME, data)
        inode.changed_at = self._files.disk.now
        inode.sync()
        self._files.judge.changed(bytes(inode.data))


def _words(inode: Inode | None) -> str:
    return "nothing" if inode is None else f"{len(inode.data)} bytes"
