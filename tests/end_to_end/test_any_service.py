"""Programs that know nothing of bpipe, at services that do not either, by the lines for both."""

from __future__ import annotations

import hashlib
import subprocess
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import PIPE

import pytest

from bpipe.demo.faults import Cut, Fault
from tests.end_to_end.data import MIB, PATIENCE, pattern, until
from tests.end_to_end.helpers import Start
from tests.end_to_end.recipes import (
    Shell,
    answers,
    any_service,
    blocks,
    free_port,
    listening,
    need,
    other,
)

pytestmark = pytest.mark.slow

DATA = b"".join(pattern(n * MIB, 1_000_000) for n in range(8))
CUTS = [Cut(Fault.RESET, False, offset) for offset in (200, 40_000, 700_000, 1_000_000, 3)]


class Download(BaseHTTPRequestHandler):
    """Has one file, and counts who asks for it."""

    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(DATA)))
        self.end_headers()
        self.wfile.write(DATA)

    def log_message(self, format: str, *args: object) -> None:
        """Nobody wants to know."""


def test_a_download_is_told_of_no_cut(start: Start, shell: Shell, key: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Download) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            port, proxy = any_service(start, shell, key, server.server_port, CUTS)
            with urllib.request.urlopen(f"http://localhost:{port}/", timeout=PATIENCE) as answer:
                assert answer.read() == DATA
        finally:
            server.shutdown()
            thread.join()
    assert Download.asked == 1
    assert len(proxy.faults.made) == len(CUTS)


def test_a_clone_is_told_of_no_cut(start: Start, shell: Shell, key: Path) -> None:
    need("git")
    there, here = shell.folder / "there", shell.folder / "here"
    subprocess.run(["git", "init", "-q", there], check=True, timeout=PATIENCE)
    (there / "file").write_bytes(DATA)
    who = "-c", "user.name=a", "-c", "user.email=a@example.org"
    for command in (["add", "file"], [*who, "commit", "-qm", "all"]):
        subprocess.run(["git", "-C", there, *command], check=True)
    at = free_port()
    listen = "--listen=127.0.0.1", f"--port={at}"
    daemon = shell.run("git", "daemon", "--export-all", f"--base-path={shell.folder}", *listen)
    until(lambda: answers(at), lambda: f"git daemon: {daemon.lines}")

    key.rename(shell.folder / "key")  # as the lines call it
    _, *lines = blocks("MANY SESSIONS")[0].splitlines()
    port, proxy = any_service(start, shell, key, at, CUTS, lines)
    subprocess.run(
        ["git", "clone", "-q", f"git://localhost:{port}/there", here], check=True, timeout=PATIENCE
    )
    assert (here / "file").read_bytes() == DATA
    assert len(proxy.faults.made) == len(CUTS)


def test_each_caller_has_a_program(start: Start, shell: Shell, key: Path) -> None:
    key.rename(shell.folder / "key")
    line, *_ = blocks("MANY SESSIONS")[0].splitlines()
    service = shell.enter(other(line, {":7000": ":0"}))
    port, sums = listening(service), []
    for data in (b"", DATA[:100_000]):
        near = f"bpipe connect localhost:{port} --secret key --name sum"
        caller = shell.enter(near, stdin=PIPE, stdout=PIPE)
        caller.stdin.write(data)
        caller.stdin.close()
        sums.append(caller.read_all().decode().split()[0])
        assert caller.wait() == 0
    assert sums == [hashlib.sha256(data).hexdigest() for data in (b"", DATA[:100_000])]
