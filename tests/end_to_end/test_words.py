"""What is said, where, and when: words go to whoever waits, and never into the data."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
from pathlib import Path
from subprocess import PIPE

import pytest

from bpipe.protocol.liveness import OWED
from bpipe.report.narrator import MOST
from tests.end_to_end.data import MIB, pattern, until
from tests.end_to_end.helpers import Start, finish
from tests.end_to_end.screen import Open

pytestmark = pytest.mark.slow


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


# --- words and data ---


@pytest.mark.parametrize(
    ("redirections", "options"),
    [
        ("> FILE 2>&1", ["-vv"]),
        ("> FILE 2> FILE", ["--log-json", "-"]),
        ("2>&1 | cat > FILE", ["--status", "always"]),
    ],
)
def test_a_file_that_gets_both_has_the_data_alone(
    start: Start, path: Path, tmp_path: Path, redirections: str, options: list[str]
) -> None:
    file = tmp_path / "backup"
    shell = f'"$@" {redirections.replace("FILE", str(file))}'
    listener = start.bpipe("listen", str(path), "--recv-only", *options, shell=shell)
    until(path.exists, "the listener")
    caller = start.bpipe("connect", str(path), "--send-only", stdin=PIPE)
    caller.feed(MIB)
    assert finish(caller, listener) == [0, 0]
    assert file.read_bytes() == bytes(pattern(0, MIB))


@pytest.mark.parametrize(
    ("arguments", "redirections", "status", "said"),
    [
        ("connect -q --connect-timeout 0 127.0.0.1:PORT", "> FILE 2>&1", 3, "connection refused; "),
        ("connect 192.0.2.1:7", "2>&1 | cat > FILE", 0, "192.0.2.1:7 is not loopback, and "),
        ("listen 0.0.0.0:0", "> FILE 2>&1", 2, "0.0.0.0:0 is not loopback, and "),
    ],
)
def test_a_run_that_fails_before_there_was_data_says_why(
    start: Start, tmp_path: Path, arguments: str, redirections: str, status: int, said: str
) -> None:
    file = tmp_path / "backup"
    words = arguments.replace("PORT", str(free_port())).split()
    failing = start.bpipe(*words, shell=f'"$@" {redirections.replace("FILE", str(file))}')
    assert failing.wait() == status
    (line,) = file.read_text().splitlines()
    assert line.startswith("bpipe: ")
    assert said in line


def test_a_run_that_fails_says_nothing_into_the_data(
    start: Start, path: Path, tmp_path: Path
) -> None:
    file = tmp_path / "backup"
    listener = start.bpipe("listen", str(path), shell=f'exec "$@" > {file} 2>&1')
    until(path.exists, "the listener")
    caller = start.bpipe("connect", str(path), stdin=PIPE)
    caller.stdin.write(bytes(pattern(0, 10)))
    caller.stdin.flush()
    until(lambda: file.stat().st_size == 10, "the data")
    caller.signal(signal.SIGINT)
    assert listener.wait() == 1
    assert file.read_bytes() == bytes(pattern(0, 10))


def test_the_end_of_an_empty_stream_is_seen_where_stderr_goes_there_too(
    start: Start, path: Path, tmp_path: Path
) -> None:
    ended = tmp_path / "ended"
    shell = f'"$@" 2>&1 | (cat; touch {ended})'
    listener = start.bpipe("listen", str(path), stdin=PIPE, shell=shell)
    until(path.exists, "the listener")
    caller = start.bpipe("connect", str(path), stdin=PIPE)
    caller.feed(0)
    until(ended.exists, "the end")
    assert listener.running
    listener.feed(0)
    assert finish(caller, listener) == [0, 0]


def test_who_only_sends_may_log_to_where_stdout_goes(
    start: Start, path: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    listener = start.bpipe("listen", str(path), stdout=PIPE)
    caller = start.bpipe(
        "connect", str(path), "--send-only", stdin=PIPE, shell=f'"$@" >> {log} 2>&1'
    )
    caller.feed(10)
    assert listener.drain().wait_end() == 10
    assert finish(caller, listener) == [0, 0]
    assert re.search(r"^bpipe: sent 10 B in .*, all delivered$", log.read_text(), re.MULTILINE)


def test_the_log_is_not_written_into_the_data(start: Start, path: Path, tmp_path: Path) -> None:
    file = tmp_path / "data"
    listener = start.bpipe("listen", str(path), "--log-json", str(file), shell=f'"$@" > {file}')
    assert listener.wait() == 2
    assert "is where the data goes" in listener.text
    assert file.read_bytes() == b""


def test_a_log_is_for_its_owner_and_follows_no_link(
    start: Start, path: Path, tmp_path: Path
) -> None:
    victim, link = tmp_path / "victim", tmp_path / "link"
    link.symlink_to(victim)
    listener = start.bpipe("listen", str(path), "--log-json", str(link))
    assert listener.wait() == 2
    assert listener.text == f"bpipe: cannot open the log {link}: it is a symbolic link"
    assert not victim.exists()
    log = tmp_path / "log"
    start.bpipe("listen", str(path), "--log-json", str(log))
    until(log.exists, "the log")
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_a_log_may_be_a_process(start: Start, path: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    shell = f"""exec bash -c '"$@" --log-json >(cat > {log})' bash "$@" """
    start.bpipe("listen", str(path), shell=shell)
    until(lambda: log.exists() and '"listening"' in log.read_text(), "the log")


def test_a_terminal_that_stops_background_jobs_does_not_hold_up_the_data(
    terminal: Open, start: Start, path: Path
) -> None:
    """With ``stty tostop``: what is said is for the terminal, and what flows is not."""
    screen = terminal(100)
    screen.enter("stty tostop")
    screen.enter(f"bpipe listen {path} --recv-only > {path}.got &")
    until(path.exists, "the listener")
    caller = start.bpipe("connect", str(path), "--send-only", stdin=PIPE)
    caller.feed(MIB)
    assert caller.wait() == 0
    assert Path(f"{path}.got").read_bytes() == bytes(pattern(0, MIB))
    screen.wait_line(r".*bpipe: received 1\.0 MiB \(1,048,576 bytes\) in .*, all delivered")


# --- who waits ---


def test_whoever_waits_for_a_listener_is_told_why(start: Start) -> None:
    port = free_port()
    caller = start.bpipe("connect", f"127.0.0.1:{port}", "--connect-timeout", "1h", "-q")
    loud = start.bpipe("connect", f"127.0.0.1:{port}", "--connect-timeout", "30")
    line = loud.wait_line("trying")
    assert re.fullmatch(
        rf"bpipe: 127\.0\.0\.1:{port}: connection refused; trying for 2\ds more", line
    )
    assert caller.lines == []


@pytest.mark.parametrize(
    ("secrets", "cause"), [((1, 2), "with the same secret"), ((1, 0), "without a secret")]
)
def test_a_wrong_secret_is_told_at_once(
    start: Start, tmp_path: Path, secrets: tuple[int, int], cause: str
) -> None:
    options: list[list[str]] = [[], []]
    for end, number in zip(options, secrets, strict=True):
        if number:
            file = tmp_path / str(number)
            file.write_text(str(number) * 40)
            file.chmod(0o600)
            end += ["--secret", str(file)]
    listener = start.bpipe("listen", "127.0.0.1:0", *options[0])
    caller = start.bpipe("connect", listener.address, *options[1], "-v")
    line = caller.wait_line("trying for")
    assert cause in line
    assert caller.lines.index(line) <= 4  # before the third attempt


def test_a_name_that_does_not_exist_is_told_at_once(start: Start) -> None:
    caller = start.bpipe("connect", "nosuch.invalid:7000", "--insecure", "-v")
    line = caller.wait_line("trying for")
    assert re.match(r"bpipe: cannot resolve nosuch\.invalid: .*; trying for \d+s more", line)
    assert caller.lines.index(line) <= 3


def test_a_sender_is_told_that_the_far_side_has_not_finished(start: Start, path: Path) -> None:
    listener = start.bpipe("listen", str(path), stdin=PIPE, stdout=PIPE)
    caller = start.bpipe("connect", str(path), stdin=PIPE)
    caller.feed(10)
    said = "waiting for the far side, which has not finished"
    caller.wait_line(said)
    assert listener.drain().wait_end() == 10
    listener.stdin.close()
    assert finish(caller, listener) == [0, 0]
    assert caller.text.count(said) == 1
    assert said not in listener.text


def test_a_listener_says_what_to_type_at_the_other_end(
    start: Start, path: Path, tmp_path: Path
) -> None:
    key = tmp_path / "a key"
    key.write_text("never to be seen by anybody else")
    key.chmod(0o600)
    near = start.bpipe("listen", "127.0.0.1:0")
    assert re.search(
        r"^bpipe: listening on 127.*:\d+, for this machine only; others", near.address_line
    )
    socket_ = start.bpipe("listen", str(path))
    assert socket_.address == f"unix:{path}"
    assert "for this user only" in socket_.address_line
    open_ = start.bpipe("listen", "*:0", "--secret", str(key))
    port = open_.address.rpartition(":")[2]
    line = open_.wait_line("on the other machine")
    assert line.endswith(f": bpipe connect HOST:{port} --secret '{key}'")
    service = start.bpipe("listen", "*:0", "--secret", str(key), "-k", "--to", "localhost:1")
    line = service.wait_line("on the other machine")
    assert line.endswith(f" --secret '{key}' --from localhost:PORT")
    assert "never to be seen" not in open_.text
    insecure = start.bpipe("listen", "*:0", "--insecure")
    assert insecure.wait_line("on the other machine").endswith(" --insecure")


def test_a_loop_of_losses_does_not_fill_the_log(start: Start, path: Path) -> None:
    listener = start.bpipe("listen", str(path), "--recv-only")
    caller = start.bpipe("connect", str(path), stdin=PIPE)
    caller.wait_connected()
    for number in range(1, MOST + 4):
        caller.signal(signal.SIGUSR2)

        def back(number: int = number) -> bool:
            caller.signal(signal.SIGUSR1)
            return re.search(rf"connected .*; {number} reconnect", caller.text) is not None

        until(back, f"reconnect {number}")
    caller.stdin.close()
    assert finish(caller, listener) == [0, 0]
    for end in (caller, listener):
        assert end.text.count("connection lost: ") == end.text.count("connected again") == MOST
        assert "bpipe: the connection was lost 3 more times in the last minute; now " in end.text


def test_less_than_the_size_is_said(start: Start, path: Path) -> None:
    listener = start.bpipe("listen", str(path), "--recv-only")
    caller = start.bpipe("connect", str(path), "--send-only", "--size", "4kB", stdin=PIPE)
    caller.feed(1500)
    assert finish(caller, listener) == [0, 0]
    assert caller.lines[-1].endswith("all delivered; 2.4 KiB (2,500 bytes) less than expected")
    assert "less" not in listener.text


# --- a terminal ---


def test_the_cause_is_shown_from_the_first_moment(terminal: Open) -> None:
    port = free_port()
    screen = terminal(80)
    screen.enter(f"bpipe connect localhost:{port} < /dev/null")
    screen.wait_last(r"connecting( to \S+)?  (attempt \d+ now  )?connection refused  .*")
    screen.wait_line(rf"bpipe: localhost:{port}: connection refused; trying for 2\ds more")
    screen.press("\x03")
    screen.wait_last(r"\$")
    assert not any(re.match("connecting", line) for line in screen.lines), screen.lines


@pytest.mark.parametrize("stdin", ["", " < /dev/null"])
def test_an_outage_is_shown_among_the_data(terminal: Open, start: Start, stdin: str) -> None:
    """Also to those who type: while the network is away, nothing that they type is answered."""
    far = start.bpipe("listen", "127.0.0.1:0", "--heartbeat", "0.2", stdin=PIPE, stdout=PIPE)
    proxy = start.proxy(far.address)
    screen = terminal(100)
    screen.enter(f"bpipe connect {proxy.address} --heartbeat 0.2{stdin}")
    screen.wait_line("bpipe: connected to .*")
    far.stdin.write(b"one\n")
    screen.wait_last("one")
    proxy.freeze()
    screen.wait_last("reconnecting .*")
    proxy.thaw()
    screen.wait_last("bpipe: connected again to .*")
    far.stdin.write(b"two\n")
    screen.wait_last("two")
    assert not any(re.match("reconnecting|connected", line) for line in screen.lines)
    assert "one" in screen.lines


def test_data_without_a_newline_stays(terminal: Open, start: Start, path: Path) -> None:
    far = start.bpipe("listen", str(path), stdin=PIPE, stdout=PIPE)
    screen = terminal(100)
    screen.enter(f"bpipe connect {path} < /dev/null")
    screen.wait_last(r"(waiting for the peer|connected).*")
    far.stdin.write(b"password: ")
    screen.wait_last("password:")
    far.stdin.close()
    screen.wait_last(r"\$")
    assert "password:" in screen.lines
    assert any(re.match("bpipe: received 10 B", line) for line in screen.lines), screen.lines


def test_the_warning_of_a_producer_can_be_read(
    terminal: Open, start: Start, path: Path, tmp_path: Path
) -> None:
    far = start.bpipe("listen", str(path), "--recv-only", stdout=PIPE)
    consumer = far.drain()
    os.mkfifo(tmp_path / "data")
    screen = terminal(100)
    screen.enter(f"bpipe connect {path} --send-only < {tmp_path / 'data'} & ")
    screen.enter("fg; echo back")
    with (tmp_path / "data").open("wb", buffering=0) as stdin:
        stdin.write(bytes(pattern(0, MIB)))
        screen.wait_last(r"connected.*sent 1\.0 MiB.*")
        with open(screen.name, "wb", buffering=0) as terminal_:
            terminal_.write(b"tar: ./f1: file changed as we read it\n")
        screen.wait_line("tar: ./f1: file changed as we read it")
        screen.wait_last(r"connected.*sent 1\.0 MiB.*")
        assert sum("sent 1.0 MiB" in line for line in screen.lines) == 1, screen.lines
    screen.wait_line("back")
    assert "tar: ./f1: file changed as we read it" in screen.lines
    assert consumer.wait_end() == MIB


def test_an_interrupt_is_not_called_finishing(terminal: Open, start: Start, path: Path) -> None:
    start.bpipe("listen", str(path), "--recv-only", stdout=PIPE)
    screen = terminal(100)
    screen.enter(f"bpipe connect {path} --send-only --size 1G < /dev/zero")
    screen.wait_last(r"connected.*")
    screen.press("\x03")
    screen.wait_last(r"\$")
    assert b"finishing" not in screen.output


@pytest.mark.parametrize(
    ("environment", "ascii_"),
    [({"LC_ALL": "C"}, True), ({"TERM": "linux"}, True), ({"LC_ALL": "C.UTF-8"}, False)],
)
def test_a_terminal_without_the_characters_gets_ascii(
    terminal: Open, start: Start, path: Path, environment: dict[str, str], ascii_: bool
) -> None:
    start.bpipe("listen", str(path), "--recv-only", stdout=PIPE)
    screen = terminal(100, **environment)
    screen.enter(f"bpipe connect {path} --send-only --size 1G < /dev/zero")
    screen.wait_last(r"connected.*[█#].*%.*")
    assert screen.output.isascii() == ascii_


def test_an_outage_counts_from_the_last_byte(start: Start, tmp_path: Path) -> None:
    log = tmp_path / "log"
    listener = start.bpipe("listen", "127.0.0.1:0", "--recv-only", "--heartbeat", "0.5")
    proxy = start.proxy(listener.address)
    options = ["--heartbeat", "0.5", "--log-json", str(log)]
    caller = start.bpipe("connect", proxy.address, *options, stdin=PIPE)
    caller.wait_connected()
    proxy.freeze()
    caller.wait_lost()
    proxy.thaw()
    caller.wait_back()
    caller.stdin.close()
    assert finish(caller, listener) == [0, 0]
    events = [json.loads(line) for line in log.read_text().splitlines()]
    times = {event["event"]: event["time"] for event in events}
    (resumed,) = [event for event in events if event["event"] == "resumed"]
    assert resumed["outage"] >= times["resumed"] - times["lost"] + OWED - 0.1
