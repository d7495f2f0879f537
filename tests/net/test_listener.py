"""Whom a listener accepts, greets, and drops."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import socket
from collections.abc import Iterator

import pytest

from bpipe.net.listener import PENDING
from bpipe.protocol.sealed import SealedHandshake
from bpipe.protocol.secret import Secret
from bpipe.protocol.wire import (
    HEADER_SIZE,
    VERDICT_SIZE,
    Hello,
    Kind,
    Opening,
    Position,
    pack_frame,
    pack_hello,
)
from tests.support.listening import crowd, end_of, hello, sealed_hello, serving, until
from tests.support.strangers import LOOPBACK, Stranger, abstract_name, needs_another_user

ROOM = PENDING + 1  # the one session has one link


def test_greetings_under_way_are_bounded() -> None:
    async def check() -> None:
        async with serving() as at:
            callers = []
            for _ in range(ROOM + 10):
                reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
                callers.append((reader, writer))
            ends = [asyncio.ensure_future(end_of(reader)) for reader, _ in callers]
            async with asyncio.timeout(10):
                while len([end for end in ends if end.done()]) < 10:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            assert len([end for end in ends if end.done()]) == 10
            assert all(end.result() == b"" for end in ends if end.done())
            for end, (_, writer) in zip(ends, callers, strict=True):
                end.cancel()
                writer.close()
            await asyncio.gather(*ends, return_exceptions=True)

    asyncio.run(check())


def test_those_who_say_nothing_drive_out_nobody_who_has_greeted() -> None:
    async def check() -> None:
        async with serving() as at, crowd(at.port) as come:
            reader, writer = await come(hello(1))
            assert len(await reader.readexactly(VERDICT_SIZE)) == VERDICT_SIZE
            others = [await come(b"") for _ in range(ROOM + 100)]
            dropped = [asyncio.ensure_future(end_of(reader)) for reader, _ in others]
            await until(lambda: len([end for end in dropped if end.done()]) == 101)
            writer.write(pack_frame(Kind.CONFIRM, 0))
            assert len(await reader.readexactly(HEADER_SIZE)) == HEADER_SIZE
            for end in dropped:
                end.cancel()

    asyncio.run(check())


def test_those_who_greet_and_do_not_confirm_drive_out_nobody_who_has_just_come() -> None:
    async def check() -> None:
        async with serving() as at, crowd(at.port) as come:
            for number in range(ROOM):
                await (await come(hello(number)))[0].readexactly(VERDICT_SIZE)
            reader, writer = await come(b"")
            for number in range(ROOM, ROOM + 100):
                await (await come(hello(number)))[0].readexactly(VERDICT_SIZE)
            writer.write(hello(999))
            assert len(await reader.readexactly(VERDICT_SIZE)) == VERDICT_SIZE

    asyncio.run(check())


def test_those_who_were_refused_and_do_not_hang_up_are_bounded_too() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    async def check() -> None:
        async with serving() as at, crowd(at.port) as come:
            before = descriptors()
            callers = 3 * ROOM
            for number in range(callers):
                await (await come(hello(number, Opening.RESUME)))[0].readexactly(VERDICT_SIZE)
            assert descriptors() - before - callers <= ROOM

    asyncio.run(check())


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """Nothing can be opened meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        highest = stack.enter_context(open(os.devnull)).fileno()
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, before[1]))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        with contextlib.suppress(OSError):
            while True:
                stack.enter_context(open(os.devnull))
        yield


@pytest.mark.parametrize("others", [0, 3])
def test_without_descriptors_somebody_is_dropped_or_the_next_one_waits(others: int) -> None:
    async def check() -> None:
        loop = asyncio.get_running_loop()
        async with serving() as at, crowd(at.port) as come:
            silent = [await come(b"") for _ in range(others)]
            with socket.socket() as late:
                late.setblocking(False)
                with no_descriptors():
                    await loop.sock_connect(late, ("127.0.0.1", at.port))
                    await loop.sock_sendall(late, hello(1))
                    if others:
                        assert len(await loop.sock_recv(late, 1000)) == VERDICT_SIZE
                    else:
                        await asyncio.sleep(0.05)  # it has tried
                if not others:
                    assert len(await loop.sock_recv(late, 1000)) == VERDICT_SIZE
            ends = [asyncio.ensure_future(end_of(reader)) for reader, _ in silent]
            await asyncio.sleep(0.01)
            # One for him, and one to ask the system whose process he is.
            assert len([end for end in ends if end.done()]) in ((1, 2) if others else (0,))
            for end in ends:
                end.cancel()

    asyncio.run(check())


def test_who_waits_for_descriptors_is_told_of() -> None:
    async def check() -> None:
        loop = asyncio.get_running_loop()
        async with serving() as at:
            with socket.socket() as late:
                late.setblocking(False)
                with no_descriptors():
                    await loop.sock_connect(late, ("127.0.0.1", at.port))
                    await until(lambda: bool(at.changes))
            cause = at.session.history.last_cause
            assert str(cause) == "cannot accept a caller: too many open files"
            assert cause is not None
            assert cause.code == "emfile"

    asyncio.run(check())


