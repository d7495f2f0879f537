"""What kind of world a seed makes: its weather, and what its two ends have to do."""

from __future__ import annotations

import random
from typing import NamedTuple

from bpipe.protocol.patience import Limits
from bpipe.protocol.secret import Secret
from bpipe.protocol.wire import RECORDS
from tests.simulation.ends import Plan
from tests.simulation.programs import NearManner, Then, make_manner
from tests.simulation.weather import SEALED_ONLY, Fate, Weather

SECRET = Secret(bytes(range(32)))  # of the worlds that are sealed: every fourth


class Kind(NamedTuple):
    """What is special in a world."""

    secret: Secret | None
    piped: bool  # what is received may go past the memory of its end
    doubtful: bool  # greetings arrive after their link is given up
    slow: bool  # there is much to send, and the path takes long for it
    astray: bool  # for a while, somebody else is called
    programs: bool  # one end is a program, or both
    records: bool  # the streams consist of records
    remote: bool  # and one end is a program whose stderr is carried

    @classmethod
    def of(cls, seed: int) -> Kind:
        """Of the world of this seed."""
        return cls(
            secret=SECRET if seed % 4 == 3 else None,
            piped=seed % 3 == 2,
            doubtful=seed % 50 == 13,
            slow=seed % 100 in (57, 83),
            astray=seed % 20 in (4, 11),
            programs=seed % 20 in (6, 15),
            records=seed % 20 == 8 or seed % 100 == 47,
            remote=seed % 40 == 28,
        )


def make_weather(rng: random.Random, kind: Kind, now: float, until: float) -> Weather:
    """How the network behaves, from now on until then."""
    latency = rng.choice(((0.0, 0.001), (0.0, 0.001), (0.01, 0.05), (0.1, 0.4)))
    weather = Weather(
        rng,
        latency=latency,
        capacity=rng.choice((256, 4096, 65536)),
        chunky=rng.random() < 0.5,
        faulty=rng.choice((0.0, 0.3, 0.7, 0.95)),
        fates=[fate for fate in Fate if fate not in SEALED_ONLY and rng.random() < 0.5],
        reach=rng.choice((400, 4000, 20000)),
        stragglers=rng.choice((0.0, 0.0, 0.2)),
        hiccups=rng.choice((0.0, 0.0, 0.0, 0.02, 0.2)),
        purging=rng.random() < 0.3,
    )
    if kind.secret is not None:
        weather.fates += [fate for fate in SEALED_ONLY if rng.random() < 0.4]
    if rng.random() < 0.1:
        weather.faulty = weather.hiccups = weather.stragglers = 0.0
    elif rng.random() < 0.4:
        since = now
        while since < until:
            since += rng.expovariate(1 / 5)
            back = since + rng.choice((0.3, 3.0, 10.0, 30.0)) * rng.random()
            weather.away.append((since, back))
            since = back
    if kind.doubtful:  # the first connection falls silent in one direction
        weather.latency, weather.stragglers, weather.hiccups = (0.001, 0.01), 0.0, 0.0
        weather.fates, weather.faulty, weather.at_seams, weather.reach = [Fate.DEAF], 1.0, 0.0, 4000
        weather.away = []
    if kind.slow:
        weather.latency, weather.capacity = (0.1, 0.1), 2048
        weather.faulty = weather.hiccups = weather.stragglers = 0.0
        weather.away = []
    return weather


def make_plan(rng: random.Random, kind: Kind, *, patient: bool) -> Plan:
    """What one end has to do; ``patient``: it does not give up soon."""
    limits = Limits(heartbeat=rng.choice((0.5, 2.0, 2.0, 5.0)), connect_timeout=300.0)
    if kind.secret is not None:  # else a frame may come, byte by byte, just in time
        limits = limits._replace(heartbeat=min(limits.heartbeat, 2.0))
    if not patient:
        limits = limits._replace(
            connect_timeout=rng.choice((0.0, 3.0)),
            give_up_after=rng.choice((3.0, 20.0)),
            linger=rng.choice((1.0, 30.0)),
        )
    plan = Plan(
        length=rng.choice((0, 1, 100, 3000, 10000)),
        buffer_size=rng.choice((1, 17, 600, 5000, 60000)),
        limits=limits,
        secret=kind.secret,
        piped=kind.piped,
        produce_every=rng.choice((0.001, 0.05, 0.5)),
        consume_every=rng.choice((0.001, 0.05, 0.5)),
        appetite=rng.choice((10, 1000, 60000)),
    )
    if kind.slow:
        plan.length, plan.buffer_size, plan.appetite = 200_000, 400_000, 60_000
        plan.produce_every, plan.consume_every = 0.001, 0.001
    if kind.doubtful:
        plan.limits = limits._replace(heartbeat=2.0)
        plan.length, plan.buffer_size, plan.appetite = 10000, 5000, 100
        plan.produce_every, plan.consume_every = 0.05, 0.2
    return plan


def agree(rng: random.Random, kind: Kind, a: Plan, b: Plan) -> None:
    """What one of these two does depends on the other."""
    if kind.programs:
        plan_programs(rng, a, b)
    elif kind.remote:
        plan_remote(rng, a, b)
    elif kind.records:
        plan_records(rng, a, b)


def plan_programs(rng: random.Random, a: Plan, b: Plan) -> None:
    """One of these two does what it does by a program, or both do.

    Two that wait for each other's end for ever would be none of our business.
    """
    manners = [make_manner(rng) for _ in range(2)]
    if all(each.awaits for each in manners):
        manners[0] = manners[0]._replace(answers=False, closes_output=True)
    if rng.random() < 0.5:
        rng.shuffle(manners)
        a.manner, b.manner = manners
    else:
        rng.choice((a, b)).manner = manners[1]
    for each in (a, b):  # as many steps as in other worlds
        each.length = min(each.length, 100 * min(manner.depth for manner in manners))


def plan_records(rng: random.Random, a: Plan, b: Plan) -> None:
    """At least one of these two needs records."""
    for each in (a, b):
        each.buffer_size = max(each.buffer_size, 17)  # for a header, and a little more
        each.piped = False
    needy = rng.choice(((a,), (b,), (a, b)))
    for each in needy:
        each.needs = RECORDS


def plan_remote(rng: random.Random, a: Plan, b: Plan, *, swap: bool = True) -> None:
    """One of these two has called for a program, which is the other one: a, if not ``swap``."""
    plan_records(rng, a, b)
    if swap and rng.random() < 0.3:
        a, b = b, a
    a.needs = b.needs = RECORDS
    a.manner = make_manner(rng)._replace(talks=rng.choice((0.1, 0.5, 0.9)))
    b.near = NearManner.of(rng)
    if rng.random() < 0.4:  # it leaves a stdin of which nobody knows whether more will come
        eats = rng.choice((0, 1, 100))
        a.manner = a.manner._replace(eats=eats, then=Then.EXIT, rests=0.0, heir=0.0, fails_at=None)
        b.near = b.near._replace(idle_at=eats, leaves_at=None)
        b.length = max(b.length, 200)
    a.length = min(a.length, 100 * a.manner.depth)
    b.length = min(b.length, 100 * a.manner.depth)
