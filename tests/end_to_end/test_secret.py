"""A secret, through the doors of a user: files, passphrases, a terminal, and every refusal."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import stat
import termios
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest

from bpipe.cli.keys import load_secret, write_key
from bpipe.demo.faults import Cut, Fault
from bpipe.protocol.sealed import SealedHandshake
from tests.end_to_end.data import MIB, until
from tests.end_to_end.helpers import Bpipe, Start, finish

pytestmark = pytest.mark.slow

PASSPHRASE = "correct horse battery staple"
UP = SealedHandshake.hello_size + SealedHandshake.frame_size  # bytes of a greeting
DOWN = SealedHandshake.verdict_size + SealedHandshake.frame_size
QUICK = ("--heartbeat", "100ms")
EAGER = (*QUICK, "--retry-max", "10ms")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """The file of a fresh key."""
    path = tmp_path / "key"
    write_key(path)
    return path


def exchange(listener: Bpipe, caller: Bpipe, total: int = MIB) -> None:
    """Bytes go both ways, all of them arrive, and both ends say so."""
    caller.feed(total)
    listener.feed(total, offset=5)
    there, back = listener.drain(), caller.drain(offset=5)
    assert [there.wait_end(), back.wait_end()] == [total, total]
    assert finish(caller, listener) == [0, 0]


# --- keygen ---


@pytest.mark.parametrize("umask", ["000", "022", "777"])
def test_keygen_writes_a_key_that_only_its_owner_can_read(
    start: Start, tmp_path: Path, umask: str
) -> None:
    path = tmp_path / "key"
    keygen = start.bpipe("keygen", str(path), shell=f'umask {umask}; exec "$@"', stdout=PIPE)
    assert keygen.read_all() == b""
    assert keygen.wait() == 0
    assert keygen.lines == []
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert re.fullmatch(r"bpipe1:[A-Za-z0-9_-]{43}\n", path.read_text())
    load_secret(path)


def test_keygen_makes_words_that_both_ends_can_type(
    start: Start, terminal: Terminal, tmp_path: Path
) -> None:
    path = tmp_path / "words"
    keygen = start.bpipe("keygen", "--words", str(path))
    assert keygen.wait() == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert re.fullmatch(r"[0-9a-z]{4}(-[0-9a-z]{4}){4}\n", path.read_text())
    listener = start.bpipe("listen", ":0", "--secret", str(path), stdin=PIPE, stdout=PIPE)
    port = listener.address.rpartition(":")[2]
    caller = terminal.run(start, "connect", port, "--ask-secret")
    terminal.wait_asked()
    terminal.type(path.read_text().upper().replace("-", " "))
    exchange(listener, caller)
    assert "guessed" not in listener.text + caller.text


@pytest.mark.parametrize("what", ["file", "link", "folder"])
def test_keygen_never_overwrites(start: Start, tmp_path: Path, what: str) -> None:
    path = tmp_path / "key"
    if what == "file":
        path.write_text("precious")
    elif what == "link":
        path.symlink_to(tmp_path / "nothing")
    else:
        path.mkdir()
    keygen = start.bpipe("keygen", str(path))
    assert keygen.wait() == 1
    assert keygen.lines == [f"bpipe: {path} exists, and may be in use: name a new file"]
    assert what != "file" or path.read_text() == "precious"
    assert os.listdir(tmp_path) == ["key"]


def test_keygen_where_no_file_can_be(start: Start, tmp_path: Path) -> None:
    keygen = start.bpipe("keygen", str(tmp_path / "no" / "key"))
    assert keygen.wait() == 1
    assert keygen.lines == [f"bpipe: {tmp_path}/no/key: no such file or directory"]


# --- where the secret comes from ---


def sources(key: Path, tmp_path: Path) -> dict[str, tuple[list[str], str]]:
    """Options, and what a shell does, for each way to give the same key."""
    (tmp_path / "link").symlink_to(key)
    quoted = shlex.quote(str(key))
    plain = 'exec "$@"'
    return {
        "file": (["--secret", str(key)], plain),
        "environment": ([], f'export BPIPE_SECRET_FILE={quoted}; exec "$@"'),
        "link": (["--secret", str(tmp_path / "link")], plain),
        "substitution": ([], f"""exec bash -c 'exec "$@" --secret <(cat {quoted})' bash "$@" """),
        "descriptor": (["--secret", "/dev/fd/3"], f'exec "$@" 3<{quoted}'),
        "option first": (["--secret", str(key)], 'export BPIPE_SECRET_FILE=/no; exec "$@"'),
    }


@pytest.mark.parametrize(
    "way", ["environment", "link", "substitution", "descriptor", "option first"]
)
def test_the_ways_to_give_a_secret(start: Start, key: Path, tmp_path: Path, way: str) -> None:
    ways = sources(key, tmp_path)
    options, shell = ways["file"]
    listener = start.bpipe("listen", "127.0.0.1:0", *options, shell=shell, stdin=PIPE, stdout=PIPE)
    options, shell = ways[way]
    address = listener.address
    caller = start.bpipe("connect", address, *options, shell=shell, stdin=PIPE, stdout=PIPE)
    exchange(listener, caller)


@pytest.mark.parametrize(
    "end", ["\n", *(pytest.param(end, marks=pytest.mark.slow) for end in ("", "\r\n"))]
)
def test_a_passphrase_with_and_without_a_final_newline(
    start: Start, tmp_path: Path, path: Path, end: str
) -> None:
    files = [tmp_path / "one", tmp_path / "two"]
    for file, text in zip(files, (PASSPHRASE, PASSPHRASE + end), strict=True):
        file.touch(0o600)
        file.write_bytes(text.encode())
    one, two = (("--secret", str(file)) for file in files)
    listener = start.bpipe("listen", str(path), *one, stdin=PIPE, stdout=PIPE)
    listener.wait_line("listening")
    caller = start.bpipe("connect", str(path), *two, stdin=PIPE, stdout=PIPE)
    exchange(listener, caller)


def test_the_variable_may_begin_with_a_home_directory_that_no_shell_has_seen(
    start: Start, key: Path
) -> None:
    variable = f"HOME={shlex.quote(str(key.parent))} BPIPE_SECRET_FILE='~/key'"
    listener = start.bpipe("listen", "127.0.0.1:0", shell=f'{variable} exec "$@"', stdin=PIPE)
    caller = start.bpipe("connect", listener.address, "--secret", str(key))
    caller.wait_connected()
    option = f"HOME={shlex.quote(str(key.parent))}"
    other = start.bpipe("connect", listener.address, "--secret=~/key", shell=f'{option} exec "$@"')
    assert other.wait() == 3
    assert "busy" in other.text


GUESSED = (
    "bpipe: a passphrase can be guessed by others who try many; bpipe keygen --words makes one that"
    " cannot"
)


@pytest.mark.parametrize(
    ("asked", "options"),
    [(False, []), (True, []), (False, ["-v"]), (False, ["-q"]), (False, ["--log-json", "-"])],
)
def test_one_line_says_what_a_passphrase_is_worth(
    start: Start, terminal: Terminal, tmp_path: Path, path: Path, asked: bool, options: list[str]
) -> None:
    phrase = tmp_path / "phrase"
    phrase.touch(0o600)
    phrase.write_text(PASSPHRASE)
    given = ["--ask-secret"] if asked else ["--secret", str(phrase)]
    listener = terminal.run(start, "listen", str(path), *given, *options)
    if asked:
        terminal.wait_asked()
        terminal.type(PASSPHRASE + "\n")
    until(path.exists, "a listener, which has said that before")
    listener.signal(signal.SIGKILL)
    listener.wait()
    assert (GUESSED in listener.lines) is (options in ([], ["-v"]))
    assert listener.text.count("guessed") == (GUESSED in listener.lines)


def test_what_a_passphrase_is_worth_is_not_said_amid_the_data(
    start: Start, tmp_path: Path, path: Path
) -> None:
    phrase = tmp_path / "phrase"
    phrase.touch(0o600)
    phrase.write_text(PASSPHRASE)
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
    start: Start, terminal: Terminal, key: Path, way: str
) -> None:
    given = {"file": ["--secret", str(key)], "asked": ["--ask-secret"], "none": []}[way]
    before = "ulimit -c unlimited 2> /dev/null || ulimit -c 100"
    listener = terminal.run(start, "listen", "127.0.0.1:0", *given, before=before)
    if way == "asked":
        terminal.wait_asked()  # it could be typed from here on
    else:
        listener.wait_line("listening")
    limits = Path(f"/proc/{listener.pid}/limits").read_text()
    spared = int(Path(f"/proc/{listener.pid}/coredump_filter").read_text(), 16) == 0
    assert bool(re.search(r"Max core file size +0 +0 ", limits)) is (way != "none")
    assert spared is (way != "none")


# --- a terminal ---


class Terminal:
    """A real terminal, at whose other side a test sits."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        self.name = os.ttyname(self.slave)
        self.shown = ""

    def run(self, start: Start, *arguments: str, before: str = ":") -> Bpipe:
        """A bpipe whose terminal this is, and whose stdin and stdout are pipes."""
        take = f"""{before}; exec setsid sh -c ': <{self.name}; exec "$@"' sh "$@" """
        return start.bpipe(*arguments, shell=take, stdin=PIPE, stdout=PIPE)

    def wait_asked(self) -> None:
        """Wait until it asks, and does not show what is typed."""
        while "Secret: " not in self.shown:
            self.shown += os.read(self.master, 1000).decode()
        assert not self.echoes

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self.master, text.encode())

    @property
    def echoes(self) -> bool:
        """Whether what is typed is shown."""
        return bool(termios.tcgetattr(self.slave)[3] & termios.ECHO)

    def close(self) -> None:
        """Hang up."""
        os.set_blocking(self.master, False)
        os.close(self.slave)
        os.close(self.master)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """A terminal, hung up in the end."""
    terminal = Terminal()
    yield terminal
    terminal.close()


