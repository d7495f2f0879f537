"""FileSink: makes a file of what comes, and of what lies there already."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable
from typing import ClassVar, Final, NamedTuple

from bpipe.ends.contents import Contents
from bpipe.ends.errors_sink import Errors
from bpipe.ends.local import Sink
from bpipe.ends.part import Target
from bpipe.ends.syncs import Syncs
from bpipe.engine import Engine
from bpipe.errors import ProtocolError, TargetError, explain
from bpipe.protocol.assembly import Assembly, Range
from bpipe.protocol.blocks import Items, Total, unpack_same
from bpipe.protocol.records import Record
from bpipe.protocol.ring import Views
from bpipe.protocol.wire import Ended, Reason

LARGEST_WRITE: Final = 1 << 20  # bytes
FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what was written before is as it was

REMOVED: Final = "; it was removed, for what it had is perhaps not on the disk"
CUT: Final = "; what it had since the last sync is gone, for it is not on the disk"
LEFT: Final = "; what it has is not to be believed, and was not removed"
GONE: Final = "; it was renamed or removed by somebody else meanwhile"


class FileOutcome(NamedTuple):
    """What has become of FILE."""

    named: bool = False  # it is the whole stream, and on the disk under its name
    kept: bool = False  # else: something lies in the part (or the device) to go on from
    why: str = ""  # it is not named, if this end knows that
    saved: int = 0  # bytes of the stream that were there, and were not sent
    base: int = 0  # bytes that lay there in the beginning
    tail: int = 0  # bytes of a device that lie behind the stream's end
    file: str = ""  # its path
    part: str = ""  # that of what is written until it is named
    hopeless: bool = False  # the same stream would fail again


class Unsynced(Exception):
    """A sync has failed."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error


