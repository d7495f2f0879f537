"""Sessions with the second implementation, which is written from bpipe-protocol(7) alone."""

from __future__ import annotations

import ast
import random
import re
import signal
import sys
from pathlib import Path
from subprocess import PIPE

import pytest

from bpipe.demo.faults import Cut, Fault
from tests.end_to_end.data import MIB, until
from tests.end_to_end.helpers import Program, Start, finish

pytestmark = pytest.mark.slow

CUTS = 20
TESTS = Path(__file__).parent.parent
SEALINGS = 1 << 8  # after so many, a direction has another key: else it would take a minute
OFTEN = f"""
import bpipe.protocol.noise, tests.peer_seal
assert bpipe.protocol.noise.REKEY_EVERY == tests.peer_seal.REKEY_EVERY == 1 << 16
bpipe.protocol.noise.REKEY_EVERY = tests.peer_seal.REKEY_EVERY = {SEALINGS}
"""

ROLES = pytest.mark.parametrize("calls", [True, False], ids=["it calls", "it answers"])
KINDS = pytest.mark.parametrize("kind", ["plain", "named"])


def cuts(seed: int) -> list[Cut]:
    """Where connections are cut: in greetings, soon after them, and later."""
    rng = random.Random(seed)
    faults, limits = (Fault.RESET, Fault.EOF), (300, 3000, 400_000)
    return [
        Cut(rng.choice(faults), rng.random() < 0.5, rng.randrange(rng.choice(limits)))
        for _ in range(CUTS)
    ]


class Two:
    """A bpipe and the other one, with a proxy between them."""

    def __init__(
        self,
        start: Start,
        key: Path,
        kind: str,
        *more: str,
        calls: bool,
        cuts: list[Cut],
        ours: tuple[str, ...] = (),
    ) -> None:
        name = () if kind != "named" else ("--name", "B\N{LATIN SMALL LETTER U WITH DIAERESIS}ro")
        ours += () if kind == "plain" else ("--secret", str(key), *name)
        theirs = () if kind == "plain" else ("--secret-file", str(key), *name)
        theirs += more
        window_of = "--buffer", str(MIB)
        self._start, self._theirs = start, (*theirs, "--window", str(MIB))
        if calls:
            bpipe = start.bpipe("listen", "127.0.0.1:0", *ours, *window_of, stdin=PIPE, stdout=PIPE)
            where = bpipe.address
        else:
            self.other = self._run("listen", "127.0.0.1:0")
            where = self.other.wait_line("^listening ").split()[1]
        self.proxy = start.proxy(where, cuts)
        if calls:
            self.other = self._run("connect", self.proxy.address)
        else:
            bpipe = start.bpipe(
                *("connect", self.proxy.address, *ours, *window_of, "--retry-max", "50ms"),
                stdin=PIPE,
                stdout=PIPE,
            )
        self.bpipe = bpipe

    def _run(self, role: str, address: str) -> Program:
        command = sys.executable, "-m", "tests.peer", role, address, *self._theirs
        return self._start.program(*command, stdin=PIPE, stdout=PIPE)

    def check(self, *, links: int) -> None:
        """All that it says of bpipe is that it was right."""
        found = re.fullmatch(r"links (\d+), errors 0", self.other.lines[-1])
        assert found is not None, self.other.text
        assert int(found[1]) >= links


@ROLES
@KINDS
def test_streams_go_both_ways_through_twenty_cuts(
    start: Start, key: Path, kind: str, calls: bool
) -> None:
    go_both_ways(Two(start, key, kind, calls=calls, cuts=cuts(calls)))


@ROLES
@pytest.mark.parametrize("kind", ["plain", "sealed"])
def test_so_they_do_over_three_links(start: Start, key: Path, kind: str, calls: bool) -> None:
    ours = () if calls else ("--links", "3")
    two = Two(start, key, kind, "--links", "3", calls=calls, cuts=cuts(2 + calls), ours=ours)
    go_both_ways(two)


