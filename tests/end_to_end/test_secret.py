"""Where a secret comes from, what is said of it, and who is kept out by it."""

from __future__ import annotations

import re
import shlex
import signal
from pathlib import Path
from subprocess import PIPE

import pytest

from bpipe.cli.keys import write_key
from tests.end_to_end.console import GUESSED, PASSPHRASE, Console, exchange, write_phrase
from tests.end_to_end.data import until
from tests.end_to_end.helpers import Start, finish

pytestmark = pytest.mark.slow


def sources(key: Path, tmp_path: Path) -> dict[str, tuple[list[str], str]]:
    """Options, and what a shell does, for each way to give the same key."""
    (tmp_path / "link").symlink_to(key)
    home, quoted = (shlex.quote(str(path)) for path in (key.parent, key))
    plain = 'exec "$@"'
    return {
        "environment": ([], f'export BPIPE_SECRET_FILE={quoted}; exec "$@"'),
        "link": (["--secret", str(tmp_path / "link")], plain),
        "substitution": ([], f"""exec bash -c 'exec "$@" --secret <(cat {quoted})' bash "$@" """),
        "descriptor": (["--secret", "/dev/fd/3"], f'exec "$@" 3<{quoted}'),
        "option first": (["--secret", str(key)], 'export BPIPE_SECRET_FILE=/no; exec "$@"'),
        "home, which no shell has seen": (["--secret=~/key"], f'HOME={home} exec "$@"'),
    }


def test_the_ways_to_give_a_secret(start: Start, key: Path, tmp_path: Path) -> None:
    """Who has it is told that a session is up; nobody else is told anything."""
    home = f"HOME={shlex.quote(str(key.parent))} BPIPE_SECRET_FILE='~/key'"
    listener = start.bpipe(
        "listen", "127.0.0.1:0", shell=f'{home} exec "$@"', stdin=PIPE, stdout=PIPE
    )
    where = "connect", listener.address
    first = start.bpipe(*where, "--secret", str(key), stdin=PIPE, stdout=PIPE)
    first.wait_connected()
    callers = {
        way: start.bpipe(*where, *options, shell=shell)
        for way, (options, shell) in sources(key, tmp_path).items()
    }
    for way, caller in callers.items():
        assert caller.wait() == 3, (way, caller.lines)
        assert len(caller.lines) == 1, way
        assert "busy: the listener is serving another session" in caller.text, way
    exchange(listener, first)


def test_a_passphrase_with_and_without_a_final_newline(
    start: Start, tmp_path: Path, path: Path
) -> None:
    one = write_phrase(tmp_path / "one", PASSPHRASE)
    two = write_phrase(tmp_path / "two", PASSPHRASE + "\r\n")
    listener = start.bpipe("listen", str(path), "--secret", str(one), stdin=PIPE, stdout=PIPE)
    listener.wait_line("listening")
    caller = start.bpipe("connect", str(path), "--secret", str(two), stdin=PIPE, stdout=PIPE)
    exchange(listener, caller)


@pytest.mark.parametrize(
    ("asked", "options"),
    [(False, []), (True, ["-v"]), (False, ["-q"]), (False, ["--log-json", "-"])],
)
def test_one_line_says_what_a_passphrase_is_worth(
    start: Start, console: Console, tmp_path: Path, path: Path, asked: bool, options: list[str]
) -> None:
    phrase = write_phrase(tmp_path / "phrase")
    given = ["--ask-secret"] if asked else ["--secret", str(phrase)]
    listener = console.run(start, "listen", str(path), *given, *options)
    if asked:
        console.wait_asked()
        console.type(PASSPHRASE + "\n")
    until(path.exists, "a listener, which has said that before")
    listener.signal(signal.SIGKILL)
    listener.wait()
    assert (GUESSED in listener.lines) is (options in ([], ["-v"]))
    assert listener.text.count("guessed") == (GUESSED in listener.lines)


