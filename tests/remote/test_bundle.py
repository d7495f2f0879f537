"""What is sent ahead is the same code, whole, and short enough."""

from __future__ import annotations

import ast

import pytest

from bpipe.remote import bundle
from tests.test_imports import MODULES, imports

FULL = bundle.modules(bundle.HOLDER)
SENT = sorted({*FULL, "bpipe.remote.boot"} - {"bpipe"})
WORDS = {"nonce": "0123456789abcdef", "token": "00" * 32, "name": "bpipe-" + "0" * 32}


class WithoutDocstrings(ast.NodeTransformer):
    """Texts that are statements do nothing."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if text else node


def tree(source: str) -> str:
    return ast.dump(WithoutDocstrings().visit(ast.parse(source)))


@pytest.mark.parametrize("name", SENT)
def test_the_code_of_a_module_stays_the_same(name: str) -> None:
    source = MODULES[name].read_text()
    trimmed = bundle.trimmed(source)
    assert tree(trimmed) == tree(source)
    assert len(trimmed) < len(source)


@pytest.mark.parametrize(
    ("source", "trimmed"),
    [
        ('"""What."""\n\nx = 1\n', '""\nx = 1\n'),
        ('def f():\n    """What\n    else."""\n    return 1\n', 'def f():\n ""\n return 1\n'),
        ("x = 1  # one\n# two\ny = '#'\n", "x = 1\ny = '#'\n"),
        (
            'x = """\\\n    # no comment\n\n    y\n"""\n',
            'x = """\\\n    # no comment\n\n    y\n"""\n',
        ),
        ('x = ""\n"""y"""\n', 'x = ""\n""\n'),
    ],
)
def test_what_does_nothing_is_cut(source: str, trimmed: str) -> None:
    assert bundle.trimmed(source) == trimmed


@pytest.mark.parametrize("name", sorted(FULL))
def test_what_a_module_imports_goes_with_it(name: str) -> None:
    if name == "bpipe":
        assert FULL[name] == ""
        return
    found = imports(MODULES[name].read_text(), name.rpartition(".")[0])
    for target, deferred in found:
        if target.startswith("bpipe.") and not deferred and target in MODULES:
            assert target in FULL or "TYPE_CHECKING" in MODULES[name].read_text()


def test_nothing_of_the_command_line_is_sent() -> None:
    parts = {name.split(".")[1] for name in SENT}
    assert not parts & {"cli", "report", "demo"}


def test_the_line_is_one_that_fits() -> None:
    line = bundle.line(bundle.HOLDER, {**WORDS, "errand": {"command": "x" * 100}})
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert len(line) < bundle.LONGEST
    assert b"bpipe:" not in line


def test_the_line_of_a_relay_is_short() -> None:
    assert len(bundle.line(bundle.RELAY, WORDS)) < 4096
    assert set(bundle.modules(bundle.RELAY)) == {"bpipe", "bpipe.remote", "bpipe.remote.relay"}
