"""A far program whose output becomes a file here: what compares it is sent there, too."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from bpipe.protocol.wire import FILE, Ended, Finish
from bpipe.remote import bundle
from bpipe.remote.carrier import Remote, open_pipe
from tests.support.receiver import BLOCK, Receiver
from tests.support.remote import LIMITS, OLDEST, errand, far_side, in_loop, until

DATA = os.urandom(100 * BLOCK + 1000)


@pytest.mark.parametrize(("status", "links"), [(0, 1), (3, 1), (0, 3)])
@in_loop
async def test_what_lies_here_does_not_cross(status: int, links: int, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(DATA)
    side = far_side(OLDEST)
    say = errand(f"cat; cat {tmp_path}/source; echo said >&2; exit {status}", links=links)
    async with await open_pipe(Remote(side, side, say), LIMITS, 1 << 20, FILE) as pipe:
        await until(lambda: len(pipe.engine.links) == links)
        receiver = Receiver(pipe, bytes(BLOCK) + DATA[BLOCK:])
        telling = asyncio.ensure_future(receiver.tell_all())
        assert await receiver.take() == DATA
        await telling
        assert receiver.errors == b"said\n"
        assert receiver.assembly.whole is (status == 0)
        assert receiver.assembly.tally.moved == BLOCK
        assert pipe.reader.ended == Finish(Ended.EXITED, status)
        await pipe.wait_closed()
        assert pipe.failure is None


def test_it_is_sent_only_then() -> None:
    usual, more = bundle.modules(bundle.HOLDER), bundle.modules(bundle.HOLDER + bundle.COMPARING)
    assert {"bpipe.comparison", "bpipe.protocol.block_writer"} <= {*more} - {*usual}
    assert len(bundle.line(bundle.HOLDER + bundle.COMPARING, {})) < bundle.LONGEST
