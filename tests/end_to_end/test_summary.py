"""The last line of a run that failed, on a terminal: how far it got, and what to do about it.

A sender has 600 KiB confirmed, and when its path is away 300 KiB more that are not, before
something happens. So what it says is known to the byte.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.end_to_end.data import pattern, until
from tests.end_to_end.helpers import Start
from tests.end_to_end.screen import DRAWN, PROMPT, Far, Open, Screen

pytestmark = pytest.mark.slow

SAFE, AWAY = 600 << 10, 300 << 10  # bytes
AGAIN = "start both ends again, from the beginning"
ALL_SAFE = f"{SAFE} bytes confirmed, 0 more not"
LEFT = r"the consumer behind stdout closed its pipe(, and left \d+ bytes there)?"


def last_line(screen: Screen, status: int) -> str:
    """Wait for the end; returns what was said at last, if nothing else is left of bpipe."""
    until(lambda: len(screen.lines) > 2 and screen.last == PROMPT, lambda: str(screen.lines))
    screen.enter("echo status $?")  # later: bash does not go on with a line that was interrupted
    screen.wait_line(rf"status {status}")
    until(lambda: screen.last == PROMPT, lambda: str(screen.lines))
    _, *said, _, _, _ = [line for line in screen.lines if line]  # bash says an empty one for ^C
    assert all(each.startswith("bpipe: ") for each in said), screen.lines
    assert not any(re.search(DRAWN, each) for each in screen.lines), screen.lines
    assert not screen.cursor_hidden
    return said[-1]


# --- somebody who sends ---


def give_up(start: Start, far: Far, screen: Screen) -> None:
    """Its patience ends by itself."""


def interrupt(start: Start, far: Far, screen: Screen) -> None:
    screen.press("\x03")
    screen.wait_last(r"telling the other end  sent 600\.0 KiB  elapsed .*")


def terminate(start: Start, far: Far, screen: Screen) -> None:
    far.listener.signal(15)


@pytest.mark.parametrize(
    ("frozen", "happens", "status", "said"),
    [
        (
            True,
            give_up,
            4,
            r"ADDRESS: gave up after \d s without a connection: \S.*; "
            rf"{SAFE} bytes are confirmed, {AWAY} more are not; {AGAIN}",
        ),
        (
            True,
            interrupt,
            130,
            "interrupted by SIGINT; the other end did not answer: end it, too; "
            f"{SAFE} bytes confirmed, {AWAY} more not",
        ),
        (False, terminate, 1, f'the other end: "interrupted by SIGTERM"; {ALL_SAFE}; {AGAIN}'),
    ],
)
def test_a_sender_is_told_what_is_safe(
    terminal: Open,
    start: Start,
    far: Far,
    frozen: bool,
    happens: Callable[[Start, Far, Screen], None],
    status: int,
    said: str,
) -> None:
    screen = terminal(200)
    patience = "1200ms" if happens is give_up else "1h"
    screen.enter(f"{far.command} --give-up-after {patience}")
    with far.fifo.open("wb", buffering=0) as stdin:
        stdin.write(pattern(0, SAFE))
        screen.wait_last(r"connected .* sent 600\.0 KiB .* .*")
        if frozen:
            far.proxy.freeze()
            stdin.write(pattern(SAFE, AWAY))
            screen.wait_last(r"reconnecting .* 300\.0 KiB of 64\.0 MiB held until confirmed  .*")
        happens(start, far, screen)
        line = last_line(screen, status)
    assert re.fullmatch(f"bpipe: {said.replace('ADDRESS', far.proxy.address)}", line), line


def test_a_sender_whose_far_consumer_has_left(terminal: Open, start: Start, path: Path) -> None:
    start.bpipe("listen", str(path), shell='"$@" | head -c 5')
    screen = terminal(200)
    screen.enter(f"bpipe connect {path} --send-only < <(yes 2>&-)")
    assert re.fullmatch(
        rf'bpipe: the other end: "{LEFT}"; '
        r"\d+ bytes confirmed, \d+ more not",
        last_line(screen, 141),
    )


# --- somebody who receives, or never gets so far ---


@pytest.mark.parametrize(
    ("command", "status", "said", "peer_status", "peer_said"),
    [
        (
            "(ulimit -f 600; bpipe listen PATH --recv-only > PATH.copy; exit $?)",
            1,
            f"cannot write stdout: file too large; {SAFE} bytes received; {AGAIN}",
            1,
            'the other end: "cannot write stdout: file too large"; '
            rf"{SAFE} bytes confirmed, \d+ more not; {AGAIN}",
        ),
        (
            "bpipe listen PATH --recv-only | head -c 5 >/dev/null; (exit ${PIPESTATUS[0]})",
            141,
            rf"{LEFT}; \d+ bytes received",
            141,
            rf'the other end: "{LEFT}"; '
            r"\d+ bytes confirmed, \d+ more not",
        ),
        (
            "bpipe connect PATH.nobody --connect-timeout 200ms </dev/null",
            3,
            "unix:PATH.nobody: no such file or directory; "
            "nothing was read from stdin: it can be started again",
            None,
            "",
        ),
    ],
)
def test_a_receiver_is_told_what_it_has(
    terminal: Open,
    start: Start,
    path: Path,
    command: str,
    status: int,
    said: str,
    peer_status: int | None,
    peer_said: str,
) -> None:
    screen = terminal(200)
    screen.enter(command.replace("PATH", str(path)))
    if peer_status is not None:
        sender = start.bpipe("connect", str(path), "--send-only", stdin=PIPE)
        sender.feed(None)
        assert sender.wait() == peer_status
        assert re.fullmatch(f"bpipe: {peer_said}", sender.lines[-1]), sender.lines
    line = last_line(screen, status)
    assert re.fullmatch(f"bpipe: {said.replace('PATH', str(path))}", line), line
