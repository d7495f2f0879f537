"""What ssh is called with: every form that programs use is read as ssh itself reads it."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from bpipe.cli.ssh import FLAGS, SFTP, VALUED, Call, ForSsh, NotSsh, read

OURS = ("--heartbeat", "--status")  # that take a value
EVERY = ["ssh", "-T", "-oRemoteCommand=none", "-oControlMaster=no"]
LATER = [
    *EVERY,
    "-akx",
    "-oBatchMode=yes",
    "-oControlPath=none",
    "-oClearAllForwardings=yes",
    "-oPermitLocalCommand=no",
]


def call(*words: str) -> Call:
    result = read(words, OURS)
    assert isinstance(result, Call)
    return result


GIT = "git-upload-pack '/srv/a b.git'"
SCP = "-x -oPermitLocalCommand=no -oClearAllForwardings=yes -oRemoteCommand=none -oRequestTTY=no"

FORMS = [
    ("by hand", "far uname -a", "", "far", "uname -a"),
    ("a user", "me@far uname", "", "me@far", "uname"),
    ("borg", "-p 22 me@far borg serve --umask=077", "-p 22", "me@far", "borg serve --umask=077"),
    ("rsync", "-l me far rsync --server -logDtpre.iLsfxCIvu . /d", "-l me", "far", None),
    ("restic", "far -s sftp", "-s", "far", SFTP),
    ("restic with a user", "me@far -p 22 -s sftp", "-p 22 -s", "me@far", SFTP),
    ("scp", f"{SCP} -l me -s -- far sftp", f"{SCP} -l me -s", "far", SFTP),
    ("sshfs", "-x -a -oClearAllForwardings=yes -2 me@far -s sftp", None, "me@far", SFTP),
    ("a URL", "ssh://me@far:2222 uname", "", "ssh://me@far:2222", "uname"),
    ("an end of options", "-- far uname -a", "", "far", "uname -a"),
    ("an option for a command", "-- far -v", "", "far", "-v"),
    ("two dashes for a command", "-- far -- x", "", "far", "-- x"),
    ("two dashes behind the host", "far -- -v x", "", "far", "-v x"),
    ("and one more", "far -- -- x", "", "far", "-- x"),
    ("two dashes in a command", "far x -- y", "", "far", "x -- y"),
    ("bundled", "-4Cv far x", "-4 -C -v", "far", "x"),
    ("bundled with an argument", "-4vp22 far x", "-4 -v -p 22", "far", "x"),
    ("bundled, and its argument", "-4vp 22 far x", "-4 -v -p 22", "far", "x"),
    ("an argument at once", "-p22 -lme far x", "-p 22 -l me", "far", "x"),
    ("an option at once", "-oPort=22 far x", "-oPort=22", "far", "x"),
    ("an argument like an option", "-o -v far x", "-o -v", "far", "x"),
    ("behind the host", "far -p 22 -4 x -6", "-p 22 -4", "far", "x -6"),
    ("on both sides", "-4 far -p 22 x", "-4 -p 22", "far", "x"),
    ("no stdin", "-n far x", "-n", "far", "x"),
    ("no terminal", "-T -x far x", "-T -x", "far", "x"),
    ("a host that is a dash", "- x", "", "-", "x"),
    ("all that is remembered", "-F f -i k -J j far x", "-F f -i k -J j", "far", "x"),
]


def letters(options: str | None) -> list[tuple[str, str | None]]:
    """What was read, for an expectation that is written with a blank before each argument."""
    read_as: list[tuple[str, str | None]] = []
    words = (options or "").split()
    while words:
        letter, value = words[0][1], words.pop(0)[2:] or None
        if letter in VALUED and value is None:
            value = words.pop(0)
        read_as.append((letter, value))
    return read_as


@pytest.mark.parametrize(
    ("typed", "options", "destination", "command"),
    [form[1:] for form in FORMS],
    ids=[form[0] for form in FORMS],
)
def test_a_form(typed: str, options: str | None, destination: str, command: str | None) -> None:
    got = call(*typed.split())
    assert got.destination == destination
    assert got.ours == []
    if options is not None:
        assert got.options == letters(options)
    if command is not None:
        assert got.command == command


def test_the_words_of_the_command_are_joined_by_blanks_and_nothing_is_quoted() -> None:
    assert call("far", "-p", "22", GIT).command == GIT
    assert call("far", "echo", "a  b", "$HOME", "", "'").command == "echo a  b $HOME  '"
    assert call("-o", "SendEnv=GIT_PROTOCOL", "-p", "22", "far", GIT).options == [
        ("o", "SendEnv=GIT_PROTOCOL"),
        ("p", "22"),
    ]


def test_our_own_options_are_long_and_come_before_the_destination() -> None:
    words = ["--heartbeat", "1s", "-p", "22", "--quiet", "--status=never", "far", "x", "--quiet"]
    got = call(*words)
    assert got.ours == ["--heartbeat", "1s", "--quiet", "--status=never"]
    assert (got.options, got.destination) == ([("p", "22")], "far")
    assert got.command == "x --quiet"
    assert call("--heartbeat", "--", "far", "x").ours == ["--heartbeat", "--"]
    with pytest.raises(NotSsh, match=r"^--quiet: bpipe's own options come before the destination"):
        read(["far", "--quiet", "x"])


@pytest.mark.parametrize(
    "words",
    [
        ["-G", "far"],
        ["-G", "-o", "SendEnv=GIT_PROTOCOL", "-p", "22", "far"],
        ["-V"],
        ["-Q", "cipher"],
        ["-Qcipher"],
        ["-vG", "far", "x"],
        ["far", "-G"],
        ["-G", "-t", "-L1:far:1", "far"],
    ],
    ids=" ".join,
)
def test_what_ssh_itself_answers_it_is_asked(words: list[str]) -> None:
    assert read(words) == ForSsh(["ssh", *words])


def test_it_is_asked_without_our_options() -> None:
    assert read(["--quiet", "--status", "never", "-G", "far"], OURS) == ForSsh(["ssh", "-G", "far"])


@pytest.mark.parametrize("letter", "tfNWOMLRDw")
@pytest.mark.parametrize("place", ["before", "behind", "bundled"])
def test_what_cannot_be_done_is_refused_with_what_to_do_instead(letter: str, place: str) -> None:
    option = ["-" + "v" * (place == "bundled") + letter, *["1"] * (letter in VALUED)]
    words = ["far", *option] if place == "behind" else [*option, "far"]
    with pytest.raises(NotSsh, match=f"^-{letter}: .*(ssh|bpipe|mosh)"):
        read([*words, "x"])


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("", "a destination is missing: bpipe ssh HOST COMMAND"),
        ("-p 22", "a destination is missing"),
        ("--", "a destination is missing"),
        ("far", "a command is missing: for a shell use ssh itself, mosh or et"),
        ("far --", "a command is missing"),
        ("-- far", "a command is missing"),
        ("far -4", "a command is missing"),
        ("far -p", "-p needs an argument"),
        ("-p", "-p needs an argument"),
        ("-4o", "-o needs an argument"),
        ("-z far x", "-z: ssh has no such option"),
        ("-4é far x", "-é: ssh has no such option"),
        ("-s far", "-s: sftp is the only subsystem that is known, not ''"),
        ("-s far netconf", "-s: sftp is the only subsystem that is known, not 'netconf'"),
        ("-s far sftp -x", "-s: sftp is the only subsystem that is known, not 'sftp -x'"),
        ("far -h x", "-h: ssh has no such option"),
    ],
)
def test_what_cannot_be_read_is_one_line(typed: str, said: str) -> None:
    with pytest.raises(NotSsh) as raised:
        read(typed.split())
    assert str(raised.value).startswith(said)
    assert "\n" not in str(raised.value)


def test_an_empty_command_is_none_as_for_ssh() -> None:
    with pytest.raises(NotSsh, match="a command is missing"):
        read(["far", ""])
    with pytest.raises(NotSsh, match="a destination is missing"):
        read(["", "x"])


@pytest.mark.parametrize("letter", [each for each in FLAGS if each not in "GVtfNM"])
def test_every_other_flag_is_taken(letter: str) -> None:
    words = ["sftp"] if letter == "s" else ["x"]
    assert call(f"-{letter}", "far", *words).options == [(letter, None)]


@pytest.mark.parametrize("letter", [each for each in VALUED if each not in "QWOLRDw"])
def test_every_other_option_is_taken_with_its_argument(letter: str) -> None:
    assert call(f"-{letter}", "1", "far", "x").options == [(letter, "1")]


# --- what ssh is called with ---


def test_the_first_connection_is_what_was_asked_for() -> None:
    typed = "-n -A -S /s -p22 -oForwardX11=yes -T me@far x"
    options = ["-A", "-S", "/s", "-p", "22", "-o", "ForwardX11=yes"]
    assert call(*typed.split()).first() == [*EVERY, *options, "--", "me@far"]


def test_later_ones_ask_nobody_and_forward_nothing() -> None:
    got = call(*"-A -X -Y -S /s -p22 -v -i key far x".split())
    assert got.later() == [*LATER, "-p", "22", "-v", "-i", "key", "--", "far"]


def test_later_ones_may_use_a_ticket_and_do_not_delegate_it() -> None:
    got = call(*"-K far x".split())
    assert got.first() == [*EVERY, "-K", "--", "far"]
    assert got.later() == [*LATER, "-oGSSAPIAuthentication=yes", "--", "far"]


def test_stdin_is_for_the_command_without_n() -> None:
    assert call("far", "x").reads_stdin
    assert not call("-4n", "far", "x").reads_stdin


@pytest.mark.parametrize(
    ("destination", "host"),
    [("far", "far"), ("me@far", "me@far"), ("ssh://me@far:22/", "me@far:22")],
)
def test_the_host_is_told_as_it_was_typed(destination: str, host: str) -> None:
    assert call(destination, "x").host == host


@pytest.mark.skipif(shutil.which("ssh") is None, reason="needs ssh")
@pytest.mark.parametrize("later", [False, True])
def test_ssh_itself_takes_these_words_so(later: bool) -> None:
    typed = "-oRequestTTY=force -oRemoteCommand=x -oForwardAgent=yes -AK -S/s -l me -p 2222 far x"
    got = call(*typed.split())
    words = got.later() if later else got.first()
    asked = ["ssh", "-G", "-F", "/dev/null", *words[1:], "true"]
    told = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True).stdout
    settings = dict(line.split(" ", 1) for line in told.splitlines() if " " in line)
    assert settings["user"] == "me"
    assert settings["port"] == "2222"
    assert settings["requesttty"] == "false"
    assert settings["controlmaster"] == "false"
    assert settings.get("remotecommand", "none") == "none"
    assert settings["batchmode"] == ("yes" if later else "no")
    assert settings["forwardagent"] == ("no" if later else "yes")
    assert settings.get("controlpath", "none") == ("none" if later else "/s")


def test_the_sftp_server_is_found_by_whatever_shell_there_is() -> None:
    for name in ("sh", "bash", "zsh", "fish", "tcsh"):
        if (shell := shutil.which(name)) is not None:
            done = subprocess.run(
                [shell, "-c", SFTP], stdin=subprocess.DEVNULL, capture_output=True, timeout=30
            )
            assert done.returncode in (0, 127), (name, done.stderr)
            assert done.returncode == 0 or done.stderr == b"bpipe: no sftp-server was found\n"
