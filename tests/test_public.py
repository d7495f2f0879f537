"""What programs import from bpipe, and the examples of it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest

import bpipe
from bpipe import errors
from bpipe.cli.keys import write_key

README = Path(__file__).parent.parent / "README.md"
RECIPES = README.parent / "man" / "bpipe-recipes.7"
PROGRAMS = re.findall(r"^(import asyncio.*?)^\.Ed", RECIPES.read_text(), re.DOTALL | re.MULTILINE)
CONNECTS, LISTENS, SERVES = PROGRAMS


def test_every_public_name_is_there() -> None:
    for name in bpipe.__all__:
        assert getattr(bpipe, name).__name__ == name
    assert list(bpipe.__all__) == sorted(bpipe.__all__)


def test_every_error_is_public() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    named = {kind.__name__ for kind in kinds if issubclass(kind, errors.BpipeError)}
    assert named <= set(bpipe.__all__)
    assert set(re.findall(r"[├└]── (\w+)", errors.__doc__ or "")) == named - {"BpipeError"}


def test_what_is_not_used_yet_can_be_found() -> None:
    program = "import bpipe, sys; print(*dir(bpipe)); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    found, modules = done.stdout.splitlines()
    assert set(bpipe.__all__) | {"__version__", "__doc__"} <= set(found.split())
    assert "asyncio" not in modules.split()


def test_another_name_is_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'listem'"):
        _ = bpipe.listem


def test_the_readme_has_the_first_of_them() -> None:
    assert re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) == [CONNECTS]


@pytest.mark.parametrize("program", PROGRAMS, ids=["connects", "listens", "serves"])
def test_the_examples_use_only_public_names(program: str) -> None:
    used = set(re.findall(r"bpipe\.([A-Za-z]\w*)", program)) - {"key"}
    assert used <= set(bpipe.__all__)


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return str(probe.getsockname()[1])


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "bpipe", *arguments]


def test_the_example_that_connects() -> None:
    port = free_port()
    with (
        subprocess.Popen(
            command("listen", f"localhost:{port}", "-q"), stdin=PIPE, stdout=PIPE
        ) as far,
        subprocess.Popen(
            [sys.executable, "-c", CONNECTS.replace("7000", port)], stdout=PIPE
        ) as program,
    ):
        got, _ = far.communicate(b"answer", timeout=30)
        shown, _ = program.communicate(timeout=30)
    assert got == b"hello"
    assert shown == b"b'answer'\n"
    assert (far.returncode, program.returncode) == (0, 0)


def listening(tmp_path: Path, port: str) -> subprocess.Popen[bytes]:
    write_key(tmp_path / ".bpipe.key")
    program = LISTENS.replace("7000", port)
    environment = {**os.environ, "HOME": str(tmp_path)}
    return subprocess.Popen([sys.executable, "-c", program], stdout=PIPE, env=environment)


def test_the_example_that_listens_with_a_secret(tmp_path: Path) -> None:
    port = free_port()
    secret = "--secret", str(tmp_path / ".bpipe.key")
    with listening(tmp_path, port) as program:
        done = subprocess.run(
            command("connect", port, "-q", *secret),
            input=b"question",
            capture_output=True,
            timeout=30,
        )
        shown, _ = program.communicate(timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"QUESTION", b"")
    assert (program.returncode, shown) == (0, b"")


def test_the_example_tells_of_a_session_that_failed(tmp_path: Path) -> None:
    port = free_port()
    secret = "--secret", str(tmp_path / ".bpipe.key")
    with listening(tmp_path, port) as program:
        with subprocess.Popen(
            command("connect", port, "-q", *secret), stdin=PIPE, stdout=PIPE
        ) as near:
            assert near.stdin is not None
            assert near.stdout is not None
            near.stdin.write(b"question")
            near.stdin.flush()
            assert near.stdout.read(8) == b"QUESTION"
            near.terminate()
        shown, _ = program.communicate(timeout=30)
    assert re.fullmatch(rb"not everything was delivered: .*interrupted by SIGTERM.*\n", shown)


def test_the_example_that_serves() -> None:
    port = free_port()
    program = [sys.executable, "-c", SERVES.replace("7000", port)]
    with subprocess.Popen(program) as server:
        questions = [f"question {number}".encode() for number in range(3)]
        callers = [
            subprocess.Popen(command("connect", port, "-q"), stdin=PIPE, stdout=PIPE)
            for _ in questions
        ]
        for question, caller in zip(questions, callers, strict=True):
            answer, _ = caller.communicate(question, timeout=30)
            assert (caller.returncode, answer) == (0, question.upper())
        server.terminate()


def test_a_pipe_shows_what_programs_use_and_no_levers() -> None:
    shown = {name for name in dir(bpipe.BackedPipe) if not name.startswith("_")}
    assert shown == {
        *("connect", "wait_for_connection", "connected", "force_reconnect"),
        *("read", "read_record", "write", "finish", "stop", "abort", "close", "wait_closed"),
        *("status", "failure", "exposed"),
    }
