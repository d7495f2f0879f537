"""One seed of a world in which a command runs far away, held there: ``bpipe ssh``.

The near side is production code: its dialler with the manners of a carrier, and how it reads what
comes before a connection. On the far side there are one or two machines under one name. Each
attempt is answered by a relay on one of them: it says noise first, never answers or ends with an
error, or finds the holder of the session, which is started once if the session has not begun. The
holder's session, its listener and what becomes of its program are production code as well.

Relays are not there by themselves: who has found the holder hands its connection over.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from bpipe.errors import NotConnected, SessionLost
from bpipe.net.bound import Bound
from bpipe.net.dialer import Dialer
from bpipe.net.listener import Listener
from bpipe.net.source import LinkSource
from bpipe.protocol.caller import FORGOTTEN
from bpipe.protocol.session import Session
from bpipe.protocol.wire import Reason
from bpipe.remote.carrier import PROMPT
from bpipe.remote.holder import UNUSED_FOR
from tests.simulation.carriers import DENIED, FAILED, SimulatedRemote
from tests.simulation.course import Course, Log
from tests.simulation.judge import Wrong
from tests.simulation.kinds import Kind, make_plan, make_weather, plan_remote
from tests.simulation.loop import Loop
from tests.simulation.network import ListeningSocket, Network, Socket
from tests.simulation.records_judge import RemoteJudge
from tests.simulation.remote_ends import RemoteProgramEnd, SshEnd

PERIOD = 60  # of so many seeds, one makes such a world:
PLACE = 38

HELD_FOR = 90.0  # seconds that a holder waits for a link
FINISHED_WITHIN = 700.0  # seconds, once the faults are over
GONE_WITHIN = 30.0  # seconds: a holder and what it has started, beyond what it may wait
BELIEVED_WITHIN = 120.0  # seconds: that nobody is there any more, by who is told so


def is_far(seed: int) -> bool:
    """Whether a command is held far away in the world of this seed."""
    return seed % PERIOD == PLACE


class Machine(ListeningSocket):
    """One machine: whoever connects gets a relay, which may find a holder here, or start one."""

    def __init__(self, far: Far, name: str) -> None:
        super().__init__(Loop(far.world, name))
        self.name = name
        self.holders: list[RemoteProgramEnd] = []
        self._far = far

    @property
    def holder(self) -> RemoteProgramEnd | None:
        """Who has the name of the socket."""
        living = [each for each in self.holders if not each.loop.ended]
        return living[-1] if living else None

    def arrive(self, sock: Socket) -> None:
        self.loop.run(self.loop.create_task, self._relay(sock))

    async def _relay(self, sock: Socket) -> None:
        far, rng = self._far, self._far.rng
        trouble = rng.random() if far.world.now < far.faults_until else 1.0
        await asyncio.sleep(rng.choice((0.0, 0.3, 3.0)) * rng.random())
        try:
            if trouble < 0.1:  # it never answers
                return
            if trouble < 0.25:
                far.network.fates[sock.number] = DENIED if trouble < 0.11 else FAILED
                sock.close()
                return
            await self._say(sock, rng.choice((b"", b"welcome\n>> > ", b"x" * 3000)) + PROMPT)
            line = b""
            while not line.endswith(b"\n"):
                data = await cast(Any, self.loop).sock_recv(sock, 4096)
                if not data:
                    sock.close()
                    return
                line += data
            await self._answer(sock, json.loads(line))
        except OSError:
            sock.close()

    async def _say(self, sock: Socket, data: bytes) -> None:
        await cast(Any, self.loop).sock_sendall(sock, memoryview(data))

    async def _answer(self, sock: Socket, words: dict[str, Any]) -> None:
        how = self.find(may_start=words["errand"])
        place = {"at": self.name, "name": self.name, "agent": False}
        self._far.note("=", f"{self.name}: a relay finds the holder: {how}")
        answer = b"\0bpipe:" + words["nonce"].encode() + b" "
        await self._say(sock, answer + json.dumps({"holder": how, **place}).encode() + b"\n")
        holder = self.holder
        if how != "none" and holder is not None:
            sock.move(holder.loop)
            self._far.doors[holder].arrive(sock)
            return
        sock.close()

    def find(self, *, may_start: bool) -> str:
        """Whether the holder is "there", is "new", or there is "none"."""
        if self.holder is not None:
            return "there"
        return self.start() if may_start else "none"

    def start(self) -> str:
        """A new holder has the name."""
        self.holders.append(self._far.make_holder(self.name))
        return "new"


class Far(Course):
    """The world of one seed. ``run`` raises Wrong if a promise is broken in it."""

    STEPS = 120_000

    def __init__(self, seed: int, log: Log | None = None) -> None:
        super().__init__(seed, log, (2.0, 10.0, 40.0, 120.0))
        rng = self.rng
        kind = Kind.of(seed)
        self.weather = make_weather(rng, kind, self.world.now, self.faults_until)
        self.network = Network(self.world, self.weather, self.note)
        self.there, self.here = (make_plan(rng, kind, patient=True) for _ in range(2))
        plan_remote(rng, self.there, self.here, swap=False)
        self.there.limits = self.there.limits._replace(give_up_after=HELD_FOR)
        self.doors: dict[RemoteProgramEnd, ListeningSocket] = {}
        self.holders: list[RemoteProgramEnd] = []
        self.machines = [Machine(self, "machine"), Machine(self, "other")]
        self.network.lead_to(self.machines[0])
        self.wrong: str | None = None
        self.near = SshEnd("near", self.world, self.here, rng, self._dial)
        self.judge: RemoteJudge | None = None
        self._killed_at: float | None = None  # the holder of the session
        self._broken = False
        self.two = rng.random() < 0.3  # machines under this name
        self._plan()
        self._trace(self.near)

    @property
    def ends(self) -> list[SshEnd | RemoteProgramEnd]:
        """All of them."""
        return [self.near, *self.holders]

    def _dial(self, session: Session) -> LinkSource:
        self.remote = SimulatedRemote(self.network, self.world, self._complain)
        backoff = self.remote.manners.backoff(None, self.fork())
        return Dialer(session, self.remote, backoff, self.world.clock)

    def _complain(self, text: str) -> None:
        self.wrong = self.wrong or f"near {text}"

    def make_holder(self, where: str) -> RemoteProgramEnd:
        """Somebody has the name of the socket there."""
        made: list[ListeningSocket] = []

        def listen(session: Session) -> LinkSource:
            listening = ListeningSocket(cast(Any, asyncio.get_running_loop()))
            made.append(listening)
            bound = Bound(cast(Any, [listening]), "simulated")
            return Listener(bound, anywhere=True, clock=self.world.clock).source(session)

        name = f"holder {len(self.holders) + 1} on {where}"
        begin = partial(RemoteProgramEnd, name, self.world, self.there, self.rng, listen)
        holder = self._outside(begin)
        holder.face(self.near)
        self.doors[holder] = made[0]
        self.holders.append(holder)
        self.world.at(self.world.now + UNUSED_FOR, self._leave_unused, holder)
        self._trace(holder)
        return holder

    def _outside(self, make: Callable[[], RemoteProgramEnd]) -> RemoteProgramEnd:
        """Another process begins: not in the loop of this one."""
        before = asyncio.events._get_running_loop()
        try:
            return make()
        finally:
            asyncio.events._set_running_loop(before)

    def _leave_unused(self, holder: RemoteProgramEnd) -> None:
        if not (holder.session.established or holder.loop.ended):
            holder.loop.run(holder.pipe.abort, Reason.GIVEN_UP, "nobody came")

    # --- what the seed chooses ---

    def _plan(self) -> None:
        rng, span = self.rng, self.faults_until - self.world.now
        smallest = min(self.here.buffer_size, self.there.buffer_size)
        for plan, other in ((self.here, self.there), (self.there, self.here)):
            plan.length = min(plan.length, 15 * smallest + 5, 60 * other.appetite)
        for _ in range(rng.randint(1, 4) if self.two else 0):
            self.world.at(self.world.now + rng.random() * span, self._lead, rng.choice((1, 1, 0)))
        for _ in range(rng.choice((0, 1, 3))):
            self.world.at(self.world.now + rng.random() * span, self._reconnect)
        event = rng.choice((None, None, None, self._kill_holder, self._kill_near, self._abort))
        if event is not None and rng.random() < 0.5:
            self.near.cue_heard(event)
        elif event is not None:
            self.world.at(self.world.now + rng.random() * span, event)

    def _lead(self, number: int) -> None:
        if self.world.now < self.faults_until:
            self.network.lead_to(self.machines[number])
            self._reconnect()

    def _reconnect(self) -> None:
        if not self.near.loop.ended:
            self.note("%", "near: force_reconnect")
            self.near.loop.run(self.near.pipe.force_reconnect)

    def _kill_holder(self) -> None:
        partner = self.partner
        if partner is not None and not partner.gone:
            self.note("%", f"{partner.name} is killed")
            self._broken, self._killed_at = True, self.world.now
            partner.kill()

    def _kill_near(self) -> None:
        self._broken = True
        self.near.kill()

    def _abort(self) -> None:
        if not self.near.loop.ended:
            self._broken = True
            self.near.loop.run(self.near.pipe.abort, Reason.INTERRUPTED, "simulated")

    # --- running ---

    @property
    def partner(self) -> RemoteProgramEnd | None:
        """Whose session it is."""
        id = self.near.session.id
        return next((each for each in self.holders if id and each.session.id == id), None)

    def run(self) -> None:
        """Run to the end of everybody. Raises Wrong."""
        while self.world.now < self.faults_until and not self._all_gone():
            self.step()
        self.note("=", "the faults are over")
        self.weather.calm(self.world.now)
        if self.partner in self.machines[1].holders and self.near.session.established:
            self.network.lead_to(self.machines[1])
        else:
            self.network.lead_to(self.machines[0])
        for end in self.ends:
            end.calm()
        self._lose_patience()
        calm, left = self.world.now, None
        while not self._all_gone():
            self.step()
            if left is None and self.near.gone:
                left = self.world.now
                self.note("=", "near has left")
            if left and self.world.now > max(left, calm) + HELD_FOR + UNUSED_FOR + GONE_WITHIN:
                raise Wrong("a holder is left behind")
            if self.world.now > calm + FINISHED_WITHIN:
                raise Wrong("not finished in time")
            killed = self._killed_at is not None and left is None
            if killed and self.world.now > max(self._killed_at or 0, calm) + BELIEVED_WITHIN:
                raise Wrong("near does not believe that the holder is gone")
        self._finish()

    def _lose_patience(self) -> None:
        """An attempt that may ask somebody has no limit of time; ssh has one of its own."""
        for run in self.remote.runs:
            if not (run.good or run.released):
                run.sock.incoming.lost = run.sock.outgoing.lost = True
                run.sock.hear_reset()
        if not self.near.gone:
            self.world.at(self.world.now + 40.0, self._lose_patience)

    def _all_gone(self) -> bool:
        return self.near.gone and all(each.gone for each in self.holders)

    def look(self) -> None:
        if self.wrong:
            raise Wrong(self.wrong)
        errors = [each for end in self.ends for each in end.loop.errors]
        errors += [each for machine in self.machines for each in machine.loop.errors]
        if errors:
            raise Wrong(repr(errors[0]))
        if sum(each.program is not None for each in self.holders) > 1:
            raise Wrong("the command runs twice")
        for machine in self.machines:
            if sum(not each.loop.ended for each in machine.holders) > 1:
                raise Wrong(f"there are two holders on {machine.name}")
        partner = self.partner
        if self.judge is None and partner is not None:
            self.near.face(partner)
            if self.near.session.established:
                self.judge = RemoteJudge(self.world, self.near, partner)
                self.judge.join()
                self.judge.peaceful = self.judge.smooth = False
        if self.judge is not None:
            self.judge.broken = self._broken
            self.judge.look()

    def _finish(self) -> None:
        """Everybody has left."""
        near = self.near
        started = any(each.program is not None for each in self.holders)
        failure = near.pipe.failure
        if started and isinstance(failure, NotConnected):
            raise Wrong(f"near says that nothing was started: {failure!r}")
        if isinstance(failure, SessionLost) and FORGOTTEN in str(failure):
            self._judge_forgotten(failure)
        if self.judge is not None and not near.killed and failure is None:
            self.judge.finish()
        if near.killed:
            return
        if any(each.released != 1 for each in self.remote.runs):
            raise Wrong("a carrier is released " + str([e.released for e in self.remote.runs]))
        if not all(each.sock.closed for each in self.remote.runs):
            raise Wrong("near has connections left")

    def _judge_forgotten(self, failure: SessionLost) -> None:
        """Nobody says so as long as who holds the command is there."""
        if self.judge is None:
            return
        partner = self.judge.callee
        if self._killed_at is not None or partner.killed:
            return
        if partner.over_at is None or partner.over_at > (self.near.over_at or 0):
            raise Wrong(f"near reports: {failure!r}, and {partner.name} lives")

    # --- its log ---

    def _trace(self, end: SshEnd | RemoteProgramEnd) -> None:
        if self._log is not None:
            end.engine.session.trace_to(lambda sign, text: self.note(sign, f"{end.name}: {text}"))

    def dispose(self) -> None:
        """Let go of everything."""
        for loop in (*(each.loop for each in self.ends), *(each.loop for each in self.machines)):
            loop.dispose()
