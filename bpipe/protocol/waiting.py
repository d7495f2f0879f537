"""What the clock does to a session: how long it waits for what, and what becomes of it then."""

from __future__ import annotations

from bpipe.errors import PipeClosed
from bpipe.protocol.ending import Phase, not_connected, unanswered
from bpipe.protocol.session import Session


def deadline(session: Session) -> float | None:
    """When ``tick`` has to be called; None: not before something else happens."""
    ending = session.ending
    if ending.phase is Phase.OVER:
        return None
    if ending.abort:
        return min(ending.abort_until, session.rate.until or ending.abort_until)
    until = session.rate.until if session.channel is not None else session.waits_until
    if not session.writer.asked:
        return until
    answer = session.patience.answer_until
    return answer if until is None else min(until, answer)


def tick(session: Session, now: float) -> None:
    """Look at the clock, which says ``now``, in seconds."""
    ending = session.ending
    if ending.phase is Phase.OVER:
        return
    session.rate.tick(now)
    if session.writer.asked and now >= session.patience.answer_until:
        session.cut()
    if ending.abort:
        if now >= ending.abort_until:
            ending.give_up_abort()
            session.leave(session.failure)
    elif session.channel is None:
        until = session.waits_until
        if until is not None and now >= until:
            _run_out(session, until, now)


def _run_out(session: Session, until: float, now: float) -> None:
    """The wait for a link has come to its end."""
    patience, cause = session.patience, session.history.last_cause
    if patience.extend(until, now):
        pass  # one more attempt
    elif session.phase is Phase.DONE:
        session.leave(session.verdict())
    elif not session.established:
        session.leave(not_connected(cause))
    elif session.reader.gone and session.writer.done:
        session.leave(PipeClosed(unanswered(session.if_missed)))
    else:
        assert patience.outage_since is not None
        outage = f"{now - patience.outage_since:.0f} s without a connection"
        session.leave(session.lost(f"gave up after {outage}: {cause}"))
