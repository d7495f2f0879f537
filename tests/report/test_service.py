"""What is seen of a process that serves many sessions, by people and by programs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest

import bpipe
from bpipe.engine import Engine
from bpipe.errors import LocalAbort
from bpipe.report import service as module
from bpipe.report.segments import ASCII
from bpipe.report.service import MOST, ServiceWatch
from bpipe.report.settings import Level, Settings, When
from bpipe.report.terminal import Picture, Terminal
from bpipe.status import SlotStatus, State
from tests.support.pairs import QUICK, both, until
from tests.support.statuses import BEFORE
from tests.support.watches import heard

SLOT = SlotStatus(True, "there:1", "", 1, None, None, "", "")
UP = replace(BEFORE, state=State.CONNECTED, peer="there:1", links=1)


@dataclass
class Server:
    address: str = "127.0.0.1:7000"
    reachable: bool = False
    sealed: bool = False
    refused: int = 0
    most: int = 64


class Fake:
    """An engine of which nothing but its status is known."""

    def __init__(self, number: int = 1, links: int = 1) -> None:
        terms = SimpleNamespace(links=links)
        self.session = SimpleNamespace(id=number.to_bytes(16, "big"), terms=terms)
        self.change = 0
        self.asked = 0
        self._status = replace(UP, peer=f"there:{number}")
        self._observers: list[Callable[[], None]] = []

    def status(self) -> bpipe.Status:
        self.asked += 1
        return self._status

    def observe(self, observer: Callable[[], None]) -> None:
        self._observers.append(observer)

    def drive(self, **changes: Any) -> None:
        """Something has happened."""
        self._status = replace(self._status, **changes)
        self.change += bool(changes)
        for observer in self._observers:
            observer()


def engine(fake: Fake) -> Engine:
    return cast(Engine, fake)


def said(
    check: Callable[[ServiceWatch], Awaitable[None]],
    settings: Settings = Settings(),  # noqa: B008 - immutable
) -> list[str]:
    """The lines on stderr of a service that does this."""
    return [line.removeprefix("bpipe: ") for line in heard(lambda: ServiceWatch(settings), check)]


def logged(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# --- one after the other ---


HERE: Final = "for this machine only; others need --secret (bpipe keygen)"


@pytest.mark.parametrize(
    ("server", "listens", "lines"),
    [
        (Server(), True, [f"listening on 127.0.0.1:7000, {HERE}"]),
        (
            Server("0.0.0.0:7000", reachable=True),
            True,
            [
                "listening on 0.0.0.0:7000",
                "without a secret: whoever reaches 0.0.0.0:7000 gets in; --secret FILE helps",
                "on the other machine: bpipe connect HOST:7000 --name x",
            ],
        ),
        (Server("unix:/s"), False, ["connections to unix:/s go to far:1"]),
        (
            Server("0.0.0.0:7000", reachable=True),
            False,
            ["connections to 0.0.0.0:7000, those of other machines too, go to far:1"],
        ),
    ],
)
def test_a_service_says_where_it_is_reached(
    server: Server, listens: bool, lines: list[str]
) -> None:
    async def check(watch: ServiceWatch) -> None:
        watch.open("far:1", listens=listens)
        watch.begin(server)

    assert said(check, Settings(credentials="--name x")) == lines


def test_that_the_other_end_allows_fewer_links_is_told_once_for_all_sessions() -> None:
    async def check(watch: ServiceWatch) -> None:
        watch.open("far:1", listens=False)
        watch.begin(Server())
        for number in (1, 2):
            fake = Fake(number, links=4)
            fake.drive(slots=(SLOT, SLOT))
            watch.came(engine(fake))

    lines = said(check)
    assert [line for line in lines if "allows" in line] == [
        "the far side allows 2 links, not 4 (--max-links)"
    ]


async def two(watch: ServiceWatch) -> None:
    """Two sessions, one of which fails, and what is told of them and of both together."""
    watch.open("127.0.0.1:0", listens=True)
    watch.begin(Server())
    async with AsyncExitStack() as stack:
        for number in (1, 2):
            caller, listener = await stack.enter_async_context(both())
            story = watch.came(listener.engine)
            await caller.write(bytes(number))
            assert await listener.read() == bytes(number)
            if number == 1:
                await asyncio.gather(caller.close(), listener.close())
            else:
                caller.abort(bpipe.Reason.LOCAL_ERROR, "the disk is full")
                await listener.wait_closed()
            status = 0 if number == 1 else 1
            story.conclude(listener.failure, listener.status(), status, interrupted=False)
    watch.conclude(0)


def test_sessions_are_told_apart_by_their_numbers() -> None:
    listening, *lines, last = said(two)
    patterns = [
        r"session 1: connected to (127\.0\.0\.1:\d+)",
        r"session 1: received 1 B in .*, all delivered",
        r"session 2: connected to (127\.0\.0\.1:\d+)",
        r'session 2: 127\.0\.0\.1:\d+: the other end: "the disk is full"; 2 bytes received',
    ]
    assert listening.startswith("listening on")
    assert len(lines) == len(patterns)
    assert all(re.fullmatch(each, line) for each, line in zip(patterns, lines, strict=True)), lines
    assert last == "served 2 sessions, 1 failed; received 3 B"


def test_the_log_has_the_ids_of_sessions_and_one_end_of_the_run(tmp_path: Path) -> None:
    said(two, Settings(log=str(tmp_path / "log")))
    events = logged(tmp_path / "log")
    kinds = [(each["event"], "session" in each) for each in events]
    of_one = [("connected", True), ("peer-finished", True), ("done", True)]
    assert kinds == [
        ("started", False),
        ("listening", False),
        *of_one,
        of_one[0],
        of_one[2],
        ("listener", False),
        ("done", False),
    ]
    assert len({each["run"] for each in events}) == 1
    assert [each["from"] for each in events if each["event"] == "done"] == [None, "bpipe", None]
    listener, done = events[-2:]
    assert (listener["served"], listener["failed"], listener["sessions"]) == (2, 1, 0)
    assert listener["delivered"] == done["delivered"] == 3


def test_the_id_is_the_one_that_the_program_of_the_session_gets(tmp_path: Path) -> None:
    async def check(watch: ServiceWatch) -> None:
        watch.open("here", listens=True)
        watch.begin(Server())
        watch.came(engine(Fake(0xBEEF)))

    said(check, Settings(log=str(tmp_path / "log")))
    assert logged(tmp_path / "log")[-1]["session"] == f"{0xBEEF:032x}"


@pytest.mark.parametrize(
    ("level", "kinds"),
    [
        (Level.QUIET, []),
        (Level.NORMAL, ["connected", "done"]),
        (Level.VERBOSE, ["connected", "connection lost", "connected again", "done"]),
    ],
)
def test_what_becomes_of_a_connection_is_for_who_wants_to_know_more(
    level: Level, kinds: list[str]
) -> None:
    async def check(watch: ServiceWatch) -> None:
        watch.begin(Server())
        fake = Fake()
        story = watch.came(engine(fake))
        fake.drive(state=State.RECONNECTING, cause="reset")
        fake.drive(state=State.CONNECTED, links=2)
        story.conclude(None, fake.status(), 0, interrupted=False)

    lines = [line for line in said(check, Settings(level)) if line.startswith("session 1: ")]
    assert len(lines) == len(kinds)
    assert all(
        line.startswith(f"session 1: {kind}") for line, kind in zip(lines, kinds, strict=True)
    )


def test_the_peer_is_the_one_that_calls_also_when_it_is_away() -> None:
    ports: list[str] = []

    async def check(watch: ServiceWatch) -> None:
        watch.begin(Server())

        async def handler(pipe: bpipe.BackedPipe) -> None:
            story = watch.came(pipe.engine)  # before the engine has taken the link
            await until(lambda: pipe.status().state is State.CONNECTED)
            pipe.force_reconnect()
            await until(lambda: pipe.status().state is State.RECONNECTING)
            watch.report(Level.QUIET)
            pipe.abort(bpipe.Reason.LOCAL_ERROR, "why")
            await pipe.wait_closed()
            story.conclude(pipe.failure, pipe.status(), 1, interrupted=False)

        async with bpipe.serve("127.0.0.1:0", handler, limits=QUICK) as server:
            ports.append(server.address.rpartition(":")[2])
            caller = await bpipe.connect(server.address, limits=QUICK)
            with contextlib.suppress(bpipe.SessionEnded):
                await caller.connect()
                await caller.read()
            await caller.wait_closed()
            server.stop()
            await server.wait_closed()

    lines = said(check)[1:]
    peers = [re.findall(r"127\.0\.0\.1:(\d+)", line) for line in lines if "127." in line]
    assert len(peers) == 3, lines  # it is connected, where it stands, how it ended
    assert len({port for each in peers for port in each}) == 1
    assert ports[0] not in peers[0]


# --- many ---


async def crowd(watch: ServiceWatch, failure: bpipe.SessionEnded | None) -> None:
    """Three times as many short sessions as are told within a minute."""
    watch.open("here", listens=True)
    watch.begin(Server())
    for number in range(1, 3 * MOST + 1):
        fake = Fake(number)
        story = watch.came(engine(fake))
        story.conclude(failure, fake.status(), int(failure is not None), interrupted=False)
    watch.conclude(0)


def test_of_a_crowd_some_are_told_and_then_how_many_more_there_were(tmp_path: Path) -> None:
    lines = said(lambda watch: crowd(watch, None), Settings(log=str(tmp_path / "log")))
    assert sum("connected to" in line for line in lines) == MOST
    assert sum("streams were empty" in line for line in lines) == MOST
    assert lines[-2:] == [
        f"{2 * MOST} more sessions began in the last minute",
        f"served {3 * MOST} sessions",
    ]
    kinds = [each["event"] for each in logged(tmp_path / "log")]
    assert (kinds.count("connected"), kinds.count("done")) == (3 * MOST, 3 * MOST + 1)


def test_of_a_crowd_that_fails_too() -> None:
    lines = said(lambda watch: crowd(watch, LocalAbort("why")))
    failures = [line for line in lines if line.endswith(": why")]
    assert failures == [f"session {n}: there:{n}: why" for n in range(1, MOST + 1)]
    assert f"{2 * MOST} more sessions failed in the last minute" in lines


def test_a_failure_is_told_also_of_a_session_whose_beginning_was_not() -> None:
    async def check(watch: ServiceWatch) -> None:
        watch.begin(Server())
        fakes = [Fake(number) for number in range(1, 2 * MOST + 1)]
        stories = [watch.came(engine(fake)) for fake in fakes]
        failure = LocalAbort("why")
        stories[-1].conclude(failure, fakes[-1].status(), 1, interrupted=False)

    number = 2 * MOST
    assert said(check)[-1] == f"session {number}: there:{number}: why"


def test_the_crowd_of_a_minute_is_summed_up_when_it_is_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("bpipe.report.flood.PERIOD", 0.5)
    log = tmp_path / "log"

    async def check(watch: ServiceWatch) -> None:
        watch.open("here", listens=True)
        watch.begin(Server())
        for number in range(1, MOST + 2):
            watch.came(engine(Fake(number)))
        await until(lambda: '"crowded"' in log.read_text())

    lines = said(check, Settings(log=str(log)))
    assert lines[-2].startswith(f"session {MOST}: connected to")
    assert lines[-1] == "1 more session began in the last minute"


def test_who_interrupts_all_hears_how_many_have_failed_and_not_of_each() -> None:
    async def check(watch: ServiceWatch) -> None:
        watch.begin(Server())
        fakes = [Fake(1), Fake(2)]
        for fake, story in [(fake, watch.came(engine(fake))) for fake in fakes]:
            story.conclude(LocalAbort("SIGINT"), fake.status(), 1, interrupted=True)
        watch.conclude(130, "interrupted by SIGINT", "aborted", interrupted=True)

    _, _, _, last = said(check)
    assert last == "interrupted by SIGINT; served 2 sessions, 2 failed"
    assert said(check, Settings(Level.QUIET)) == []


def test_a_failure_of_the_service_itself_is_told_to_all() -> None:
    async def check(watch: ServiceWatch) -> None:
        watch.begin(Server())
        watch.conclude(1, "no more descriptors", "emfile")

    assert said(check, Settings(Level.QUIET)) == ["no more descriptors; served 0 sessions"]


async def outage(watch: ServiceWatch, listens: bool) -> None:
    """The first session calls somebody with another secret; and that of another has no link now."""
    watch.open("far:1", listens=listens)
    watch.begin(Server())
    first, second = Fake(1), Fake(2)
    first.drive(state=State.CONNECTING, links=0, cause="why", cause_code="secret", gives_up_in=9.0)
    watch.came(engine(first))
    story = watch.came(engine(second))
    second.drive(state=State.RECONNECTING, cause="reset")
    await asyncio.sleep(0.1)
    story.conclude(None, second.status(), 0, interrupted=False)


def test_who_calls_hears_of_first_connections_and_of_an_outage_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bpipe.report.outages.AFTER", 0.01)
    lines = said(lambda watch: outage(watch, listens=False))
    assert lines[1:-1] == [
        "session 1: there:1: why; trying for 9s more",
        "session 2: connected to there:2",
        "the connection of all 2 sessions is lost: there:2: reset; reconnecting",
    ]


def test_a_listener_does_not_mind_when_its_callers_are_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bpipe.report.outages.AFTER", 0.01)
    lines = said(lambda watch: outage(watch, listens=True))
    assert lines[1:-1] == ["session 2: connected to there:2"]


def test_strangers_are_told_once_a_minute() -> None:
    async def check(watch: ServiceWatch) -> None:
        watch.begin(Server())
        for callers in range(1, 10):
            watch.note_refused(callers)

    _, *lines = said(check)
    assert len(lines) == 1
    assert lines[0].startswith("1 caller refused")


# --- where it stands ---


def test_who_asks_is_told_of_all_together_and_of_each() -> None:
    async def check(watch: ServiceWatch) -> None:
        watch.begin(Server())
        fakes = [Fake(number) for number in (1, 2, 3)]
        stories = [watch.came(engine(fake)) for fake in fakes]
        fakes[0].drive(written=3, confirmed=2)
        fakes[1].drive(state=State.RECONNECTING, away=3.0, received=7, delivered=7)
        stories[2].conclude(None, fakes[2].status(), 0, interrupted=False)
        watch.report(Level.QUIET)
        watch.conclude(0)
        watch.report(Level.QUIET)  # a signal that has come late

    together, one, two = said(check, Settings(Level.QUIET))
    assert together.startswith(
        "2 sessions, 1 without a connection; 3 in all; sent 3 B, 2 B confirmed; received 7 B,"
    )
    assert one.startswith("session 1: connected there:1; sent 3 B, 2 B confirmed;")
    assert two.startswith("session 2: reconnecting there:2; nothing heard for 3s;")


def test_all_together_is_told_every_so_often(tmp_path: Path) -> None:
    async def check(watch: ServiceWatch) -> None:
        watch.open("here", listens=True)
        watch.begin(Server())
        watch.came(engine(Fake()))
        await until(lambda: log.read_text().count('"listener"') >= 2)
        watch.draining(9.0)
        watch.conclude(0)

    log = tmp_path / "log"
    said(check, Settings(log=str(log), log_interval=0.05))
    events = logged(log)
    listeners = [each for each in events if each["event"] == "listener"]
    assert [each["draining"] for each in listeners] == [False] * (len(listeners) - 1) + [True]
    assert not any(each["event"] == "progress" for each in events)


def test_what_one_session_does_is_not_counted_over_all() -> None:
    async def check(watch: ServiceWatch) -> None:
        watch.begin(Server())
        fakes = [Fake(number) for number in range(1, 11)]
        for fake in fakes:
            watch.came(engine(fake))
        before = [fake.asked for fake in fakes]
        for number in range(100):
            fakes[0].drive(written=number)
            fakes[0].drive()
        after = [fake.asked for fake in fakes]
        assert after[1:] == before[1:]
        assert after[0] - before[0] == 100

    said(check)


def test_the_status_line_is_of_all_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REDRAW", 0.02)
    drawn: list[str] = []

    def show(terminal: Terminal, picture: Picture) -> None:
        drawn.append("".join(span.text for span in picture(79, ASCII)))

    monkeypatch.setattr(Terminal, "show", show)

    async def check(watch: ServiceWatch) -> None:
        watch.begin(Server())
        fake = Fake()
        watch.came(engine(fake))
        await until(lambda: "1 session " in drawn[-1])
        fake.drive(state=State.RECONNECTING, away=3.0, cause="there:1: why, " + 9 * "long ")
        await until(lambda: "  1 session  no connection  why, long" in drawn[-1])
        assert drawn[-1].endswith("...")  # as the terminal has no more
        fake.drive(state=State.CONNECTED)
        await until(lambda: "1 session  idle" in drawn[-1])
        watch.draining(30.0)
        watch.conclude(0)
        watch.report(Level.QUIET)
        await asyncio.sleep(0.1)  # in which nothing may be drawn

    lines = said(check, Settings(status_line=When.ALWAYS))
    assert drawn[0].startswith("serving at 127.0.0.1:7000  0 sessions  elapsed")
    assert drawn[-2].startswith("serving at 127.0.0.1:7000  1 session  idle  elapsed")
    assert drawn[-1].startswith("draining  1 session  idle  elapsed")
    assert lines[-2:] == ["no more sessions are taken; 1 may go on for 30s", "served 1 session"]


def test_no_status_line_is_drawn_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Terminal, "show", lambda terminal, picture: pytest.fail("it is drawn"))

    async def check(watch: ServiceWatch) -> None:
        watch.begin(Server())
        watch.draining(30.0)

    said(check, Settings(status_line=When.NEVER))
