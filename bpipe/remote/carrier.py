"""Connections to a holder: a command, ssh for example, that starts ``python3`` on the far side.

Each run begins as an interactive interpreter there, which is sent one line (see ``bundle``). Before
its prompt there may be noise: what the files of a shell print. What answers is a relay, and from
then on the connection is one to the holder. Only as long as no session is established the line
brings the holder with it, so that nothing is ever started twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, NoReturn

from bpipe.api import dial_by
from bpipe.errors import LinkLost, NotConnected, SessionLost, explain
from bpipe.net.carrier import Fate
from bpipe.net.command import Command
from bpipe.net.connectors import Connection
from bpipe.net.launch import Launched
from bpipe.pipe import BackedPipe
from bpipe.protocol.caller import FORGOTTEN
from bpipe.protocol.patience import Limits
from bpipe.protocol.rate import Bucket
from bpipe.protocol.session import Session
from bpipe.protocol.wire import FILE, RECORDS, Ended
from bpipe.remote import PYTHON, bundle

PROMPT: Final = b">>> "
MOST_NOISE: Final = 64 << 10  # bytes before the prompt, and as many before the answer
ANSWER: Final = 8.0  # seconds for a holder to answer its relay: less than an attempt has
SILENCE: Final = 10.0  # seconds without a prompt, after which that is said
SECOND_PROMPT: Final = 10.0  # seconds from another prompt until it is clear that the line failed

_LEAVE: Final = "now exiting InteractiveConsole"
_QUOTED: Final = 200  # bytes of noise that are told
_NOT_FOUND: Final = (126, 127)  # a shell's exit statuses
_OWN_FAILURE: Final = 255  # ssh's
_HOPELESS: Final = ("Permission denied (", "Host key verification failed")


class Errand(NamedTuple):
    """What is to be done on the far side, and how long it waits there."""

    what: str | Sequence[str]  # a command for the user's shell, or a program and its arguments
    heartbeat: float = 2.0  # seconds
    give_up_after: float = 3600.0  # seconds without a link, after which it is ended
    buffer_size: int = 4 << 20  # bytes kept there for each direction
    links: int = 1  # at once, at most

    @property
    def words(self) -> dict[str, Any]:
        """The same for the holder."""
        _, *limits = self
        text = isinstance(self.what, str)
        what = {"command": self.what} if text else {"argv": list(self.what)}
        return {**what, **dict(zip(self._fields[1:], limits))}


class Answer(NamedTuple):
    """What a relay says of itself."""

    holder: str  # "new", "there" or "none"
    at: str  # which machine it is
    name: str  # the same for people
    agent: bool  # whether it has one, which ends with the connection


class Remote(Command):
    """Runs ``first``, and once a session is established ``later``, with ``python3`` behind it.

    ``tell`` is called with lines for people, as for a ``Command``. ``name`` is the far side's.
    ``begun``: the first has been started already, with python3 behind it.
    """

    def __init__(
        self,
        first: Sequence[str],
        later: Sequence[str],
        errand: Errand,
        tell: Callable[[str], None] = lambda line: None,
        *,
        name: str = "",
        begun: Launched | None = None,
    ) -> None:
        super().__init__(first, self._tell_of_carrier, name=name, begun=begun)
        self.links: Final = errand.links  # at once, at most
        self._later = tuple(later)
        self._errand = errand
        self._modules = bundle.HOLDER + (bundle.SEVERAL if errand.links > 1 else ())
        self._say = tell
        self._nonce = secrets.token_hex(8)
        token = secrets.token_bytes(32)
        self._words = {
            "nonce": self._nonce,
            "token": token.hex(),
            "name": f"bpipe-{hashlib.sha256(token).hexdigest()[:32]}",
            "patience": ANSWER,
        }
        self._answer: Answer | None = None  # of the connection on which the session began
        self._with_agent: socket.socket | None = None  # the same, until the end of that is told

    def bring(self, modules: tuple[str, ...]) -> None:
        """These are sent to the holder as well."""
        self._modules += modules

    def argv_of(self, turn: int) -> Sequence[str]:
        """The command, with what it starts on the far side."""
        return (*(self._later if self.quiet else self.argv), *PYTHON)

    async def begin(self, connection: Connection) -> None:
        """See that a relay is there, which has a connection to the holder.

        Raises LinkLost if there is none now, another SessionEnded if there never will be.
        """
        self._tell_of_agent()
        answer = await self._bring_in(connection)
        if self.quiet:
            self._require_holder(answer)
        else:
            self._answer = answer
            self._with_agent = connection.sock if answer.agent else None

    def prefer(self, connection: Connection) -> None:
        """A connection was good."""
        super().prefer(connection)
        self._tell_of_agent()

    def _tell_of_agent(self) -> None:
        """If the first connection is lost, an agent that came with it is, too."""
        first = self._with_agent
        if not self.quiet or first is None or first.fileno() >= 0:
            return
        self._with_agent = None
        self._say(f"the agent that was forwarded to {self.name} ended with the first connection")

    def _require_holder(self, answer: Answer) -> None:
        """Only the machine on which it began knows whether the session still is.

        There nobody else can have the holder's name: that there is none is final.
        """
        assert self._answer is not None
        if answer.at != self._answer.at:
            there = self._answer.name
            raise LinkLost(
                f"{self.name}: this is {answer.name}, and the session is on {there}", "another-host"
            )
        if answer.holder == "none":
            raise SessionLost(FORGOTTEN)

    def _tell_of_carrier(self, line: str) -> None:
        """What it says; but how the interpreter there takes leave without its line is no news."""
        if not line.startswith(_LEAVE):
            self._say(line)

    # --- from the prompt to the answer ---

    async def _bring_in(self, connection: Connection) -> Answer:
        """Send the line after the prompt, and hear the answer."""
        hearing = _Hearing(connection.sock)
        silence = asyncio.get_running_loop().call_later(SILENCE, self._tell_of_silence)
        try:
            line = self._line()  # while the far side begins
            await hearing.until(PROMPT)
            await asyncio.get_running_loop().sock_sendall(connection.sock, line)
            text = await hearing.answer(b"\0bpipe:" + self._nonce.encode() + b" ")
        except _Noise as noise:
            self._give_up(f"something else than python3 answers there, and says {noise}", "noise")
        except (OSError, EOFError) as error:
            fate = await connection.fate()
            raise self._ended(fate, hearing.noise, error) from None
        finally:
            silence.cancel()
        return self._understand(text)

    def _line(self) -> bytes:
        if self.quiet:
            return bundle.line(bundle.RELAY, self._words)
        return bundle.line(self._modules, {**self._words, "errand": self._errand.words})

    def _understand(self, text: bytes) -> Answer:
        try:
            said = json.loads(text)
        except ValueError:
            raise LinkLost(f"{self.name}: what it answers was garbled", "garbled") from None
        if "error" in said and said["final"]:
            self._give_up(said["error"], "far-side")
        if "error" in said:
            raise LinkLost(f"{self.name}: {said['error']}", "far-side")
        return Answer(**said)

    def _tell_of_silence(self) -> None:
        if not self.quiet:
            self._say(f"no python3 has answered at {self.name} for {SILENCE:g} s: still waiting")

    def _plain(self, line: str) -> str:
        """What ssh says begins with the destination, and ends with a full stop."""
        return line.removeprefix(f"{self.name}: ").removesuffix(".")

    def _ended(self, fate: Fate | None, noise: bytes, error: Exception) -> Exception:
        """What it means that the connection has ended before the answer came."""
        if fate is None:
            why = explain(error) if isinstance(error, OSError) else "the connection was closed"
            return LinkLost(f"{self.name}: {why}", "closed")
        failure = LinkLost(f"{self.name}: {self._plain(fate.why)}", "carrier")
        if self.quiet or fate.finish.how is not Ended.EXITED:
            return failure
        if fate.finish.status == _OWN_FAILURE:
            hopeless = [line for line in fate.said if any(each in line for each in _HOPELESS)]
            if not hopeless:
                return failure
            why = self._plain(hopeless[-1])
            return NotConnected(f"{self.name}: {why}", "refused")
        if fate.finish.status in _NOT_FOUND:
            what = f"there is no python3 that can be run ({fate.words})"
            return NotConnected(f"{self.name}: {what}", "no-python")
        what = f"{fate.words} before python3 there has answered"
        if noise.strip():
            what += f", and said {_quoted(noise)}"
        return NotConnected(f"{self.name}: {what}", "carrier")

    def _give_up(self, what: str, code: str) -> NoReturn:
        """It will be the same the next time; but a session that is established may outlive it."""
        kind = LinkLost if self.quiet else NotConnected
        raise kind(f"{self.name}: {what}", code) from None


class _Noise(Exception):
    """There was nothing else; the text is how it begins."""


class _Hearing:
    """What comes from the far side, up to the answer and not a byte beyond it."""

    def __init__(self, sock: socket.socket) -> None:
        self.noise = b""
        self._sock = sock

    async def until(self, marker: bytes) -> None:
        """Wait for this. Raises OSError, EOFError if it does not come, _Noise if too much else."""
        while marker not in self.noise:
            await self._more()

    async def answer(self, marker: bytes) -> bytes:
        """The rest of a line that begins so. Raises what ``until`` does."""
        self.noise = self.noise.partition(PROMPT)[2]
        while not (found := self.noise.partition(marker)[2]).endswith(b"\n"):
            failed = PROMPT in self.noise and not found
            try:
                await asyncio.wait_for(self._more(), SECOND_PROMPT if failed else None)
            except asyncio.TimeoutError:
                raise _Noise(_quoted(self.noise) or "nothing") from None
        return found

    async def _more(self) -> None:
        if len(self.noise) > MOST_NOISE:
            raise _Noise(_quoted(self.noise))
        data = await asyncio.get_running_loop().sock_recv(self._sock, 1 << 12)
        if not data:
            raise EOFError
        self.noise += data


def _quoted(noise: bytes) -> str:
    """How it begins, for people; "" if there was none."""
    text = noise.decode(errors="replace").strip()
    short = text[:_QUOTED] + ("..." if len(text) > _QUOTED else "")
    return repr(short) if short else ""


async def open_pipe(
    remote: Remote,
    limits: Limits = Limits(),  # noqa: B008 - immutable
    buffer_size: int = 64 << 20,
    needs: int = 0,
    rate: Bucket | None = None,
) -> BackedPipe:
    """A pipe to what the errand of this starts; entering it connects.

    Its streams are records: ERRORS are what was said on stderr there. ``needs``: what else this end
    has to have, see ``protocol/terms.py``. ``rate``: what each end may send. Raises AddressError if
    there is no such command here.
    """
    await remote.check(0.0)
    if needs & FILE:
        remote.bring(bundle.COMPARING)
    needs |= RECORDS
    session = Session(buffer_size, limits, needs=needs, bucket=rate, links=remote.links)
    return BackedPipe(session, dial_by(session, [remote] * remote.links))