def test_a_secret_is_asked_for_on_the_terminal_beside_the_data(
    start: Start, terminal: Terminal, tmp_path: Path
) -> None:
    file = tmp_path / "phrase"
    file.touch(0o600)
    file.write_text(PASSPHRASE)
    listener = start.bpipe("listen", ":0", "--secret", str(file), stdin=PIPE, stdout=PIPE)
    port = listener.address.rpartition(":")[2]
    caller = terminal.run(start, "connect", port, "--ask-secret")
    terminal.wait_asked()
    terminal.type(PASSPHRASE + "\n")
    exchange(listener, caller)
    assert terminal.echoes
    os.set_blocking(terminal.master, False)
    assert PASSPHRASE not in terminal.shown + os.read(terminal.master, 1000).decode()


def test_an_interrupt_at_the_question_leaves_the_terminal_as_it_was(
    start: Start, terminal: Terminal
) -> None:
    caller = terminal.run(start, "connect", "1", "--ask-secret")
    terminal.wait_asked()
    terminal.type("half a sec\x03")
    assert caller.wait() == -signal.SIGINT
    assert caller.lines == []
    assert terminal.echoes


@pytest.mark.parametrize(
    "number",
    [
        *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT),
        *(signal.SIGALRM, signal.SIGABRT, signal.SIGRTMIN),
    ],
)
def test_any_signal_at_the_question_leaves_the_terminal_as_it_was(
    start: Start, terminal: Terminal, number: signal.Signals
) -> None:
    caller = terminal.run(start, "connect", "1", "--ask-secret")
    terminal.wait_asked()
    caller.signal(number)
    assert caller.wait() == -number
    assert caller.lines == []
    assert terminal.echoes


