"""Who looks on knows when it was he who stood still."""

from __future__ import annotations

import asyncio
import time

from tests.support.pulse import LATE, STEP, Pulse, Pulses

LONG = 2 * (STEP + LATE)


def test_a_loop_that_stood_still_is_known() -> None:
    pulse = Pulse()

    async def stand() -> None:
        pulse.within(asyncio.get_running_loop())
        await asyncio.sleep(3 * STEP)
        time.sleep(LONG)
        await asyncio.sleep(STEP)

    began = time.monotonic()
    asyncio.run(stand())
    now = time.monotonic()
    assert pulse.longest(began, now) >= LONG
    assert pulse.longest(began, began + STEP) <= STEP
    assert pulse.longest(now + 1, now + 2) == 0


def test_the_machine_tells_its_own_at_the_end() -> None:
    with Pulses() as pulses:
        time.sleep(2 * STEP)
    assert all(woke - began > STEP + LATE for began, woke in pulses.machine.late)
