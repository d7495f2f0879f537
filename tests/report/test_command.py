"""What is seen of a process that takes the place of ssh: outages and failures, and little else."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

import bpipe
from bpipe.ends.streams import Directions, Streams
from bpipe.report.command import CommandHints, CommandTeller, CommandWatch, MayNotAsk
from bpipe.report.events import Connected, Event, Lost, PeerFinished, Resumed, Trying
from bpipe.report.settings import Level, Settings, When
from bpipe.report.totals import Done
from tests.support.pairs import both
from tests.support.statuses import AWAY, CALLING, EMPTY, SENDING, over
from tests.support.watches import heard, live

PIPES = Streams(0, 1, False, False)  # as a program starts ssh
SENDS = Streams(0, 1, False, True)  # as somebody types it: tar c . | bpipe ssh ...
TYPED = Streams(0, 1, True, True)


class Ear:
    """Hears what is told, and from which level on."""

    level = Level.NORMAL

    def __init__(self) -> None:
        self.heard: list[tuple[Event, Level]] = []

    def tell(self, event: Event, level: Level = Level.NORMAL) -> None:
        self.heard.append((event, level))


GOOD = Done(0, None)
FAILED = Done(3, "the command exited with status 3", "program", from_="program")
OURS = Done(255, "gave up", "lost", from_="bpipe")
HEAD = Done(141, "the consumer behind stdout closed its pipe", "pipe-closed", from_="bpipe")


@pytest.mark.parametrize(
    ("event", "level", "loud", "quiet"),
    [
        (Connected("far"), Level.NORMAL, Level.VERBOSE, Level.VERBOSE),
        (PeerFinished(5), Level.VERBOSE, Level.VERBOSE, Level.VERBOSE),
        (Lost("reset", "reset"), Level.NORMAL, Level.NORMAL, Level.NORMAL),
        (Resumed("far", 1.0, 0), Level.NORMAL, Level.NORMAL, Level.NORMAL),
        (GOOD, Level.NORMAL, Level.NORMAL, Level.VERBOSE),
        (FAILED, Level.QUIET, Level.NORMAL, Level.VERBOSE),
        (OURS, Level.QUIET, Level.QUIET, Level.QUIET),
        (OURS, Level.NORMAL, Level.NORMAL, Level.VERBOSE),  # interrupted
        (HEAD, Level.QUIET, Level.VERBOSE, Level.VERBOSE),
        (FAILED._replace(part="a.part"), Level.QUIET, Level.QUIET, Level.QUIET),
    ],
)
def test_of_what_goes_well_people_hear_where_they_watch(
    event: Event, level: Level, loud: Level, quiet: Level
) -> None:
    for wanted, expected in ((True, loud), (False, quiet)):
        ear = Ear()
        CommandTeller(ear, loud=wanted).tell(event, level)
        assert ear.heard == [(event, expected)]


def told(*seen: bpipe.Status | str) -> list[Event]:
    """What is told of these statuses, and of lines that ssh has said."""
    events: list[Event] = []
    hints = CommandHints(events.append)
    for each in seen:
        if isinstance(each, str):
            hints.heard(each)
        else:
            hints.look(each)
    return events


def test_a_first_attempt_that_has_failed_is_told_once_and_one_that_goes_on_is_not() -> None:
    asks = replace(CALLING, cause="", attempts=0)
    (event,) = told(asks, CALLING, replace(CALLING, cause="another"), SENDING, AWAY)
    assert isinstance(event, Trying)
    assert event.words() == "far.example:7000: connection refused; trying for 27s more"
    assert told(replace(CALLING, gives_up_in=0.0)) == []


def test_who_cannot_be_asked_any_more_is_told_once() -> None:
    denied = "me@far: Permission denied (publickey,password)."
    asked = replace(CALLING, cause="", attempts=0)
    (event,) = told(asked, denied, SENDING, AWAY, "another line", denied, SENDING, AWAY, denied)
    assert event == MayNotAsk("far.example:7000")
    assert "only the first connection may ask for a password" in event.words()


def test_who_wants_several_links_cannot_be_asked_for_each() -> None:
    denied = "me@far: Permission denied (publickey,password)."
    (event,) = told(over((1, 1)), denied, over((1, 0)), denied, denied)
    assert event.words() == (
        "far.example:7000: only the first connection may ask for a password or a touch; for more"
        " than one link, ssh needs a key that it can use alone, or an agent"
    )


# --- the whole of it ---


def test_what_ssh_says_is_told_and_what_it_means() -> None:
    denied = "me@far: Permission denied (publickey,password)."

    async def check(watch: CommandWatch) -> None:
        async with both() as (caller, _):
            caller.engine.status = lambda: AWAY  # type: ignore[method-assign]
            watch.begin(caller.engine, listens=False)
            caller.force_reconnect()
            await caller.wait_for_connection()
            watch.tell_of_carrier(denied)

    first, second = heard(lambda: CommandWatch(Settings(), PIPES, Directions()), check)[-2:]
    assert first == f"bpipe: {denied}"
    assert second.startswith("bpipe: far.example:7000: only the first connection may ask for")


def said(streams: Streams, settings: Settings = Settings()) -> list[str]:  # noqa: B008
    """The lines on stderr of a run in which all goes well."""

    async def check(watch: CommandWatch) -> None:
        await live(watch)

    return heard(lambda: CommandWatch(settings, streams, Directions()), check)


def test_a_program_that_starts_it_hears_nothing_and_neither_does_who_types_a_command() -> None:
    assert said(PIPES) == []
    assert said(TYPED) == []


def test_who_moves_bytes_by_hand_hears_how_many() -> None:
    (line,) = said(SENDS)
    assert line.startswith("bpipe: sent 5 B and received 3 B in ")
    assert line.endswith(", all delivered")


def test_more_can_be_asked_for() -> None:
    lines = said(PIPES, Settings(Level.VERBOSE))
    assert any(line.startswith("bpipe: connected to 127.0.0.1:") for line in lines)
    assert any(line.endswith(", all delivered") for line in lines)


NO_STREAM = Directions(send_only=True, recv_only=True)  # they are not joined: a file is


@pytest.mark.parametrize(
    ("streams", "in_place", "lines"),
    [(PIPES, False, 0), (PIPES, True, 1), (SENDS, False, 1), (TYPED, False, 1)],
)
def test_who_has_a_file_made_by_hand_hears_where_it_goes(
    streams: Streams, in_place: bool, lines: int
) -> None:
    async def check(watch: CommandWatch) -> None:
        watch.tell_of_file("a.tar", 5, in_place=in_place, told=True)

    assert len(heard(lambda: CommandWatch(Settings(), streams, NO_STREAM), check)) == lines


def test_what_is_to_be_started_again_is_one_thing() -> None:
    async def check(watch: CommandWatch) -> None:
        async with both() as (caller, _):
            watch.begin(caller.engine, listens=False)
            status = replace(SENDING, links=1)
            watch.conclude(bpipe.LocalAbort("a full disk"), status, 255, interrupted=False)

    (line,) = heard(lambda: CommandWatch(Settings(), PIPES, Directions()), check)
    assert line.endswith("; start it again, from the beginning")


def drawn_for(streams: Streams, status: bpipe.Status, when: When = When.ALWAYS) -> list[str]:
    """What is on stderr when this is the status."""

    async def check(watch: CommandWatch) -> None:
        async with both() as (caller, _):
            caller.engine.status = lambda: status  # type: ignore[method-assign]
            watch.begin(caller.engine, listens=False)

    return heard(lambda: CommandWatch(Settings(status_line=when), streams, Directions()), check)


def test_what_is_waited_for_is_the_command() -> None:
    everything = replace(SENDING, confirmed=SENDING.written, finished=True)
    assert any("waiting for the command" in line for line in drawn_for(SENDS, everything))


@pytest.mark.parametrize(
    ("streams", "when", "status", "drawn"),
    [
        (PIPES, When.AUTO, SENDING, False),
        (PIPES, When.AUTO, AWAY, True),
        (PIPES, When.ALWAYS, SENDING, True),
        (SENDS, When.AUTO, SENDING, True),
        (SENDS, When.AUTO, CALLING, False),
        (SENDS, When.ALWAYS, CALLING, False),  # somebody may be asked for a password
        (TYPED, When.AUTO, EMPTY, False),
        (TYPED, When.AUTO, AWAY, True),
        (TYPED, When.NEVER, AWAY, False),
    ],
)
def test_the_status_line_is_drawn_where_it_disturbs_nobody(
    monkeypatch: pytest.MonkeyPatch,
    streams: Streams,
    when: When,
    status: bpipe.Status,
    drawn: bool,
) -> None:
    monkeypatch.setattr(
        "bpipe.report.watch.wants_status",
        lambda settings: settings.status_line is not When.NEVER,
    )
    lines = drawn_for(streams, status, when)
    assert any(line.strip() and not line.startswith("bpipe: ") for line in lines) is drawn


@pytest.mark.parametrize(("streams", "lines"), [(PIPES, 0), (SENDS, 1), (TYPED, 0)])
def test_that_some_links_are_down_hears_who_watches_it(
    monkeypatch: pytest.MonkeyPatch, streams: Streams, lines: int
) -> None:
    monkeypatch.setattr("bpipe.report.links.AFTER", 0.03)

    async def check(watch: CommandWatch) -> None:
        async with both() as (caller, _):
            now = over((1, 1))
            caller.engine.status = lambda: now  # type: ignore[method-assign]
            watch.begin(caller.engine, listens=False)
            caller.force_reconnect()
            now = over((1, -1))
            await caller.wait_for_connection()
            await asyncio.sleep(0.1)

    said = heard(lambda: CommandWatch(Settings(), streams, Directions()), check)
    assert len([line for line in said if "one of 2 links is down" in line]) == lines
