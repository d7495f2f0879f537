"""Long, fat, lossy paths, and two ways to the net at once: what comes out at the consumer.

Every sender always has something. A while after the first byte, when each congestion control has
found its rate, the bytes are counted for a fixed time. The bound of several links over one path is
as many nc side by side; that of two paths is the sum of what nc gets over each alone. What "the
better alone" did is taken from runs of the same round, over the same seconds, with the same deaths
of the paths: "worst 10 s" is the least part of that in any 10 s.

The congestion control is that of the routes, the same for every tool: cubic, if nothing else is
wanted. TCP's buffers are as the system has them. The queue in front of each path is its
bandwidth-delay product, and at least 32 packets; it drops what does not fit. Losses are random, of
single packets, each way.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from bpipe.report.format import format_duration
from tests.bench.arrivals import Arrivals, arriving, wait_first
from tests.bench.peers import BPIPE, PEERS, Ends, Session, Tool
from tests.bench.processes import Child, Children, Stuck
from tests.bench.relay import Weather
from tests.bench.rounds import Options, interleave, scratch
from tests.bench.table import Column, Sample, Table, show_milliseconds
from tests.bench.wire import FAR, Wire, ends, missing
from tests.end_to_end import sshd

CONGESTION: Final = "cubic"
ROUNDS: Final = 3
SETTLED: Final = 6.0  # seconds after the first byte
SECONDS: Final = 20.0  # that are measured
MINUTE: Final = 60.0  # seconds that are measured where each path dies once
DEATH: Final = 5.0  # seconds that a path is dead
WINDOW: Final = 10.0  # seconds

MTU: Final = 1500  # bytes
LEAST: Final = 32  # packets of a queue
LINKS: Final = 1, 2, 4, 8
LOSSES: Final = {"clean": 0.0, "0.1%": 0.001, "1%": 0.01}
ORDINALS: Final = "1st", "2nd"  # of two paths
NAMES: Final = *LOSSES, "unequal", "slow", "dying", "dark"  # of --over

NC: Final = next(tool for tool in PEERS if tool.name == "nc")
SSH: Final = Tool("ssh", tcp=Ends("sshd", "ssh"))
BESIDE: Final = *(tool for tool in PEERS if tool.name in ("socat", "mbuffer")), SSH


class Death(NamedTuple):
    """A path drops every packet."""

    path: int
    at: float  # seconds after the first that is measured
    seconds: float


class Row(NamedTuple):
    """One tool on one or more paths."""

    name: str
    tool: Tool
    over: tuple[int, ...] = (0,)  # the path of each copy of the tool that runs side by side
    links: int = 1
    deaths: tuple[Death, ...] = ()


class Run(NamedTuple):
    """What came of one row."""

    row: Row
    arrivals: Arrivals
    began: float  # when the time that is measured did
    seconds: float

    @property
    def rate(self) -> float:
        """Bytes a second."""
        return self.arrivals.moved(self.began, self.began + self.seconds) / self.seconds

    @property
    def windows(self) -> list[int]:
        """The bytes of any so many seconds."""
        width = min(WINDOW, self.seconds)
        return self.arrivals.windows(self.began, self.began + self.seconds, width)

    @property
    def gap(self) -> float:
        """The longest time in which nothing came, in seconds."""
        return self.arrivals.gap(self.began, self.began + self.seconds)


Round = dict[str, Run]  # what has been measured in this round, by the names of the rows


class Scene(NamedTuple):
    """What is measured over some paths, and what that is compared with."""

    title: str
    paths: tuple[Weather, ...]
    columns: list[Column]
    rows: list[Row]
    judge: Callable[[Run, Round], Sample]
    seconds: float = SECONDS


def show_mbits(value: float) -> str:
    """Bytes per second, in Mbit."""
    return f"{value * 8 / 1e6:.1f} Mbit/s"


def show_part(value: float) -> str:
    """Of another figure."""
    return f"{value:.2f}"


def show_cpu(value: float) -> str:
    """Of one processor."""
    return f"{100 * value:.0f} %"


RATES: Final = [
    Column("rate", "goodput", show_mbits),
    Column("rate", "worst", show_mbits, min),
]
REST: Final = [
    Column("gap", "longest gap", show_milliseconds, max),
    Column("cpu", "CPU", show_cpu),
]
LINES: Final = [
    Column("path 0", "over the 1st", show_mbits),
    Column("path 1", "over the 2nd", show_mbits),
    *REST,
]
BOUND: Final = [*RATES, Column("bound", "of as many nc", show_part), *REST]
SUM: Final = [
    *RATES,
    Column("sum", "of the sum", show_part),
    Column("least", "worst 10 s", show_part, min),
    *LINES,
]
DYING: Final = [*SUM[:2], *SUM[3:]]
DARK: Final = [
    Column("gap", "longest gap", show_milliseconds, max),
    Column("allowed", "3 round trips + 0.3 s", show_milliseconds),
    Column("rate", "goodput", show_mbits),
]


def path(mbits: float, round_trip: float, loss: float = 0.0) -> Weather:
    """A path with a queue of its own size; so many Mbit/s, and seconds."""
    rate = mbits * 1e6 / 8
    return Weather(rate, round_trip / 2, loss, max(int(rate * round_trip), LEAST * MTU))


def linked(links: int, *paths: int) -> Tool:
    """A bpipe with so many links, which are spread over these paths if any are given."""
    if links == 1:
        return BPIPE
    options = " ".join([f"--links {links}", *(f"--bind {ends(path)[0]}" for path in paths)])
    connect = BPIPE.tcp.connect.replace("--insecure", f"--insecure {options}")
    return replace(BPIPE, name=f"bpipe --links {links}", tcp=BPIPE.tcp._replace(connect=connect))


def run(options: Options) -> Iterator[Table]:
    """A table for each kind of path."""
    congestion = options.congestion or CONGESTION
    why_not = missing(congestion)
    for name in options.over or NAMES:
        scene = _scene(name, (options.seconds or (None,))[0])
        table = Table(f"{scene.title}, {congestion}", scene.columns, [])
        if why_not:
            table.notes.append(f"not measured: {why_not}")
        else:
            _measure_all(table, scene, options, congestion)
        yield table


def _scene(name: str, seconds: float | None) -> Scene:
    if name in LOSSES:
        scene = _one_path(LOSSES[name])
    elif name == "dark":
        scene = _dark()
    elif name == "dying":
        scene = _two_paths("each dead for 5 s once a minute", path(50, 0.02), path(30, 0.1))
        deaths = Death(0, MINUTE / 4, DEATH), Death(1, MINUTE * 3 / 4, DEATH)
        rows = [row._replace(deaths=deaths) for row in scene.rows if row.tool is not NC]
        scene = scene._replace(rows=rows, seconds=MINUTE, columns=DYING)
    else:
        second = {"unequal": path(30, 0.1), "slow": path(5, 0.15)}[name]
        scene = _two_paths("both alive", path(50, 0.02), second)
    return scene if seconds is None else scene._replace(seconds=seconds)


def _one_path(loss: float) -> Scene:
    rows = [Row(NC.name if each == 1 else f"{each} nc", NC, (0,) * each, each) for each in LINKS]
    rows += [Row(tool.name, tool) for tool in BESIDE]
    rows += [Row(linked(each).name, linked(each), links=each) for each in LINKS]
    title = f"100 Mbit/s, 100 ms, {loss:.1%} of the packets lost"
    return Scene(title, (path(100, 0.1, loss),), BOUND, rows, _with_bound)


def _with_bound(run: Run, earlier: Round) -> Sample:
    bound = earlier.get(NC.name if run.row.links == 1 else f"{run.row.links} nc")
    return {"bound": run.rate / bound.rate} if bound else {}


def _two_paths(what: str, *paths: Weather) -> Scene:
    names = [f"{each.rate * 8 / 1e6:.0f} Mbit/s at {each.delay * 2000:.0f} ms" for each in paths]
    rows = [
        Row(f"{tool.name}, {ordinal} alone", tool, (number,))
        for tool in (NC, BPIPE)
        for number, ordinal in enumerate(ORDINALS)
    ]
    both = linked(2, 0, 1)
    return Scene(
        f"{' and '.join(names)}, {what}", paths, SUM, [*rows, Row(both.name, both)], _with_alone
    )


def _with_alone(run: Run, earlier: Round) -> Sample:
    alone = [each for name, each in earlier.items() if name.endswith(" alone")]
    if run.row.name.endswith(" alone") or not alone:
        return {}
    nc = [each.rate for each in alone if each.row.tool is NC]
    better = map(max, zip(*(each.windows for each in alone), strict=True))
    parts = [own / other for own, other in zip(run.windows, better, strict=True) if other]
    return {"least": min(parts)} | ({"sum": run.rate / sum(nc)} if nc else {})


def _dark() -> Scene:
    paths = path(50, 0.02), path(30, 0.1)
    both = linked(2, 0, 1)
    rows = [
        Row(f"{both.name}, the {name} goes dark", both, deaths=(Death(each, DEATH / 2, DEATH),))
        for each, name in enumerate(ORDINALS)
    ]
    title = f"50 Mbit/s at 20 ms and 30 Mbit/s at 100 ms, one dark for {format_duration(DEATH)}"
    return Scene(title, paths, DARK, rows, partial(_with_allowed, paths), 2 * DEATH)


def _with_allowed(paths: tuple[Weather, ...], run: Run, earlier: Round) -> Sample:
    [death] = run.row.deaths
    return {"allowed": 3 * 2 * paths[death.path].delay + 0.3}


def _measure_all(table: Table, scene: Scene, options: Options, congestion: str) -> None:
    table.notes += _conditions(scene)
    runs: dict[str, Callable[[], Sample]] = {}
    done: Round = {}
    with scratch(options) as folder:
        for row in scene.rows:
            if options.only and row.tool.name not in options.only:
                continue
            if why := (sshd.missing() if row.tool is SSH else "") or row.tool.missing():
                table.notes.append(f"without {row.name}: {why}")
                continue
            runs[row.name] = partial(_measure, table, row, scene, done, folder, congestion)
        interleave(table, options.rounds or ROUNDS, runs)


def _conditions(scene: Scene) -> list[str]:
    """What else the figures depend on."""
    queues = " and ".join(f"{each.queue // MTU} packets" for each in scene.paths)
    files = {name: Path(f"/proc/sys/net/ipv4/{name}") for name in ("tcp_rmem", "tcp_wmem")}
    buffers = [f"{name} {'/'.join(file.read_text().split())}" for name, file in files.items()]
    return ["; ".join([f"queue {queues}", *buffers])]


def _measure(
    table: Table, row: Row, scene: Scene, done: Round, folder: Path, congestion: str
) -> Sample:
    """One run over paths of its own: each row of a round meets the same luck."""
    seed = len(table.samples.get(row.name, []))
    with contextlib.ExitStack() as stack:
        wire = stack.enter_context(Wire(*scene.paths, seed=seed, congestion=congestion))
        children = stack.enter_context(Children())
        start = _call_sshd if row.tool is SSH else _call
        started = [start(stack, wire, children, row.tool, folder, each) for each in row.over]
        arrivals = stack.enter_context(arriving([output for output, _ in started]))
        began = wait_first(arrivals) + SETTLED
        watched = [child for _, each in started for child in each]
        sleep_until(began)
        _check(wire, congestion)
        before = _spent(wire, watched)
        _suffer(wire, row.deaths, began)
        sleep_until(began + scene.seconds)
        spent = {key: after - before[key] for key, after in _spent(wire, watched).items()}
        for child in watched:
            if child.ended(0):
                raise Stuck(f"it has ended; it said: {child.said}")
    run = done[row.name] = Run(row, arrivals, began, scene.seconds)
    sample: Sample = {key: value / scene.seconds for key, value in spent.items()}
    return sample | {"rate": run.rate, "gap": run.gap} | scene.judge(run, done)


def _call(
    stack: contextlib.ExitStack,
    wire: Wire,
    children: Children,
    tool: Tool,
    folder: Path,
    over: int,
) -> tuple[int, list[Child]]:
    """A session over this path; returns its output, and whose time counts."""
    host = ends(over)[1]
    session = Session(children, tool, folder, host=host, near=wire.near, far=wire.far)
    receiver = session.listen()
    sender = session.connect(stdin=source(children))
    return receiver.main.stdout.fileno(), [*sender.children, *receiver.children]


def _call_sshd(
    stack: contextlib.ExitStack,
    wire: Wire,
    children: Children,
    tool: Tool,
    folder: Path,
    over: int,
) -> tuple[int, list[Child]]:
    """The same by ssh, of which only the client's time counts."""
    server = sshd.Sshd(address=FAR, within=wire.far)
    stack.callback(server.end)
    user = server.far()
    output = user.home / "output"
    os.mkfifo(output, 0o600)
    os.chown(output, user.number, user.number)
    conf = folder / "ssh.conf"
    conf.write_text(sshd.SSH.format(address=FAR, port=server.port, key=server.key))
    command = [*wire.near, "ssh", "-F", str(conf), f"{user.name}@{FAR}", "exec cat > output"]
    sender = children.start(command, stdin=source(children))
    descriptor = os.open(output, os.O_RDONLY | os.O_NONBLOCK)
    stack.callback(os.close, descriptor)
    return descriptor, [sender]


