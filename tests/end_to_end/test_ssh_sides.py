"""``bpipe ssh`` to every kind of far side: shells, Pythons, noise, disks; and none that will do."""

from __future__ import annotations

from subprocess import PIPE

import pytest

from tests.end_to_end.helpers import Program
from tests.end_to_end.recipes import need
from tests.end_to_end.sshd import THERE, Far, Near, Sshd

pytestmark = pytest.mark.slow

# Every word of it is a trap for somebody who quotes it twice, or not at all.
TRICKY = r"""printf '%s|' 'a  b' "c'd" '$HOME' '*' '\' 'e!f'; cat; echo error >&2; exit 3"""
WORDS = rb"a  b|c'd|$HOME|*|\|e!f|"
NOISE = "".join(f"echo line {number} of what nobody wants to read\n" for number in range(100))


def told(program: Program) -> list[str]:
    """What the far command said on stderr."""
    return [line for line in program.lines if not line.startswith("bpipe: ")]


def check(near: Near, far: Far, command: str, first: bytes, files: set[str]) -> None:
    """A command there gets its words, its input, and its say; and leaves nothing but these."""
    program = near.ssh(far, command, stdin=PIPE, stdout=PIPE)
    program.stdin.write(b"input")
    program.stdin.close()
    assert program.read_all() == first + b"input"
    assert program.wait() == 3
    assert told(program) == ["error"]
    far.wait_no_process()
    assert far.files() == files


def refused(near: Near, far: Far) -> str:
    """It does not go there; returns the last line, which says why."""
    program = near.ssh(far, "echo never", stdout=PIPE)
    assert program.read_all() == b""
    assert program.wait() == 255
    far.wait_nothing_left()
    return program.lines[-1]


@pytest.mark.parametrize(
    ("shell_there", "python", "disk"),
    [
        ("sh", "3.9", "full"),
        ("bash", "3.10", "read-only"),
        ("zsh", "3.11", ""),
        ("fish", "3.12", ""),
        ("tcsh", "3.13", ""),
    ],
)
def test_every_shell_python_and_disk(
    near: Near, sshd: Sshd, shell_there: str, python: str, disk: str
) -> None:
    need(shell_there)
    command, words = TRICKY, WORDS
    if shell_there == "fish":
        command = command.replace(r"'\'", r"'\\'")
    if shell_there == "tcsh":  # it has no way to write on stderr alone
        command, words = command.replace("e!f", "e"), words.replace(b"e!f", b"e")
        command = command.replace("echo error >&2", "sh -c 'echo error >&2'")
    far = sshd.far(shell_there, python)
    if disk == "full":
        far.mount("-t", "tmpfs", "-o", f"size=16k,uid={far.number}", "none")
        full = THERE / far.name / "full"
        far.run("sh", "-c", f"head -c 1M /dev/zero > {full}; test -s {full}")
    elif disk:
        far.mount("-t", "tmpfs", "-o", "ro", "none")
    check(near, far, command, words, {str(THERE / far.name / "full")} if disk == "full" else set())


def test_a_shell_that_talks_first(near: Near, sshd: Sshd) -> None:
    far = sshd.far()
    talks = far.home / "talks"
    talks.write_text(f'#!/bin/sh\n{NOISE}exec sh "$@"\n')
    talks.chmod(0o755)
    noisy = sshd.far(str(THERE / far.name / talks.name))
    program = near.ssh(noisy, "cat; echo error >&2; exit 3", stdin=PIPE, stdout=PIPE)
    program.stdin.write(b"input")
    program.stdin.close()
    assert program.read_all().endswith(b"input")  # its shell may talk before the command, too
    assert program.wait() == 3
    assert told(program) == ["error"]
    noisy.wait_nothing_left()


def test_a_shell_that_never_stops_talking(near: Near, sshd: Sshd) -> None:
    far = sshd.far()
    talks = far.home / "talks"
    talks.write_text("#!/bin/sh\nexec yes what nobody wants to read\n")
    talks.chmod(0o755)
    endless = sshd.far(str(THERE / far.name / talks.name))
    assert "what nobody wants to read" in refused(near, endless)


def test_a_python_that_is_too_old(near: Near, sshd: Sshd) -> None:
    line = refused(near, sshd.far(python="3.8"))
    assert "3.8" in line
    assert "3.9" in line


@pytest.mark.parametrize("shell_there", ["sh", "tcsh"])
def test_no_python(near: Near, sshd: Sshd, shell_there: str) -> None:
    need(shell_there)
    assert "python3" in refused(near, sshd.far(shell_there, "none"))


def test_a_forced_command(near: Near, sshd: Sshd) -> None:
    far = sshd.far()
    only = far.home / "only"
    only.write_text("#!/bin/sh\necho You may not do this.\nexit 1\n")
    only.chmod(0o755)
    program = near.ssh(sshd.far(str(THERE / far.name / only.name)), "echo never", stdout=PIPE)
    assert program.read_all() == b""
    assert program.wait() == 255
    assert "You may not do this." in program.text


def test_root_there(near: Near, sshd: Sshd) -> None:
    program = near.ssh(sshd.far()._replace(name="root"), "id -u; exit 3", stdout=PIPE)
    assert program.read_all() == b"0\n"
    assert program.wait() == 3
