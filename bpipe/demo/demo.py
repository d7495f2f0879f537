"""``bpipe demo``: a folder goes through a network that keeps breaking, and arrives whole."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import random
import re
import signal
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, NamedTuple, NoReturn

from bpipe.demo.faults import Cut, FaultProxy, random_cuts
from bpipe.report.format import format_duration, format_size
from bpipe.report.terminal import is_dumb
from bpipe.run.exits import FAILED, USAGE

CUTS: Final = 40
HEARTBEAT: Final = 0.3  # seconds: a silent connection is to be noticed while somebody watches

_SKIPPED: Final = ("site-packages", "test", "tests", "__pycache__", "idle_test", "lib2to3")


class _Outcome(NamedTuple):
    files: int
    differing: int
    exits: tuple[int, int]


def run_demo(path: Path | None) -> int:
    """Run the demonstration; returns 0 if every file has arrived unchanged, else 1 or 2.

    Blocks for the seconds that it takes, and dies by SIGINT and SIGTERM after it has cleaned up.
    """
    source = path or Path(sysconfig.get_path("stdlib"))
    if not source.exists():
        print(f"bpipe: {source}: no such file or folder", file=sys.stderr)
        return USAGE
    caught = []

    def interrupt(number: int, frame: object) -> NoReturn:
        caught.append(number)
        raise KeyboardInterrupt  # so that the processes are ended and the copy is removed

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        with tempfile.TemporaryDirectory(prefix="bpipe-demo-") as folder:
            return asyncio.run(_demonstrate(source, Path(folder), everything=path is not None))
    except KeyboardInterrupt:
        signal.signal(caught[0], signal.SIG_DFL)
        os.kill(os.getpid(), caught[0])
        return FAILED
    except (OSError, tarfile.TarError) as error:
        print(f"bpipe: the demonstration failed: {error}", file=sys.stderr)
        return FAILED


async def _demonstrate(source: Path, folder: Path, *, everything: bool) -> int:
    files = dict(files_under(source, everything=everything))
    total = sum(path.stat().st_size for path in files.values())
    print(f"Sending {source}: {len(files)} files, {format_size(total)}, from one bpipe to another,")
    print("through a proxy that resets, closes and freezes the connection at random bytes.\n")
    began = time.monotonic()

    def on_cut(cut: Cut) -> None:
        way = "sender to receiver" if cut.upward else "receiver to sender"
        at = format_size(cut.offset)
        _tell(f"{time.monotonic() - began:5.1f} s  {cut.fault}, {at} into a connection, {way}")

    listener = _spawn("listen", "127.0.0.1:0", "--recv-only", stdout=subprocess.PIPE)
    cuts = random_cuts(random.Random(), CUTS, max(total // (CUTS // 2), 1))
    proxy = FaultProxy(("127.0.0.1", _port(listener)), cuts, on_cut)
    at = "{}:{}".format(*proxy.start())
    caller = _sender(at, tar_size(files))
    try:
        outcome = await asyncio.to_thread(_transfer, files, folder, caller, listener)
    finally:
        for process in (caller, listener):
            process.kill()  # of no effect on one that has ended
            process.wait()
        await proxy.close()
    took = time.monotonic() - began
    print(f"\n  files       {outcome.files} sent, {outcome.differing} missing or different")
    print(f"  bytes       {format_size(total)}")
    print(f"  breaks      {len(proxy.made)}, in {proxy.connections} connections")
    print(f"  time        {format_duration(took)}")
    print(f"  exit status {outcome.exits[0]} at the sender, {outcome.exits[1]} at the receiver")
    good = not outcome.differing and outcome.exits == (0, 0)
    print("  verdict     " + ("every byte arrived, once, in order" if good else "FAILED"))
    return 0 if good else FAILED


def _port(listener: subprocess.Popen[bytes]) -> int:
    """Where it listens; OSError with what it says instead."""
    assert listener.stderr is not None
    said = listener.stderr.readline()
    port = re.search(rb"listening on \S+?:(\d+)", said)
    if port is None:
        listener.kill()
        listener.wait()
        raise OSError(said.decode(errors="replace").strip() or "the receiver did not start")
    return int(port[1])


def _sender(address: str, total: int) -> subprocess.Popen[bytes]:
    """The bpipe that sends. On a terminal its status line is there, and says the rest."""
    arguments = ("connect", address, "--send-only", "--size", str(total))
    if not _draws():
        return _spawn(*arguments, stdin=subprocess.PIPE)
    return _spawn(*arguments, "-q", "--status", "always", stdin=subprocess.PIPE, stderr=None)


def _draws() -> bool:
    return sys.stdout.isatty() and sys.stderr.isatty() and not is_dumb()


def _tell(line: str) -> None:
    """Print this in the place of the status line, which is drawn again below it."""
    clear = "\r\x1b[K" if _draws() else ""
    sys.stdout.write(f"{clear}  {line}\n")  # in one piece, which print() would not
    sys.stdout.flush()


def files_under(source: Path, *, everything: bool) -> Iterator[tuple[str, Path]]:
    """The regular files under ``source`` that can be read, by their names in the archive."""
    if source.is_file():
        yield source.name, source
    for folder, folders, names in os.walk(source):
        if not everything:
            folders[:] = [name for name in folders if name not in _SKIPPED]
        for name in names:
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink() and os.access(path, os.R_OK):
                yield str(path.relative_to(source)), path


def _spawn(
    *arguments: str,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
    stderr: int | None = subprocess.PIPE,
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "bpipe", *arguments, "--heartbeat", str(HEARTBEAT)]
    environment = {name: os.environ[name] for name in os.environ if not name.startswith("BPIPE_")}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)  # wherever we were loaded from
    return subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, env=environment)


def _transfer(
    files: dict[str, Path],
    folder: Path,
    caller: subprocess.Popen[bytes],
    listener: subprocess.Popen[bytes],
) -> _Outcome:
    """Send the files from one process, unpack them from the other, and compare."""
    assert caller.stdin is not None
    assert listener.stdout is not None
    digests: dict[str, str] = {}
    packer = threading.Thread(target=pack, args=(files, caller.stdin, digests))
    packer.start()
    for stream in filter(None, (caller.stderr, listener.stderr)):
        threading.Thread(target=_drain, args=(stream,), daemon=True).start()
    with tarfile.open(fileobj=listener.stdout, mode="r|") as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(folder)
    while listener.stdout.read(1 << 16):
        pass  # tar pads its end
    packer.join()
    exits = caller.wait(), listener.wait()
    differing = 0
    for name, digest in digests.items():
        arrived = folder / name
        if not arrived.is_file() or _digest(arrived) != digest:
            differing += 1
    return _Outcome(len(digests), differing, exits)


def pack(files: dict[str, Path], sink: IO[bytes], digests: dict[str, str]) -> None:
    """Write a tar stream, and the digests of what is really in it."""
    with contextlib.suppress(BrokenPipeError), sink:
        with tarfile.open(fileobj=sink, mode="w|") as archive:
            for name, path in files.items():
                member = _member(archive, name, path)
                content = path.read_bytes()
                member.size = len(content)
                digests[name] = hashlib.sha256(content).hexdigest()
                archive.addfile(member, io.BytesIO(content))


def tar_size(files: dict[str, Path]) -> int:
    """How many bytes their tar stream is going to have, if they stay as they are."""
    blocks = 2  # the end mark
    with tarfile.open(fileobj=io.BytesIO(), mode="w") as archive:
        for name, path in files.items():
            member = _member(archive, name, path)
            member.size = path.stat().st_size
            head = member.tobuf(archive.format, archive.encoding or "utf-8", archive.errors or "")
            blocks += len(head) // tarfile.BLOCKSIZE + -(-member.size // tarfile.BLOCKSIZE)
    return -(-blocks * tarfile.BLOCKSIZE // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


def _member(archive: tarfile.TarFile, name: str, path: Path) -> tarfile.TarInfo:
    """A file of this name in the archive; its size is still to be set."""
    member = archive.gettarinfo(path, name)
    member.type = tarfile.REGTYPE  # also what has several names
    return member


def _drain(stream: IO[bytes]) -> None:
    """Read what a process says, so that it never waits; what it says at its end is shown."""
    for line in stream:
        if not line.startswith((b"bpipe: connect", b"bpipe: listening")):
            _tell(line.decode(errors="replace").rstrip())


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