def test_a_signal_that_is_ignored_does_not_end_the_question(
    start: Start, terminal: Terminal
) -> None:
    caller = terminal.run(start, "connect", "1", "--ask-secret", before="trap '' HUP")
    terminal.wait_asked()
    caller.signal(signal.SIGHUP)
    terminal.type("short\n")
    assert caller.wait() == 2
    assert terminal.echoes


@pytest.mark.parametrize(
    ("typed", "said"),
    [("\x04", "no secret was typed"), ("short\n", "the secret that was typed is too short: a .*")],
)
def test_an_answer_that_is_no_secret(
    start: Start, terminal: Terminal, typed: str, said: str
) -> None:
    caller = terminal.run(start, "connect", "1", "--ask-secret")
    terminal.wait_asked()
    terminal.type(typed)
    assert caller.wait() == 2
    assert re.fullmatch(f"bpipe: {said}", caller.text)
    assert terminal.echoes


def test_without_a_terminal_there_is_nobody_to_ask(start: Start) -> None:
    caller = start.bpipe("connect", "1", "--ask-secret", shell='exec setsid "$@"')
    assert caller.wait() == 2
    assert caller.lines == ["bpipe: no terminal to ask for the secret on: use --secret FILE"]


# --- a network that breaks and one that lies ---


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_cuts_anywhere(start: Start, key: Path, path: Path, kind: str) -> None:
    faults = Fault.RESET, Fault.EOF
    cuts = [Cut(faults[offset % 2], True, offset) for offset in range(0, UP + 100, 7)]
    cuts += [Cut(faults[offset % 2], False, offset) for offset in range(0, DOWN + 100, 7)]
    cuts += [Cut(fault, up, 3 * MIB + 1) for fault in faults for up in (True, False)]
    unix = kind == "unix"
    secret = "--secret", str(key)
    where = str(path) if unix else "127.0.0.1:0"
    listener = start.bpipe("listen", where, *secret, *QUICK, stdin=PIPE, stdout=PIPE)
    proxy = start.proxy(listener.address, cuts, path.with_name("proxy") if unix else None)
    caller = start.bpipe("connect", proxy.address, *secret, *EAGER, stdin=PIPE, stdout=PIPE)
    producers = caller.feed(None), listener.feed(None, offset=5)
    consumers = listener.drain(), caller.drain(offset=5)
    until(lambda: len(proxy.faults.made) == len(cuts), "the last cut", 60)
    for producer, consumer in zip(producers, consumers, strict=True):
        producer.finish()
        assert consumer.wait_end() == producer.written
    assert finish(caller, listener) == [0, 0]


