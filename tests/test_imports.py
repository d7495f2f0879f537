"""Imports point down: from cli to errors. Public names are above."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import bpipe

PACKAGE = Path(bpipe.__file__).parent
LAYERS = [
    "errors",
    "status",
    "protocol",
    "net",
    "survey",
    "supervisor",
    "engine",
    "comparison",
    "halves",
    "pipe",
    "api",
    "server",
    "ends",
    "report",
    "run",
    "remote",
    "demo",
    "cli",
]
TOP = len(LAYERS)

IMPURE = {"asyncio", "socket", "threading", "time"}
HEAVY = {"cryptography", "rich"}
CRYPTOGRAPHER = ("bpipe.protocol.noise", "cryptography")
SEALING = {"bpipe.protocol.noise", "bpipe.protocol.sealed"}


class Import(NamedTuple):
    """One name of an import statement."""

    target: str  # dotted and absolute: a module, or a name in one
    deferred: bool  # within a function


def module_name(path: Path) -> str:
    """``bpipe.net.link`` for ``.../bpipe/net/link.py``."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


VERSION = "bpipe.__version__"  # a plain constant, where packaging tools look for it
MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def layer(module: str) -> int:
    """How high a module of bpipe, or a name in one, lies."""
    name = (module + ".").split(".")[1]
    return LAYERS.index(name) if name in LAYERS else TOP


def imports(source: str, package: str) -> Iterator[Import]:
    """All imports of a module in this package, those in functions too."""

    def walk(node: ast.AST, deferred: bool) -> Iterator[Import]:
        deferred |= isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, deferred) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: 1 - node.level or None] if node.level else []
            parts = [*base, *filter(None, [node.module])]
            yield from (Import(".".join([*parts, alias.name]), deferred) for alias in node.names)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, deferred)

    return walk(ast.parse(source), False)


def violations(module: str, source: str, package: str = "") -> list[str]:
    """What this module imports and must not."""
    found = []
    level = layer(module)
    for target, deferred in imports(source, package or module.rpartition(".")[0]):
        root = target.split(".")[0]
        if root == "bpipe":
            wrong = layer(target) > level and target != VERSION
        elif level == LAYERS.index("protocol"):
            pure = root in sys.stdlib_module_names and root not in IMPURE
            wrong = not pure and (module, root) != CRYPTOGRAPHER
        else:
            wrong = (root in HEAVY and not deferred) or (
                root == "typer" and level != LAYERS.index("cli")
            )
        if wrong:
            found.append(target)
    return found


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_it_may(module: str) -> None:
    path = MODULES[module]
    package = module if path.name == "__init__.py" else ""
    assert violations(module, path.read_text(), package) == []


@pytest.mark.parametrize("module", sorted(MODULES.keys() - SEALING))
def test_what_is_sealed_is_imported_when_a_secret_is_used(module: str) -> None:
    found = imports(MODULES[module].read_text(), module.rpartition(".")[0])
    hasty = [name for name, deferred in found if not deferred]
    assert not [name for name in hasty if name.startswith(tuple(SEALING))]


def test_every_layer_has_a_module() -> None:
    assert {layer(module) for module in MODULES} == set(range(TOP + 1))


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("bpipe.errors", "import bpipe.protocol.wire", ["bpipe.protocol.wire"]),
        ("bpipe.protocol.wire", "from bpipe.net.clock import clock", ["bpipe.net.clock.clock"]),
        ("bpipe.protocol.wire", "from bpipe import pipe", ["bpipe.pipe"]),
        ("bpipe.protocol.wire", "import mmap, time", ["time"]),
        ("bpipe.protocol.wire", "def f():\n    from socket import socket", ["socket.socket"]),
        ("bpipe.protocol.wire", "import attrs", ["attrs"]),
        ("bpipe.net.link", "def f():\n    import bpipe.pipe", ["bpipe.pipe"]),
        ("bpipe.net.link", "from .. import pipe", ["bpipe.pipe"]),
        ("bpipe.net.link", "from ..cli.app import run", ["bpipe.cli.app.run"]),
        ("bpipe.net.link", "from . import clock", []),
        ("bpipe.net.link", "import socket, bpipe.protocol.wire", []),
        ("bpipe.net.link", "import typer", ["typer"]),
        ("bpipe.pipe", "from bpipe.cli import app", ["bpipe.cli.app"]),
        ("bpipe.pipe", "from bpipe import connect", ["bpipe.connect"]),
        ("bpipe.pipe", "async def f():\n    import bpipe", ["bpipe"]),
        ("bpipe.cli.app", "import typer", []),
        ("bpipe.cli.app", "if True:\n    import rich.live", ["rich.live"]),
        ("bpipe.cli.app", "class A:\n    import cryptography", ["cryptography"]),
        ("bpipe.cli.app", "def f():\n    import rich.live", []),
        ("bpipe.__main__", "from bpipe.cli.app import run", []),
        ("bpipe.__main__", "import typer", ["typer"]),
        ("bpipe", "from bpipe.api import connect", []),
    ],
)
def test_a_wrong_import_is_found(module: str, source: str, wrong: list[str]) -> None:
    assert violations(module, source) == wrong
