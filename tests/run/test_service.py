"""Many sessions in a process, and the signals that end it.

tests/end_to_end/test_many.py has the processes that users start.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from typing import Final

import pytest

pytestmark = pytest.mark.slow

# A service, and a caller of it that is in the same process and does as a test wants.
PROGRAM: Final = """
import asyncio, contextlib, os, signal
import bpipe
from bpipe.ends.program import Program
from bpipe.report.service import ServiceWatch
from bpipe.report.settings import Settings
from bpipe.run.service import Plan, Service
from tests.support.pipes import QUICK, until

servers = []

@contextlib.asynccontextmanager
async def opened(each, tell, target):
    async def handle(pipe):
        await each(pipe, Program(["cat"]))
    async with bpipe.serve("127.0.0.1:0", handle, limits=QUICK) as server:
        servers.append(server)
        yield server

async def play():
    await until(lambda: servers)
    server = servers[0]
    pipe = await bpipe.connect(server.address, limits=QUICK)
    await pipe.connect()
    await pipe.write(b"a")
    assert await pipe.read() == b"a"
{body}

async def main():
    watch = ServiceWatch(Settings())
    service = Service(Plan(opened, "here", 9, {drain}), watch)
    player = asyncio.create_task(play())
    print("status", await service.run(), flush=True)
    await player
    watch.close()

asyncio.run(main())
"""


def in_a_process(body: str, drain: float = 0.0) -> subprocess.CompletedProcess[str]:
    """Run this, where ``pipe`` is up."""
    program = PROGRAM.format(body=textwrap.indent(body, "    "), drain=drain)
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )


END_WELL: Final = """
pipe.finish()
assert await pipe.read() == b""
await pipe.close()
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_who_is_served_may_end_within_the_time_for_that(name: str) -> None:
    done = in_a_process(f"os.kill(os.getpid(), signal.{name})\n{END_WELL}", drain=30.0)
    assert done.stdout == "status 0\n", done.stderr
    assert "bpipe: session 1: sent 1 B and received 1 B" in done.stderr


@pytest.mark.parametrize(("name", "drain"), [("SIGTERM", 0.0), ("SIGTERM", 0.1), ("SIGINT", 30.0)])
def test_who_is_served_longer_is_interrupted(name: str, drain: float) -> None:
    body = f"""
os.kill(os.getpid(), signal.{name})
await pipe.wait_closed()
print(pipe.failure)
"""
    done = in_a_process(body, drain)
    status = 128 + getattr(signal, name)
    told = [f'the other end: "interrupted by {name}"', f"status {status}"]
    assert sorted(done.stdout.splitlines()) == sorted(told)


def test_a_second_signal_does_not_wait() -> None:
    body = """
import bpipe.run.process as module
now = 100.0
module.clock = lambda: now
os.kill(os.getpid(), signal.SIGTERM)
await until(lambda: server.stopped)
now += 0.2
os.kill(os.getpid(), signal.SIGINT)
await pipe.wait_closed()
"""
    assert in_a_process(body, 30.0).stdout == f"status {128 + signal.SIGINT}\n"


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 0), ("SIGINT", 128 + signal.SIGINT)])
def test_with_nobody_to_serve_only_an_interrupt_is_one(name: str, status: int) -> None:
    body = f"{END_WELL}\nawait until(lambda: not server.pipes)\nos.kill(os.getpid(), signal.{name})"
    assert in_a_process(body).stdout == f"status {status}\n"
