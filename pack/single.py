"""Makes the single file: bpipe and what it needs, for a machine that has nothing but Python.

It is what `python -m zipapp` makes, with ``start`` as its ``__main__``. Pure packages are in it
once; of what is compiled, the wheels for each machine, and for each Python. ``pins.txt`` and
``cffi.txt`` say which these are, by digests. No time, no path and no order of a folder gets in: the
same sources are the same bytes, as long as the same zlib compresses them.

Not by shiv, whose files are for one Python and start 40 ms later each time, and not by pex: 160 ms.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
PYTHONS: Final = ("3.11", "3.12", "3.13", "3.14")
MACHINES: Final = ("x86_64", "aarch64")
PINS: Final = (HERE / "pins.txt", HERE / "cffi.txt")  # the second one's differ with the Python

_GLIBC: Final = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")  # what the wheels need of it
_OURS: Final = ("*.py", "py.typed")
_LICENSE: Final = re.compile(r"\.dist-info/(licenses/.|LICENSE|COPYING|NOTICE)")

Files = Mapping[str, bytes]  # by their paths


def write(target: Path, lib: Files, compiled: Mapping[str, Files]) -> None:
    """The single file. ``compiled`` has the files that are for one machine only, by its name."""
    parts = {"lib": _zip(lib)}
    parts.update((f"{machine}-linux-gnu", _zip(files)) for machine, files in compiled.items())
    key = hashlib.sha256(b"".join(parts.values())).hexdigest()[:16]
    start = (HERE / "start.py").read_text()
    machines = "Linux with glibc on " + " and ".join(sorted(compiled))
    for name, value in (("KEY", key), ("MACHINES", machines)):
        start = re.sub(rf'^{name} = ".*"', f'{name} = "{value}"', start, count=1, flags=re.M)
    content = _zip({"__main__.py": start.encode(), **parts}, compressed=False)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(b"#!/usr/bin/env python3\n" + content)
    target.chmod(0o755)


def _zip(files: Files, *, compressed: bool = True) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name)  # of 1980
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            if compressed:
                entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, files[name])
    return memory.getvalue()


def ours() -> Files:
    """The package of this checkout."""
    root = HERE.parent
    found = [path for each in _OURS for path in (root / "bpipe").rglob(each)]
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in found}
    return {**files, "LICENSE": (root / "LICENSE").read_bytes()}


def unpacked(wheels: Iterable[Path]) -> Files:
    """What is in these wheels and needed here."""
    files: dict[str, bytes] = {}
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if wanted(name):
                    files[name] = archive.read(name)
    return files


def wanted(name: str) -> bool:
    """All but what describes the package, and what of cffi only a compiler needs."""
    if ".dist-info/" in name:
        return _LICENSE.search(name) is not None
    return not name.endswith("/") and not name.startswith("cffi/") and ".data/" not in name


def download(folder: Path, machines: Iterable[str], pythons: Sequence[str]) -> None:
    """Have pip bring the wheels that are pinned for these, and no others."""
    pip = [sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check", "download"]
    pip += ["--no-deps", "--only-binary=:all:", "--require-hashes", f"--dest={folder}"]

    def bring(which: tuple[str, str]) -> None:
        machine, python = which
        options = [f"--platform={glibc}_{machine}" for glibc in _GLIBC]
        options.append(f"--python-version={python}")
        for pins in PINS if python == pythons[0] else PINS[1:]:
            options.append(f"--requirement={pins}")
        subprocess.run([*pip, *options], check=True)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(bring, product(machines, pythons)))


def pinned(folder: Path, tag: str, pythons: Iterable[str]) -> Iterator[Path]:
    """The wheels there for this machine, or for ``any``, whose digests are pinned."""
    pins = "".join(each.read_text() for each in PINS)
    tags = ["-abi3-", "-none-", *("-cp{}{}-".format(*each.split(".")) for each in pythons)]
    for wheel in sorted(folder.glob(f"*{tag}.whl")):
        if any(each in wheel.name for each in tags):
            if hashlib.sha256(wheel.read_bytes()).hexdigest() in pins:
                yield wheel


def brought(folder: Path, tag: str, pythons: Sequence[str]) -> Files:
    """What is in these; exits if one of them is not there."""
    pure = PINS[0].read_text().count("==") - 1  # all but cryptography
    wheels = list(pinned(folder, tag, pythons))
    if len(wheels) != (pure if tag == "any" else 1 + len(pythons)):
        sys.exit(f"make pyz: not all that is pinned for {tag} is in {folder}")
    return unpacked(wheels)


def main() -> None:
    """Read what is wanted, bring the wheels, and write the file."""
    parser = argparse.ArgumentParser(prog="make pyz", description="Make the single file.")
    parser.add_argument("--target", type=Path, default=HERE.parent / "dist" / "bpipe.pyz")
    parser.add_argument("--wheels", type=Path, default=HERE.parent / "build" / "wheels")
    parser.add_argument("--offline", action="store_true", help="the wheels are there")
    parser.add_argument("--machine", action="append", help=f"any of {MACHINES}; default: all")
    parser.add_argument("--python", action="append", help=f"any of {PYTHONS}; default: all")
    wants = parser.parse_args()
    machines, pythons = wants.machine or MACHINES, wants.python or PYTHONS
    if not wants.offline:
        download(wants.wheels, machines, pythons)
    lib = {**brought(wants.wheels, "any", pythons), **ours()}
    compiled = {each: brought(wants.wheels, each, pythons) for each in machines}
    write(wants.target, lib, compiled)
    print(f"{wants.target}: {wants.target.stat().st_size:,} bytes, for {', '.join(machines)}")


if __name__ == "__main__":
    main()
