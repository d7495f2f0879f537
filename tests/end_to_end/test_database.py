"""The recipes for a database, against a real PostgreSQL: whole, or nothing of it."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from bpipe.demo.faults import Cut, Fault
from tests.end_to_end.data import MIB
from tests.end_to_end.helpers import Proxy, Start, finish
from tests.end_to_end.postgres import Postgres, postgres
from tests.end_to_end.recipes import Shell, listening, other, recipe, resets, typed

pytestmark = pytest.mark.slow

ROWS = "select n, md5(n::text) as what from generate_series(1, 100000) n"  # 4 MB


@pytest.fixture
def server() -> Iterator[Postgres]:
    """One that runs."""
    with postgres() as server:
        yield server


def test_a_copy_and_its_clients_are_told_of_no_cut(
    server: Postgres, start: Start, shell: Shell, key: Path
) -> None:
    far, near, backup = map(typed, recipe("A copy of a database server"))
    secret = {"BPIPE_SECRET_FILE": str(key)}
    listener = shell.enter(other(far, {":7000": ":0", "5432": str(server.port)}), secret)
    proxy = start.proxy(f"127.0.0.1:{listening(listener)}", resets(24, 2 * MIB, upward=False))
    near = other(near, {"far.example:7000": proxy.address, "5433": "0"})
    port = listening(shell.enter(near, secret))

    question = "-XAtqc", f"copy ({ROWS}) to stdout"
    through = server.run("psql", "-h", "localhost", "-p", port, *question)
    assert through == server.run("psql", *question)

    made = len(proxy.faults.made)
    assert made > 0
    client = shell.enter(other(backup, {"5433": port}), server.environment)
    assert client.wait() == 0, client.text
    server.run("pg_verifybackup", "-q", shell.folder / "copy")
    assert len(proxy.faults.made) > made


def descendants(pid: int) -> Iterator[int]:
    """All whom this process has started, and whom those have."""
    for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield int(each)
        yield from descendants(int(each))


class Move:
    """Two lines: where a database goes, and whence it comes, from the server at this port."""

    def __init__(
        self,
        start: Start,
        shell: Shell,
        environment: dict[str, str],
        lines: Iterable[str],
        port: int,
        cuts: Iterable[Cut] = (),
    ) -> None:
        far, near = map(typed, lines)
        self.far = shell.enter(other(far, {":7000": ":0", "=1 shop": "=1 copy"}), environment)
        self.proxy: Proxy = start.proxy(f"127.0.0.1:{listening(self.far)}", cuts)
        near = re.sub(r"\S+:7000", self.proxy.address, near)
        self.near = shell.enter(near, environment | {"PGPORT": str(port)})

    def kill(self, name: str) -> None:
        """End the near program, which has this name."""
        for each in descendants(self.near.pid):
            if Path(f"/proc/{each}/comm").read_text().strip() == name:
                os.kill(each, signal.SIGKILL)
                return
        pytest.fail(f"{name} does not run")


def test_all_of_it_goes_in_or_nothing(
    server: Postgres, start: Start, shell: Shell, key: Path
) -> None:
    for name in ("shop", "copy"):
        server.query(f"create database {name}")
    server.query(f"create table goods as {ROWS}", "shop")
    there = "select count(*) from pg_class where relname = 'goods'"

    silent = start.proxy(f"127.0.0.1:{server.port}", [Cut(Fault.SILENCE, False, 2 * MIB)])
    port = int(silent.address.rpartition(":")[2])
    environment = server.environment | {"BPIPE_SECRET_FILE": str(key)}
    cut_short = Move(start, shell, environment, recipe("A database into another"), port)
    cut_short.proxy.wait_relayed(MIB)  # and all of it does not come
    cut_short.kill("pg_dump")
    assert finish(cut_short.far, cut_short.near) == [128 + signal.SIGKILL] * 2
    assert server.query(there, "copy") == "0"

    cuts = resets(4, MIB, upward=True)
    whole = Move(start, shell, environment, recipe("A database into another"), server.port, cuts)
    assert finish(whole.near, whole.far) == [0, 0]
    assert server.query("table goods", "copy") == server.query("table goods", "shop")
    assert len(whole.proxy.faults.made) == len(cuts)
