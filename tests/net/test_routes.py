"""The door to what the kernel tells of this machine's network."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable

import pytest

from bpipe.net import routes as door
from bpipe.net.netlink import Path
from bpipe.net.paths import Watched
from bpipe.net.routes import COST, LONGEST, Linux, Routes, path_to, routes
from tests.support.kernels import DOWN, PATH, SEARCHED, WAY, FakeKernel
from tests.support.pipes import until

LOOPBACK = socket.inet_aton("127.0.0.1")


class Watching:
    """Some routes, their kernel, and what was told."""

    def __init__(self) -> None:
        self.kernels: list[FakeKernel] = []
        self.routes = Routes(self._open)
        self.told: list[bool] = []

    def _open(self) -> FakeKernel:
        self.kernels.append(FakeKernel())
        return self.kernels[-1]

    @property
    def kernel(self) -> FakeKernel:
        return self.kernels[-1]

    def watch(self, path: Path = PATH) -> Watched:
        watched = self.routes.watch(path, self.told.append)
        assert watched is not None
        return watched


def run(test: Callable[[Watching], Awaitable[None]]) -> None:
    async def check() -> None:
        watching = Watching()
        async with asyncio.timeout(15):
            await test(watching)

    asyncio.run(check())


def test_what_changes_is_told() -> None:
    async def check(watching: Watching) -> None:
        watched = watching.watch()
        watching.kernel.change(None)
        await until(lambda: watching.told == [False])
        watching.kernel.change(WAY)
        await until(lambda: watching.told == [False, True])
        watching.kernel.tell(DOWN)
        await until(lambda: watching.told == [False, True, True])
        watching.routes.forget(watched)

    run(check)


def test_what_was_lost_is_asked_for() -> None:
    async def check(watching: Watching) -> None:
        watched = watching.watch()
        watching.kernel.ways[PATH] = None
        watching.kernel.lose()
        await until(lambda: watching.told == [False])
        watching.routes.forget(watched)

    run(check)


def test_the_kernel_is_opened_with_the_first_path_and_closed_with_the_last() -> None:
    async def check(watching: Watching) -> None:
        assert not watching.kernels
        first, second = watching.watch(), watching.watch(SEARCHED)
        assert len(watching.kernels) == 1
        watching.routes.forget(first)
        assert not watching.kernel.closed
        for _ in range(2):
            watching.routes.forget(second)
        assert watching.kernel.closed
        watched = watching.watch()
        assert len(watching.kernels) == 2
        watching.kernel.change(None)
        await until(lambda: watching.told == [False])
        watching.routes.forget(watched)
        assert watching.kernel.closed

    run(check)


def test_who_is_told_may_forget_the_last_path() -> None:
    async def check(watching: Watching) -> None:
        def tell(there: bool) -> None:
            watching.told.append(there)
            assert watched is not None
            watching.routes.forget(watched)

        watched = watching.routes.watch(PATH, tell)
        watching.kernel.change(None)
        await until(lambda: watching.kernel.closed)
        assert watching.told == [False]

    run(check)


def test_a_storm_is_looked_at_now_and_then() -> None:
    """Without a clock: each look is followed by a pause, and the pauses become longer."""

    async def check(watching: Watching) -> None:
        loop = asyncio.get_running_loop()
        watched, began, told = watching.watch(), loop.time(), 0
        asked = len(watching.kernel.asked)
        while loop.time() < began + 5 * LONGEST:
            watching.kernel.tell()
            told += 1
            await asyncio.sleep(0)
        assert told > 200
        assert len(watching.kernel.asked) - asked < 30
        watching.kernel.change(None)
        await until(lambda: watching.told == [False])
        watching.routes.forget(watched)

    run(check)


def test_a_look_that_takes_long_is_followed_by_a_long_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def check(watching: Watching) -> None:
        loop = asyncio.get_running_loop()
        watched, took, delays = watching.watch(), 0.0, []
        time, call_later = loop.time, loop.call_later

        def way(path: Path) -> None:
            nonlocal took
            took = 1.0

        def later(delay: float, *arguments: object) -> object:
            delays.append(delay)
            return call_later(delay, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(loop, "time", lambda: time() + took)
        monkeypatch.setattr(watching.kernel, "way", way)
        watching.kernel.tell()
        monkeypatch.setattr(loop, "call_later", later)
        await until(lambda: watching.told == [False])
        monkeypatch.undo()
        assert max(delays) >= COST
        watching.routes.forget(watched)

    run(check)


def test_a_kernel_that_does_not_let_us_tells_nothing() -> None:
    async def check(watching: Watching) -> None:
        def refuse() -> FakeKernel:
            raise PermissionError(1, "Operation not permitted")

        assert Routes(refuse).watch(PATH, watching.told.append) is None

    run(check)


def test_one_that_cannot_be_read_any_more_is_left_alone() -> None:
    async def check(watching: Watching) -> None:
        watched = watching.watch()
        watching.kernel.error = OSError(9, "Bad file descriptor")
        watching.kernel.tell()
        await until(lambda: watching.kernel.closed)
        assert watching.told == []
        watching.routes.forget(watched)

    run(check)


def test_each_event_loop_has_its_own() -> None:
    async def look() -> Routes:
        found = routes()
        assert routes() is found
        return found

    assert asyncio.run(look()) is not asyncio.run(look())


def test_a_loop_may_be_given_another_kernel() -> None:
    async def check() -> None:
        kernel = FakeKernel()
        door.use(lambda: kernel)
        watched = routes().watch(PATH, lambda there: None)
        assert watched is not None
        assert kernel.asked == [PATH]
        routes().forget(watched)

    asyncio.run(check())


@pytest.mark.parametrize(
    ("peer", "local", "path"),
    [
        (("10.0.0.2", 7), None, SEARCHED),
        (("10.0.0.2", 7), ("10.0.0.1", 8), PATH),
        (("::ffff:10.0.0.2", 7, 0, 0), ("::ffff:10.0.0.1", 8, 0, 0), PATH),
        (("::1", 7, 0, 0), None, Path(bytes(15) + b"\1")),
        (("fe80::2%lo", 7, 0, 1), None, Path(socket.inet_pton(socket.AF_INET6, "fe80::2"), b"", 1)),
    ],
)
def test_a_path_is_made_of_what_sockets_say(peer: object, local: object, path: Path) -> None:
    assert path_to(peer, local) == path


@pytest.fixture
def linux() -> Linux:
    try:
        return Linux()
    except OSError:
        pytest.skip("the kernel tells nothing here")


def test_linux_has_no_way_to_another_machine_that_is_this_one(linux: Linux) -> None:
    before = len(os.listdir("/dev/fd"))
    nowhere = Path(bytes([192, 0, 2, 1]), interface="no-such-device")
    stranger = Path(LOOPBACK, bytes([192, 0, 2, 77]))
    for path in (Path(LOOPBACK), Path(LOOPBACK, LOOPBACK), stranger, nowhere):
        assert linux.way(path) is None
    assert len(os.listdir("/dev/fd")) == before
    with pytest.raises(BlockingIOError):
        linux.messages()
    linux.close()
    assert len(os.listdir("/dev/fd")) == before - 2


def test_elsewhere_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_NETLINK", raising=False)
    with pytest.raises(OSError, match="no netlink"):
        Linux()