@pytest.mark.parametrize("code", [errno.EPERM, errno.EPROTO, errno.ENETDOWN, errno.ECONNABORTED])
def test_an_error_of_the_connection_that_was_to_be_accepted_drops_nobody_else(
    monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    accept = socket.socket.accept
    errors = [OSError(code, os.strerror(code)) for _ in range(3)]

    def fail(listening: socket.socket) -> tuple[socket.socket, object]:
        if errors:
            accept(listening)[0].close()
            raise errors.pop()
        return accept(listening)

    async def check() -> None:
        async with serving() as at, crowd(at.port) as come:
            first, writer = await come(b"")
            await asyncio.sleep(0.05)  # he is accepted, too
            monkeypatch.setattr(socket.socket, "accept", fail)
            for _ in range(3):
                await come(b"")
            reader, _ = await come(hello(1))
            assert len(await reader.readexactly(VERDICT_SIZE)) == VERDICT_SIZE
            assert errors == []
            writer.write(hello(2))
            assert len(await first.readexactly(VERDICT_SIZE)) == VERDICT_SIZE

    asyncio.run(check())


@needs_another_user
@pytest.mark.parametrize(("family", "host"), LOOPBACK)
@pytest.mark.parametrize("anywhere", [False, True], ids=["", "insecure"])
def test_a_process_of_another_user_is_refused_unless_all_are_trusted(
    family: socket.AddressFamily, host: str, anywhere: bool
) -> None:
    name = f"[{host}]:0" if ":" in host else f"{host}:0"

    async def check() -> None:
        async with serving(name, anywhere=anywhere) as at:
            he = await asyncio.to_thread(Stranger, family, host, at.port)
            try:
                answer = await asyncio.to_thread(he.hear, hello(1))
            finally:
                he.end()
            assert len(answer) == (VERDICT_SIZE if anywhere else 0)
            assert at.listener.refused == (0 if anywhere else 1)

    asyncio.run(check())


@needs_another_user
@pytest.mark.parametrize("anywhere", [False, True], ids=["", "insecure"])
def test_at_an_abstract_socket_no_other_user_gets_in(anywhere: bool) -> None:
    name = abstract_name()

    async def check() -> None:
        async with serving(f"unix:{name}", anywhere=anywhere) as at:
            he = await asyncio.to_thread(Stranger, socket.AF_UNIX, name, 1)
            try:
                assert await asyncio.to_thread(he.hear, hello(1)) == b""
            finally:
                he.end()
            assert at.listener.refused == 1

    asyncio.run(check())


@pytest.mark.parametrize(("limit", "room"), [(4096, ROOM), (60, 40), (20, 1), (-1, ROOM)])
def test_callers_do_not_get_the_last_descriptors(
    monkeypatch: pytest.MonkeyPatch, limit: int, room: int
) -> None:
    highest = max(map(int, os.listdir("/dev/fd")))
    held = [os.dup(0)]  # whatever numbers others have left between theirs
    while held[-1] < highest:
        held.append(os.dup(0))
    if 0 < limit < ROOM:
        limit += held[-1] + 1 - 5
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limit, limit))

    async def check() -> None:
        async with serving() as at, crowd(at.port) as come:
            ends = [asyncio.ensure_future(end_of((await come(b""))[0])) for _ in range(100)]
            await until(lambda: any(end.done() for end in ends))
            await asyncio.sleep(0.05)
            assert room - 20 <= len([end for end in ends if not end.done()]) <= room
            for end in ends:
                end.cancel()

    try:
        asyncio.run(check())
    finally:
        for each in held:
            os.close(each)


def test_who_does_not_know_the_secret_is_counted_and_hears_nothing() -> None:
    ours, theirs = Secret(bytes(32)), Secret(bytes(range(32)))
    sealed = sealed_hello(theirs)

    async def check() -> None:
        async with serving(secret=ours) as at, crowd(at.port) as come:
            for said in (sealed, hello(1), b"GET / HTTP/1.1\r\n"):
                assert await end_of((await come(said))[0]) == b""
            assert at.changes == [1, 2, 3]
            _, writer = await come(sealed[:50])
            writer.close()  # who leaves was not refused
            await asyncio.sleep(0.05)
            assert at.listener.refused == 3

    asyncio.run(check())


def test_a_greeting_that_was_overheard_is_answered_once_and_drives_out_nobody() -> None:
    secret = Secret(bytes(32))
    overheard = sealed_hello(secret)

    async def check() -> None:
        async with serving(secret=secret) as at, crowd(at.port) as come:
            reader, _ = await come(overheard)
            assert await reader.readexactly(SealedHandshake.verdict_size)
            newcomer, writer = await come(b"")
            for _ in range(ROOM + 10):
                assert await end_of((await come(overheard))[0]) == b""
            assert at.listener.refused == ROOM + 10
            writer.write(sealed_hello(secret))
            assert await newcomer.readexactly(SealedHandshake.verdict_size)

    asyncio.run(check())


def test_closing_lets_go_of_everybody() -> None:
    async def check() -> None:
        async with serving() as at:
            reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
            writer.write(pack_hello(Hello(Opening.OPEN, bytes(16), 1, Position(0, 0, 1))))
            assert len(await reader.readexactly(VERDICT_SIZE)) == VERDICT_SIZE
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()

    asyncio.run(check())
