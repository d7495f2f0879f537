"""What a shell does with bpipe: completion by the tab key, and jobs that are stopped."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
from pathlib import Path

import pytest

from tests.end_to_end.data import until
from tests.end_to_end.screen import DRAWN, Open, Screen

pytestmark = pytest.mark.slow

COMPLETION = Path(__file__).parents[2] / "pack" / "completion"
ASK = 'eval "$(bpipe --show-completion)"'
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], ASK),
    "zsh": (["zsh", "-f", "-i"], f"autoload -Uz compinit; compinit -D -u; {ASK}"),
    "fish": (
        ["fish", "--no-config", "-i", "-C", "function fish_prompt; echo -n '$ '; end"],
        "bpipe --show-completion | source",
    ),
}
HOSTILE = [
    r"a\$(touch PWNED)",
    "a$(touch PWNED)",
    r"a\`touch PWNED\`",
    "a`touch PWNED`",
    "a;touch PWNED",
    "a&touch PWNED",
    "a' $(touch PWNED) '",
    'a" $(touch PWNED) "',
    "a')); touch PWNED; ((('",
    "a\ntouch PWNED\n",
    "a(touch PWNED)",
    "a:$(touch PWNED)",
]


def program(folder: Path) -> str:
    """A PATH that has bpipe in it."""
    file = folder / "bin" / "bpipe"
    file.parent.mkdir()
    file.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bpipe "$@"\n')
    file.chmod(0o755)
    return f"{file.parent}:{os.environ['PATH']}"


def bind(path: Path) -> None:
    """A socket at this path, in a folder whose path may be long."""
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder to which somebody else can write, and has."""
    folder = tmp_path / "f"
    folder.mkdir()
    for name in HOSTILE:
        bind(folder / name)
        (folder / f"{name}-folder").mkdir()
    bind(folder / "x.sock")
    (folder / "afolder").mkdir()
    return folder


@pytest.mark.parametrize(
    "shell", [pytest.param("bash", marks=pytest.mark.smoke), *list(SHELLS)[1:]]
)
def test_the_tab_key_offers_sockets_and_runs_nothing(
    terminal: Open, tmp_path: Path, hostile: Path, shell: str
) -> None:
    command, setup = SHELLS[shell]
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    screen: Screen = terminal(
        250, shell=command, folder=tmp_path, PATH=program(tmp_path), HOME=str(tmp_path)
    )
    screen.enter(f"{setup}; echo rea''dy")
    screen.wait_line("ready")
    screen.press("bpipe connect unix:f/x\t")
    screen.wait_last(r"\$ bpipe connect unix:f/x\.sock ?")
    screen.press("\x15")  # ^U
    screen.wait_last(r"\$")
    screen.press("bpipe connect unix:f/a\t\t")
    until(lambda: "afolder/" in screen.output.decode(), lambda: str(screen.lines))
    for prefix in (r"a\\", "a'", "'f/a", "a;"):
        screen.press(f"\x15bpipe connect unix:f/{prefix}\t")
    screen.press("\x15echo do''ne\n")
    screen.wait_line("done")
    assert not list(tmp_path.rglob("PWNED"))


def test_the_first_tab_loads_what_is_installed_for_zsh(terminal: Open, tmp_path: Path) -> None:
    command, _ = SHELLS["zsh"]
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    screen: Screen = terminal(100, shell=command, PATH=program(tmp_path), HOME=str(tmp_path))
    screen.enter(
        f"fpath=({COMPLETION} $fpath); autoload -Uz compinit; compinit -D -u; echo rea''dy"
    )
    screen.wait_line("ready")
    screen.press("bpipe keyg\t")
    screen.wait_last(r"\$ bpipe keygen ?")


def test_a_question_that_is_asked_in_the_background_and_stopped(
    terminal: Open, tmp_path: Path
) -> None:
    # This shell does not set up the terminal by itself.
    screen: Screen = terminal(200, shell=["dash", "-i"], PATH=program(tmp_path))
    screen.enter("bpipe connect localhost:1 --connect-timeout 0 -q --ask-secret & echo job $!")
    screen.wait_line(r"job \d+")
    (job,) = (line.removeprefix("job ") for line in screen.lines if line.startswith("job "))
    status = Path(f"/proc/{job}/status")
    until(lambda: "T (stopped)" in status.read_text(), "a question that cannot be asked yet")
    for _ in range(2):
        screen.enter("fg")
        screen.wait_last("Secret:")
        until(lambda: not screen.echoes, "a terminal that hides what is typed")
        screen.press("half\x1a")
        screen.wait_last(r"\$")
        assert screen.echoes
    screen.enter("fg")
    screen.wait_last("Secret:")
    until(lambda: not screen.echoes, "a terminal that hides what is typed")
    screen.enter("correct horse battery")
    until(lambda: "connection refused" in "".join(screen.lines), lambda: str(screen.lines))
    assert screen.echoes
    assert "correct" not in screen.output.decode()


def test_the_demonstration_has_a_status_line_and_leaves_nothing_of_it(
    terminal: Open, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(bytes(4 << 20))
    screen: Screen = terminal(200)
    screen.enter(f"bpipe demo {tmp_path}/file")
    screen.wait_line(r"  verdict     every byte arrived, once, in order")
    screen.wait_last(r"\$")
    assert re.search(DRAWN, screen.output.decode())
    for line in screen.lines[1:-1]:
        assert re.fullmatch(
            r"(Sending|through) .*|"
            r"  +\d+\.\d s  [a-z ]+, \S+ \w+ into a connection, \w+ to \w+|"
            r"  bpipe: .*|  [a-z ]{11} .*|",
            line,
        )
