"""``ssh`` and ``run``: what is not understood is one line and 255; what is for ssh goes there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bpipe.cli.app import run
from bpipe.cli.far import Via, by, over_ssh
from bpipe.cli.ssh import Call, read
from bpipe.run.exits import OF_BPIPE

WRONG = [
    ("ssh", "a destination is missing: bpipe ssh HOST COMMAND"),
    ("ssh far", "a command is missing: for a shell use ssh itself, mosh or et"),
    ("ssh -t far x", "-t: no terminal is carried"),
    ("ssh far -L 1:far:1 x", "-L: nothing is forwarded"),
    ("ssh -N far", "-N: that is for an ssh without a command"),
    ("ssh -z far x", "-z: ssh has no such option"),
    ("ssh far -p", "-p needs an argument"),
    ("ssh far --quiet x", "--quiet: bpipe's own options come before the destination"),
    ("ssh --buffer lots far x", "'lots' is not a size"),
    ("ssh --buffer", "requires an argument|a destination is missing"),
    ("ssh --no-such far x", "no such option:? '?--no-such"),
    ("ssh --retry-max 1s far x", "no such option:? '?--retry-max"),
    ("ssh --secret f far x", "no such option:? '?--secret"),
    ("ssh --verbose --quiet far x", "contradict each other"),
    ("ssh --output - far x", "--output takes the name of a file"),
    ("ssh far --output f x", "--output: bpipe's own options come before the destination"),
    ("ssh --output f", "a destination is missing"),
    ("ssh --output f --buffer 9 far x", "--output needs a --buffer of at least 1K"),
    ("ssh --output f --log-json f far x", "--log-json needs another file than --output"),
    ("ssh --whole far x", "--whole is about what is sent, or a file .* neither"),
    ("ssh --recv-only far x", "no such option:? '?--recv-only"),
    ("run --via sh --output= -- x", "--output takes the name of a file"),
    ("run", "--via is missing: what starts a command elsewhere"),
    ("run -- x", "--via is missing"),
    ("run -o a --via sh -- x", "no such option:? '?-o"),
    ("run --via sh", "-- is followed by the command"),
    ("run --via sh --", "-- is followed by the command"),
    ("run --via sh --  x", "-- is followed by the command"),
    ("run --via sh x", "unexpected extra argument"),
    ("run --via ' -- x", "--via: no closing quotation: '"),
    ("run --via  -- x", "--via is missing"),
]


@pytest.mark.parametrize(("command", "said"), WRONG, ids=[case[0] for case in WRONG])
def test_what_is_not_understood_is_one_line_and_255_as_with_ssh(
    capfd: pytest.CaptureFixture[str], command: str, said: str
) -> None:
    assert run(command.split(" ")) == OF_BPIPE
    out, err = capfd.readouterr()
    assert out == ""
    assert re.fullmatch(r"bpipe: \S.*\n", err)
    assert re.search(said, err)
    assert err.endswith(f"(bpipe {command.split()[0]} --help explains)\n")


@pytest.mark.parametrize("words", ["ssh --help", "ssh -h", "ssh --quiet --help", "run -h"])
def test_help_has_what_belongs_to_it(capsys: pytest.CaptureFixture[str], words: str) -> None:
    assert run(words.split()) == 0
    text = capsys.readouterr().out
    command = words.split()[0]
    examples, _, rest = text.partition("\nExamples:\n")[2].partition("\n\n")
    assert text.startswith(f"Usage: bpipe {command} [OPTIONS]")
    assert f"bpipe {command}" in examples
    assert rest == (
        "Exit status:\n  that of the command; 255 failed otherwise, 141 the reader of stdout has"
        " left\n\nEnvironment:\n  each option has its variable, as BPIPE_GIVE_UP_AFTER for"
        " --give-up-after;\n  what is typed wins\n\nThe manual: man bpipe\n"
    )
    assert max(map(len, text.splitlines())) <= 80
    short = re.findall(r"^  (-\w), --", text, re.MULTILINE)
    assert short == ([] if command == "ssh" else ["-v", "-q", "-h"])  # those of ssh are ssh's


@pytest.fixture
def ssh(tmp_path: Path) -> dict[str, str]:
    """The environment of one who has an ssh that tells how it was called."""
    path = tmp_path / "ssh"
    path.write_text('#!/bin/sh\nprintf "<%s>" "$@"; exit 7\n')
    path.chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}


@pytest.mark.parametrize(
    ("words", "called"),
    [
        ("-G -o SendEnv=GIT_PROTOCOL -p 22 far", "<-G><-o><SendEnv=GIT_PROTOCOL><-p><22><far>"),
        ("-V", "<-V>"),
        ("--quiet --status never -Q cipher", "<-Q><cipher>"),
    ],
)
def test_what_ssh_itself_answers_it_is_asked(ssh: dict[str, str], words: str, called: str) -> None:
    command = [sys.executable, "-m", "bpipe", "ssh", *words.split()]
    done = subprocess.run(command, env=ssh, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (7, called, "")


@pytest.mark.parametrize("words", ["-V", "far true"])
def test_without_an_ssh_that_is_one_line(tmp_path: Path, words: str) -> None:
    command = [sys.executable, "-m", "bpipe", "ssh", *words.split()]
    env = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (OF_BPIPE, "")
    assert re.fullmatch("bpipe: ssh: .*no such .*\n", done.stderr)


def test_what_is_asked_of_ssh_is_what_starts_the_command_there() -> None:
    call = read(["-n", "-p", "22", "me@far", "cat", "a b"])
    assert isinstance(call, Call)
    there = over_ssh(call)
    assert (there.host, there.command, there.reads_stdin) == ("me@far", "cat a b", False)
    assert (there.first, there.later) == (call.first(), call.later())


def test_what_another_command_starts_stays_a_list() -> None:
    there = by(Via("docker exec -i 'a b'"), ["cat", "a b", ""])
    assert there.host == "docker exec -i a b"
    assert there.first == there.later == ["docker", "exec", "-i", "a b"]
    assert there.command == ["cat", "a b", ""]
    assert there.reads_stdin
