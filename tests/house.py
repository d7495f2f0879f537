"""The rules of the house, measured: ``python -m tests.house [CHECKOUT]``.

Without CHECKOUT it is this one. Another can be older: what it lacks is shown as ``-``. What is
counted, and how:

functions over 40 lines
    From ``def`` to the last line, without decorators; in the package, and in the tests.
files over 300 lines, tests over 500 lines
    All lines, also empty ones.
longest parameter list
    Without ``self`` and ``cls``; in the package.
fields written from outside
    In the package: each target of an assignment (also an augmented one, ``del``, ``for``, ``with``)
    that is an attribute of anything but ``self`` and ``cls``, if a class of the package has a field
    of this name. What belongs to other libraries is so left out.
reach-ins of tests
    Each private name (``x._y``, of anything but ``self`` and ``cls``) that the package defines and
    the test file does not, once for each file. Not in mutants, which by their nature patch what
    is within, and not what a NamedTuple calls so (``_replace``).
import circles
    Groups of modules that import each other, also from within functions; imports for type checkers
    do not count.
modules without tests
    ``bpipe/x/y.py`` has ``tests/x/test_y.py``, or several ``test_y_topic.py``; not if it does
    nothing, as an interface.
calls for a byte
    Python calls for one byte there and its acknowledgement back: see ``tests/support/calls.py``.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import gc
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

HERE: Final = Path(__file__).parents[1]
CALLS: Final = HERE / "tests/support/calls.py"

FUNCTION_LINES: Final = 40
FILE_LINES: Final = 300
TEST_LINES: Final = 500
TUPLES: Final = {"_replace", "_asdict", "_fields", "_make"}  # public, in spite of their names

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Measure(NamedTuple):
    """One line of the table."""

    name: str
    value: int | None  # None: cannot be measured there
    bound: int | None  # at most; None: a figure, not a rule
    where: list[str]


class Source(NamedTuple):
    """One file of Python."""

    path: Path  # within the checkout
    lines: int
    tree: ast.Module
    nodes: list[ast.AST]  # of the tree, all


def sources(checkout: Path, folder: str) -> list[Source]:
    """What lies in this folder and below."""
    found = []
    for path in sorted((checkout / folder).rglob("*.py")):
        text = path.read_text()
        tree = ast.parse(text)
        nodes = list(ast.walk(tree))
        found.append(Source(path.relative_to(checkout), text.count("\n"), tree, nodes))
    return found


def functions(package: list[Source]) -> Iterator[tuple[Source, Function]]:
    """All, also methods and those within another."""
    for source in package:
        for node in source.nodes:
            if isinstance(node, Function):
                yield source, node


def length(function: Function) -> int:
    """In lines."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def long_functions(package: list[Source]) -> list[str]:
    """Those that do not fit on a screen."""
    return [
        f"{source.path}:{function.lineno} {function.name}: {length(function)} lines"
        for source, function in functions(package)
        if length(function) > FUNCTION_LINES
    ]


def long_files(files: list[Source], most: int) -> list[str]:
    """Those of more than ``most`` lines."""
    return [f"{each.path}: {each.lines} lines" for each in files if each.lines > most]


def parameters(function: Function) -> int:
    """How many it takes."""
    takes = function.args
    names = [each.arg for each in (*takes.posonlyargs, *takes.args, *takes.kwonlyargs)]
    if names and names[0] in ("self", "cls"):
        del names[0]
    return len(names) + (takes.vararg is not None) + (takes.kwarg is not None)


def longest_parameter_list(package: list[Source]) -> tuple[int, list[str]]:
    """How long it is, and where."""
    most = max(parameters(function) for _, function in functions(package))
    return most, [
        f"{source.path}:{function.lineno} {function.name}"
        for source, function in functions(package)
        if parameters(function) == most
    ]


def is_own(owner: ast.expr) -> bool:
    """Whether an attribute of this is one's own."""
    return isinstance(owner, ast.Name) and owner.id in ("self", "cls")


def writes(source: Source) -> Iterator[ast.Attribute]:
    """All attributes that are assigned or deleted in this file."""
    for node in source.nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            yield node


def fields(package: list[Source]) -> set[str]:
    """The names of all that objects of the package hold."""
    found = set()
    for source in package:
        for node in source.nodes:
            if isinstance(node, ast.ClassDef):
                annotated = [each.target for each in node.body if isinstance(each, ast.AnnAssign)]
                found |= {each.id for each in annotated if isinstance(each, ast.Name)}
        found |= {each.attr for each in writes(source) if is_own(each.value)}
    return found


def outside_writes(package: list[Source]) -> list[str]:
    """Fields written by those who do not own them."""
    ours = fields(package)
    return [
        f"{source.path}:{each.lineno} {ast.unparse(each)}"
        for source in package
        for each in writes(source)
        if not is_own(each.value) and each.attr in ours
    ]


def private_names(files: list[Source]) -> set[str]:
    """Private functions, methods and fields of these files."""
    names = {function.name for _, function in functions(files)} | fields(files)
    return {name for name in names if name.startswith("_") and not name.endswith("__")}