def test_what_a_passphrase_is_worth_is_not_said_amid_the_data(
    start: Start, tmp_path: Path, path: Path
) -> None:
    phrase = write_phrase(tmp_path / "phrase")
    got = tmp_path / "got"
    into = f'exec "$@" > {shlex.quote(str(got))} 2>&1'
    listener = start.bpipe("listen", str(path), "--secret", str(phrase), shell=into)
    until(path.exists, "a listener, which has said that before")
    listener.signal(signal.SIGKILL)
    listener.wait()
    assert "guessed" not in got.read_text()


@pytest.mark.skipif(not Path("/proc/self/coredump_filter").exists(), reason="only on Linux")
@pytest.mark.parametrize("way", ["file", "asked", "none"])
def test_who_has_a_secret_leaves_no_core_dump(
    start: Start, console: Console, key: Path, way: str
) -> None:
    given = {"file": ["--secret", str(key)], "asked": ["--ask-secret"], "none": []}[way]
    before = "ulimit -c unlimited 2> /dev/null || ulimit -c 100"
    listener = console.run(start, "listen", "127.0.0.1:0", *given, before=before)
    if way == "asked":
        console.wait_asked()  # it could be typed from here on
    else:
        listener.wait_line("listening")
    limits = Path(f"/proc/{listener.pid}/limits").read_text()
    spared = int(Path(f"/proc/{listener.pid}/coredump_filter").read_text(), 16) == 0
    assert bool(re.search(r"Max core file size +0 +0 ", limits)) is (way != "none")
    assert spared is (way != "none")


def test_insecure_wins_over_the_environment(start: Start) -> None:
    variable = 'export BPIPE_SECRET_FILE=/no/such/file; exec "$@"'
    listener = start.bpipe("listen", "127.0.0.1:0", "--insecure", shell=variable)
    caller = start.bpipe("connect", listener.address)
    assert finish(caller, listener) == [0, 0]


@pytest.mark.parametrize(
    ("listens", "calls", "hint"),
    [
        ("key", "other", "is it bpipe, with the same secret"),
        ("key", None, "is it bpipe, and without a secret?"),
        (None, "key", "is it bpipe, with the same secret"),
    ],
)
def test_another_secret_is_never_connected(
    start: Start, key: Path, tmp_path: Path, listens: str | None, calls: str | None, hint: str
) -> None:
    write_key(tmp_path / "other")

    def options(name: str | None) -> list[str]:
        return ["--secret", str(tmp_path / name)] if name else []

    listener = start.bpipe("listen", "127.0.0.1:0", *options(listens))
    address = listener.address
    caller = start.bpipe("connect", address, *options(calls), "--connect-timeout", "0")
    assert caller.wait() == 3
    assert hint in caller.lines[-1]
    listener.wait_line("^bpipe: 1 caller refused: ")
    assert len(listener.lines) == 2
    assert listener.running


def test_a_call_goes_to_the_pipe_of_its_name_only(start: Start, key: Path) -> None:
    """The listener that others have called goes on waiting, and its own caller gets in.

    What it told to type is what gets in; "\u00e9" may be one character or two.
    """
    secret = ["--secret", str(key)]
    listener = start.bpipe(
        "listen", ":0", *secret, "--name", "d\u00e9p\u00f4t 1", stdin=PIPE, stdout=PIPE
    )
    where = f"localhost:{listener.address.rpartition(':')[2]}"
    names = ["disk", "D\u00e9p\u00f4t 1", None]
    for name in names:
        named = [] if name is None else ["--name", name]
        caller = start.bpipe("connect", where, *secret, *named, "--connect-timeout", "0")
        assert caller.wait() == 3
        assert "is it bpipe, with the same secret" in caller.lines[-1]
    listener.wait_line("^bpipe: 1 caller refused: another secret or name, ")
    assert not [line for line in listener.lines if "connected" in line]
    assert listener.running
    invitation = listener.wait_line("bpipe connect ")
    words = shlex.split(invitation.partition("bpipe connect ")[2])
    assert words[1:] == [*secret, "--name", "d\u00e9p\u00f4t 1"]
    typed = [*secret, "--name", "de\u0301po\u0302t 1"]
    exchange(listener, start.bpipe("connect", where, *typed, stdin=PIPE, stdout=PIPE))
