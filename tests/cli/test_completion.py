"""What the shells are told when the tab key is pressed."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpipe.cli.completion import (
    complete_congestion,
    complete_host,
    complete_interface,
    complete_path,
    complete_when,
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where there is one of each."""
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("a.sock")
        Path("afile").touch()
        Path("adir").mkdir()
        Path("a dir").mkdir()
        Path("a;dir").mkdir()
        Path("@dir").mkdir()
        Path("agone").symlink_to("nowhere")
        yield tmp_path


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("unix:a", ["unix:a.sock", "unix:adir/"]),
        ("unix:./a", ["unix:./a.sock", "unix:./adir/"]),
        ("unix:adir", ["unix:adir/"]),
        ("unix:x", []),
        ("unix:@", []),
        ("unix:./@", ["unix:./@dir/"]),
        ("unix:", ["unix:a.sock", "unix:adir/"]),
        ("unix:[a", []),
        ("a", []),
        ("", []),
    ],
)
def test_sockets_and_folders_are_offered_and_nothing_that_has_to_be_quoted(
    folder: Path, typed: str, offered: list[str]
) -> None:
    assert complete_path(typed) == offered


def test_a_home_directory_is_known(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    assert complete_path("unix:~/a.") == [f"unix:{folder}/a.sock"]


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("", ["auto", "always", "never"]), ("a", ["auto", "always"]), ("n", ["never"]), ("x", [])],
)
def test_the_words_of_the_status_line(typed: str, offered: list[str]) -> None:
    assert complete_when(typed) == offered


def test_interfaces_and_names_for_congestion_are_those_of_the_system() -> None:
    assert "lo" in complete_interface("")
    assert complete_interface("no such") == []
    assert complete_congestion("ren") == ["reno"]
    assert "reno" in complete_congestion("")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of somebody who uses ssh."""
    folder = tmp_path / ".ssh"
    (folder / "more").mkdir(parents=True)
    (folder / "config").write_text(
        "Include more/* nowhere\nHost far-a  far-b *.far !far-c\n  HostName far-d\n"
        "host=far-e\n# Host far-f\nHost far-$(g) -far\n"
    )
    (folder / "more" / "one").write_text("Host near\nInclude config\n")
    (folder / "more" / "config").write_text(f"Include {folder}/config\n")  # goes round
    (folder / "known_hosts").write_text(
        "far-k,10.0.0.1 ssh-ed25519 AAAA\n[far-l]:2222 ssh-ed25519 AAAA\n\n"
        "|1|abc=|def= ssh-ed25519 AAAA\n@revoked far-m ssh-ed25519 AAAA\n# far-n\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("far", ["far-a", "far-b", "far-e", "far-k", "far-l"]),
        ("me@far-k", ["me@far-k"]),
        ("", ["10.0.0.1", "far-a", "far-b", "far-e", "far-k", "far-l", "near"]),
        ("x", []),
    ],
)
def test_hosts_that_ssh_knows_are_offered(home: Path, typed: str, offered: list[str]) -> None:
    assert complete_host(typed) == offered


def test_who_has_no_ssh_is_offered_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert complete_host("") == []


# --- what a shell is told ---


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
    # The zsh of some typers has a colon escaped.
    return re.findall(r"[\w:./-]+", done.stdout.replace("\\\\:", ":"))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_what_follows_unix_is_completed_and_plain_paths_are_left_to_the_shell(
    shell: str, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "a.sock"))
    (tmp_path / "afile").touch()
    (tmp_path / "adir").mkdir()
    found = completions(shell, "bpipe connect unix:./a", tmp_path)
    assert set(found) - {"_arguments", ":"} == {"unix:./a.sock", "unix:./adir/"}
    found = completions(shell, "bpipe listen ./a", tmp_path)
    assert not any("a.sock" in each for each in found)


def test_both_ends_complete_their_address_and_their_options(tmp_path: Path) -> None:
    """Every shell is told the same: see above."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "a.sock"))
    assert completions("bash", "bpipe listen unix:./a", tmp_path) == ["unix:./a.sock"]
    assert completions("bash", "bpipe connect ./a", tmp_path) == []
    assert "--send-only" in completions("zsh", "bpipe connect --se", tmp_path)
    assert "always" in completions("fish", "bpipe connect --status a", tmp_path)


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("bash", "far-k"),
        ("zsh", "me@far-k"),
        ("fish", "-4vp 22 far-k"),
        ("bash", "--status never far-k"),
    ],
)
def test_a_host_is_completed_where_ssh_would_have_one(shell: str, line: str, home: Path) -> None:
    assert any("far-k" in each for each in completions(shell, f"bpipe ssh {line}", home))


def test_what_is_no_host_is_completed_as_what_it_is(home: Path) -> None:
    assert not any("far" in each for each in completions("fish", "bpipe ssh near far", home))
    assert "--give-up-after" in completions("bash", "bpipe ssh --gi", home)
    assert "always" in completions("zsh", "bpipe ssh -p 22 --status a", home)


@pytest.mark.parametrize("option", ["--install-completion", "--show-completion"])
def test_a_shell_that_cannot_complete_is_one_line(option: str, tmp_path: Path) -> None:
    shell = tmp_path / "dash"
    if (found := shutil.which("dash")) is None:
        pytest.skip("dash is not installed")
    shell.symlink_to(found)
    command = f'"{sys.executable}" -m bpipe {option}; exit $?'
    done = subprocess.run(
        [str(shell), "-c", command],
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"bpipe: (dash|sh) cannot be told .*bash, zsh and fish can\n", done.stderr)


def test_completion_that_cannot_be_installed_names_the_file(tmp_path: Path) -> None:
    (tmp_path / ".bashrc").mkdir()
    done = subprocess.run(
        ["bash", "-c", f'"{sys.executable}" -m bpipe --install-completion; exit $?'],
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"bpipe: {tmp_path}/.bashrc: is a directory\n"
