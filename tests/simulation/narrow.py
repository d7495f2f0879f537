"""The narrowest place of a path: what goes over it passes there, one thing after the other."""

from __future__ import annotations

from tests.simulation.loop import World
from tests.simulation.weather import Weather


class Narrow:
    """Of both directions."""

    def __init__(self, world: World, weather: Weather) -> None:
        self._world = world
        self._weather = weather
        self._busy_until = {True: 0.0, False: 0.0}  # by whether it is the way to the listener

    def through(self, count: int, *, upward: bool) -> float:
        """So many bytes set out; returns when the last of them has passed."""
        now, rate = self._world.now, self._weather.rate
        if not rate:
            return now
        self._busy_until[upward] = max(now, self._busy_until[upward]) + count / rate
        return self._busy_until[upward]
