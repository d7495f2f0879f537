"""The gate: a thread waits there, and is woken only for what it waits for."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator

import pytest

from bpipe.ends.gate import Gate
from tests.end_to_end.data import until
from tests.support.pairs import Files, files, is_closed

__all__ = ["files"]


class Wish:
    """What a thread waits for."""

    def __init__(self) -> None:
        self.wanted = False

    def __call__(self) -> bool:
        return self.wanted


@pytest.fixture
def wish() -> Wish:
    return Wish()


@pytest.fixture
def gate(files: Files, wish: Wish) -> Iterator[Gate]:
    reader, _ = files.pipe()
    gate = Gate(reader, select.POLLIN, wish)
    yield gate
    gate.close()


def test_what_has_happened_before_is_not_waited_for(gate: Gate, wish: Wish) -> None:
    wish.wanted = True
    assert gate.wait(beside=True) == 0
    for _ in range(100_000):  # more than a pipe can hold: nobody waits, so nothing is kept there
        gate.look()
    assert not gate.idle()


def test_an_event_beside_it_is_returned(files: Files, wish: Wish) -> None:
    reader, writer = files.pipe()
    gate = Gate(reader, select.POLLIN, wish)
    os.write(writer, b"x")
    assert gate.wait(beside=True) == select.POLLIN
    assert not gate.idle()
    gate.close()


def waiting(gate: Gate, *, beside: bool = False) -> tuple[threading.Thread, list[int]]:
    """A thread that has parked there, and what it returns with."""
    returned: list[int] = []
    thread = threading.Thread(target=lambda: returned.append(gate.wait(beside=beside)), daemon=True)
    thread.start()
    until(gate.idle, "the thread to park")
    return thread, returned


def test_a_thread_that_waits_is_woken_when_it_is_wanted(gate: Gate, wish: Wish) -> None:
    thread, returned = waiting(gate)
    gate.look()
    assert gate.idle()
    wish.wanted = True
    gate.look()
    thread.join(10)
    assert returned == [0]
    assert not gate.idle()


def test_only_what_is_asked_for_wakes_it(files: Files, wish: Wish) -> None:
    reader, writer = files.pipe()
    os.write(writer, b"x")
    gate = Gate(reader, select.POLLIN, wish)
    thread, returned = waiting(gate, beside=False)
    wish.wanted = True
    gate.look()
    thread.join(10)
    assert returned == [0]
    gate.close()


def test_a_thread_that_is_woken_for_a_wait_that_is_over_stays(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, _ = files.pipe()
    read, passed = os.read, list[bytes]()

    def note(descriptor: int, count: int) -> bytes:
        passed.append(read(descriptor, count))
        return passed[-1]

    def wish() -> bool:
        if not asked:
            asked.append(True)
            gate.look()  # the loop is quicker: it opens the gate, although nobody comes to it
        return wanted

    wanted, asked = True, list[bool]()
    gate = Gate(reader, select.POLLIN, wish)
    assert gate.wait(beside=False) == 0
    wanted = False
    monkeypatch.setattr(os, "read", note)
    thread, returned = waiting(gate)
    until(lambda: passed, "the thread to come to the gate")
    assert gate.idle()
    assert not returned
    wanted = True
    gate.look()
    thread.join(10)
    assert returned == [0]
    gate.close()


def test_its_own_descriptors_are_closed(files: Files, wish: Wish) -> None:
    reader, _ = files.pipe()
    below = os.dup(reader)
    os.close(below)
    gate = Gate(reader, 0, wish)
    gate.close()
    assert is_closed(below)
    assert not is_closed(reader)


def test_a_gate_without_a_descriptor_is_waited_at_for_a_while(wish: Wish) -> None:
    gate = Gate(None, 0, wish)
    gate.rest(0.001)
    assert not gate.idle()
    wish.wanted = True
    gate.rest(60)
    wish.wanted = False
    thread = threading.Thread(target=lambda: gate.rest(60))
    thread.start()
    until(gate.idle, "the thread to park")
    wish.wanted = True
    gate.look()
    thread.join(10)
    assert not thread.is_alive()
    gate.close()
