"""Which secret is meant, which files may hold one, and that a new key is for its owner only."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from bpipe.cli import keys
from bpipe.cli.app import run
from bpipe.cli.keys import choose_secret, credentials, load_secret, write_key
from bpipe.cli.options import VARIABLE, Trust
from bpipe.errors import SecretError
from bpipe.report.settings import Level, Settings
from bpipe.run.exits import FAILED, USAGE

PASSPHRASE = "seven wild geese over Uppsala"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a variable of the environment, and this process may still leave core dumps."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(keys, "keep_out_of_dumps", lambda: None)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    write_key(tmp_path / "key")
    return tmp_path / "key"


@pytest.fixture
def phrase(tmp_path: Path) -> Path:
    path = tmp_path / "phrase"
    path.touch(0o600)
    path.write_text(PASSPHRASE)
    return path


# --- which one is meant ---


def test_none_is_meant_where_none_is_named() -> None:
    assert choose_secret(Trust(), Settings()) is None
    assert choose_secret(Trust(insecure=True), Settings()) is None


@pytest.mark.parametrize("way", ["option", "terminal"])
def test_a_name_makes_another_secret_of_the_same_file(
    key: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr("bpipe.cli.prompt.ask", lambda question: key.read_bytes())
    trust = Trust(key if way == "option" else None, ask_secret=way == "terminal")
    names = ["disk", "etc", "e\u0301", "\u00e9"]
    chosen = [choose_secret(trust._replace(name=name), Settings()) for name in (None, *names)]
    made = [None if secret is None else secret.key for secret in chosen]
    assert made == [load_secret(key, name).key for name in ("", *names)]
    assert len(set(made)) == len(names)  # the last two are one


def test_a_file_is_named() -> None:
    with pytest.raises(typer.BadParameter, match="takes the file of a secret: name one"):
        choose_secret(Trust(Path()), Settings())


@pytest.mark.parametrize(
    ("settings", "warned"),
    [(Settings(), True), (Settings(Level.QUIET), False), (Settings(log="-"), False)],
)
def test_a_passphrase_is_warned_of_where_that_is_read(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    phrase: Path,
    settings: Settings,
    warned: bool,
) -> None:
    monkeypatch.setattr(keys, "stderr_goes_with", lambda stdout: False)
    assert choose_secret(Trust(phrase), settings) is not None
    assert ("can be guessed" in capsys.readouterr().err) is warned


def test_a_key_is_not_warned_of(capsys: pytest.CaptureFixture[str], key: Path) -> None:
    choose_secret(Trust(key), Settings())
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("trust", "said"),
    [
        (Trust(), ""),
        (Trust(insecure=True), "--insecure"),
        (Trust(ask_secret=True), "--ask-secret"),
        (Trust(Path("/k")), "--secret /k"),
        (Trust(Path("/a b")), "--secret '/a b'"),
        (Trust(Path("/home/me/k")), "--secret ~/k"),
        (Trust(Path("~/k")), "--secret ~/k"),
        (Trust(Path("/dev/fd/63")), "--secret FILE"),
        (Trust(Path("/k"), name="disk"), "--secret /k --name disk"),
        (Trust(Path("/k"), name="my disk's"), "--secret /k --name 'my disk'\"'\"'s'"),
        (Trust(ask_secret=True, name="d\u00e9p\u00f4t"), "--ask-secret --name 'd\u00e9p\u00f4t'"),
        (Trust(Path("/dev/fd/63"), name="~"), "--secret FILE --name '~'"),
        (Trust(Path("/k"), name="a\x1bb\n"), "--secret /k --name TEXT"),
    ],
)
def test_what_the_other_end_has_to_be_given(
    monkeypatch: pytest.MonkeyPatch, trust: Trust, said: str
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert credentials(trust) == said


# --- files ---


def test_a_secret_can_come_from_a_pipe() -> None:
    reader, writer = os.pipe()
    os.write(writer, PASSPHRASE.encode())
    os.close(writer)
    os.fchmod(reader, 0o600)
    assert load_secret(Path(f"/dev/fd/{reader}")).guessable
    os.close(reader)


def test_the_secret_itself_is_not_repeated() -> None:
    with pytest.raises(SecretError, match="and not the secret itself") as caught:
        load_secret(Path("bpipe1:R4aTzQmVx0yWcE3nLkJh5gUdSbF7oIpA9tXrC2vN8wM"))
    assert "R4aTzQ" not in str(caught.value)


def test_a_home_directory_that_no_shell_has_seen(
    key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_secret(Path("~/key")).key == load_secret(key).key


@pytest.mark.parametrize("words", [False, True])
def test_a_new_key_is_for_its_owner_and_overwrites_nothing(tmp_path: Path, words: bool) -> None:
    path = tmp_path / "key"
    before = os.umask(0o777)
    try:
        write_key(path, words=words)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    content = path.read_text()
    assert content.endswith("\n")
    assert content.startswith("bpipe1:") is not words
    load_secret(path)
    with pytest.raises(FileExistsError):
        write_key(path)
    assert path.read_text() == content


def test_a_key_that_cannot_be_written_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(5, "input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="input/output"):
        write_key(tmp_path / "key")
    assert list(tmp_path.iterdir()) == []


def test_there_is_no_core_dump_of_a_process_that_has_a_secret() -> None:
    program = """
import resource
from pathlib import Path
from bpipe.cli.keys import keep_out_of_dumps
keep_out_of_dumps()
assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
filter = Path("/proc/self/coredump_filter")
assert not filter.exists() or int(filter.read_text(), 16) == 0
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=20)


# --- what is refused is one line ---


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command line that fails says, in one line; with a colon, its exit status before it."""
    status = run([*arguments])
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return f"{status}: {said.err.rstrip()}"


@pytest.mark.parametrize("what", ["file", "link", "folder"])
def test_keygen_never_overwrites(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    path = tmp_path / "key"
    if what == "file":
        path.write_text("precious")
    elif what == "link":
        path.symlink_to(tmp_path / "nothing")
    else:
        path.mkdir()
    said = f"{FAILED}: bpipe: {path} exists, and may be in use: name a new file"
    assert refused(capsys, "keygen", str(path)) == said
    assert what != "file" or path.read_text() == "precious"
    assert os.listdir(tmp_path) == ["key"]


def test_keygen_where_no_file_can_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "no" / "key"
    said = f"{FAILED}: bpipe: {path}: no such file or directory"
    assert refused(capsys, "keygen", str(path)) == said


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
def test_a_file_that_is_no_secret_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    file, said = bad_files(tmp_path)[case]
    line = refused(capsys, "connect", "localhost:1", "--secret", file)
    assert re.fullmatch(rf"{USAGE}: bpipe: the secret {re.escape(file)}.*", line)
    assert re.search(said, line)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "key"
    write_key(key)
    os.chown(key, 12345, -1)
    said = f"bpipe: the secret {key} belongs to another user: use a copy of your own"
    line = refused(capsys, "connect", "localhost:1", "--secret", str(key))
    assert line == f"{USAGE}: {said}"


@pytest.mark.parametrize("given", ["--secret=key", "--ask-secret"])
def test_insecure_and_a_secret_contradict_each_other(
    capsys: pytest.CaptureFixture[str], given: str
) -> None:
    option = given.partition("=")[0]
    said = f"--insecure and {option} contradict each other (bpipe listen --help explains)"
    line = refused(capsys, "listen", "0.0.0.0:0", "--insecure", given)
    assert line == f"{USAGE}: bpipe: {said}"
