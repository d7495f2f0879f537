"""A pipe as it is before anything has happened; tests say what else there is."""

from __future__ import annotations

from bpipe.status import State, Status

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
    retry_in=0.5,
)
