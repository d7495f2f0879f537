"""Every known bug, patched in, is caught within a stated number of seeds."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from tests.simulation.judge import Wrong
from tests.simulation.mutants import MUTANTS, PLACES
from tests.simulation.worlds import run_seed

SEEDS = 2000  # that a mutant may survive, at most
MISTAKES = ("TypeError", "AttributeError", "NameError")  # of a mutant that does not fit any more
FIRST = {  # else 0; chosen where that would take long: more than a quarter of a second
    "a way that is back, and makes no attempt": 1421,
    "a way that is not looked out for where there is no link": 1001,
    "one that is called keeps a link over which nothing comes, although the way is back": 1601,
    "one that is called ends such a link, and its peer does not hear of it": 1601,
    "a link whose way is gone trusted until an answer is late": 281,
    "a link whose way is back left in doubt": 641,
    "a session whose caller was not heard yet taken by a greeting that the caller has given up": (
        220_010_290
    ),
    "a producer that is never cut although the far consumer has gone": 10_840,
    "the rest of a record forgotten on a new link": 240,
    "what is lent of one record named as the one that was found last": 368,
    "a done end that leaves before it could say so, and whose peer waits in vain": 2_004_387,
    "a done end that reports the ABORT which it hears": 1100,
    "a verdict believed although the session has moved on since the greeting was begun": 3463,
    "a program started again with the next thing that happens": 2480,
    "bytes taken that lie in a pipe which the program has closed": 760,
    "a BYE said before a program that went on has ended": 706,
    "the end of a program's output told only when nobody has it any more": 446,
    "success although nobody has waited for the end of what the producer writes": 360,
    "bytes of which the program reads the ones before taken for bytes that it lets lie": 180,
    "a stream begun before its caller was heard, and begun again for the next one": 654,
    "a done end that leaves as soon as one listener does not know it": 1120,
    "a header whose tag is wrong taken for one of no importance": 1723,
    "an ABORT destroyed by a close with unread input": 357,
    "ACK for what is discarded after an ABORT": 321,
    "an aborting listener that leaves at once, because it has heard no frame": 384,
    "ACK of what is discarded before the STOP that says so": 250,
    "STOP naming what was received, not what was taken": 306,
    "the caller greeting with its old link open": 190,
    "the caller carrying on from M2 instead of READY": 1154,
    "a session that was lost opened anew, as if nothing had been consumed": 130,
    "an old greeting taken for a new one": 120,
    "a session that gave way leaves its outage to the next caller": 110,
    "success although the producer had more when it was stopped": 110,
    "a link on which bytes come, and never a frame, that is never given up": 120,
    "a frame as large as it can be, whatever the link has carried": 283,
    "success although nobody has told how a program has ended that went on": 155,
    "how a program has ended lost where its stream was cut": 155,
    "STOP forgotten on a new link": 110,
    "ABORT forgotten on a new link": 215,
    "a session ended by who has asked for its place, and has not confirmed": 34_618,
    "a server that stops refuses who comes back": 2989,
    "a handler that fails costs the others their links": 8449,
    "attaching a link drops the greetings of other sessions": 4489,
    "one caller's link attached to another's session: the first that is up, whatever its id": 2269,
    "a session that is up, and has no link just now, gives way to the next caller": 55_609,
    "a session refused for a limit when it resumes": 1669,
    "FULL taken for final by the caller": 1249,
    "a caller that was told that there is no room looks again after a minute": 1789,
    "a session in which nobody was ever heard keeps its place for ever": 169,
    "a caller that was let in and is away before it was heard loses its place to the next one": 289,
    "more sessions than there may be": 229,
    "a session that is over keeps its place": 529,
    "a handler called again when its caller has come back": 1429,
    "a server that was stopped waits for callers that were never heard": 589,
    "a caller that comes back closes the link of another session, too": 169,
    "a link handed to the session that was made last": 349,
    "a consumer that stalls makes the others wait": 949,
    "a close that is cancelled leaves its link open": 229,
    "STOP ending the stream before what was already sent": 16,
    "leaving when the own BYE is written, whatever the peer has heard": 102,
    "a refusal that changes what a done end, or an aborting one, reports": 24,
    "a consumer that has taken everything and leaves taken for a failure": 23,
    "an end mark taken for the stream's own although there was more": 26,
    "how a stream has ended lost in a replay": 115,
    "a relay's end taken for the session's": 2138,
    "the stream of a producer that has failed taken for a whole one": 35,
    "somebody whom a program leaves behind with a part of its stream let be": 55,
    "the end of a stream delivered before the program has exited": 15,
    "bytes taken that a program has left in its pipe when it exited": 55,
    "a program that leaves early taken for a failure of the session": 55,
    "a program that leaves early taken for one that does not want any more": 55,
    "the last bytes of a program that has exited dropped after two seconds": 95,
    "the end of a program's output told only when the program has exited": 26,
    "a BYE that does not tell how a program has ended that went on": 26,
    "a header of a record not counted": 8,
    "space for a record where there is only space for a header": 8,
    "a consumer woken up for a header, or a part of one": 47,
    "ERRORS delivered as DATA": 8,
    "who holds a program's stderr, when it has ended, waited for as long as he likes": 5508,
    "READY stated before the old link is closed": 27,
    "resume a byte late": 5,
    "a half-read header kept across links": 17,
    "end mark not replayed": 37,
    "a half-sent frame finished on the next link": 102,
    "done by greeting numbers": 7,
    "giving up counted from the first outage of all": 105,
    "a base that somebody else has changed meanwhile taken for the old one": 241_098,
    "a sender that does not come back waited for alone": 1978,
    "the address let go with the session that gave way": 2098,
    "a stream delivered before it has its name": 498,
    "the stream of a producer that has failed named": 138,
    "a file that has its name, and a receiver that fails because its sender does not hear it": (
        14_178
    ),
    "a sender that goes round in circles when its session has failed": 37_278,
    "nothing synced before the end of a stream": 12_138,
    "what is the same not said before a sender waits for its last digest": 1578,
    "a write that found little room taken for a whole one": 188_358,
    "the digests of what lies there told to whom nobody knows": 498,
    "a torn block of a base believed, because a journal says that it was written": 106_938,
    "the digests of FILE told where the part lies over it": 438,
    "the digest of so many zeros taken for that of any number of them": 738,
    "zeros left out where old bytes lie in the part": 3798,
    "what is the same in FILE not copied into the part": 258,
    "a copy within the disk that was cut short taken for a whole one": 798,
    "a part kept whose sync has failed": 8358,
    "a sync that fails taken for a good one": 5058,
    "a part that somebody else is writing taken all the same": 438,
    "a replay that is not counted": 1689,
    "a rate of the peer that is not heeded": 1509,
    "a rate that has changed told on the next link only": 369,
    "the bucket drawn before the bytes are on the link, and never given back": 189,
    "what is lent counted again with each try to send it": 1269,
    "a frame as large as it can be, however slow it leaves": 549,
    "the rest of a frame that has begun sent as the link takes it": 189,
    "who waits for a bucket waits on when its rate has changed": 189,
    "a frame as large as was promised when the rate was another one": 5289,
    "a frame that has begun held to the rate that came after": 12_669,
    "a bucket for each session in place of one for the process": 189,
    "who comes when he was told to is put at the end of the line again": 309,
    "a bucket that the one session whose turn it is keeps while it has something to send": 7569,
    "an ACK that waits for the bucket": 189,
    "what the peer allows forgotten with the link": 22_509,
    "the rate told when the stream has begun": 849,
    "headers and tags not counted": 1269,
    "an ACK that is thought of when no frame is under way": 11_469,
    "a range given back and forgotten": 250,
    "only the first piece given back": 690,
    "an epoch compared with the last of any slot": 30,
    "a PONG that pays what was begun after its PING": 210,
    "what an ACK of another link takes for granted: all that lies below the furthest": 250,
    "a doubt that never ends": 270,
    "a doubt that gives nothing back": 570,
    "a link that is believed in until it is lost": 570,
    "frames begun on a link in doubt, beside one that is not": 690,
    "what others owe repeated at once": 810,
    "nothing repeated of what lies in a slow link's queue": 13_890,
    "the window filled by what lies in a slow link's queue": 1410,
    "nothing new begun on a link beside a quicker one": 570,
    "what comes again beyond a gap taken for more of what is in order": 4770,
    "an end mark that comes before the bytes taken for the end": 450,
    "a stale `received` believed: the stream goes on from there": 390,
    "a link closed because a greeting does not tell of it, which is older than it": 390,
    "BYE believed on one link only": 330,
    "BYE said on one link only": 330,
    "a delivery acknowledged only where it came": 450,
    "an outage that begins with the loss of the first of several links": 2950,
    "one caller's link attached to another's session: in any slot but the first": 1430,
    "a caller's links closed by another caller's greeting": 4310,
    "a bucket for each link in place of one for the process": 830,
    "a block taken for zeros because its beginning lies in a hole": 4998,
}


def test_each_of_them_is_a_mutant() -> None:
    assert FIRST.keys() <= MUTANTS.keys()


class Caught(NamedTuple):
    """What gave a mutant away, at which seed, and how many there were until then."""

    seeds: int
    seed: int
    why: str


def hunt(name: str) -> Caught | None:
    """Run seeds until this mutant is caught."""
    place, step = PLACES.get(name, (0, 1))
    first = FIRST.get(name, place)
    with pytest.MonkeyPatch.context() as patch:
        MUTANTS[name](patch)
        for count, seed in enumerate(range(first, first + SEEDS * step, step), 1):
            try:
                run_seed(seed)
            except Wrong as error:
                return Caught(count, seed, str(error).splitlines()[0])
            except AssertionError as error:
                return Caught(count, seed, f"an assertion: {error}")
    return None


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    caught = hunt(name)
    assert caught is not None, f"survived {SEEDS} seeds: {name}"
    assert not any(mistake in caught.why for mistake in MISTAKES), f"no mutant: {caught.why}"
    run_seed(caught.seed)  # what is wrong there is the mutant's doing
    with capsys.disabled():
        print(f"\n  {name}: {caught.seeds} seeds ({caught.why})", end="")
