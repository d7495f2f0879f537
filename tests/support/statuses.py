"""Pipes at one moment: before anything has happened, and as people know them."""

from __future__ import annotations

from dataclasses import replace

from bpipe.status import SlotStatus, State, Status, Tally

BEFORE = Status(
    state=State.CONNECTING,
    peer="there:1",
    buffer_size=1000,
    written=0,
    confirmed=0,
    received=0,
    delivered=0,
    links=0,
    finished=False,
    peer_finished=False,
    replayed=0,
    outage=None,
    away=None,
    gives_up_in=None,
    round_trip=None,
    silence=None,
    refused=0,
    cause="",
    cause_code="",
    attempts=0,
    asks=False,
    retry_in=0.5,
)

MIB = 1 << 20
SENDING = replace(
    BEFORE,
    state=State.CONNECTED,
    peer="far.example:7000",
    buffer_size=64 * MIB,
    written=500 * MIB,
    confirmed=480 * MIB,
    links=4,
    round_trip=0.023,
    retry_in=0.0,
)
CALLING = replace(
    SENDING,
    state=State.CONNECTING,
    written=0,
    confirmed=0,
    links=0,
    cause="connection refused",
    gives_up_in=27.9,
    attempts=2,
    retry_in=0.4,
)
AWAY = replace(
    SENDING,
    state=State.RECONNECTING,
    outage=42.7,
    away=42.7,
    gives_up_in=86357.3,
    cause="no answer from far.example:7000",
    attempts=16,
    retry_in=0.4,
    round_trip=None,
    refused=0,
)
RECEIVING = replace(
    SENDING, written=0, confirmed=0, received=300 * MIB, delivered=290 * MIB, finished=True
)
EMPTY = replace(SENDING, written=0, confirmed=0, links=1)
# As listen sees it: nobody can be called.
LISTENING = replace(
    CALLING, peer="localhost:7000", cause="", gives_up_in=None, attempts=0, retry_in=None
)
CALLER_AWAY = replace(AWAY, cause="reset", attempts=0, retry_in=None)
# A stream that goes to a file, at both ends.
COMPARING = replace(
    SENDING,
    written=520 * MIB,
    confirmed=500 * MIB,
    tally=Tally(10_240 * MIB, 10_000 * MIB, 520 * MIB),
)
FILING = replace(
    SENDING,
    written=0,
    confirmed=0,
    received=500 * MIB,
    delivered=490 * MIB,
    tally=Tally(10_240 * MIB, 10_000 * MIB, 500 * MIB, incoming=True),
)


def over(links: tuple[int, ...], status: Status = SENDING) -> Status:
    """The same over several links, of which there were so many in each slot; less than 0: were."""
    slots = [
        SlotStatus(
            up=count > 0,
            peer=f"far{slot}:7000" if count > 0 else "",
            via="",
            links=abs(count),
            round_trip=0.023 if count > 0 else None,
            silence=None,
            cause="" if count == 0 else f"cut {slot}",
            cause_code="" if count == 0 else "reset",
        )
        for slot, count in enumerate(links)
    ]
    total = sum(map(abs, links))
    return replace(status, slots=tuple(slots), links=total, beside=total - 1)
