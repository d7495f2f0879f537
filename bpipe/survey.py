"""Fills in a Status, from all who know something of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from bpipe.net.link import Link
from bpipe.net.source import LinkSource
from bpipe.protocol.ending import Phase
from bpipe.protocol.history import History
from bpipe.protocol.session import Session
from bpipe.protocol.wire import FILE
from bpipe.status import SlotStatus, State, Status, Tally

Links = Mapping[int, Link]  # by their slots

_STATES: Final = {
    Phase.DONE: State.FINISHING,
    Phase.ABORTING: State.ABORTING,
    Phase.ANSWERING: State.ABORTING,
    Phase.OVER: State.OVER,
}
_NONE: Final = SlotStatus(False, "", "", 0, None, None, "", "")


def survey(
    session: Session, source: LinkSource, links: Links, now: float, tally: Tally | None = None
) -> Status:
    """The status of this session, its links by their slots, and the source of the next one."""
    writer, reader, history, terms = session.writer, session.reader, session.history, session.terms
    outage, until, next_at = session.patience.outage_since, session.waits_until, source.next_at
    cause, seen = history.last_cause, {slot: _look(links[slot], now) for slot in sorted(links)}
    written, confirmed = writer.content()
    delivered = max(0, reader.delivered - reader.done - reader.beside)  # other threads count, too
    return Status(
        state=_state(session, any(each.up for each in seen.values())),
        peer=next((each.peer for each in sorted(seen.values(), key=_down)), source.name),
        buffer_size=reader.capacity,
        written=written,
        confirmed=confirmed,
        received=delivered + (0 if terms.to_file else reader.buffered),
        delivered=delivered,
        links=history.links if session.established or session.attached else 0,
        finished=writer.mark is not None,
        peer_finished=reader.mark is not None,
        replayed=history.replayed,
        outage=None if outage is None else now - outage,
        away=history.away(None if session.attached else now),
        gives_up_in=None if until is None else max(0.0, until - now),
        round_trip=min(_known(each.round_trip for each in seen.values()), default=None),
        silence=_silence([each for each in seen.values() if each.up]),
        refused=source.refused,
        cause=str(cause or ""),
        cause_code=cause.code if cause else "",
        attempts=source.attempts,
        asks=source.asks,
        retry_in=None if next_at is None else max(0.0, next_at - now),
        held_to=session.rate.holds_up,
        tally=tally and tally._replace(incoming=terms.needs & FILE > 0),
        slots=_slots(history, seen, source.ways, terms.slots) if terms.slots > 1 else (),
        beside=history.beside,
    )


def _state(session: Session, up: bool) -> State:
    if session.phase is not Phase.UP:
        return _STATES[session.phase]
    if up and session.attached:
        return State.CONNECTED
    attached = bin(session.slots.live).count("1")  # which may not be taken up yet
    lost = session.history.links > attached
    return State.RECONNECTING if session.established and lost else State.CONNECTING


def _look(link: Link, now: float) -> SlotStatus:
    """What is to be seen of this link."""
    if (liveness := link.liveness) is None:
        return _NONE._replace(peer=link.peer)
    doubted = now >= liveness.doubted_at(now)
    silence = now - liveness.heard_at if doubted else None
    return _NONE._replace(up=True, peer=link.peer, round_trip=liveness.round_trip, silence=silence)


def _silence(up: Sequence[SlotStatus]) -> float | None:
    """How long nothing was heard over any of them, if all are in doubt."""
    silences = _known(each.silence for each in up)
    return min(silences) if silences and len(silences) == len(up) else None


def _slots(
    history: History, seen: Mapping[int, SlotStatus], ways: Sequence[str], count: int
) -> tuple[SlotStatus, ...]:
    """Each of so many, with the way that it goes, and with what became of the links in it."""
    found = []
    for slot in range(count):
        (links, cause), via = history.slot(slot), ways[slot] if ways else ""
        each = seen.get(slot, _NONE)._replace(via=via, links=links)
        if cause is not None:
            each = each._replace(cause=str(cause), cause_code=cause.code)
        found.append(each)
    return tuple(found)


def _known(values: Iterable[float | None]) -> list[float]:
    return [each for each in values if each is not None]


def _down(slot: SlotStatus) -> bool:
    return not slot.up
