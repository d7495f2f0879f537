"""What runs first there: on any Python 3, without a file."""

from __future__ import annotations

import importlib.abc
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from bpipe.remote import boot, bundle
from tests.support.far import Far, Token
from tests.support.remote import python


@pytest.fixture(params=["source", "code"])
def memory(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[boot.Memory]:
    sources: dict[str, Any] = {
        "a1": "",
        "a1.b": "'''What.'''\nhere = __name__",
        "a1.c": "from a1.b import here",
    }
    if request.param == "code":
        before = boot.Memory(sources)
        sources = {name: before.get_code(name) for name in sources}
    memory = boot.Memory(sources)
    monkeypatch.setattr(sys, "meta_path", [memory, *sys.meta_path])
    yield memory
    for name in sources:
        sys.modules.pop(name, None)


def test_modules_are_imported_from_memory(memory: boot.Memory) -> None:
    import a1.c  # type: ignore[import-not-found]

    assert a1.c.here == "a1.b"
    assert a1.c.__spec__.loader is memory
    assert a1.__path__ == []
    with pytest.raises(ModuleNotFoundError):
        import a1.d  # type: ignore[import-not-found]


def test_their_code_can_be_asked_for(memory: boot.Memory) -> None:
    """As the guard does, which sends it to a process of its own."""
    assert memory.get_source("a1.c") in ("from a1.b import here", None)
    code = memory.get_code("a1.b")
    assert code.co_consts[0] == "What."
    words = {name for name in vars(importlib.abc.InspectLoader) if not name.startswith("_")}
    assert words - {"source_to_code", "load_module"} <= set(dir(memory))


@pytest.mark.parametrize("version", [(3, 6), (3, 7), (3, 8)])
def test_an_old_python_says_that_it_is_one(version: tuple[int, int]) -> None:
    token = Token()
    with Far(python(version)) as far:
        answer = far.answer(token.starter("true"), token.words["nonce"])
        assert answer["final"]
        assert answer["error"].startswith(f"its python3 is {version[0]}.{version[1]}.")
        assert answer["error"].endswith("bpipe needs 3.9 or later")
        assert far.end() == 1


def test_a_system_without_abstract_sockets_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    program = (
        "import sys; sys.platform = 'darwin'\n"
        "from bpipe.remote import boot\n"
        "boot.begin({'nonce': 'n'})"
    )
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert done.stdout.startswith(b'\0bpipe:n {"error": "it runs darwin')
    assert done.returncode == 1


def test_what_fails_is_told() -> None:
    token = Token()
    line = bundle.line((), token.words)
    with Far(python((3, 9))) as far:
        assert "No module named" in far.answer(line, token.words["nonce"])["error"]
        assert far.end() == 1
