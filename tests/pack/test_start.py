"""A Python that has nothing runs the single file, and all that it starts of itself."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import venv
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import bpipe
from pack import single

PURE = ("annotated-doc", "rich", "shellingham", "typer")
COMPILED = ("cffi", "cryptography")

pytestmark = pytest.mark.slow


def installed(*names: str) -> dict[str, bytes]:
    """What the tests run with, as it would come out of wheels."""
    files = {}
    for name in names:
        for file in importlib.metadata.files(name) or ():
            if (
                single.wanted(str(file))
                and not str(file).startswith("..")
                and "__pyc" not in str(file)
            ):
                files[str(file)] = Path(str(file.locate())).read_bytes()
    return files


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python that has nothing but its library."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True)
    return str(folder / "bin" / "python")


@pytest.fixture(scope="module")
def lib() -> single.Files:
    return {**installed(*PURE), **single.ours()}


@pytest.fixture(scope="module")
def file(lib: single.Files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The single file for this machine. Where it unpacks itself is beside it."""
    target = tmp_path_factory.mktemp("single") / "bpipe.pyz"
    single.write(target, lib, {os.uname().machine: installed(*COMPILED)})
    return target


@pytest.fixture
def run(python: str, file: Path, tmp_path: Path) -> Run:
    return Run(python, file, file.parent / "cache", tmp_path)


class Run:
    """Processes of a single file."""

    def __init__(self, python: str, file: Path, cache: Path, folder: Path) -> None:
        self.command = [python, str(file)]
        self.environment = {"PATH": os.environ["PATH"], "XDG_CACHE_HOME": str(cache), "HOME": "/"}
        self.folder = folder

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.command, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
            cwd=self.folder,
        )

    def __call__(self, *arguments: str, given: str = "") -> tuple[int, str, str]:
        """Status, stdout, stderr."""
        with self.start(*arguments) as process:
            out, err = process.communicate(given, timeout=60)
        return process.returncode, out, err


def test_it_runs_twice_at_once_for_the_first_time(run: Run, tmp_path: Path) -> None:
    run.environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    both = [run.start("--version") for _ in range(2)]
    assert [each.communicate(timeout=60) for each in both] == [
        (f"bpipe {bpipe.__version__}\n", "")
    ] * 2
    assert len(list((tmp_path / "cache" / "bpipe").iterdir())) == 1


def test_a_session_is_sealed_and_ends_in_a_program(run: Run) -> None:
    assert run("keygen", "key")[0] == 0
    where = (f"unix:{run.folder}/s", "--secret", "key")
    listener = run.start("listen", *where, "--", "sh", "-c", "cat; exit 3")
    assert run("connect", *where, given="hello")[:2] == (3, "hello")
    with listener:
        listener.communicate(timeout=60)
    assert listener.returncode == 3


def test_a_command_is_run_where_there_is_no_bpipe(run: Run) -> None:
    status, out, err = run("run", "--via", "env", "--", "sh", "-c", "cat; exit 4", given="hello")
    assert (status, out, err) == (4, "hello", "")


def test_the_demo_starts_itself(run: Run) -> None:
    (run.folder / "some").write_bytes(bytes(1 << 16))
    status, out, err = run("demo", "some")
    assert (status, err) == (0, "")
    assert "every byte arrived, once, in order" in out


@pytest.mark.parametrize("command", ["", "listen", "connect", "ssh", "run", "keygen", "demo"])
def test_help_needs_nothing_that_was_left_out(run: Run, command: str) -> None:
    status, out, err = run(*command.split(), "--help")
    assert (status, err) == (0, "")
    assert "--help" in out


def test_where_it_cannot_be_unpacked_is_told(run: Run) -> None:
    (run.folder / "file").touch()
    run.environment["XDG_CACHE_HOME"] = str(run.folder / "file")
    status, out, err = run("--version")
    assert (status, out) == (1, "")
    assert err.startswith(f"bpipe: cannot unpack itself below {run.folder}/file: Not a directory ")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_what_somebody_else_has_put_there_is_not_run(run: Run, file: Path) -> None:
    assert run("--version")[0] == 0
    (unpacked,) = (file.parent / "cache" / "bpipe").iterdir()
    run.environment["XDG_CACHE_HOME"] = str(run.folder)
    theirs = run.folder / "bpipe" / unpacked.name
    theirs.mkdir(parents=True)
    os.chown(theirs, 65534, 65534)
    assert run("--version") == (1, "", f"bpipe: {theirs} belongs to somebody else\n")


def test_a_machine_that_it_has_no_cryptography_for_is_told(
    python: str, lib: single.Files, tmp_path: Path
) -> None:
    single.write(tmp_path / "other", lib, {"vax": {f"_cffi_backend{EXTENSION_SUFFIXES[0]}": b""}})
    run = Run(python, tmp_path / "other", tmp_path / "cache", tmp_path)
    assert run("--version")[0] == 0
    assert run("keygen", "key")[0] == 0
    status, _, err = run("listen", f"unix:{tmp_path}/s", "--secret", "key")
    assert status == 1
    assert "a secret needs the package cryptography, which this file has for Linux" in err
    assert "on vax; here, install it" in err
