"""The near side of a carrier: what it makes of whatever answers, and how it comes back."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from bpipe.errors import AddressError, NotConnected, SessionEnded
from bpipe.protocol.patience import Limits
from bpipe.protocol.wire import Ended, Finish
from bpipe.remote import carrier
from bpipe.remote.carrier import Errand, Remote, open_pipe
from tests.support.remote import LIMITS, OLDEST, Carried, errand, far_side, in_loop, until

CAT = errand("cat")
AGENT = "the agent that was forwarded to there ended with the first connection"


def quiet_side() -> list[str]:
    return far_side(OLDEST)


async def failure(first: list[str], limits: Limits = LIMITS) -> SessionEnded:
    """Why there is no session."""
    pipe = await open_pipe(Remote(first, first, CAT, name="there"), limits)
    with pytest.raises(SessionEnded) as found:
        await asyncio.wait_for(pipe.connect(), 30)
    await pipe.wait_closed()
    return found.value


async def carries(carried: Carried, text: bytes = b"some") -> None:
    """It does, there and back."""
    carried.write(text)
    found = b""
    while len(found) < len(text):
        found += await carried.read()
    assert found == text


@pytest.mark.parametrize(
    "noise",
    [
        "for i in $(seq 100); do echo Welcome, for the $i. time; done",
        "printf '>>> '; echo '>>> print() >>>'",
        "head -c 60000 /dev/zero",
        'printf \'\\0bpipe:0123456789abcdef {"error": "none"}\\n\'',
        "echo loud >&2",
    ],
    ids=["welcome", "prompts", "many", "answers", "stderr"],
)
@in_loop
async def test_noise_before_the_prompt_does_no_harm(noise: str) -> None:
    first = far_side(OLDEST, noise=noise)
    async with Carried(Remote(first, quiet_side(), CAT)) as carried:
        await carries(carried)
        carried.end()
        assert await carried.rest() == b""
        outcome = await carried.outcome()
    assert (outcome.failure, outcome.far) == (None, Finish(Ended.EXITED, 0))


@in_loop
async def test_noise_that_comes_late_costs_a_link(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    first = far_side(OLDEST, noise=f"(read go < {tmp_path}/go; echo late) &")
    async with Carried(Remote(first, quiet_side(), CAT)) as carried:
        await carries(carried)
        (tmp_path / "go").write_text("now\n")
        await until(lambda: carried.pipe.status().links == 2)
        await carries(carried)


@pytest.mark.parametrize(
    ("noise", "text", "code"),
    [
        ("yes hello | head -c 70000", "answers there, and says 'hello\\nhello", "noise"),
        ("exit 127", "there is no python3 that can be run (env exited with status 127)", ""),
        ("exit 126", "there is no python3 that can be run (env exited with status 126)", ""),
        ("exit 0", "env exited with status 0 before python3 there has answered", "carrier"),
        ("echo only git; exit 1", "status 1 before python3 there has answered, and said 'only", ""),
        ("echo 'x@y: Permission denied (password).' >&2; exit 255", "denied (password)", "refused"),
        ("echo 'Host key verification failed.' >&2; exit 255", "Host key verification", "refused"),
        ("PATH=/nowhere", "there is no python3 that can be run", "no-python"),
    ],
)
@in_loop
async def test_what_will_not_get_better_is_final(noise: str, text: str, code: str) -> None:
    found = await failure(far_side(OLDEST, noise=noise), Limits(connect_timeout=3600.0))
    assert str(found).startswith("there: ")
    assert text in str(found)
    assert found.code == code or not code
    assert isinstance(found, NotConnected)


@in_loop
async def test_whom_ssh_has_named_is_not_named_twice() -> None:
    noise = "echo 'there: Permission denied (publickey,password).' >&2; exit 255"
    found = await failure(far_side(OLDEST, noise=noise), Limits(connect_timeout=3600.0))
    assert str(found) == "there: Permission denied (publickey,password)"


@in_loop
async def test_a_python_that_is_too_old_is_final() -> None:
    found = await failure(far_side((3, 8)), Limits(connect_timeout=3600.0))
    assert "its python3 is 3.8." in str(found)
    assert found.code == "far-side"


@in_loop
async def test_a_failure_of_ssh_is_tried_again(tmp_path: Path) -> None:
    """For as long as there is to connect."""
    once = f"test -e {tmp_path}/again || {{ touch {tmp_path}/again; exit 255; }}"
    async with Carried(Remote(far_side(OLDEST, noise=once), quiet_side(), CAT)) as carried:
        await carries(carried)
    found = await failure(far_side(OLDEST, noise="exit 255"), Limits(connect_timeout=0.0))
    assert "env exited with status 255" in str(found)
    said = "echo ssh: no route >&2; exit 255"
    found = await failure(far_side(OLDEST, noise=said), Limits(connect_timeout=0.0))
    assert str(found) == "there: ssh: no route"


@in_loop
async def test_there_has_to_be_such_a_command() -> None:
    remote = Remote(["/no/such/ssh"], ["/no/such/ssh"], CAT)
    with pytest.raises(AddressError, match="there is no such program"):
        await open_pipe(remote)


def pretender(folder: Path, script: str) -> list[str]:
    """A command whose python3 is this shell script."""
    (folder / "python3").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "python3").chmod(0o755)
    return ["env", f"PATH={folder}:/usr/bin:/bin"]


@in_loop
async def test_a_python_that_does_not_take_the_line_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carrier, "SECOND_PROMPT", 0.1)
    script = "printf '>>> '; read line; echo no zlib; printf '>>> '; read line; sleep 100"
    found = await failure(pretender(tmp_path, script), Limits(connect_timeout=3600.0))
    assert "says 'no zlib\\n>>>'" in str(found)


@in_loop
async def test_an_answer_that_is_garbled_is_tried_again(tmp_path: Path) -> None:
    """The nonce is that of the line, and what comes after it is none of ours."""
    script = (
        "printf '>>> '; read line\n"
        'nonce=$(/usr/bin/python3 -c "import base64,json,sys,zlib;'
        "packed=base64.b85decode(sys.argv[1].split(chr(39))[1]);"
        "words=zlib.decompress(packed).decode().partition(chr(0))[0];"
        'print(json.loads(words)[\'nonce\'])" "$line")\n'
        "printf '\\0bpipe:%s nonsense\\n' $nonce"
    )
    found = await failure(pretender(tmp_path, script), Limits(connect_timeout=0.0))
    assert "what it answers was garbled" in str(found)


@in_loop
async def test_that_there_is_no_prompt_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrier, "SILENCE", 0.1)
    said: list[str] = []
    first = far_side(OLDEST, noise="sleep 0.5")
    async with Carried(Remote(first, quiet_side(), CAT, said.append, name="there")) as carried:
        await carries(carried)
    assert said == ["no python3 has answered at there for 0.1 s: still waiting"]


@in_loop
async def test_an_attempt_that_is_lost_has_started_nothing_twice() -> None:
    """The next one finds the holder that it has left behind."""
    remote = Remote(quiet_side(), quiet_side(), errand("echo once; exec cat"))
    connection = await remote.connect(0)
    connection.sock.close()
    connection.released()
    async with Carried(remote) as carried:
        assert await carried.read() == b"once\n"
        await carries(carried)


@in_loop
async def test_later_it_runs_the_other_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """And says that the agent of the first is gone."""
    said: list[str] = []
    monkeypatch.setenv("SSH_AUTH_SOCK", "/some/agent")
    later = far_side(OLDEST, noise="echo later >&2")
    async with Carried(Remote(quiet_side(), later, CAT, said.append, name="there")) as carried:
        await carries(carried)
        assert said == []
        for _ in range(2):
            carried.pipe.force_reconnect()
            await carries(carried)
    assert said == [AGENT, "later"]


@in_loop
async def test_of_several_only_the_first_has_the_agent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said: list[str] = []
    monkeypatch.setenv("SSH_AUTH_SOCK", "/some/agent")
    first, later = (tmp_path / name for name in ("first", "later"))
    one, other = (far_side(OLDEST, noise=f"echo $$ > {path}") for path in (first, later))
    what = CAT._replace(links=2)
    async with Carried(Remote(one, other, what, said.append, name="there")) as carried:
        kill, stop = signal.SIGKILL, signal.SIGSTOP  # so that the next comes before the end
        acts = (later, kill, 0), (first, stop, 1), (later, kill, 1)
        for links, (path, number, told) in enumerate(acts, 2):
            await until(lambda: carried.pipe.status().links == links)  # noqa: B023
            os.kill(int(path.read_text()), number)
            await until(lambda: carried.pipe.status().links > links)  # noqa: B023
            await carries(carried)
            assert said == [AGENT] * told


@pytest.mark.parametrize(
    ("command", "cause"),
    [
        ("exit 255", "there: env exited with status 255"),
        ("exit 127", "there: env exited with status 127"),
        ("echo nothing; exit 1", "there: env exited with status 1"),
        ("echo 'there: Permission denied (x).' >&2; exit 255", "there: Permission denied (x)"),
    ],
)
@in_loop
async def test_later_no_failure_is_final(tmp_path: Path, command: str, cause: str) -> None:
    once = f"test -e {tmp_path}/again || {{ touch {tmp_path}/again; {command}; }}"
    later = far_side(OLDEST, noise=once)
    async with Carried(Remote(quiet_side(), later, CAT, name="there")) as carried:
        causes: list[str] = []
        carried.pipe.engine.observe(lambda: causes.append(carried.pipe.status().cause))
        await carries(carried)
        carried.pipe.force_reconnect()
        await carries(carried)
        assert (tmp_path / "again").exists()
        assert cause in causes


def elsewhere(tmp_path: Path) -> list[str]:
    """A machine that has another name, and none of our abstract sockets; root only."""
    if os.geteuid():
        pytest.skip("only root can make another machine")
    program = 'hostname elsewhere; exec "$@"'
    return ["unshare", "--uts", "--net", "sh", "-c", program, "sh", *quiet_side()]


@in_loop
async def test_another_machine_of_that_name_is_not_asked(tmp_path: Path) -> None:
    async with Carried(Remote(quiet_side(), elsewhere(tmp_path), CAT, name="there")) as carried:
        await carries(carried)
        carried.pipe.force_reconnect()
        words = f"there: this is elsewhere, and the session is on {os.uname().nodename}"
        await until(lambda: carried.pipe.status().cause == words)


@pytest.mark.parametrize("what", ["cat", ["cat"]])
def test_an_errand_says_what_is_to_be_done(what: str | list[str]) -> None:
    words = Errand(what, heartbeat=3.0).words
    assert words.pop("command" if isinstance(what, str) else "argv") == what
    assert words == {"heartbeat": 3.0, "give_up_after": 3600.0, "buffer_size": 4 << 20, "links": 1}
