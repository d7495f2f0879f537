"""A secret that is typed on the terminal beside the data, and everything that may come between."""

from __future__ import annotations

import os
import re
import signal
import stat
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.end_to_end.console import Console, exchange
from tests.end_to_end.helpers import Start

pytestmark = pytest.mark.slow


@pytest.mark.smoke
def test_a_secret_of_words_is_asked_for_on_the_terminal_beside_the_data(
    start: Start, console: Console, tmp_path: Path
) -> None:
    path = tmp_path / "words"
    keygen = start.bpipe("keygen", "--words", str(path))
    assert keygen.wait() == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert re.fullmatch(r"[0-9a-z]{4}(-[0-9a-z]{4}){4}\n", path.read_text())
    listener = start.bpipe("listen", ":0", "--secret", str(path), stdin=PIPE, stdout=PIPE)
    port = listener.address.rpartition(":")[2]
    caller = console.run(start, "connect", port, "--ask-secret")
    console.wait_asked()
    typed = path.read_text().upper().replace("-", " ")
    console.type(typed)
    exchange(listener, caller)
    assert "guessed" not in listener.text + caller.text
    assert console.echoes
    os.set_blocking(console.master, False)
    assert typed[:4] not in console.shown + os.read(console.master, 1000).decode()


def test_an_interrupt_at_the_question_leaves_the_terminal_as_it_was(
    start: Start, console: Console
) -> None:
    caller = console.run(start, "connect", "1", "--ask-secret")
    console.wait_asked()
    console.type("half a sec\x03")
    assert caller.wait() == -signal.SIGINT
    assert caller.lines == []
    assert console.echoes


# Those that ask for an end, one that makes a core, and the last of all: they share a handler.
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGRTMIN])
def test_any_signal_at_the_question_leaves_the_terminal_as_it_was(
    start: Start, console: Console, number: signal.Signals
) -> None:
    caller = console.run(start, "connect", "1", "--ask-secret")
    console.wait_asked()
    caller.signal(number)
    assert caller.wait() == -number
    assert caller.lines == []
    assert console.echoes


def test_a_signal_that_is_ignored_does_not_end_the_question(start: Start, console: Console) -> None:
    caller = console.run(start, "connect", "1", "--ask-secret", before="trap '' HUP")
    console.wait_asked()
    caller.signal(signal.SIGHUP)
    console.type("short\n")
    assert caller.wait() == 2
    assert console.echoes


@pytest.mark.parametrize(
    ("typed", "said"),
    [("\x04", "no secret was typed"), ("short\n", "the secret that was typed is too short: a .*")],
)
def test_an_answer_that_is_no_secret(start: Start, console: Console, typed: str, said: str) -> None:
    caller = console.run(start, "connect", "1", "--ask-secret")
    console.wait_asked()
    console.type(typed)
    assert caller.wait() == 2
    assert re.fullmatch(f"bpipe: {said}", caller.text)
    assert console.echoes


def test_without_a_terminal_there_is_nobody_to_ask(start: Start) -> None:
    caller = start.bpipe("connect", "1", "--ask-secret", shell='exec setsid "$@"')
    assert caller.wait() == 2
    assert caller.lines == ["bpipe: no terminal to ask for the secret on: use --secret FILE"]
