"""What is sent ahead is whole, and short enough."""

from __future__ import annotations

import pytest

from bpipe.remote import bundle
from tests.test_imports import MODULES, imports

FULL = bundle.modules(bundle.HOLDER)
SENT = sorted({*FULL, "bpipe.remote.boot"} - {"bpipe"})
WORDS = {"nonce": "0123456789abcdef", "token": "00" * 32, "name": "bpipe-" + "0" * 32}


@pytest.mark.parametrize("name", sorted(FULL))
def test_what_a_module_imports_goes_with_it(name: str) -> None:
    for target, deferred in imports(FULL[name], ""):
        base = target if target in MODULES else target.rpartition(".")[0]
        if base in MODULES and not deferred:
            assert base in FULL


def test_nothing_of_the_command_line_is_sent() -> None:
    parts = {name.split(".")[1] for name in SENT}
    assert not parts & {"cli", "report", "demo"}


def test_the_line_is_one_that_fits() -> None:
    line = bundle.line(bundle.HOLDER, {**WORDS, "errand": {"command": "x" * 100}})
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert len(line) < bundle.LONGEST
    assert b"bpipe:" not in line


def test_what_several_links_need_is_sent_only_to_where_there_are_several() -> None:
    roots = bundle.HOLDER + bundle.SEVERAL
    more = {*bundle.modules(roots)} - {*FULL}
    assert more == {
        f"bpipe.protocol.{name}"
        for name in ("slot_channel", "outflow", "owed", "ranges", "reassembly")
    }
    assert len(bundle.line(roots + bundle.COMPARING, WORDS)) < bundle.LONGEST_OF_SEVERAL


def test_the_line_of_a_relay_is_short() -> None:
    assert len(bundle.line(bundle.RELAY, WORDS)) < 4096
    assert set(bundle.modules(bundle.RELAY)) == {"bpipe", "bpipe.remote", "bpipe.remote.relay"}