@pytest.mark.slow
def test_a_flipped_bit_ends_the_link_and_not_the_session(start: Start, key: Path) -> None:
    places = [
        *((True, offset) for offset in range(0, UP + 40, 5)),
        *((False, offset) for offset in range(0, DOWN + 40, 5)),
        *((upward, MIB + offset) for upward in (True, False) for offset in range(3)),
    ]
    flipped = []

    def tamper(connection: int, upward: bool, offset: int, data: bytes) -> bytes:
        where = places[connection - 1] if connection <= len(places) else None
        if where is None or where[0] != upward or not offset <= where[1] < offset + len(data):
            return data
        flipped.append(where)
        changed = bytearray(data)
        changed[where[1] - offset] ^= 1 << connection % 8
        return bytes(changed)

    secret = "--secret", str(key)
    listener = start.bpipe("listen", "127.0.0.1:0", *secret, *QUICK, stdin=PIPE, stdout=PIPE)
    proxy = start.proxy(listener.address, tamper=tamper)
    caller = start.bpipe("connect", proxy.address, *secret, *EAGER, stdin=PIPE, stdout=PIPE)
    producers = caller.feed(None), listener.feed(None, offset=5)
    consumers = listener.drain(), caller.drain(offset=5)
    until(lambda: proxy.faults.connections > len(places), "the link after the last flip", 60)
    for producer, consumer in zip(producers, consumers, strict=True):
        producer.finish()
        assert consumer.wait_end() == producer.written
    assert finish(caller, listener) == [0, 0]
    assert len(flipped) > len(places) * 9 // 10
    assert "protocol error" not in listener.text + caller.text


# --- where it listens ---


def reaches(port: str, host: str) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex((host, int(port))) == 0


@pytest.mark.parametrize(
    ("address", "sealed", "everywhere"),
    [(":0", True, True), ("*:0", True, True), ("0", True, True), (":0", False, False)],
)
def test_no_host_is_every_address_with_a_secret_and_loopback_without(
    start: Start, key: Path, address: str, sealed: bool, everywhere: bool
) -> None:
    listener = start.bpipe("listen", address, *(("--secret", str(key)) if sealed else ()))
    host, _, port = listener.address.rpartition(":")
    assert reaches(port, "127.0.0.1")
    assert reaches(port, "127.0.0.2") is everywhere
    assert host == "*" if everywhere else host in ("localhost", "127.0.0.1")
    assert ("this machine" in listener.address_line) is not everywhere
    if everywhere:
        listener.wait_line("on the other machine: ")


@pytest.mark.parametrize("address", ["0.0.0.0:0", "*:0"])
def test_a_listener_that_is_open_to_a_network_says_so(start: Start, address: str) -> None:
    listener = start.bpipe("listen", address, "--insecure")
    line = listener.wait_line("without a secret")
    assert line == (
        f"bpipe: without a secret: whoever reaches {listener.address} gets in; --secret FILE helps"
    )


# --- what is refused ---


def bad_files(folder: Path) -> dict[str, tuple[str, str]]:
    """Files that are no secret, and what is said about each."""

    def make(name: str, content: bytes, mode: int = 0o600) -> str:
        path = folder / name
        path.write_bytes(content)
        path.chmod(mode)
        return str(path)

    write_key(folder / "good")
    good = (folder / "good").read_bytes()
    return {
        "missing": (str(folder / "no"), "no such file; bpipe keygen makes one"),
        "group": (make("in group", good, 0o440), r"mode 0440.*, --secret <\(cat '.*/in group'\)"),
        "folder": (str(folder), "is a directory"),
        "open": (make("open", good, 0o640), r"mode 0640.*chmod 600 it, or, if you cannot"),
        "empty": (make("empty", b""), "empty.*keygen"),
        "newline": (make("newline", b"\n"), "empty.*keygen"),
        "short": (make("short", b"hunter2"), "too short.*12 characters.*keygen"),
        "damaged": (make("damaged", good[:-5] + b"\n"), "damaged.*whole line"),
        "two lines": (make("lines", good + good), "damaged.*whole line"),
        "binary": (make("binary", bytes(range(256))), "not text.*keygen"),
        "long": (make("long", b"x" * 5000), "4096 bytes.*keygen"),
    }


