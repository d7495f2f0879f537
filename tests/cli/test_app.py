"""The command line: what is understood, and what is not is one line and exit status 2."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import bpipe
from bpipe.cli.app import run
from bpipe.run.exits import FAILED, USAGE
from tests.support.strangers import abstract_name, needs_abstract

WRONG = [
    ("bad address", "connect localhost:nosuch", "a port is a number from 0 to 65535"),
    ("a URL", "connect tcp://far:7000", "an address is HOST:PORT, .* not a URL"),
    ("a page", "connect http://far.example/x", "an address is HOST:PORT, .* not a URL"),
    ("of another tool", "connect tcp:far:80", "an address is HOST:PORT, .* and not tcp:far:80"),
    ("no abstract name", "listen unix:@", "unix:@ needs a name"),
    ("abstract, or a file", "connect @a/b", "an abstract Unix socket is unix:@a/b, and a file ./"),
    ("with a user", "connect me@far:7000", "an address is HOST:PORT, .* and not me@far:7000"),
    ("a port to call", "connect localhost:0", "localhost:0 is for a listener"),
    ("everything to call", "connect *:7000", "[*]:7000 is for a listener"),
    ("a folder", "connect /", "/ exists and is not a socket"),
    ("a file", f"connect {sys.executable}", "exists and is not a socket"),
    ("both families", "connect localhost -4 -6", "--ipv4 and --ipv6 contradict each other"),
    ("the other family", "listen 127.0.0.1:0 -6", "127.0.0.1 is no IPv6 address"),
    ("no family", "listen ./s --ipv6", "a Unix socket has no IPv6 address"),
    ("no pause", "connect localhost --retry-max 0", "a pause of 0 is too short: at least 10ms"),
    ("a key on stdout", "keygen -", "a key is written to a new file"),
    ("a key nowhere", "keygen ", "a key is written to a new file"),
    ("no file", "connect far -s ", "--secret takes the file of a secret: name one"),
    ("an empty name", "listen --ask-secret --name ", "the name is empty: choose one, or leave"),
    ("a long name", "listen --name " + "x" * 256, "'--name': the name is longer than 255 bytes"),
    ("not UTF-8 in a name", "connect far --name \udcff", "'--name': the name is not text"),
    ("a name for nothing", "listen --name a", "--name is only with a secret: --secret FILE, --ask"),
    ("a name for everybody", "listen --insecure --name a", "--insecure and --name contradict"),
    ("not UTF-8", "connect --b\udcffx", r"no such option:? '?--b\?x'?.* \(bpipe connect --help"),
    ("not UTF-8 in a value", "connect far --buffer \udcff", r"'\?' is not a size"),
    ("not UTF-8 in a host", "connect far\udcff:1", r"and not far\?:1"),
    ("control characters", "connect a:\x1b]0;x\x07", r"a service's name: a:\?]0;x\?"),
    ("bad port", "connect localhost:65536", "a port is a number from 0 to 65535"),
    ("bad second port", "connect localhost x", "or a service's name: localhost x"),
    ("no port", "connect localhost:", "a port is missing after the colon"),
    ("two ports", "connect localhost:1 2", "two ports were given"),
    ("IPv6 without brackets", "connect ::1", r"\[::1\]:27473"),
    ("IPv6 without brackets, with a port", "connect fe80::1:7000", r"\[fe80::1\]:7000"),
    ("IPv6 without brackets, listening", "listen ::", r"\[::\]:27473"),
    ("bad brackets", "connect [::1", r"\[ADDRESS\]:PORT"),
    ("no IPv6 in brackets", "connect [localhost]:1", "not an IPv6 address"),
    ("no path", "connect unix:", "unix: needs a path"),
    ("long path", "connect /" + "x" * 107, "at most 107 bytes"),
    ("path and port", "listen /tmp/s 1", "a Unix socket has no port"),
    ("no address", "connect", "name an ADDRESS, or a command with --via"),
    ("two places", "connect far --via cat", "--via takes the place of the address: no far"),
    ("a family of none", "connect -4 --via cat", "--via has no address: no --ipv4"),
    ("no command to call by", "connect --via /nowhere/x", "/nowhere/x: there is no such program"),
    ("nothing to call by", "connect --via=", "this one is empty"),
    ("half a command", "connect --via='cat", "no closing quotation"),
    ("a listener by a command", "listen --via cat", "no such option:? '?--via"),
    ("too many", "connect localhost 1 2", "unexpected extra argument"),
    ("bad size", "connect localhost --buffer lots", "'lots' is not a size"),
    ("negative size", "connect localhost --buffer=-1", "'-1' is not a size"),
    ("no size", "connect localhost --buffer=", "'' is not a size"),
    ("a buffer for nothing", "listen --buffer 0", "a buffer of 0 is not possible"),
    ("a buffer for everything", "listen --buffer 2T", "a buffer of 2T is not possible"),
    ("a rate for nothing", "listen --rate 1023", "a rate of 1023 is too low: at least 1K"),
    ("a rate of nowhere", "listen --rate @/nowhere", "--rate: /nowhere: no such file or directory"),
    ("a rate of no file", "listen --rate @", "a file is to be named behind the @"),
    ("a rate of everything", "listen --rate 2T", "a rate of 2T is too high: at most 1T"),
    ("bad time", "connect localhost --connect-timeout soon", "'soon' is not a time"),
    ("bad outage", "listen --give-up-after 1y", "'1y' is not a time"),
    ("bad pause", "connect localhost --retry-max 1M", "'1M' is not a time"),
    ("no links", "connect localhost --links 0", "'0' is not a number of connections, from 1 to 8"),
    ("wrong links", "listen --max-links +1", "'\\+1' is not a number of connections"),
    ("few links", "connect localhost --links 1 --bind lo --bind ::1", "--bind: 2 of them need as"),
    ("binds", "connect localhost" + 9 * " --bind lo", "--bind: there can be 1 to 8 links, not 9"),
    ("no origin", "connect localhost --bind nowhere", "neither an address nor an interface"),
    ("far origin", "connect localhost --bind 192.0.2.77", "not an address of this machine"),
    ("bound carrier", "connect --via cat --bind lo", "--via connects in its own way: no --bind"),
    ("bound socket", "connect unix:s --bind lo", "--bind is about TCP, and not unix:s"),
    ("congestion", "listen --congestion none", "'none' is not known here: choose one of .*reno"),
    ("short heartbeat", "listen --heartbeat 49ms", "a heartbeat of 49ms is too short"),
    ("short interval", "listen --log-interval 99ms", "an interval of 99ms is too short"),
    ("bad expectation", "listen --size much", "'much' is not a size"),
    ("no such time to draw", "listen --status often", "--status': 'often' is not one of"),
    ("nothing to do", "connect localhost --send-only --recv-only", "leave nothing to do"),
    ("nothing to do, listening", "listen -RS", "leave nothing to do"),
    ("no program", "listen --", "-- is followed by a program"),
    ("no name of one", "connect localhost --  x", "-- is followed by a program"),
    ("no such program", "listen -- /nowhere/x", "/nowhere/x: there is no such program"),
    ("no program that runs", "listen -- /etc/passwd", "/etc/passwd: this is no program that may"),
    ("half a program", "listen --send-only -- cat", "a program takes both streams"),
    ("half a service", "listen --recv-only --to :22", "a connection takes both streams"),
    ("half of many", "connect far --recv-only --from :2", "a connection takes both streams"),
    ("a program and a service", "listen --to :22 -- cat", "-- and --to contradict each other"),
    ("a program and a door", "connect far --from :2 -- cat", "-- and --from contradict each other"),
    ("a file without a name", "listen --output=", "--output takes the name of a file"),
    ("a file that is stdout", "connect far -o -", "--output takes the name of a file"),
    ("a file of what is sent", "listen --send-only --output a", "for what comes: no --send-only"),
    ("a program and a file", "listen --output a -- cat", "-- and --output contradict each other"),
    ("a service and a file", "listen --output a --to :22", "--to and --output contradict each"),
    ("a door and a file", "connect far --from :2 --output a", "--from and --output contradict"),
    ("a file for many", "listen -k --output a --max-sessions 2", "one session at a time: no --max"),
    ("a file in small pieces", "listen --output a --buffer 1023", "a --buffer of at least 1K"),
    ("a file that is the log", "listen --output a --log-json ./a", "needs another file than"),
    ("a part that is the log", "connect far --output a --log-json a.part", "another file than"),
    (
        "all of nothing",
        "connect far --recv-only --whole",
        "about what is sent, or a file .* neither",
    ),
    ("all of many", "connect far --from :2 --whole", "--whole is about one stream: no --from"),
    ("many of nothing", "listen -k", "-k serves each caller with a program"),
    ("one, not so many", "listen --max-sessions 3 -- cat", r"are about many \(-k, --from\)"),
    ("one, not drained", "connect far --drain 0", r"are about many \(-k, --from\)"),
    ("no sessions", "listen -k --max-sessions 0 -- cat", "'0' is not a number of sessions"),
    ("too many", "listen -k --max-sessions 99999 -- cat", "not a number of sessions, from 1 to"),
    ("a door that is a port 0", "listen --to :0", "is for a listener: nobody can connect to it"),
    ("a door to itself", "connect :70 --from localhost:70", "localhost:70 is both ends"),
    ("no door", "connect far --from a:b:c", "an address is HOST:PORT"),
    ("a door for all", "connect :1 --from *:0", "--insecure"),
    ("loud and quiet", "listen -v -q", "contradict each other"),
    ("no such option", "connect localhost --sned-only", "no such option:? '?--sned-only"),
    ("not of a listener", "listen --connect-timeout 1", "no such option:? '?--connect-timeout"),
    ("no value", "connect localhost --buffer", "requires an argument"),
    ("no option", "--no-option", "no such option:? '?--no-option"),
    ("no such command", "conect localhost", "no such command:? 'conect'"),
    ("a guess", "send x", "no such command 'send': bpipe listen waits, bpipe connect calls"),
]


def bpipe_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "bpipe", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
    )


@pytest.mark.parametrize(
    ("command", "said"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG]
)
def test_what_is_not_understood_is_one_line_and_exit_status_2(
    capfd: pytest.CaptureFixture[str], command: str, said: str
) -> None:
    assert run(command.split(" ")) == USAGE
    out, err = capfd.readouterr()
    assert out == ""
    assert re.fullmatch(r"bpipe: \S.*\n", err)
    assert re.search(said, err)


def test_what_follows_two_dashes_is_no_option_where_no_program_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["keygen", "--", "--words"]) == 0
    assert (tmp_path / "--words").exists()


def test_no_command_is_explained_and_nothing_goes_to_stdout(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert run([]) == USAGE
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("Usage: bpipe [OPTIONS] COMMAND")


@pytest.mark.parametrize(
    ("command", "page"),
    [
        ("", "bpipe"),
        ("connect ", "bpipe connect"),
        ("listen ", "bpipe listen"),
        ("demo ", "bpipe demo"),
    ],
)
def test_what_is_wrong_names_the_help_that_has_it(
    capfd: pytest.CaptureFixture[str], command: str, page: str
) -> None:
    run([*command.split(), "--recvonly"])
    assert capfd.readouterr().err.endswith(f" ({page} --help explains)\n")
    run(["listen", "-v", "-q"])
    assert capfd.readouterr().err == (
        "bpipe: --verbose and --quiet contradict each other (bpipe listen --help explains)\n"
    )


KEY = "bpipe1:R4aTzQmVx0yWcE3nLkJh5gUdSbF7oIpA9tXrC2vN8wM"
SPOKEN = "jz2r-6v0k-3mtn-q8c4-w5xh"


@pytest.mark.parametrize(
    "command",
    [
        "connect far --secret {}",
        "listen --secret={}",
        "connect far {}",
        "connect far:{}",
        "connect far --buffer {}",
        "connect far --size={} --x",
        "connect far 1 {}",
        "listen --{}",
        "listen {}:x",
    ],
)
@pytest.mark.parametrize("secret", [KEY, SPOKEN], ids=["key", "words"])
def test_a_secret_on_the_command_line_is_not_repeated(
    capfd: pytest.CaptureFixture[str], command: str, secret: str
) -> None:
    assert run(command.format(secret).split()) == USAGE
    err = capfd.readouterr().err
    assert re.fullmatch(r"bpipe: \S.*\n", err)
    assert secret[7:] not in err
    assert ("takes the file of a secret" in err) is ("--secret" in command)


def test_the_variable_holds_a_secret_and_not_the_name_of_its_file(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BPIPE_SECRET_FILE", KEY)
    assert run(["listen"]) == USAGE
    err = capfd.readouterr().err
    assert "takes the file of a secret" in err
    assert KEY[7:] not in err


PANELS = [
    *("Arguments", "Direction", "Files", "Services, and many sessions", "Secret"),
    *("Connection and outages", "What is shown"),
]
HELP = {
    "connect": PANELS,
    "listen": PANELS,
    "ssh": ["Arguments", "Files", *PANELS[-2:]],
    "run": ["Arguments", "Files", *PANELS[-2:]],
    "keygen": ["Arguments"],
    "demo": ["Arguments"],
}
BEHIND = {
    "connect": " [-- PROGRAM [ARG]...]",
    "listen": " [-- PROGRAM [ARG]...]",
    "run": " -- COMMAND [ARG]...",
}


@pytest.mark.parametrize("command", HELP)
def test_help_has_groups_and_each_argument_and_option_once(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert run([command, "--help"]) == 0
    text = capsys.readouterr().out
    usage = text.splitlines()[0].split()
    heads = re.findall(r"^(\S.*):$", text, re.MULTILINE)
    assert heads[: len(HELP[command])] == HELP[command]
    assert not re.search(r"\[\[|\]\]|\\\[|<str>|\{", text)
    rows = re.findall(r"^  (\[?[A-Z.]+\]?|(?:-\w, )?--[\w-]+(?: [A-Z]+)?)  +\S", text, re.MULTILINE)
    assert len(rows) == len(set(rows))
    assert usage[:4] == ["Usage:", "bpipe", command, "[OPTIONS]"]
    behind = BEHIND.get(command, "")
    assert " ".join(usage).endswith(behind)
    named = [word for word in usage[4:] if word not in ("--", "[--", "[ARG]...", "[ARG]...]")]
    assert named == [row for row in rows if "-" not in row]


@pytest.mark.parametrize("command", [[], ["listen"]])
def test_help_is_a_command_too(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    assert run([*command, "--help"]) == 0
    said = capsys.readouterr()
    assert run(["help", *command]) == 0
    assert capsys.readouterr() == said


@pytest.mark.parametrize("command", ["connect", "listen"])
def test_help_ends_with_examples_and_what_the_exit_status_means(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    run([command, "--help"])
    text = capsys.readouterr().out
    examples, _, rest = text.partition("\nExamples:\n")[2].partition("\n\n")
    assert len(examples.splitlines()) in (4, 5)
    assert all(f"bpipe {command}" in line for line in examples.splitlines())
    assert rest.startswith("Exit status:\n  0 all delivered, 1 failed, 2 usage, 3 never connected,")
    assert rest.endswith("\n\nThe manual: man bpipe\n")
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["connect", "::1"], 2, r"\[::1\]"),
        (["connect", "192.0.2.1:7000"], 2, "--secret FILE on both ends .* --insecure"),
        (["connect", "h:1", "--from", "0.0.0.0:1"], 2, "--from takes an address of this machine, "),
        (["listen", "0.0.0.0:0"], 2, "--secret FILE on both ends .* --insecure"),
        (["listen", "nobody.invalid:0"], 2, "cannot resolve nobody.invalid: "),
        (["listen", "nobody.invalid:0", "-6"], 2, "resolve nobody.invalid to an IPv6 address"),
        (["listen", "/nowhere/at/all"], 1, "no such file or directory"),
        (["listen", sys.executable], 2, "exists and is not a socket"),
        (["connect", "localhost:1", "-q", "--connect-timeout", "0"], 3, "connection refused"),
        (["demo", "/nowhere/at/all"], 2, "no such file or folder"),
    ],
)
def test_what_cannot_be_done_is_one_line(arguments: list[str], status: int, said: str) -> None:
    done = bpipe_process(*arguments)
    assert done.returncode == status
    assert done.stdout == ""
    assert re.fullmatch(r"bpipe: \S.*\n", done.stderr)
    assert re.search(said, done.stderr)


def test_two_sockets_that_are_passed_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "2")
    assert run(["listen"]) == USAGE
    said = "bpipe: LISTEN_FDS is 2: a listener takes one socket, and only one\n"
    assert capsys.readouterr() == ("", said)


def test_a_port_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = bpipe_process("listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        r"bpipe: cannot listen at .*: address already in use; choose another address\n", done.stderr
    )


@pytest.mark.parametrize("more", [[], ["-k", "--to", "localhost:1"]])
def test_a_port_in_use_is_named_as_it_would_be_bound(tmp_path: Path, more: list[str]) -> None:
    key = tmp_path / "key"
    assert run(["keygen", str(key)]) == 0
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        done = bpipe_process("listen", f":{port}", "--secret", str(key), *more)
    said = f"bpipe: cannot listen at *:{port}: address already in use; choose another address\n"
    assert done.stderr == said


@pytest.mark.parametrize("abstract", [False, pytest.param(True, marks=needs_abstract)])
def test_a_unix_socket_in_use_is_one_line(tmp_path: Path, abstract: bool) -> None:
    path = abstract_name() if abstract else str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(f"\0{path[1:]}" if abstract else path)
        taken.listen()
        done = bpipe_process("listen", f"unix:{path}")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        r"bpipe: cannot listen at .*: address already in use; choose another address\n", done.stderr
    )


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["-V"]) == 0
    assert capsys.readouterr() == (f"bpipe {bpipe.__version__}\n", "")


@pytest.mark.parametrize("command", [[], ["connect"], ["listen"], ["demo"]])
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_is_for_stdout(
    capsys: pytest.CaptureFixture[str], command: list[str], option: str
) -> None:
    assert run([*command, option]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Usage: bpipe")
    assert err == ""


def test_the_help_tells_each_default(capsys: pytest.CaptureFixture[str]) -> None:
    run(["connect", "--help"])
    text = capsys.readouterr().out
    for default in ("64M", "2s", "30s", "24h", "1s"):
        assert f"[default: {default}]" in " ".join(text.split())


@pytest.mark.parametrize(("arguments", "status"), [("--version", 1), ("connect a:b:c", 2)])
@pytest.mark.parametrize("stream", [">/dev/full", "2>/dev/full"])
def test_a_full_stream_is_no_traceback(arguments: str, status: int, stream: str) -> None:
    command = f'exec "{sys.executable}" -m bpipe {arguments} {stream}'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=20)
    assert "Traceback" not in done.stderr
    assert done.returncode == (0 if (arguments, stream[0]) == ("--version", "2") else status)


def test_an_error_in_bpipe_is_one_line_and_a_traceback_only_for_those_who_want_it(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bpipe.net.address.parse", lambda *arguments: 1 // 0)
    assert run(["connect", "localhost"]) == FAILED
    said = capfd.readouterr().err
    assert re.fullmatch(r"bpipe: an error in bpipe itself: ZeroDivisionError\(.*\n", said)
    with pytest.raises(ZeroDivisionError):
        run(["connect", "localhost", "-vv"])


def test_what_starts_quickly_does_not_import_what_is_drawn_with() -> None:
    def imported(names: str) -> set[str]:
        program = f"import sys, {names}; print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        return set(done.stdout.split())

    ours = imported("bpipe.cli.app, bpipe.run.join") - imported("typer")  # an old one draws
    assert "bpipe.cli.app" in ours
    assert not {"rich", "cryptography", "json"} & ours