def reach_ins(package: list[Source], tests: list[Source]) -> list[str]:
    """Private names of the package in tests."""
    ours = private_names(package) - TUPLES
    found: dict[tuple[Path, str], str] = {}
    for test in tests:
        if "mutants" in test.path.with_suffix("").parts:
            continue
        foreign = ours - private_names([test])
        for node in test.nodes:
            if isinstance(node, ast.Attribute) and node.attr in foreign and not is_own(node.value):
                text = f"{test.path}:{node.lineno} {ast.unparse(node)}"
                found.setdefault((test.path, node.attr), text)
    return list(found.values())


def module_name(path: Path) -> str:
    """``bpipe.net.link`` for ``bpipe/net/link.py``."""
    return ".".join(part for part in path.with_suffix("").parts if part != "__init__")


def is_for_type_checkers(node: ast.AST) -> bool:
    """Whether this is ``if TYPE_CHECKING:``."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imported(tree: ast.AST) -> Iterator[str]:
    """The dotted names in import statements, some of a module, some of what is in one."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif not is_for_type_checkers(node):
            yield from imported(node)


def import_circles(package: list[Source]) -> list[str]:
    """Each group of modules of which every one leads to every other."""
    modules = {module_name(source.path): source for source in package}
    leads_to = {}
    for name, source in modules.items():
        names = set(imported(source.tree))
        names |= {each.rpartition(".")[0] for each in names}
        leads_to[name] = names & modules.keys() - {"bpipe"}
    reached = {name: _reachable(name, leads_to) for name in modules}
    circles = {
        frozenset(other for other in reached[name] if name in reached[other])
        for name in modules
        if name in reached[name]
    }
    return sorted(" <-> ".join(sorted(circle)) for circle in circles)


def _reachable(start: str, leads_to: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        fresh = leads_to[waiting.pop()] - found
        found |= fresh
        waiting += fresh
    return found


def does_something(source: Source) -> bool:
    """Whether it has a function that is more than a docstring."""
    return any(
        not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant)
        for _, function in functions([source])
        for node in function.body
    )


def untested(package: list[Source], tests: list[Source]) -> list[str]:
    """The modules without a file of tests in their place."""
    names = {str(each.path) for each in tests}
    missing = []
    for source in filter(does_something, package):
        stem = str(Path("tests", *source.path.parts[1:-1], f"test_{source.path.stem}"))
        has = f"{stem}.py" in names or any(name.startswith(f"{stem}_") for name in names)
        if not has and source.path.stem not in ("__init__", "__main__"):
            missing.append(str(source.path))
    return missing


def calls(checkout: Path) -> Measure:
    """The calls for one byte, and of which functions; only where there are today's modules."""
    done = subprocess.run(
        [sys.executable, str(CALLS)],
        env=os.environ | {"PYTHONPATH": str(checkout.resolve())},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=60,
    )
    count: dict[str, int] = json.loads(done.stdout)["calls"] if done.returncode == 0 else {}
    where = [f"{number:4} {name}" for name, number in count.items()]
    return Measure("calls for a byte", sum(count.values()) or None, 160, where)


@contextlib.contextmanager
def keeping_all() -> Iterator[None]:
    """Garbage is not looked for: among trees, which stay, that takes half of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@keeping_all()
def measure(checkout: Path) -> list[Measure]:
    """What can be read in the sources."""
    package, tests = sources(checkout, "bpipe"), sources(checkout, "tests")
    most, where = longest_parameter_list(package)
    lengths = [length(function) for _, function in functions(package)]

    def rule(name: str, bound: int, where: list[str]) -> Measure:
        return Measure(name, len(where), bound, where)

    return [
        rule(f"functions over {FUNCTION_LINES} lines", 0, long_functions(package)),
        rule(f"those of tests over {FUNCTION_LINES} lines", 0, long_functions(tests)),
        rule(f"files over {FILE_LINES} lines", 0, long_files(package, FILE_LINES)),
        rule(f"tests over {TEST_LINES} lines", 0, long_files(tests, TEST_LINES)),
        Measure("longest parameter list", most, 8, where),
        rule("fields written from outside", 5, outside_writes(package)),
        rule("reach-ins of tests", 3, reach_ins(package, tests)),
        rule("import circles", 0, import_circles(package)),
        rule("modules without tests", 0, untested(package, tests)),
        Measure("lines of the median function", int(statistics.median(lengths)), None, []),
        Measure("files", len(package), None, []),
        Measure("lines", sum(source.lines for source in package), None, []),
    ]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.house", description="Measure a checkout."
    )
    parser.add_argument("checkout", nargs="?", type=Path, default=HERE)
    parser.add_argument("--where", action="store_true", help="show also where each is")
    parser.add_argument("--calls", action="store_true", help="show the calls of each function")
    parser.add_argument("--json", action="store_true", help="all of it, for programs")
    options = parser.parse_args()
    measures = [*measure(options.checkout), calls(options.checkout)]
    if options.json:
        print(json.dumps([each._asdict() for each in measures], indent=1))
        return
    for each in measures:
        value = "-" if each.value is None else each.value
        print(
            f"{each.name:30}{value:>6}" + ("" if each.bound is None else f"  at most {each.bound}")
        )
        if options.calls if each is measures[-1] else options.where:
            print("".join(f"    {place}\n" for place in each.where), end="")


if __name__ == "__main__":
    main()