@pytest.mark.parametrize(
    "case",
    [*"missing folder group open empty newline short damaged binary long".split(), "two lines"],
)
def test_a_file_that_is_no_secret_is_one_line(start: Start, tmp_path: Path, case: str) -> None:
    file, said = bad_files(tmp_path)[case]
    caller = start.bpipe("connect", "localhost:1", "--secret", file)
    assert caller.wait() == 2
    assert re.fullmatch(rf"bpipe: the secret {re.escape(file)}.*", caller.text)
    assert re.search(said, caller.text)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_one_line(start: Start, key: Path) -> None:
    os.chown(key, 12345, -1)
    caller = start.bpipe("connect", "localhost:1", "--secret", str(key))
    assert caller.wait() == 2
    assert caller.lines == [
        f"bpipe: the secret {key} belongs to another user: use a copy of your own"
    ]


@pytest.mark.parametrize("given", ["--secret", "--ask-secret"])
def test_insecure_and_a_secret_contradict_each_other(start: Start, key: Path, given: str) -> None:
    options = {"--secret": ["--secret", str(key)], "--ask-secret": ["--ask-secret"]}
    listener = start.bpipe("listen", "0.0.0.0:0", "--insecure", *options[given])
    assert listener.wait() == 2
    assert listener.lines == [
        f"bpipe: --insecure and {given} contradict each other (bpipe listen --help explains)"
    ]


def test_insecure_wins_over_the_environment(start: Start, key: Path) -> None:
    for file in (str(key), "/no/such/file"):
        variable = f'export BPIPE_SECRET_FILE={shlex.quote(file)}; exec "$@"'
        listener = start.bpipe("listen", "127.0.0.1:0", "--insecure", shell=variable)
        caller = start.bpipe("connect", listener.address)
        assert finish(caller, listener) == [0, 0]


@pytest.mark.parametrize(
    ("listens", "calls", "hint"),
    [
        ("key", "other", "is it bpipe, with the same secret?"),
        ("key", None, "is it bpipe, and without a secret?"),
        (None, "key", "is it bpipe, with the same secret?"),
        ("key", "phrase", "is it bpipe, with the same secret?"),
    ],
)
def test_another_secret_is_never_connected(
    start: Start, key: Path, tmp_path: Path, listens: str | None, calls: str | None, hint: str
) -> None:
    write_key(tmp_path / "other")
    (tmp_path / "phrase").touch(0o600)
    (tmp_path / "phrase").write_text(PASSPHRASE)

    def options(name: str | None) -> list[str]:
        return ["--secret", str(tmp_path / name)] if name else []

    listener = start.bpipe("listen", "127.0.0.1:0", *options(listens))
    address = listener.address
    caller = start.bpipe("connect", address, *options(calls), "--connect-timeout", "300ms")
    assert caller.wait() == 3
    assert hint in caller.lines[-1]
    assert (GUESSED in caller.lines) is (calls == "phrase")
    listener.wait_line("^bpipe: 1 caller refused: ")
    assert len(listener.lines) == 2
    assert listener.running


def test_a_second_caller_with_the_secret_is_told_that_the_listener_is_busy(
    start: Start, key: Path
) -> None:
    secret = "--secret", str(key)
    listener = start.bpipe("listen", "127.0.0.1:0", *secret, stdin=PIPE, stdout=PIPE)
    first = start.bpipe("connect", listener.address, *secret, stdin=PIPE, stdout=PIPE)
    first.wait_connected()
    second = start.bpipe("connect", listener.address, *secret)
    assert second.wait() == 3
    assert len(second.lines) == 1
    assert "busy: the listener is serving another session" in second.text
    exchange(listener, first)


def test_a_listener_that_was_started_anew_does_not_know_the_session(
    start: Start, key: Path, path: Path
) -> None:
    secret = "--secret", str(key)
    listener = start.bpipe("listen", str(path), *secret, stdout=PIPE)
    listener.wait_line("listening")
    caller = start.bpipe("connect", str(path), *secret, stdin=PIPE)
    caller.wait_connected()
    caller.stdin.write(b"12345")
    assert listener.stdout.read(5) == b"12345"
    listener.signal(signal.SIGKILL)
    listener.wait()
    again = start.bpipe("listen", str(path), *secret)
    again.wait_line("listening")
    assert caller.wait() == 4
    assert re.search("no longer knows this session; . bytes are confirmed, . more", caller.text)
    assert again.running
