"""Two pipes in one process: its signals and its errors concern both, or the one they belong to."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Final

import pytest

from bpipe.errors import AddressError, TargetError
from bpipe.report.settings import Settings
from bpipe.report.watch import Watch
from bpipe.run.process import AS_SSH, Manner, Process

# Of each pair, the callers belong to the process, and the listeners are only there.
PROGRAM: Final = """
import asyncio, os, signal, sys, threading
import bpipe
from bpipe.ends.gate import Gate
from bpipe.ends.local import End
from bpipe.ends.pumps import Pump
from bpipe.run.process import Process
from tests.support.pairs import both, until

class Watch:
    draws = False
    def report(self, level): print("report", int(level))
    def clear(self): pass

def raise_(error): raise error

def outcomes(*pipes): print(*(pipe.failure or "goes on" for pipe in pipes), sep="; ")

async def main():
    async with both() as (one, far), both() as (two, away):
        process = Process(Watch())
        process.begin()
        process.take(one.engine)
        process.take(two.engine)
        asyncio.get_running_loop().call_later(20, sys.exit, "it takes too long")
{body}
        sys.stdout.flush()

asyncio.run(main())
"""


def in_a_process(body: str, shell: str = 'exec "$@"') -> subprocess.CompletedProcess[str]:
    """Run this, where ``one`` and ``two`` are taken by ``process``."""
    indented = "\n".join(f"        {line}" for line in body.splitlines())
    command = [sys.executable, "-c", PROGRAM.format(body=indented)]
    return subprocess.run(
        ["sh", "-c", shell, "sh", *command], capture_output=True, text=True, timeout=60
    )


class Silent(Watch):
    """One that is told of nothing but why it cannot begin."""

    def __init__(self) -> None:
        super().__init__(Settings(), None, None)
        self.reason = ""

    def report(self, level: int) -> None:
        """Nobody asks."""

    def refuse(self, status: int, reason: str, code: str) -> int:
        self.reason = f"{reason} ({code})"
        return status


@pytest.mark.parametrize(
    ("error", "manner", "status", "reason"),
    [
        (AddressError("none"), Manner(), 2, "none (address)"),
        (TargetError("a folder"), Manner(), 2, "a folder (output)"),
        (TargetError("in use", "locked", usage=False), Manner(), 1, "in use (locked)"),
        (TargetError("a folder"), AS_SSH, 255, "a folder (output)"),
        (TargetError("in use", usage=False), AS_SSH, 255, "in use (output)"),
    ],
)
def test_why_it_cannot_begin(
    error: AddressError | TargetError, manner: Manner, status: int, reason: str
) -> None:
    watch = Silent()
    assert Process(watch, manner=manner).refuse(error, "here", listens=True) == status
    assert watch.reason == reason
    watch.close()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_deadly_signal_ends_every_pipe_and_each_peer_is_told(name: str) -> None:
    done = in_a_process(f"""
os.kill(os.getpid(), signal.{name})
await asyncio.gather(*(pipe.wait_closed() for pipe in (one, two, far, away)))
outcomes(one, two)
outcomes(far, away)
print(process.deadly == signal.{name})
""")
    assert done.stderr == ""
    near, far, deadly = done.stdout.splitlines()
    assert near == f"interrupted by {name}; interrupted by {name}"
    assert far.count(f"interrupted by {name}") == 2
    assert deadly == "True"


def test_who_takes_the_place_of_ssh_is_ended_by_what_ends_ssh() -> None:
    done = in_a_process("""
from bpipe.run.process import AS_SSH
process = Process(Watch(), manner=AS_SSH)
process.begin()
process.take(one.engine)
os.kill(os.getpid(), signal.SIGUSR1)
await asyncio.gather(one.wait_closed(), far.wait_closed())
outcomes(one, two)
print(process.deadly == signal.SIGUSR1)
""")
    assert (done.stdout, done.stderr) == ("interrupted by SIGUSR1; goes on\nTrue\n", "")


def test_a_pipe_that_is_over_is_not_interrupted() -> None:
    done = in_a_process("""
one.abort(bpipe.Reason.LOCAL_ERROR, "enough")
await one.wait_closed()
process.release(one.engine)
os.kill(os.getpid(), signal.SIGTERM)
await two.wait_closed()
outcomes(one, two)
""")
    assert (done.stdout, done.stderr) == ("enough; interrupted by SIGTERM\n", "")


@pytest.mark.parametrize("ends", [False, True])
def test_a_signal_when_all_is_over_changes_nothing(ends: bool) -> None:
    done = in_a_process(f"""
for pipe in (one, two):
    pipe.abort(bpipe.Reason.LOCAL_ERROR, "enough")
    await pipe.wait_closed()
    {"process.finish()" if ends else ""}
