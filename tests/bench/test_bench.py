"""Every benchmark runs: one tiny round, in which nothing about its figures is asserted."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import pytest

from tests.bench import (
    addresses,
    buffers,
    compare,
    latency,
    output,
    path,
    rate,
    recovery,
    road,
    ssh,
    startup,
    throughput,
    unplugged,
    wire,
)
from tests.bench.peers import BPIPE, PEERS
from tests.bench.rounds import Options
from tests.bench.table import Column, Table, show_seconds
from tests.end_to_end import sshd

NC = PEERS[0]
HAVE_NC = not NC.missing()
NO_WIRE = wire.missing()
NO_SSHD = sshd.missing()


def bench(*arguments: str) -> list[dict[str, Any]]:
    """Run one as people do, with nc beside bpipe; returns its tables."""
    command = [sys.executable, "-m", "tests.bench", *arguments, "--json", "--rounds", "1"]
    run = subprocess.run(
        [*command, "--only", BPIPE.name, NC.name], capture_output=True, text=True, timeout=60
    )
    assert run.stderr == ""
    assert run.returncode == 0
    return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "tables", "floor"),
    [
        ("throughput --size 4M", 3, [throughput.FLOOR]),
        ("recovery --seconds 0.2", 1 if NO_WIRE else 2, [recovery.FLOOR]),
        ("latency --count 20", 1, [latency.FLOOR]),
        ("startup", 1, [startup.PYTHON, startup.FLOOR]),
        ("memory --size 1M 4M", 2, []),
        ("sessions --count 1 --seconds 0.2", 1, []),
        pytest.param(
            "slow --size 64K --seconds 2",
            1,
            ["bpipe, cut every 2s"],
            marks=pytest.mark.skipif(NO_WIRE != "", reason=NO_WIRE),
        ),
    ],
)
def test_one_round(command: str, tables: int, floor: list[str]) -> None:
    found = bench(*command.split())
    assert len(found) == tables
    for table in found:
        assert set(table["rows"]) == {*floor, BPIPE.name, *([NC.name] if HAVE_NC else [])}
        assert [note for note in table["notes"] if "failed" in note] == []
        assert all(len(row["samples"]) == 1 for row in table["rows"].values())
        assert table["rows"][BPIPE.name]["ratios"] == {BPIPE.name: 1.0}
        assert table["rows"][BPIPE.name]["figures"].get("lost", 0) == 0


@pytest.mark.slow
def test_one_round_of_a_link_that_is_replaced() -> None:
    [table] = bench(*"carrier --seconds 0.2".split())
    assert table["notes"] == []
    assert len(table["rows"]["bpipe, dead for 0.2s"]["samples"]) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "rows"),
    [
        ("many --count 3", [4]),
    ],
)
def test_one_round_of_many_sessions(command: str, rows: list[int]) -> None:
    tables = bench(*command.split())
    assert [len(table["rows"]) for table in tables] == rows
    assert [note for table in tables for note in table["notes"]] == []


@pytest.mark.slow
def test_one_round_of_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "PAIRS", [("64K", "64K"), ("64M", "64K")])
    [table] = buffers.run(Options(rounds=1, sizes=(1 << 20,)))
    assert table.notes == []
    assert {row: len(found) for row, found in table.samples.items()} == {
        "64K to 64K": 1,
        "64M to 64K": 1,
    }


@pytest.mark.slow
@pytest.mark.skipif(NO_WIRE != "", reason=NO_WIRE)
def test_one_round_of_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "NAMES", addresses.NAMES[:3])  # the others take long
    [table] = addresses.run(Options(rounds=1, count=1))
    assert table.notes == []
    assert list(table.samples) == ["bpipe, alive", "bpipe, 3 that refuse", "bpipe, 1 black hole"]
    assert all(len(samples) == 1 for samples in table.samples.values())


@pytest.mark.slow
@pytest.mark.skipif(NO_SSHD != "", reason=NO_SSHD)
def test_one_round_of_ssh() -> None:
    tables = list(ssh.run(Options(rounds=1, sizes=(1 << 20,), seconds=(0.1,))))
    assert [note for table in tables for note in table.notes] == []
    assert [list(table.samples) for table in tables] == [
        *[["bpipe ssh", "ssh"]] * 3,
        ["after a kill", "after 0.1s of a black hole"],
    ]


@pytest.mark.slow
@pytest.mark.skipif(road.missing() != "", reason=road.missing())
def test_one_round_of_streams_to_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "ROADS", ())
    name = output.BPIPE.name
    tables = list(output.run(Options(rounds=1, sizes=(8 << 20,), only=(name,))))
    assert [table.notes for table in tables] == [[], []]
    assert [list(table.samples) for table in tables] == [[name], ["random bytes", "zeros"]]
    assert 2 << 20 < tables[0].samples[name][0]["crossed"] < 3 << 20


@pytest.mark.slow
@pytest.mark.skipif(NO_SSHD != "", reason=NO_SSHD)
@pytest.mark.skipif(road.missing() != "", reason=road.missing())
def test_one_round_of_a_file_that_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "ROADS", {"loopback": None})
    names = "bpipe ssh", "ssh", "nc"
    loopback, cut = compare.run(Options(rounds=1, sizes=(8 << 20,), only=names))
    assert [loopback.notes, cut.notes] == [[], []]
    assert list(loopback.samples) == list(cut.samples) == list(names)
    [[bpipe], [plain], [nc]] = cut.samples.values()
    assert (bpipe["status"], bpipe["whole"], bpipe["runs"]) == (0, True, 1)
    assert (plain["status"], plain["whole"], plain["runs"]) == (255, False, 2)
    assert (nc["status"], nc["whole"]) == (0, False)


@pytest.mark.slow
def test_one_round_of_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"FIRST": 1.0, "PAUSE": 1.5, "THEN": 1.5, "OUTAGE": 0.2}.items():
        monkeypatch.setattr(rate, name, seconds)
    name = rate.LIMITERS[0].name
    [table] = rate.run(Options(rounds=1, sizes=(16 << 20,), only=(name,)))
    assert table.notes == []
    [sample] = table.samples[name]
    assert {column.key for column in rate.COLUMNS} <= sample.keys()


@pytest.mark.slow
@pytest.mark.skipif(NO_WIRE != "", reason=NO_WIRE)
def test_one_round_of_one_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path, "SETTLED", 0.2)
    monkeypatch.setattr(path, "LINKS", (2,))
    only = "nc", "bpipe --links 2", *([] if NO_SSHD else ["ssh"])
    over = Options(rounds=1, seconds=(0.3,), over=("0.1%",), only=only, congestion="reno")
    [table] = path.run(over)
    assert [note for note in table.notes if "queue" not in note] == []
    assert set(table.samples) == {"2 nc", *only[1:]}
    assert all(sample["rate"] > 0 for [sample] in table.samples.values())
    assert table.samples["bpipe --links 2"][0]["bound"] > 0


@pytest.mark.slow
@pytest.mark.skipif(NO_WIRE != "", reason=NO_WIRE)
def test_one_round_of_two_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"SETTLED": 0.5, "MINUTE": 0.8, "DEATH": 0.1}.items():
        monkeypatch.setattr(path, name, seconds)
    both = "bpipe --links 2"
    over = Options(rounds=1, seconds=(0.8,), over=("unequal", "dying"), only=("nc", both))
    alive, dying = path.run(over)
    [first], [second], [together] = alive.samples.values()
    assert first["path 0"] > 1000 > first["path 1"]
    assert second["path 1"] > 1000 > second["path 0"]
    assert min(together["path 0"], together["path 1"]) > 1000
    assert min(together["sum"], together["least"]) > 0
    assert list(dying.samples) == [both]


@pytest.mark.slow
@pytest.mark.skipif(NO_WIRE != "", reason=NO_WIRE)
def test_one_round_of_what_is_unplugged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unplugged, "SETTLED", {"thin": 0.5, "full": 0.5})
    monkeypatch.setattr(unplugged, "AROUND", 0.5)
    monkeypatch.setattr(unplugged, "PATIENCE", 2.0)
    names = "thin-both", "full", "again"
    tables = list(unplugged.run(Options(rounds=1, seconds=(0.1,), over=names, congestion="reno")))
    assert [table.notes for table in tables] == [[], [], []]
    assert [len(table.samples) for table in tables] == [8, 8, 4]
    thin, full, again = ([sample for [sample] in table.samples.values()] for table in tables)
    assert all(0 < sample["gap"] for sample in thin)
    assert all(sample["trip"] > 0.01 for sample in full)
    assert all(sample["back"] < 2.0 for sample in again)


def test_the_worst_second_begins_anywhere() -> None:
    seen = [(0.0, 1), (0.7, 4), (1.4, 2), (1.8, 3)]
    assert rate.worst(seen, 1.0) == 6
    assert rate.worst(seen, 0.1) == 4
    assert rate.worst(seen, 9.0) == 10


def test_what_is_missing_is_said() -> None:
    command = [sys.executable, "-m", "tests.bench", "startup", "--only", NC.name, "--rounds", "1"]
    run = subprocess.run(command, env={"PATH": ""}, capture_output=True, text=True, timeout=60)
    assert "without nc: nc is not installed" in run.stdout
    assert run.returncode == 0


def test_medians_and_ratios() -> None:
    columns = [Column("t", "time", show_seconds), Column("t", "worst", show_seconds, max)]
    table = Table("title", columns, ["bpipe", "absent"])
    for seconds in (1.0, 3.0, 8.0):
        table.add("bpipe", {"t": seconds})
        table.add("other", {"t": seconds / 2})
    table.add("never", {"t": math.inf})
    table.add("nothing", {})
    assert table.value("bpipe", columns[0]) == 3.0
    assert table.value("bpipe", columns[1]) == 8.0
    assert table.ratio("bpipe", "other") == 2.0
    rows = json.loads(table.as_json())["rows"]
    assert rows["other"]["figures"] == {"time": 1.5, "worst": 4.0}
    assert rows["other"]["ratios"] == {"bpipe": 2.0}
    assert rows["never"]["figures"]["time"] is None
    assert rows["nothing"]["ratios"] == {"bpipe": None}


def test_a_table_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("title", [Column("t", "time", show_seconds)], ["bpipe"], notes=["a [note]"])
    table.add("bpipe", {"t": 1.0})
    table.add("never", {"t": math.inf})
    table.add("nothing", {})
    table.print()
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["bpipe", "1.00", "s", "1.00"] in lines
    assert ["never", "never", "0.00"] in lines
    assert ["nothing", "-", "-"] in lines
    assert ["a", "[note]"] in lines
