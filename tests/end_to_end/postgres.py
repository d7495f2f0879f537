"""A real PostgreSQL for a test: small, and without a user's account on this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.end_to_end.data import PATIENCE, until
from tests.end_to_end.helpers import Program
from tests.end_to_end.recipes import free_port

_SETTINGS: Final = ("fsync=off", "shared_buffers=16MB", "listen_addresses=127.0.0.1")
_ROOT: Final = os.geteuid() == 0  # as which it refuses to run


def binaries() -> Path:
    """The folder of the newest PostgreSQL; the test is skipped where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL is not installed")
    return found[-1].parent


def _server(*command: str | Path) -> list[str]:
    """This command, as a user as whom it runs."""
    drop = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if _ROOT else []
    return [*drop, *(str(each) for each in command)]


class Postgres:
    """One that runs, with a cluster of its own."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._programs = binaries()
        data = folder / "data"
        if _ROOT:
            shutil.chown(folder, "nobody", "nogroup")
        options = "-Atrust", "-Upostgres", "--no-sync", "-EUTF8", "--locale=C"
        make = _server(self._programs / "initdb", "-D", data, *options)
        subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
        settings = [f"-c{each}" for each in (*_SETTINGS, f"unix_socket_directories={folder}")]
        where = "-D", data, "-p", str(self.port)
        self._process = Program(_server(self._programs / "postgres", *where, *settings))
        until(self._ready, lambda: f"PostgreSQL: {self._process.lines}")

    def _ready(self) -> bool:
        ask = self._programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)
        return subprocess.run(ask).returncode == 0

    def end(self) -> None:
        """At once, but so that it clears away its shared memory."""
        self._process.signal(signal.SIGQUIT)
        self._process.wait()
        self._process.end()

    @property
    def environment(self) -> dict[str, str]:
        """By which its clients find it, and their programs."""
        where = {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": "postgres"}
        return {"PATH": str(self._programs), **where}

    def run(self, *command: str | Path) -> str:
        """What one of its clients says."""
        name, *arguments = command
        return subprocess.run(
            [self._programs / name, *arguments],
            env=self.environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        ).stdout

    def query(self, command: str, database: str = "postgres") -> str:
        """The answer, and nothing beside it."""
        options = "-XAtqv", "ON_ERROR_STOP=1", "-c", command
        return self.run("psql", *options, database).strip()


@contextmanager
def postgres() -> Iterator[Postgres]:
    """One for a test, which skips the test where it is not installed."""
    binaries()
    with tempfile.TemporaryDirectory(prefix="bp-") as folder:
        server = Postgres(Path(folder))
        try:
            yield server
        finally:
            server.end()
