"""Fills in a Status, from all who know something of it."""

from __future__ import annotations

from typing import Final

from bpipe.net.link import Link
from bpipe.net.source import LinkSource
from bpipe.protocol.ending import Phase
from bpipe.protocol.session import Session
from bpipe.protocol.wire import FILE
from bpipe.status import State, Status, Tally

_STATES: Final = {
    Phase.DONE: State.FINISHING,
    Phase.ABORTING: State.ABORTING,
    Phase.ANSWERING: State.ABORTING,
    Phase.OVER: State.OVER,
}


def survey(
    session: Session,
    source: LinkSource,
    link: Link | None,
    now: float,
    tally: Tally | None = None,
) -> Status:
    """The status of this session, its link, and the source of the next one."""
    writer, reader, history = session.writer, session.reader, session.history
    liveness = link.liveness if link is not None else None
    outage, until, next_at = session.patience.outage_since, session.waits_until, source.next_at
    cause, doubted = history.last_cause, liveness is not None and now >= liveness.doubted_at(now)
    written, confirmed = writer.content()
    delivered = max(0, reader.delivered - reader.done - reader.beside)  # other threads count, too
    return Status(
        state=_state(session, link),
        peer=link.peer if link is not None else source.name,
        buffer_size=reader.capacity,
        written=written,
        confirmed=confirmed,
        received=delivered + (0 if session.terms.to_file else reader.buffered),
        delivered=delivered,
        links=history.links if session.established or session.attached else 0,
        finished=writer.mark is not None,
        peer_finished=reader.mark is not None,
        replayed=history.replayed,
        outage=None if outage is None else now - outage,
        away=history.away(None if session.attached else now),
        gives_up_in=None if until is None else max(0.0, until - now),
        round_trip=liveness.round_trip if liveness is not None else None,
        silence=now - liveness.heard_at if liveness is not None and doubted else None,
        refused=source.refused,
        cause=str(cause or ""),
        cause_code=cause.code if cause else "",
        attempts=source.attempts,
        asks=source.asks,
        retry_in=None if next_at is None else max(0.0, next_at - now),
        held_to=session.rate.holds_up,
        tally=tally and tally._replace(incoming=session.terms.needs & FILE > 0),
    )


def _state(session: Session, link: Link | None) -> State:
    if session.phase is not Phase.UP:
        return _STATES[session.phase]
    if link is not None and link.cause is None and session.attached:
        return State.CONNECTED
    lost = session.history.links > session.attached  # one that is attached may not be taken up yet
    return State.RECONNECTING if session.established and lost else State.CONNECTING
