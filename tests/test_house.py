"""The rules of the house hold, and what breaks one is found; ``make house`` shows the numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import house


def test_every_rule_holds() -> None:
    for name, value, bound, where in house.measure(house.HERE):
        assert value is not None
        if bound is not None:
            assert value <= bound, "\n".join([name, *where])


def test_one_byte_takes_few_calls() -> None:
    calls = house.calls(house.HERE)
    assert calls.value is not None
    assert calls.bound is not None
    assert calls.value <= calls.bound, "\n".join(calls.where)


# --- what breaks a rule is found ---

LONG = "def f():\n" + "    pass\n" * 40
CLASS = "class A:\n    _left: int\n    def __init__(self): self.right = 0\n    def _go(self): ...\n"


def broken(tmp_path: Path, files: dict[str, str]) -> dict[str, list[str]]:
    """Of a checkout with these files: where each rule is broken."""
    for name, text in {"bpipe/anything.py": "def f(): ...\n", **files}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return {each.name: each.where for each in house.measure(tmp_path)}


@pytest.mark.parametrize(
    ("name", "files", "where"),
    [
        ("functions over 40 lines", {"bpipe/a.py": LONG}, ["bpipe/a.py:1 f: 41 lines"]),
        ("functions over 40 lines", {"bpipe/a.py": "@f\n" + LONG[:-9]}, []),
        ("functions over 40 lines", {"bpipe/b/c/a.py": f"async {LONG}"}, ["a.py:1 f: 41 lines"]),
        ("those of tests over 40 lines", {"tests/test_a.py": LONG}, ["test_a.py:1 f: 41 lines"]),
        ("files over 300 lines", {"bpipe/a.py": "\n" * 301}, ["bpipe/a.py: 301 lines"]),
        ("files over 300 lines", {"bpipe/a.py": "\n" * 300, "tests/a.py": "\n" * 301}, []),
        ("tests over 500 lines", {"tests/a/b.py": "\n" * 501}, ["tests/a/b.py: 501 lines"]),
        ("longest parameter list", {"bpipe/a.py": "def g(self, a, *, b, **c): ..."}, ["a.py:1 g"]),
        ("fields written from outside", {"bpipe/a.py": CLASS + "a.right += 1"}, ["a.py:5 a.right"]),
        (
            "fields written from outside",
            {"bpipe/a.py": CLASS + "b().c._left: int = 1"},
            ["c._left"],
        ),
        ("fields written from outside", {"bpipe/a.py": CLASS + "del a._left"}, ["a.py:5 a._left"]),
        (
            "fields written from outside",
            {"bpipe/a.py": CLASS + "for a.right, b in c: 0"},
            ["right"],
        ),
        ("fields written from outside", {"bpipe/a.py": CLASS + "a.other = b.right"}, []),
        ("fields written from outside", {"bpipe/a.py": CLASS + "self.right = 0"}, []),
        ("reach-ins of tests", {"bpipe/a.py": CLASS, "tests/a.py": "a._go()\nb._go()"}, ["a._go"]),
        ("reach-ins of tests", {"bpipe/a.py": CLASS, "tests/a.py": "self.a._left"}, ["a._left"]),
        ("reach-ins of tests", {"bpipe/a.py": CLASS, "tests/a.py": "a._other, self._go"}, []),
        ("reach-ins of tests", {"bpipe/a.py": CLASS, "tests/a.py": "def _go(): a._go()"}, []),
        ("reach-ins of tests", {"bpipe/a.py": CLASS, "tests/b/mutants.py": "A._go"}, []),
        ("reach-ins of tests", {"bpipe/a.py": CLASS, "tests/mutants/b.py": "A._go"}, []),
        ("modules without tests", {"bpipe/b/a.py": LONG, "tests/test_a.py": ""}, ["b/a.py"]),
        ("modules without tests", {"bpipe/b/a.py": LONG, "tests/b/test_ab.py": ""}, ["b/a.py"]),
        ("modules without tests", {"bpipe/b/a.py": LONG, "tests/b/test_a_b.py": ""}, []),
        ("modules without tests", {"bpipe/b/a.py": LONG, "tests/b/test_a.py": ""}, []),
        ("modules without tests", {"bpipe/b/__init__.py": LONG}, []),
        ("modules without tests", {"bpipe/b.py": "class A:\n    def f(self):\n        'Do.'"}, []),
        ("modules without tests", {"bpipe/b.py": "A = 3\nclass B: ..."}, []),
    ],
)
def test_what_breaks_a_rule_is_found(
    tmp_path: Path, name: str, files: dict[str, str], where: list[str]
) -> None:
    found = [place for place in broken(tmp_path, files)[name] if "anything.py" not in place]
    assert len(found) == len(where)
    assert all(place.endswith(part) for place, part in zip(found, where, strict=True))


@pytest.mark.parametrize(
    ("one", "other", "circles"),
    [
        ("from bpipe.b import other", "import bpipe.a", ["bpipe.a <-> bpipe.b.other"]),
        (
            "from bpipe.b.other import x",
            "def f():\n    from bpipe import a",
            ["a <-> bpipe.b.other"],
        ),
        ("import bpipe.b.other", "if TYPE_CHECKING:\n    from bpipe import a", []),
        ("import bpipe.b.other", "from bpipe import __version__", []),
        ("import bpipe.c", "import bpipe.a", ["bpipe.a <-> bpipe.b.other <-> bpipe.c"]),
    ],
)
def test_modules_that_import_each_other_are_found(
    tmp_path: Path, one: str, other: str, circles: list[str]
) -> None:
    files = {"bpipe/a.py": one, "bpipe/b/other.py": other, "bpipe/c.py": "import bpipe.b.other"}
    files["bpipe/__init__.py"] = "from bpipe.a import x"
    found = broken(tmp_path, files)["import circles"]
    assert len(found) == len(circles)
    assert all(circle.endswith(part) for circle, part in zip(found, circles, strict=True))


def test_where_the_calls_cannot_be_counted_there_is_no_number(tmp_path: Path) -> None:
    (tmp_path / "bpipe").mkdir()
    (tmp_path / "bpipe/__init__.py").write_text("")
    assert house.calls(tmp_path).value is None
