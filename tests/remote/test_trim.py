"""What is left of a source is the same code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache

import pytest

from bpipe.remote import bundle
from bpipe.remote.trim import trimmed
from tests.test_imports import MODULES, imports

FULL = bundle.modules(bundle.HOLDER + bundle.COMPARING + bundle.SEVERAL)
SENT = sorted({*FULL, "bpipe.remote.boot"} - {"bpipe"})


class Essence(ast.NodeTransformer):
    """A tree without docstrings, imports and types."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if text else node

    def visit_Import(self, node: ast.AST) -> None:
        return None

    visit_ImportFrom = visit_Import

    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        return ast.Assign([node.target], self.visit(node.value)) if node.value else None


def essence(source: str) -> str:
    return ast.dump(Essence().visit(ast.parse(source)))


def fields(source: str) -> Iterator[str]:
    """Those that classes declare, with their types, which are more than a comment there."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            yield node.name
            yield from (ast.unparse(each) for each in node.body if isinstance(each, ast.AnnAssign))


def bound(source: str) -> dict[str, str]:
    """Which of bpipe, or of Python, every name is that a module imports when it is loaded."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            base = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            for alias in node.names:
                found[alias.asname or alias.name.partition(".")[0]] = base + alias.name
    return found


def used(source: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}


@cache
def both(name: str) -> tuple[str, str]:
    """The source of this module, and what is left of it."""
    source = MODULES[name].read_text()
    return source, trimmed(source)


@cache
def imported() -> set[str]:
    """All that the modules import, by its whole name."""
    return {target for text in FULL.values() for target, _ in imports(text, "")}


@pytest.mark.parametrize("name", SENT)
def test_the_code_of_a_module_stays_the_same(name: str) -> None:
    source, short = both(name)
    assert essence(short) == essence(source)
    assert list(fields(short)) == list(fields(source))
    assert len(short) < len(source)


@pytest.mark.parametrize("name", SENT)
def test_what_it_uses_it_imports(name: str) -> None:
    source, short = both(name)
    before, after = bound(source), bound(short)
    assert after.items() <= before.items()
    assert used(short).isdisjoint(before.keys() - after.keys())


@pytest.mark.parametrize("name", SENT)
def test_what_others_import_of_it_is_there(name: str) -> None:
    wanted = {
        target.rpartition(".")[2]
        for target in imported()
        if target.rpartition(".")[0] == name and target not in MODULES
    }
    _, short = both(name)
    defined = {
        getattr(node, "name", None) or getattr(node, "id", None)
        for node in ast.walk(ast.parse(short))
    }
    assert wanted <= defined


@pytest.mark.parametrize(
    ("source", "short"),
    [
        ('"""What."""\n\nx = 1\n', '""\nx=1\n'),
        ('def f():\n    """What\n    else."""\n    return 1\n', "def f():\n return 1\n"),
        ('class A(B):\n    """What."""\n\n\nx = 1\n', 'class A(B):\n ""\nx=1\n'),
        ("x = 1  # one\n# two\ny = '#'\n", "x=1\ny='#'\n"),
        ("def f():\n        # one\n\n        return 1\n", "def f():\n  return 1\n"),
        (
            'x = """\\\n    # no, comment\n\n    y\n"""\n',
            'x="""\\\n    # no, comment\n\n    y\n"""\n',
        ),
        ('x = ""\n"""y"""\n', 'x=""\n""\n'),
        ("def f(a: int, *b: C[[D], E | None], c: F = F()) -> G:\n", "def f(a,*b,c=F()):\n"),
        (
            "def f(\n    self,\n    a: A[[B], None] = lambda b: None,\n) -> None:\n",
            "def f(\n self,\n a=lambda b:None,\n):\n",
        ),
        ("x = {a: b, c: d}\ny = z[1:2]\n", "x={a:b,c:d}\ny=z[1:2]\n"),
        ("\nX: Final = 1\n", "\nX=1\n"),
        ("class A(B):\n    c: int = 1\n", "class A(B):\n c:int=1\n"),
        ("def f():\n    self.a: dict[str, int] = {}\n", "def f():\n self.a={}\n"),
        (
            "x = -y if not (z) else 0 if w else f'{a, b}'\n",
            "x=-y if not(z)else 0 if w else f'{a, b}'\n",
        ),
        (
            r"""x = "a , \" , 'b" 'c , "' "d" , e""" + "\n",
            r"""x="a , \" , 'b" 'c , "' "d",e""" + "\n",
        ),
    ],
)
def test_what_does_nothing_is_cut(source: str, short: str) -> None:
    assert trimmed(source) == short


@pytest.mark.parametrize(
    ("imports", "body", "left"),
    [
        ("import os\nfrom a import b, c\n", "x=c\n", "from a import c\n"),
        ("from a import (\n    b,\n    c,\n)\n", "x=b,c\n", "from a import b,c\n"),
        ("from a import b as c\n", "x=b\n", ""),
        ("import a.b\n", "x=a.b.c\n", "import a.b\n"),
        ("from __future__ import annotations\n", "", "from __future__ import annotations\n"),
        (
            "from a import b\n\nif TYPE_CHECKING:\n    from a import c\n\n",
            "x=b\n",
            "from a import b\n",
        ),
    ],
)
def test_of_imports_what_is_used_is_left(imports: str, body: str, left: str) -> None:
    assert trimmed(imports + body) == left + body
