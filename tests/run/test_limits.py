"""What the system may refuse a process, and how that is said."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from bpipe.run.limits import code, describe, require_descriptors, shortage


def os_error(number: int, path: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), path)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (os_error(errno.EMFILE), "too many open files: bpipe needs some twenty (ulimit -n)"),
        (
            os_error(errno.ENFILE),
            "too many open files in system: bpipe needs some twenty (ulimit -n)",
        ),
        (
            os_error(errno.ENOMEM),
            "cannot allocate memory: a smaller --buffer needs less (ulimit -v)",
        ),
        (MemoryError(), "cannot allocate memory: a smaller --buffer needs less (ulimit -v)"),
        (MemoryError("128 MiB"), "cannot allocate memory: 128 MiB"),
        (
            RuntimeError("can't start new thread"),
            "cannot start a thread: too many processes, or too little memory (ulimit -u, -v)",
        ),
        (os_error(errno.ENOENT), None),
        (ValueError("a bug"), None),
    ],
)
def test_what_is_missing_and_what_to_do(error: BaseException, said: str | None) -> None:
    assert shortage(error) == said
    if said is not None:
        assert describe(error) == said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (os_error(errno.ENOENT), "no such file or directory"),
        (os_error(errno.EACCES, "/a/path"), "/a/path: permission denied"),
        (ImportError("No module named 'x'"), "a module cannot be loaded: No module named 'x'"),
    ],
)
def test_why_it_cannot_run(error: BaseException, said: str) -> None:
    assert describe(error) == said


def test_a_bug_is_not_described() -> None:
    with pytest.raises(ZeroDivisionError):
        describe(ZeroDivisionError())


def test_the_word_for_programs() -> None:
    assert code(os_error(errno.EMFILE)) == "emfile"
    assert code(os_error(errno.ECONNREFUSED)) == "refused"
    assert code(MemoryError()) == "failed"


def test_descriptors_are_asked_for_and_given_back() -> None:
    before = os.listdir("/proc/self/fd")
    require_descriptors()
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("spare", [0, 5])
def test_too_few_descriptors_are_noticed_at_once(spare: int) -> None:
    program = f"""
import os, resource
from bpipe.run.limits import require_descriptors
used = len(os.listdir("/proc/self/fd")) - 1
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (used + {spare}, hard))
try:
    require_descriptors()
except OSError as error:
    os._exit(42)
"""
    done = subprocess.run([sys.executable, "-c", program], timeout=20)
    assert done.returncode == 42


@pytest.mark.parametrize(
    ("hard", "links", "said"),
    [
        (1000, 1, "1 178 1000"),
        (1000, 8, "8 248 1000"),
        (207, 8, "3 207 207"),
        (178, 8, "1 178 178"),
        (177, 1, "refused"),
    ],
)
def test_sessions_with_several_links_may_have_to_do_with_fewer(
    hard: int, links: int, said: str
) -> None:
    program = f"""
import resource
from bpipe.run.limits import affordable, allow_sessions
resource.setrlimit(resource.RLIMIT_NOFILE, (50, {hard}))
try:
    allow_sessions(10, {links})
    print(affordable(10, {links}), *resource.getrlimit(resource.RLIMIT_NOFILE))
except OSError as error:
    print("refused" if "needs 178 descriptors, not 177" in str(error) else error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=20
    )
    assert done.stdout.strip() == said