def source(children: Children) -> Child:
    """What always has something."""
    return children.start(["cat", "/dev/zero"], stdout=subprocess.PIPE)


def _check(wire: Wire, congestion: str) -> None:
    """Every connection has the congestion control that was wanted."""
    command = [*wire.near, "ss", "-tinH", "state", "established"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = {line.split()[0] for line in told.splitlines() if line[:1].isspace()}
    if found != {congestion}:
        raise Stuck(f"there is {found or 'no connection'} instead of {congestion}")


def _spent(wire: Wire, watched: list[Child]) -> dict[str, float]:
    """What was spent so far: processor time, and what went into each path."""
    crossed = {f"path {each}": float(wire.crossed(each)) for each in range(len(wire.paths))}
    return crossed | {"cpu": sum(child.cpu for child in watched)}


def _suffer(wire: Wire, deaths: tuple[Death, ...], began: float) -> None:
    """Let the paths die, and come back."""
    acts = [(death.at, wire.darken, death.path) for death in deaths]
    acts += [(death.at + death.seconds, wire.lighten, death.path) for death in deaths]
    for at, act, each in sorted(acts, key=lambda act: act[0]):
        sleep_until(began + at)
        act(each)


def sleep_until(when: float) -> None:
    """By ``time.monotonic()``."""
    time.sleep(max(0.0, when - time.monotonic()))
