"""The command line: what is understood, and what is not is one line and exit status 2."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import bpipe
from bpipe.cli.app import run
from bpipe.cli.values import FAILED, USAGE

WRONG = [
    ("bad address", "connect localhost:http", "a port is a number from 0 to 65535"),
    ("bad port", "connect localhost:65536", "a port is a number from 0 to 65535"),
    ("bad second port", "connect localhost x", "a port is a number from 0 to 65535"),
    ("no port", "connect localhost:", "a port is missing after the colon"),
    ("two ports", "connect localhost:1 2", "two ports were given"),
    ("IPv6 without brackets", "connect ::1", "[::1]"),
    ("IPv6 without brackets, with a port", "connect fe80::1:7000", "[fe80::1]:7000"),
    ("IPv6 without brackets, listening", "listen ::", "[::]:27473"),
    ("bad brackets", "connect [::1", "[ADDRESS]:PORT"),
    ("no IPv6 in brackets", "connect [localhost]:1", "not an IPv6 address"),
    ("no path", "connect unix:", "unix: needs a path"),
    ("long path", "connect /" + "x" * 107, "at most 107 bytes"),
    ("path and port", "listen /tmp/s 1", "a Unix socket has no port"),
    ("no address", "connect", "missing argument 'ADDRESS'"),
    ("too many", "connect localhost 1 2", "unexpected extra argument"),
    ("bad size", "connect localhost --buffer lots", "'lots' is not a size"),
    ("negative size", "connect localhost --buffer=-1", "'-1' is not a size"),
    ("no size", "connect localhost --buffer=", "'' is not a size"),
    ("a buffer for nothing", "listen --buffer 0", "a buffer of 0 is not possible"),
    ("a buffer for everything", "listen --buffer 2T", "a buffer of 2T is not possible"),
    ("bad time", "connect localhost --connect-timeout soon", "'soon' is not a time"),
    ("bad outage", "listen --give-up-after 1y", "'1y' is not a time"),
    ("bad pause", "connect localhost --retry-max 1M", "'1M' is not a time"),
    ("short heartbeat", "listen --heartbeat 49ms", "a heartbeat of 49ms is too short"),
    ("short interval", "listen --log-interval 99ms", "an interval of 99ms is too short"),
    ("bad expectation", "listen --size much", "'much' is not a size"),
    ("no such time to draw", "listen --status often", "'often' is not one of 'auto'"),
    ("nothing to do", "connect localhost --send-only --recv-only", "leave nothing to do"),
    ("nothing to do, listening", "listen --recv-only --send-only", "leave nothing to do"),
    ("loud and quiet", "listen -v -q", "contradict each other"),
    ("no such option", "connect localhost --sned-only", "no such option: --sned-only"),
    ("not of a listener", "listen --connect-timeout 1", "no such option: --connect-timeout"),
    ("no value", "connect localhost --buffer", "requires an argument"),
    ("no option", "--no-option", "no such option: --no-option"),
    ("no such command", "conect localhost", "no such command 'conect'"),
]


def bpipe_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "bpipe", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
    )


@pytest.mark.parametrize(
    ("command", "said"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG]
)
def test_what_is_not_understood_is_one_line_and_exit_status_2(
    capfd: pytest.CaptureFixture[str], command: str, said: str
) -> None:
    assert run(command.split(" ")) == USAGE
    out, err = capfd.readouterr()
    assert out == ""
    assert re.fullmatch(r"bpipe: \S.*\n", err)
    assert said in err


def test_no_command_is_one_line_too(capfd: pytest.CaptureFixture[str]) -> None:
    assert run([]) == USAGE
    assert capfd.readouterr() == ("", "bpipe: missing command (bpipe --help explains)\n")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["connect", "::1"], 2, r"\[::1\]"),
        (["connect", "192.0.2.1:7000"], 2, "--secret FILE on both ends .* --insecure"),
        (["listen", "0.0.0.0:0"], 2, "--secret FILE on both ends .* --insecure"),
        (["listen", "nobody.invalid:0"], 2, "cannot resolve nobody.invalid"),
        (["listen", "/nowhere/at/all"], 1, "no such file or directory"),
        (["listen", sys.executable], 2, "exists and is not a socket"),
        (["connect", "localhost:1", "-q", "--connect-timeout", "0"], 3, "connection refused"),
        (["demo", "/nowhere/at/all"], 2, "no such file or folder"),
    ],
)
def test_what_cannot_be_done_is_one_line(arguments: list[str], status: int, said: str) -> None:
    done = bpipe_process(*arguments)
    assert done.returncode == status
    assert done.stdout == ""
    assert re.fullmatch(r"bpipe: \S.*\n", done.stderr)
    assert re.search(said, done.stderr)


IN_USE = r"bpipe: cannot listen at \S+: address already in use; choose another address\n"


def test_a_port_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = bpipe_process("listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        r"bpipe: cannot listen at .*: address already in use; choose another address\n", done.stderr
    )


def test_a_unix_socket_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(tmp_path / "s"))
        taken.listen()
        done = bpipe_process("listen", str(tmp_path / "s"))
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        r"bpipe: cannot listen at .*: address already in use; choose another address\n", done.stderr
    )


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr() == (f"bpipe {bpipe.__version__}\n", "")


@pytest.mark.parametrize("command", [[], ["connect"], ["listen"], ["demo"]])
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_is_for_stdout(
    capsys: pytest.CaptureFixture[str], command: list[str], option: str
) -> None:
    assert run([*command, option]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Usage: bpipe")
    assert err == ""


def test_the_help_tells_each_default(capsys: pytest.CaptureFixture[str]) -> None:
    run(["connect", "--help"])
    text = capsys.readouterr().out
    for default in ("64M", "2s", "30s", "24h", "1s"):
        assert f"[default: {default}]" in " ".join(text.split())


@pytest.mark.parametrize(("arguments", "status"), [("--version", 1), ("connect a:b:c", 2)])
@pytest.mark.parametrize("stream", [">/dev/full", "2>/dev/full"])
def test_a_full_stream_is_no_traceback(arguments: str, status: int, stream: str) -> None:
    command = f'exec "{sys.executable}" -m bpipe {arguments} {stream}'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=20)
    assert "Traceback" not in done.stderr
    assert done.returncode == (0 if (arguments, stream[0]) == ("--version", "2") else status)


def test_an_error_in_bpipe_is_one_line_and_a_traceback_only_for_those_who_want_it(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bpipe.net.address.parse", lambda *arguments: 1 // 0)
    assert run(["connect", "localhost"]) == FAILED
    said = capfd.readouterr().err
    assert re.fullmatch(r"bpipe: an error in bpipe itself: ZeroDivisionError\(.*\n", said)
    with pytest.raises(ZeroDivisionError):
        run(["connect", "localhost", "-vv"])


def completions(shell: str, line: str, folder: Path) -> list[str]:
    """What this shell is told when the tab key is pressed after ``line``."""
    words = {
        "_BPIPE_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "COMP_WORDS": line,
        "COMP_CWORD": str(line.count(" ")),
    }
    done = subprocess.run(
        [sys.executable, "-m", "bpipe"],
        env={**os.environ, **words},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return re.findall(r"[\w:./\\-]+", done.stdout)


@pytest.mark.parametrize(
    ("shell", "paths"),
    [
        ("bash", ["unix:./a.sock", "unix:./adir/"]),
        ("zsh", [r"unix\\:./a.sock", r"unix\\:./adir/"]),
        ("fish", ["unix:./a.sock", "unix:./adir/"]),
    ],
)
def test_what_follows_unix_is_completed_and_plain_paths_are_left_to_the_shell(
    shell: str, paths: list[str], tmp_path: Path
) -> None:
    (tmp_path / "a.sock").touch()
    (tmp_path / "adir").mkdir()
    for command in ("connect", "listen"):
        assert set(paths) <= set(completions(shell, f"bpipe {command} unix:./a", tmp_path))
        assert not any(
            "a.sock" in each for each in completions(shell, f"bpipe {command} ./a", tmp_path)
        )
    assert "--send-only" in completions(shell, "bpipe connect --se", tmp_path)
    assert "always" in completions(shell, "bpipe connect --status a", tmp_path)


def test_what_starts_quickly_does_not_import_what_is_drawn_with() -> None:
    program = "import sys, bpipe.cli.app, bpipe.cli.session; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert not {"rich", "cryptography", "json"} & set(done.stdout.split())