@ROLES
def test_so_they_do_in_records(start: Start, key: Path, calls: bool) -> None:
    said = "what it says on its stderr"
    more = "--records", "--errors", said
    two = Two(start, key, "plain", *more, calls=calls, cuts=cuts(calls))
    go_both_ways(two)
    assert said in two.bpipe.text


@ROLES
@pytest.mark.parametrize("sends", [True, False], ids=["it sends", "it receives"])
def test_a_stream_becomes_a_file(
    start: Start, key: Path, tmp_path: Path, calls: bool, sends: bool
) -> None:
    new, path = random.Random(calls).randbytes(3 * MIB), tmp_path / "file"
    path.write_bytes(new[:MIB] + b"another" + new[MIB + 7 : -5])
    output = "--output", str(path)
    ours, theirs = (output, ()) if sends else ((), output)
    two = Two(start, key, "plain", *theirs, calls=calls, cuts=cuts(calls)[:5], ours=ours)
    sender, receiver = (two.other, two.bpipe) if sends else (two.bpipe, two.other)
    receiver.stdin.close()
    sender.stdin.write(new)
    sender.stdin.close()
    assert finish(two.bpipe, two.other) == [0, 0]
    assert path.read_bytes() == new
    two.check(links=1)


def go_both_ways(two: Two) -> None:
    producers = two.bpipe.feed(None), two.other.feed(None, offset=5)
    consumers = two.other.drain(), two.bpipe.drain(offset=5)
    until(lambda: len(two.proxy.faults.made) == CUTS, "the last cut", 60)
    for producer, consumer in zip(producers, consumers, strict=True):
        producer.finish()
        assert consumer.wait_end() == producer.written
    assert finish(two.bpipe, two.other) == [0, 0]
    two.check(links=CUTS // 3)


def test_a_link_lives_longer_than_its_key(start: Start, key: Path) -> None:
    def run(main: str, *arguments: str) -> Program:
        code = f"{OFTEN}\nimport sys\nfrom {main} import main\nsys.exit(main())"
        return start.program(sys.executable, "-c", code, *arguments, stdin=PIPE, stdout=PIPE)

    listens = "listen", "127.0.0.1:0", "--secret", str(key), "--buffer", "1"
    bpipe = run("bpipe.__main__", *listens)
    where = bpipe.wait_line("^bpipe: listening on ").split()[3].rstrip(",")
    other = run("tests.peer", "connect", where, "--secret-file", str(key), "--window", "1")
    count = 2 * SEALINGS  # bytes: each is a frame, and two sealings
    producer = bpipe.feed(count)
    other.stdin.close()
    assert other.drain().wait_end() == producer.written == count
    assert finish(bpipe, other) == [0, 0]
    assert other.lines[-1] == "links 1, errors 0"


@pytest.mark.parametrize(("calls", "interrupted"), [(True, "bpipe"), (False, "other")])
def test_an_interrupt_is_told(start: Start, key: Path, calls: bool, interrupted: str) -> None:
    two = Two(start, key, "sealed", calls=calls, cuts=[])
    for each in (two.bpipe, two.other):
        each.stdin.write(b"x")
        each.stdin.flush()
    for each in (two.bpipe, two.other):
        assert each.stdout.read(1) == b"x"
    ends = [two.bpipe, two.other] if interrupted == "bpipe" else [two.other, two.bpipe]
    ends[0].signal(signal.SIGINT)
    assert finish(*ends) == [-signal.SIGINT, 1]
    two.check(links=1)


@ROLES
def test_a_consumer_that_leaves_ends_both(start: Start, key: Path, calls: bool) -> None:
    two = Two(start, key, "plain", calls=calls, cuts=[])
    two.bpipe.feed(None)
    assert two.other.stdout.read(1000)
    two.other.stdout.close()
    assert finish(two.other, two.bpipe) == [141, 141]
    two.check(links=1)


def test_it_has_nothing_of_bpipe() -> None:
    for path in sorted(TESTS.glob("peer*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not [name for name in names if name.partition(".")[0] == "bpipe"]
