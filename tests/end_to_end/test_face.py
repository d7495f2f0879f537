"""What a user sees: the rendered screen of a terminal in which bpipe runs, on real outages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

from tests.end_to_end.data import MIB, pattern, until
from tests.end_to_end.helpers import Start, finish
from tests.end_to_end.screen import CONNECTED, DRAWN, Far, Open

pytestmark = pytest.mark.slow


@pytest.mark.smoke
def test_an_outage_at_sixty_columns(terminal: Open, far: Far) -> None:
    screen = terminal(60)
    screen.enter(far.command)
    producer = far.produce()
    screen.wait_last(CONNECTED)
    far.consumer.wait_count(5 * MIB)
    far.proxy.freeze()
    line = screen.wait_last(r"reconnecting \d+s  nothing was heard for .*  (sent )?\d.*iB.*")
    assert len(line) < 60
    screen.wait_last(r"reconnecting [1-9]s  .*")
    far.proxy.thaw()
    screen.wait_last(CONNECTED)
    producer.finish()
    screen.wait_last(r"\$")
    text = re.sub(r"\s", "", "".join(screen.lines))  # lines are wrapped
    assert re.fullmatch(
        r".*bpipe:connectedto[\d.:]+"
        r"bpipe:connectionlost:nothingwasheardfor\S+s;reconnecting"
        r"bpipe:connectedagainto[\d.:]+after[\d.]+s(,\S+sentagain)?"
        r"bpipe:sent\S+iB\([\d,]+bytes\)in\S+\(\S+/s\),1reconnect,alldelivered\$",
        text,
    )
    assert not screen.cursor_hidden
    assert far.consumer.wait_end() == producer.written


def test_an_outage_at_two_hundred_columns(terminal: Open, far: Far) -> None:
    screen = terminal(200)
    screen.enter(far.command.replace(" <", " --size 1G <"))
    producer = far.produce()
    screen.wait_last(
        r"connected to \S+  █[█░]{19} \d+%  sent \S+ MiB of 1\.0 GiB  \S+ MiB/s  \S+ left"
        r"  (\S+ \S+ held until confirmed(: full)?  )?(round trip \S+  )?elapsed \d+s"
    )
    far.proxy.freeze()
    producer.wait_stuck(MIB)
    screen.wait_last(
        r"reconnecting to \S+ \d+s  attempt \d+ now  \S.*  (gives up .*  )?"
        r"█[█░]{19} \d+%  sent \S+ MiB of 1\.0 GiB"
        r"  \S+ MiB (of 64\.0 MiB held until confirmed|held until confirmed: full)"
        r"  elapsed \d+s"
    )
    far.proxy.thaw()
    screen.wait_last(r"connected to .*  1 reconnect  elapsed \d+s")
    producer.finish()
    screen.wait_last(r"\$")
    said = [line.partition(";")[0].split()[1:3] for line in screen.lines[1:-1]]
    assert [" ".join(words) for words in said[:3]] == [
        "connected to",
        "connection lost:",
        "connected again",
    ]
    assert re.fullmatch(r"bpipe: sent .*, 1 reconnect, all delivered; .*", screen.lines[4]), (
        screen.lines
    )
    assert len(screen.lines) == 6


def test_one_of_two_links_is_lost_for_a_while(terminal: Open, start: Start, tmp_path: Path) -> None:
    dark = threading.Event()  # every connection but the first is

    def tamper(connection: int, upward: bool, offset: int, data: bytes) -> bytes:
        return b"" if dark.is_set() and connection > 1 else data

    often, fifo = ("--heartbeat", "0.2"), tmp_path / "data"
    listener = start.bpipe("listen", "127.0.0.1:0", "--recv-only", *often, stdout=PIPE)
    consumer = listener.drain()
    proxy = start.proxy(listener.address, tamper=tamper)
    os.mkfifo(fifo)
    screen = terminal(120)
    screen.enter(f"bpipe connect {proxy.address} -S {' '.join(often)} --links 2 < {fifo}")
    with fifo.open("wb", buffering=0) as producer:
        producer.write(pattern(0, MIB))
        screen.wait_last(r"connected .*  2 links  .*")
        dark.set()
        screen.wait_last(r"connected (to \S+ )? 1 of 2 links  sent 1\.0 MiB  .*")
        screen.wait_line(r"bpipe: one of 2 links is down: .*; one goes on")
        producer.write(pattern(MIB, MIB))
        consumer.wait_count(2 * MIB)
        dark.clear()
        screen.wait_line("bpipe: both links are up")
        screen.wait_last(r"connected .*  2 links  .*")
    screen.wait_last(r"\$")
    said = [line.removeprefix("bpipe: ").split()[0] for line in screen.lines if "bpipe: " in line]
    assert said == ["connected", "one", "both", "sent"]
    assert "over 2 links, 1 reconnect" in "".join(screen.lines)
    assert consumer.wait_end() == 2 * MIB


def test_the_line_follows_the_width_of_the_terminal(terminal: Open, far: Far) -> None:
    screen = terminal(150)
    screen.enter(far.command)
    producer = far.produce()
    screen.wait_last(r"connected to .*elapsed \d+s")
    for width, expected in ((60, r"connected  .{20,49}"), (150, r"connected to .*elapsed \d+s")):
        screen.resize(width)
        screen.wait_last(expected)
        assert sum("connected  " in line or "elapsed" in line for line in screen.lines) == 1
        screen.wait_line(r"bpipe: connected to [\d.:]+")
    producer.finish()
    screen.wait_last(r"\$")


def drawn_once(rows: list[str], width: int) -> bool:
    """Whether the line is there, once, below what was said, with one empty row between."""
    *above, empty, last = ["", "", *rows]
    narrow, wide = r"connected\s+\S.*", r"connected to .*elapsed \d+s"
    said = re.fullmatch(r"123456789bpipe: connected to [\d.:]+", "".join(above))
    clear = said is not None and all(above[2:]) and not empty
    return clear and re.fullmatch(narrow if width < 100 else wide, last) is not None


@pytest.mark.skipif(shutil.which("tmux") is None, reason="needs a terminal that wraps anew")
def test_a_terminal_that_wraps_its_lines_anew_keeps_no_rest_of_it(far: Far, tmp_path: Path) -> None:
    """Also while it is resized faster than the line is drawn, and in its history.

    Above it there have to be as many rows as it is wrapped into: tmux puts those into its history.
    """
    tmux = ["tmux", "-S", str(tmp_path / "tmux"), "-f", "/dev/null"]

    def do(*arguments: str) -> str:
        return subprocess.run([*tmux, *arguments], check=True, stdout=PIPE, text=True).stdout

    def rows() -> list[str]:
        return do("capture-pane", "-p", "-S", "-").rstrip().split("\n")

    command = far.command.replace("bpipe", f"{sys.executable} -m bpipe", 1)
    do("new-session", "-d", "-x", "150", "-y", "20", f"seq 9; {command}; read")
    try:
        producer = far.produce()
        until(lambda: drawn_once(rows(), 150), lambda: str(rows()))
        for final in (60, 150, 40):
            for width in (97, 150, 40, 120, final):
                do("resize-window", "-x", str(width), "-y", "20")
            check = partial(lambda width: drawn_once(rows(), width), final)
            until(check, lambda: str(rows()))
        producer.finish()
        until(lambda: "alldelivered" in "".join(rows()).replace(" ", ""), lambda: str(rows()))
        said = [row.split()[1] for row in rows() if row.startswith("bpipe: ")]
        assert said == ["connected", "sent"]
        assert not re.search("elapsed|held|█", "".join(rows()))
    finally:
        do("kill-server")


@pytest.mark.parametrize("keys", ["\x03", "kill"])
def test_an_interrupt_leaves_the_screen_clean(terminal: Open, far: Far, keys: str) -> None:
    screen = terminal(100)
    screen.enter(f"{far.command} & fg" if keys == "kill" else far.command)
    producer = far.produce()
    screen.wait_last(CONNECTED)
    far.consumer.wait_count(MIB)  # of which the last line tells
    if keys == "kill":
        far.listener.signal(15)
        ending = (
            r'bpipe: the other end: "interrupted by SIGTERM"; \d+ bytes confirmed, \d+ more not.*'
        )
    else:
        screen.press(keys)
        ending = r"bpipe: interrupted by SIGINT(; \d+ bytes confirmed, \d+ more not)?"
    screen.wait_last(r"\$")
    assert any(re.fullmatch(ending, line) for line in screen.lines), screen.lines
    assert not any(re.search(DRAWN, line) for line in screen.lines), screen.lines
    assert not screen.cursor_hidden
    producer.wait_broken()


def test_suspended_in_the_background_and_back(terminal: Open, far: Far) -> None:
    screen = terminal(100)
    screen.enter(far.command)
    producer = far.produce()
    screen.wait_last(CONNECTED)
    screen.press("\x1a")
    screen.wait_last(r"\$")
    assert not any(re.search(DRAWN, line) for line in screen.lines), screen.lines
    assert any(re.match(r"\[1\]\+  Stopped", line) for line in screen.lines), screen.lines
    count = far.consumer.count
    screen.enter("bg")
    far.consumer.wait_count(count + 20 * MIB)
    screen.enter("kill -USR1 %1; wait -n x 2>&-")
    screen.wait_line(r"(\$ )*bpipe: connected \S+; sent .*")
    assert not any(re.search(DRAWN, line) for line in screen.lines), screen.lines
    screen.enter("fg")
    screen.wait_last(CONNECTED)
    producer.finish()
    screen.wait_last(r"\$")
    assert any(re.fullmatch(r"bpipe: sent .*, all delivered", line) for line in screen.lines)
    assert far.consumer.wait_end() == producer.written


@pytest.mark.parametrize("held", [False, True])
def test_a_paused_terminal_does_not_hold_up_the_data(terminal: Open, far: Far, held: bool) -> None:
    screen = terminal(100)
    screen.enter(far.command)
    producer = far.produce()
    screen.wait_last(CONNECTED)
    screen.press("\x13")
    far.consumer.wait_count(far.consumer.count + 40 * MIB)  # most of a second
    if held:
        producer.finish()
        assert far.consumer.wait_end() == producer.written
        assert far.listener.wait() == 0  # and only the last lines are waited for
        assert "delivered" not in "".join(screen.lines)
        screen.press("\x11")
    else:
        screen.press("\x11")
        producer.finish()
    screen.wait_last(r"\$")
    assert any(re.fullmatch(r"bpipe: sent .*, all delivered", line) for line in screen.lines)
    assert far.consumer.wait_end() == producer.written


def test_data_on_the_same_terminal_is_not_garbled(
    terminal: Open, start: Start, path: Path, tmp_path: Path
) -> None:
    far = start.bpipe("listen", str(path), stdin=PIPE, stdout=PIPE)
    os.mkfifo(tmp_path / "data")
    screen = terminal(100)
    screen.enter(f"bpipe connect {path} < {tmp_path / 'data'}")
    with (tmp_path / "data").open("wb", buffering=0) as stdin:
        screen.wait_last(r"connected to \S+  sent 0 B  .*")
        far.stdin.write(b"one\n")
        screen.wait_last("one")
        screen.enter("")  # a key that is pressed is an event, too
        far.stdin.write(b"two\n")
        screen.wait_last("two")
        assert b"\x1b[J" not in screen.output.partition(b"one")[2]
        far.stdin.close()
        screen.wait_last(r"connected( to \S+)?  received 8 B.*")
        stdin.write(b"answer")
    assert far.read_all() == b"answer"
    assert far.wait() == 0
    screen.wait_last(r"(\$ )*\$")
    assert [line for line in screen.lines if re.match("one|two", line)] == ["one", "two"]


def test_what_is_typed_is_not_drawn_over(terminal: Open, far: Far) -> None:
    screen = terminal(100)
    screen.enter(far.command.partition("<")[0] + "--status auto")
    screen.wait_last(r"bpipe: connected to \S+")
    screen.enter("typed")
    far.consumer.wait_count(6)
    assert not re.search(DRAWN.encode(), screen.output.partition(b"bpipe: connected")[2])
    screen.press("\x04")
    screen.wait_last(r"\$")
    assert screen.lines[-3] == "typed"
    assert re.fullmatch(r"bpipe: sent 6 B in .*, all delivered", screen.lines[-2])


@pytest.mark.parametrize(
    ("environment", "options", "drawn", "colours"),
    [
        ({}, "", True, True),
        ({"NO_COLOR": "1"}, "", True, False),
        ({"TERM": "dumb"}, "", False, False),
        ({"TERM": "dumb"}, "--status always", True, False),
        ({}, "--status never", False, False),
        ({}, "-q", False, False),
        ({}, "--log-json -", False, False),
    ],
)
def test_what_a_terminal_is_sent(
    terminal: Open, far: Far, environment: dict[str, str], options: str, drawn: bool, colours: bool
) -> None:
    screen = terminal(100, **environment)
    before = len(screen.output)
    screen.enter(far.command.replace(" <", f" {options} <"))
    producer = far.produce()
    if drawn:
        screen.wait_last(CONNECTED)
    far.consumer.wait_count(5 * MIB)
    producer.finish()
    screen.wait_last(r"\$")
    output = screen.output[before:]
    assert (re.search(rb"\x1b\[(\d+;)*3\dm", output) is not None) == colours
    if environment.get("TERM") == "dumb" or not drawn:
        assert b"\x1b" not in output
    assert (re.search(rb"elapsed \d", output) is not None) == drawn
    assert not any(re.search(r"elapsed \d", line) for line in screen.lines)


def test_what_is_no_terminal_gets_not_one_escape_code(start: Start, far: Far) -> None:
    caller = start.bpipe(
        "connect", far.proxy.address, "-v", "--send-only", "--heartbeat", "0.2", stdin=PIPE
    )
    producer = caller.feed(None)
    far.consumer.wait_count(MIB)
    far.proxy.freeze()
    caller.wait_lost()
    far.proxy.thaw()
    caller.wait_back()
    producer.finish()
    assert finish(caller, far.listener) == [0, 0]
    for end in (caller, far.listener):
        assert not re.search(r"[^\n -~]", end.text)


def test_always_is_for_those_who_read_stderr_elsewhere(start: Start, far: Far) -> None:
    arguments: list[Any] = ["--send-only", "--status", "always", "--heartbeat", "0.2"]
    caller = start.bpipe("connect", far.proxy.address, *arguments, stdin=PIPE)
    producer = caller.feed(None)
    caller.wait_line(r"connected.*sent .*/s")
    producer.finish()
    assert finish(caller, far.listener) == [0, 0]


def test_a_percentage_and_the_time_that_is_left(terminal: Open, far: Far) -> None:
    screen = terminal(200)
    screen.enter(far.command.replace(" <", " --size 40G <"))
    with far.fifo.open("wb", buffering=0) as stdin:
        stdin.write(pattern(0, 900_000))
        line = screen.wait_last(
            r"connected .*  █░{19} 0%  sent 878\.9 KiB of 40\.0 GiB  \S+ [KM]iB/s  \S+ left  .*"
        )
    rate, unit, left = re.findall(r"(\S+) ([KM])iB/s  (\S+) left", line)[0]
    seconds = 40 * 1024**3 / (float(rate) * {"K": 1024, "M": MIB}[unit])
    units = {"d": 86400, "h": 3600, "m": 60, "s": 1}
    shown = sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)(\w)", left))
    assert shown == pytest.approx(seconds, rel=0.1)  # as all of it is rounded
    screen.wait_last(r"\$")


def test_a_stream_to_a_file_has_three_numbers(
    terminal: Open, start: Start, path: Path, tmp_path: Path
) -> None:
    """At both ends, in eighty columns."""
    content = bytearray(bytes(pattern(0, MIB)) * 12)
    (tmp_path / "FILE").write_bytes(content)
    content[-1] ^= 1  # the last block differs: with it goes what is the same before it
    os.mkfifo(tmp_path / "data")
    receiver, sender = terminal(80), terminal(80)
    receiver.enter(f"bpipe listen {path} --output {tmp_path / 'FILE'}")
    until(path.exists, "a listener")
    sender.enter(f"bpipe connect {path} < {tmp_path / 'data'}")
    with (tmp_path / "data").open("wb", buffering=0) as stdin:
        stdin.write(content)
        for screen, verb in ((sender, "sent"), (receiver, "received")):
            numbers = rf"12\.0 MiB compared, 11\.8 equal, 0\.2 {verb}"
            line = screen.wait_last(rf"connected( to \S+)?  {numbers}(  .*)?")
            assert len(line) < 80
    receiver.wait_last(r"\$")
    assert (tmp_path / "FILE").read_bytes() == content


def test_more_than_the_size_is_no_percentage(terminal: Open, far: Far) -> None:
    screen = terminal(200)
    screen.enter(far.command.replace(" <", " --size 600K <"))
    with far.fifo.open("wb", buffering=0) as stdin:
        stdin.write(pattern(0, 600 << 10))
        screen.wait_last(r"connected .*  █{20} 100%  sent 600\.0 KiB of 600\.0 KiB  (?!.* left ).*")
        stdin.write(b"more")
        screen.wait_last(r"connected .*  sent 600\.0 KiB  \S+ [KM]iB/s  (?!.* left ).*")
    screen.wait_last(r"\$")


# The same program, but a rate is taken over one second, so that a test need not wait for eight.
HASTY = """() { "$PYTHON" -c "
import runpy
from bpipe.report import meter
meter.RATE_WINDOW = 1.0
runpy.run_module('bpipe', run_name='__main__')" "$@"; }"""


def test_a_file_that_the_far_side_does_not_take(
    terminal: Open, start: Start, path: Path, tmp_path: Path
) -> None:
    receiving = start.bpipe("listen", str(path), "--recv-only", stdout=PIPE)
    (tmp_path / "data").write_bytes(bytes(pattern(0, 1_000_000)) * 5)
    screen = terminal(200, **{"BASH_FUNC_bpipe%%": HASTY})
    screen.enter(f"bpipe connect {path} --send-only < {tmp_path / 'data'}")
    part = r"(connected|finishing).*  █[█░]{18}░ [1-9]\d?%  sent \S+ [KM]iB of 4\.8 MiB  "
    screen.wait_last(part + r"\S+ [KM]iB/s  \S+ left  .*")
    screen.wait_last(part + r"the far side takes nothing  \S+ \S+ held .*")
    assert len(receiving.read_all()) == 5_000_000
    screen.wait_last(r"\$")
    assert re.fullmatch(r"bpipe: sent 4\.8 MiB \S+ bytes\) in .*, all delivered", screen.lines[-2])