class FileSink(Sink):
    """``wanted`` and ``move`` belong to a thread of its own; ``move`` blocks while the disk does.

    ``errors`` is where a far program's stderr goes, and ``before`` is called with that.
    """

    kinds: ClassVar = frozenset({Record.DATA, Record.ERRORS, Record.SAME, Record.TOTAL})

    def __init__(
        self,
        engine: Engine,
        target: Target,
        assembly: Assembly,
        errors: Errors,
        before: Callable[[Views], None] = lambda data: None,
    ) -> None:
        super().__init__(engine, target.path)
        self.at = 0  # bytes of the stream that lie in the part
        self.syncs = Syncs(engine, target, lambda: self.at)
        self._target = target
        self._assembly = assembly
        self._contents = Contents(target)
        self._errors = errors
        self._before = before
        self._items = Items()
        self._place = Range(0, 0)  # of the base, which is part of the stream and not done yet
        self._closing = False  # nothing is written any more
        self._failed = False
        self._unsynced = False  # an error of a sync is seen to
        self._why = ""
        self._hopeless = False
        self._outcome: FileOutcome | None = None  # once the thread has ended

    @property
    def outcome(self) -> FileOutcome:
        """What has become of it; of a thread that has not ended, what is known."""
        return self._outcome or self._conclude(kept=False)

    def wanted(self) -> bool:
        """Whether there is something to do, or nothing more ever."""
        if self._closing:
            return not self.syncs.busy
        over = self.engine.failure is not None or self.syncs.error is not None
        return over or self._place.length > 0 or self.half.ready

    def move(self) -> bool:
        """Do what there is to do, or some of it; returns whether there may be more."""
        try:
            if self._closing or self.engine.failure is not None:
                return self._close()
            return self._move()
        except OSError as error:
            self._broken(error, synced=True)
        except Unsynced as failed:
            self._broken(failed.error, synced=False)
        except TargetError as error:
            self._hopeless = error.usage
            self._fail(str(error))
        except ProtocolError as error:
            self._hopeless = True
            self._fail(f"protocol error: {error}", Reason.PROTOCOL)
        self._closing = True
        return True

    def _move(self) -> bool:
        if self.syncs.error is not None:
            raise Unsynced(self.syncs.error)
        if self._place.length:
            self._keep()
        elif views := self.lend(LARGEST_WRITE):
            self._take(views)
            self.engine.nudge()
        elif self.half.drained:
            return self._close()
        return True

    # --- what comes ---

    def _take(self, views: Views) -> None:
        kind, count = self._records.kind, sum(map(len, views))
        if kind is Record.DATA:
            self._assembly.data(views)
            self._contents.put(views, self.at)
            self.at += count
        elif kind is Record.ERRORS:
            self._before(views)
            count = self._errors.write(views)
        else:
            for item in self._items.add(kind, b"".join(views)):
                self._hear(kind, item)
        self.took(count)

    def _hear(self, kind: Record, item: bytes) -> None:
        if kind is Record.TOTAL:
            self._assembly.total(Total.unpack(item))
            return
        place = self._assembly.same(unpack_same(item))
        self._place = Range(self.at, place.offset + place.length - self.at)

    def _keep(self) -> None:
        """Some of what is the same."""
        count = self._contents.keep(self._place)
        self.at += count
        self._place = Range(self.at, self._place.length - count)

    # --- its end ---

    def _close(self) -> bool:
        """Nothing more is written; returns whether this has to be called again.

        A sync that is under way is waited for, whatever else has failed: its error is told once.
        """
        self._closing = True
        if not self.syncs.stop():
            return True
        if self.syncs.error is not None and not self._unsynced:
            raise Unsynced(self.syncs.error)
        if not self._failed and self.engine.failure is None:
            self._end()
        kept = False
        with contextlib.suppress(OSError):
            kept = self._target.kept
        self._outcome = self._conclude(kept=kept)
        return False

    def _conclude(self, *, kept: bool) -> FileOutcome:
        target = self._target
        named = target.named and not self._failed
        return FileOutcome(
            named=named,
            kept=kept,
            why=self._why,
            saved=self._assembly.tally.equal,
            base=target.base,
            tail=target.lies - self.at if named and target.device else 0,
            file=target.path,
            part=target.part_path,
            hopeless=self._hopeless,
        )

    def _end(self) -> None:
        """Everything has come, and its end."""
        ended = self.engine.reader.ended
        if ended.how is Ended.CUT:
            self._fail("the stream was cut short")
        elif ended.failed or ended.how is Ended.RUNNING:
            self._why = "the program that it comes from has failed"
            self.ended()
        elif not self._assembly.whole:
            raise ProtocolError("a stream to a file that ends without its total")
        elif self._finish():
            self.ended()

    def _finish(self) -> bool:
        """It gets its name, unless the session has failed meanwhile; returns whether it has."""
        try:
            return self._target.finish(self.at, lambda: self.engine.failure is None)
        except OSError as error:
            raise Unsynced(error) from error

    def _broken(self, error: OSError, *, synced: bool) -> None:
        """The disk has failed. What was written, and is not on it, is still read from memory.

        So a later run would take for equal what is not there: after an error of a sync all goes
        that was written since the last one. If the disk is only full, what lies before that stays.
        """
        target, text = self._target, f"cannot write {self._target.part_path}: {explain(error)}"
        self._unsynced |= not synced
        if target.named:
            text = f"{target.path} has its name, but perhaps not on the disk: {explain(error)}"
        elif not target.there:
            text += GONE
        elif error.errno not in FULL:
            text += REMOVED if target.remove() else LEFT
        elif not synced:
            self._cut()
            text += CUT
        self._fail(text)

    def _cut(self) -> None:
        """Leave what is known to be on the disk."""
        try:
            self._target.cut(self.syncs.good)
        except OSError:
            self._target.remove()

    def _fail(self, why: str, reason: Reason = Reason.LOCAL_ERROR) -> None:
        self._why, self._failed = why, True
        self.give_up(why, reason)
