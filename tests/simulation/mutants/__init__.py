"""Known ways to get this protocol wrong, each as a patch of the production code.

A mutant is a function that makes the change through a ``MonkeyPatch``. Most of them are mistakes
that somebody has really made in a pipe that resumes; the simulation has to notice every one.
"""

from tests.simulation.mutants import (
    crowd,
    endings,
    far,
    files,
    greetings,
    programs,
    rates,
    records,
    several,
    streams,
    told,
    turns,
    waiting,
)
from tests.simulation.mutants.registry import MUTANTS, PLACES

__all__ = [
    "MUTANTS",
    "PLACES",
    "crowd",
    "endings",
    "far",
    "files",
    "greetings",
    "programs",
    "rates",
    "records",
    "several",
    "streams",
    "told",
    "turns",
    "waiting",
]