os.kill(os.getpid(), signal.SIGINT)
await asyncio.sleep(0)
outcomes(one, two)
print(process.deadly)
""")
    assert (done.stdout, done.stderr) == ("enough; enough\nNone\n", "")
    assert done.returncode == 0


def test_who_is_impatient_ends_it_at_once() -> None:
    done = in_a_process("""
import bpipe.run.process as module
module.clock = lambda: now
now = 100.0
os.kill(os.getpid(), signal.SIGINT)
await until(lambda: process.deadly)
os.kill(os.getpid(), signal.SIGINT)  # the same moment
await asyncio.sleep(0.01)
now += 0.2
print("still here", flush=True)
os.kill(os.getpid(), signal.SIGINT)
await asyncio.sleep(10)
""")
    assert done.returncode == -signal.SIGINT
    assert (done.stdout, done.stderr) == ("still here\n", "")


def test_what_is_behind_the_connections_is_not_left_behind() -> None:
    done = in_a_process("""
import bpipe.run.process as module
module.clock = lambda: now
for engine, name in (one.engine, "one"), (two.engine, "two"):
    engine.source.abandon = lambda name=name: print("abandoned", name, flush=True)
for now in 100.0, 110.0:
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: process.deadly)
    await asyncio.sleep(0.01)
    print("still here", flush=True)
""")
    assert done.returncode == -signal.SIGTERM
    assert done.stdout.splitlines() == ["still here", "abandoned one", "abandoned two"]


def test_what_the_ends_have_started_is_hurried_before() -> None:
    done = in_a_process("""
import bpipe.run.process as module
module.clock = lambda: now
class Ends:
    def __init__(self, name): self.name, self.times = name, 0
    def hurry(self):
        self.times += 1
        print(self.name, self.times, flush=True)
        return self.times == 1
process.take(one.engine, Ends("one"))
process.take(two.engine, Ends("two"))
for now in 100.0, 110.0, 120.0:
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: process.deadly)
    await asyncio.sleep(0.01)
    print("still here", flush=True)
""")
    assert done.returncode == -signal.SIGTERM
    lines = ["still here", "one 1", "two 1", "still here", "one 2", "two 2"]
    assert (done.stdout.splitlines(), done.stderr) == (lines, "")


def test_a_signal_that_was_ignored_at_the_start_stays_ignored() -> None:
    body = """
os.kill(os.getpid(), signal.SIGHUP)
os.kill(os.getpid(), signal.SIGUSR1)
await asyncio.sleep(0)
outcomes(one, two)
"""
    done = in_a_process(body, """trap '' HUP; exec "$@" """)
    assert (done.stdout, done.stderr) == ("report 0\ngoes on; goes on\n", "")


def test_all_of_them_connect_again_when_that_is_asked_for() -> None:
    done = in_a_process("""
up = bpipe.State.CONNECTED
await until(lambda: one.status().state is two.status().state is up)
os.kill(os.getpid(), signal.SIGUSR2)
await until(lambda: one.status().links == two.status().links == 2)
outcomes(one, two)
""")
    assert (done.stdout, done.stderr) == ("goes on; goes on\n", "")


# --- errors ---


def test_a_callback_that_lacks_something_ends_every_pipe() -> None:
    done = in_a_process("""
asyncio.get_running_loop().call_soon(raise_, MemoryError("128 MiB"))
await asyncio.gather(one.wait_closed(), two.wait_closed())
outcomes(one, two)
""")
    said = "cannot allocate memory: 128 MiB"
    assert (done.stdout, done.stderr) == (f"{said}; {said}\n", "")


def test_a_callback_that_makes_no_sense_is_told_and_ends_nothing() -> None:
    done = in_a_process("""
asyncio.get_running_loop().call_soon(raise_, ZeroDivisionError("of mine"))
await asyncio.sleep(0.01)
outcomes(one, two)
""")
    assert done.stdout == "goes on; goes on\n"
    assert "ZeroDivisionError: of mine" in done.stderr


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("ZeroDivisionError('of mine')", "an error in bpipe itself: ZeroDivisionError('of mine')"),
        ("MemoryError('128 MiB')", "cannot allocate memory: 128 MiB"),
    ],
)
def test_a_pump_that_fails_ends_its_own_pipe(error: str, said: str) -> None:
    done = in_a_process(f"""
gate = Gate(0, 0, lambda: False)
Pump(End(one.engine, "it"), gate, lambda: raise_({error}))
await one.wait_closed()
outcomes(one, two)
await two.write(b"moves")
print(await away.read())
""")
    assert (done.stdout, done.stderr) == (f"{said}; goes on\nb'moves'\n", "")


def test_another_thread_that_fails_ends_nothing() -> None:
    done = in_a_process("""
thread = threading.Thread(target=raise_, args=[ZeroDivisionError("of mine")])
thread.start()
thread.join()
outcomes(one, two)
""")
    assert (done.stdout, done.stderr) == ("goes on; goes on\n", "")
