"""What must hold where a stream becomes a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bpipe.protocol.records import Record
from tests.simulation.file_ends import NAME, PART, Process, Receiver, Sender, Sitting
from tests.simulation.judge import Wrong

if TYPE_CHECKING:
    from tests.simulation.files import Files

LOST_AT_MOST = 5.0  # seconds of work, when the power is cut
SYNC_WITHIN = 1.0  # seconds beyond that, beside what the disk takes


class FileJudge:
    """Looks at the file, at who reports success, and at what crosses."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._allowed: list[bytes | None] = [files.old]
        self._seen: tuple[object, int] = (None, -1)  # the file, and its version
        self._judged: set[Process] = set()
        self.touched = False  # somebody else has changed the file
        self.paused = False  # a process has stood still
        inode = files.disk.names.get(NAME)
        self._mode = 0o100644 if inode is None else inode.mode  # that the file has to have

    # --- what happens ---

    def begins(self, sender: Sender) -> None:
        """This is to become the file, if its producer does not fail."""
        if sender.run.good:
            self._allowed.append(sender.run.stream)

    def changed(self, data: bytes) -> None:
        """Somebody else has made the file this."""
        self._allowed.append(data)
        self.touched = True

    def power_is_cut(self) -> None:
        """What was written long ago has to be there."""
        files = self._files
        inode, sitting = files.disk.names.get(PART), files.receiver.sitting
        if inode is None or inode.unsynced_since is None or self.paused:
            return
        if not files.receiver.in_session:
            return
        assert sitting is not None
        if sitting.session.failure is not None:  # a sync has failed: it says that this is gone
            return
        age = files.world.now - max(inode.unsynced_since, sitting.joined_at)
        if age > LOST_AT_MOST + 2 * files.disk.manners.sync + SYNC_WITHIN:
            raise Wrong(f"the work of {age:.1f} s is lost")

    # --- what must hold ---

    def look(self) -> None:
        """After every step. Raises Wrong."""
        self._look_at_the_file()
        for part, receiver, rival in self._files.rivals:
            if not receiver.has_open(part) or self._files.disk.names.get(PART) is not part:
                rival.kill()  # there is nothing to learn from it
            elif rival.sittings or rival.status not in (None, 1):
                raise Wrong("there are two receivers at once")
        for process in self._files.ends:
            if process.wrong is not None:
                raise Wrong(process.wrong)
            if process.loop.errors:
                raise Wrong(f"{process.name}: {process.loop.errors[0]!r}")
            error = process.protocol_error
            if error is not None and not self.touched:
                raise Wrong(f"{process.name}: a protocol error: {error}")
            if process.gone and process not in self._judged:
                self._judged.add(process)
                self._look_at_the_end(process)

    def _look_at_the_file(self) -> None:
        inode = self._files.disk.names.get(NAME)
        seen = inode, -1 if inode is None else inode.version
        if seen == self._seen:
            return
        self._seen = seen
        data = None if inode is None else bytes(inode.data)
        if data not in self._allowed:
            length = None if data is None else len(data)
            raise Wrong(f"the file is nothing that it may be: {length} bytes")

    def _look_at_the_end(self, process: Process) -> None:
        """It has exited, or was killed."""
        self._files.note("=", f"{process.name} has ended: {process.status}")
        if process.killed:
            return
        sender = process if isinstance(process, Sender) else self._partner(process)
        if process.status == 0:
            self._look_whether_right(process, sender)
        if isinstance(process, Receiver):
            self._look_at_the_receiver(process, sender)
        if isinstance(process, Sender):
            self._look_what_crossed(process)

    def _look_at_the_receiver(self, receiver: Receiver, sender: Sender | None) -> None:
        name = receiver.name
        if receiver.refused:
            raise Wrong(f"{name}: {receiver.refused}")
        if receiver.left_behind:
            raise Wrong(f"{name} leaves behind {receiver.left_behind}")
        if (receiver.status == 0) is not receiver.system.named:
            raise Wrong(f"{name} exits {receiver.status}; named: {receiver.system.named}")
        file = None if receiver.outcome is None else receiver.outcome.file
        if file is None:
            raise Wrong(f"{name} tells nothing of its file")
        joined = any(each.session.established for each in receiver.sittings)
        if joined and file.kept is not bool(self._files.disk.seen(PART)):
            raise Wrong(f"{name} says that a part is kept: {file.kept}")
        if not (self._files.secret or self._files.known) and any(
            each.crossing.bytes[Record.DIGESTS] for each in receiver.sittings
        ):
            raise Wrong(f"{name} tells digests to somebody whom it does not know")
        if receiver.status == 0 and sender is not None:
            crossed = sender.sittings[0].crossing.bytes[Record.DATA]
            if file.saved + crossed != len(sender.run.stream):
                raise Wrong(f"{name} says that {file.saved} bytes were saved; {crossed} crossed")

    def _partner(self, process: Process) -> Sender | None:
        """The other end of its session."""
        id = process.session.id if process.sittings else None
        found = [each for each in self._files.senders if _has(each, id)]
        return found[0] if found else None

    def _look_whether_right(self, process: Process, sender: Sender | None) -> None:
        disk = self._files.disk
        if sender is None or not sender.is_whole:
            raise Wrong(f"{process.name} exits 0, and there is no whole stream")
        if disk.seen(NAME) != sender.run.stream and not self.touched:
            raise Wrong(f"{process.name} exits 0, and the file is not the stream")
        if not disk.safe(NAME):
            raise Wrong(f"{process.name} exits 0, and the file would not survive a power cut")

    def _look_what_crossed(self, sender: Sender) -> None:
        """At most one block more than what differs, or cannot be read."""
        sitting = self._sitting_opposite(sender) if sender.sittings else None
        base = None if sitting is None else sitting.crossing.base
        if sitting is None or base is None or self.touched or sender.order.whole:
            return
        block = base[1]
        stream = sender.run.stream[: sender.written]
        unread = self._files.disk.unread * block  # what cannot be read is like nothing
        allowed = block + unread + _differing(_base_of(sitting)[: base[0]], stream, block)
        crossed = sender.sittings[0].crossing.bytes[Record.DATA]
        if crossed > allowed:
            raise Wrong(f"{sender.name}: {crossed} bytes crossed, {allowed} would have been enough")

    def _sitting_opposite(self, sender: Sender) -> Sitting | None:
        id = sender.session.id
        sittings = [each for receiver in self._files.receivers for each in receiver.sittings]
        found = [each for each in sittings if id and each.session.id == id]
        return found[0] if found else None

    def finish(self) -> None:
        """Everybody has left."""
        disk = self._files.disk
        good = [each.run.stream for each in self._files.senders if each.status == 0]
        good += [
            partner.run.stream
            for each in self._files.receivers
            if each.status == 0 and (partner := self._partner(each))
        ]
        if not self.touched and disk.seen(NAME) not in good:
            raise Wrong("somebody has succeeded, and the file is something else in the end")
        if not disk.safe(NAME):
            raise Wrong("the file would not survive a power cut in the end")
        if not self.touched and disk.names[NAME].mode != self._mode:
            raise Wrong(f"the file has the mode {disk.names[NAME].mode:o}")
        if disk.seen(PART) == b"" and not self._files.receivers[-1].killed:
            raise Wrong("an empty part is left")


def _has(process: Process, id: bytes | None) -> bool:
    """Whether this is its session."""
    return id is not None and any(each.session.id == id for each in process.sittings)


def _base_of(sitting: Sitting) -> bytes:
    """What was there when it began: the part, and beyond it the file."""
    part, old = (each or b"" for each in sitting.before or (None, None))
    return part + old[len(part) :]


def _differing(base: bytes, stream: bytes, block: int) -> int:
    """The bytes of the stream in blocks that are not those of the base."""
    total = 0
    for at in range(0, len(stream), block):
        piece = stream[at : at + block]
        if base[at : at + block] != piece:
            total += len(piece)
    return total
