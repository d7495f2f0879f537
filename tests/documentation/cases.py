"""What each recipe finds, and what it has to leave behind.

A recipe is named by its title; if there are two with the same, by its document, too.
"""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from tests.documentation.world import Machine, World
from tests.end_to_end.data import MIB, until

DISK: Final = 3 * MIB
DUMP: Final = "a dump of shop\n"


class Case(NamedTuple):
    """``check`` is told what each line has said on its terminal."""

    check: Callable[[World, list[str]], None]
    prepare: Callable[[World], None] = lambda world: None
    # What is typed when a line asks for it: its question, and the file here that has the answer.
    asks: tuple[str, str] | None = None
    root: bool = False  # whose crontab it is


# --- what is there before ---


def disks(world: World) -> None:
    """Both machines have two."""
    for machine in (world.here, world.far):
        for name in ("sdb", "sdc"):
            machine.disk(name, DISK, f"{name} of {machine.name}".encode())


def dump(world: World) -> None:
    """A program that says what a database would."""
    for machine in (world.here, world.far):
        machine.script("pg_dump", f"[ $1 = shop ] && printf '{DUMP}'")


def borg(world: World) -> None:
    """A repository there, which is not known here."""
    world.far.run("borg", "init", "-e", "none", "repo")
    world.here.exported.append("export BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes")


def restic(world: World) -> None:
    """The password of a repository."""
    world.here.exported.append("export RESTIC_PASSWORD=x")


def project(world: World) -> None:
    """A repository of git."""
    make = "git init -q --bare project.git && cd project.git && git config user.name a &&"
    commit = "git config user.email a@b && git commit-tree -m all $(git mktree < /dev/null)"
    world.far.run("sh", "-c", f"{make} git update-ref $(git symbolic-ref HEAD) $({commit})")


def two_ways(world: World) -> None:
    """Two more wires between the machines; whoever says nothing takes the first one."""
    for number, name in enumerate(("wlan0", "usb0"), 1):
        net = f"10.78.{number}"
        ends = f"name {name} type veth peer name far-{name} netns {world.far.pid}"
        route = f"ip route add 10.77.0.0/24 via {net}.2 dev {name} metric {100 * number}"
        here = f"ip addr add {net}.1/24 dev {name} && ip link set {name} up && {route}"
        far = f"ip addr add {net}.2/24 dev far-{name} && ip link set far-{name} up"
        world.here.within(f"ip link del {name} 2> /dev/null; ip link add {ends}")
        world.far.within(far)
        world.here.within(here)


# --- what is there in the end ---


def tree(folder: Path) -> dict[str, bytes]:
    """The files of a folder."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def holds(archive: Path, folder: Path) -> None:
    """This has all the files of that."""
    with tarfile.open(archive) as tar:
        found = {
            each.name.removeprefix("./"): tar.extractfile(each) for each in tar if not each.isdir()
        }
        read = {name: file.read() for name, file in found.items() if file is not None}
    assert read == tree(folder)


def goes(source: str = "/src", to: str = "/dst") -> Callable[[World, list[str]], None]:
    """A folder of this machine is at the other one."""

    def check(world: World, said: list[str]) -> None:
        assert tree(world.far.path(to)) == tree(world.here.path(source))

    return check


def comes(world: World, said: list[str]) -> None:
    """A folder of the other machine is here."""
    assert tree(world.here.path("/dst")) == tree(world.far.path("/src"))


def archived(name: str) -> Callable[[World, list[str]], None]:
    """A folder of this machine is in an archive at the other one, in the user's home."""

    def check(world: World, said: list[str]) -> None:
        archive = world.far.path(f"/home/me/{name}")
        until(lambda: archive.exists() and archive.stat().st_size >= MIB // 4, "an archive")
        holds(archive, world.here.path("/src"))

    return check


def dumped(world: World, said: list[str]) -> None:
    assert world.here.path("/home/me/shop.sql").read_text() == DUMP


def disk_is(machine: str, path: str, source: str) -> Callable[[World, list[str]], None]:
    """This is on that machine what such a disk is on the other one."""

    def check(world: World, said: list[str]) -> None:
        there, here = getattr(world, machine), world.here if machine == "far" else world.far
        assert content(there, path) == content(here, source)

    return check


def content(machine: Machine, path: str) -> bytes:
    command = machine.command("cat", path, root=True)
    return subprocess.run(command, check=True, capture_output=True, timeout=20).stdout


def unpacked(world: World, said: list[str]) -> None:
    packed = world.far.path("/home/me/disk.img.zst")
    image = subprocess.run(["zstd", "-dc", packed], check=True, capture_output=True).stdout
    assert image == content(world.here, "/dev/sdb")


def key_is_shared(world: World, said: list[str]) -> None:
    keys = [machine.path("/home/me/.bpipe.key") for machine in (world.here, world.far)]
    assert keys[0].read_bytes() == keys[1].read_bytes()
    assert [key.stat().st_mode & 0o777 for key in keys] == [0o600, 0o600]


def stored(path: str) -> Callable[[World, list[str]], None]:
    """The file, which can hardly be made smaller, has gone into such a repository."""

    def check(world: World, said: list[str]) -> None:
        parts = tree(world.far.path(path))
        assert sum(map(len, parts.values())) > len(content(world.here, "/src/file"))

    return check


def cloned(world: World, said: list[str]) -> None:
    world.here.run("git", "-C", "project", "log")


def copied(world: World, said: list[str]) -> None:
    """A file has gone there, and has come back."""
    for machine in (world.far, world.here):
        assert content(machine, "/home/me/file") == content(world.here, "/src/file")


def summed(world: World, said: list[str]) -> None:
    here, there = (re.search("[0-9a-f]{64}", said[number]) for number in (2, 0))
    assert there is not None
    assert here is not None
    assert there[0] == here[0]
    assert content(world.far, "/home/me/file") == content(world.here, "/src/file")


def sum_is_told(world: World, said: list[str]) -> None:
    assert world.here.run("sha256sum", "/src/file").split()[0] in said[-1]


def answers(name: str, text: str) -> Callable[[World, list[str]], None]:
    """This has come; spaces do not count."""

    def check(world: World, said: list[str]) -> None:
        assert world.here.path(f"/home/me/{name}").read_text().replace("  ", "") == text

    return check


def answered(world: World, said: list[str]) -> None:
    """Each has what the other has sent."""
    assert "gamma" in said[-1].splitlines()
    answers("question", "why\n")(world, said)


def by_both(world: World, said: list[str]) -> None:
    """Nothing has taken the way that the routes say."""
    goes()(world, said)
    lines = world.here.run("cat", "/proc/net/dev").splitlines()
    sent = {line.split()[0]: int(line.split()[9]) for line in lines[2:]}
    assert sent["wlan0:"] + sent["usb0:"] > len(content(world.here, "/src/file"))


def limited(world: World, said: list[str]) -> None:
    goes()(world, said)
    assert content(world.here, "/home/me/file") == content(world.far, "/src/file")


def logged(world: World, said: list[str]) -> None:
    """What is shown in the end is the last event."""
    goes()(world, said)
    assert json.loads(said[-1].splitlines()[0])["event"] == "done"


def nightly(world: World) -> None:
    """What listens for it."""
    world.share_key()
    terminal = world.far.terminal()
    terminal.type("bpipe listen :7000 --name night --output night.tar")
    terminal.wait_listening()


def both_backed_up(world: World, said: list[str]) -> None:
    backed_up(world, said)
    archived("night.tar")(world, said)


def backed_up(world: World, said: list[str]) -> None:
    holds(world.here.path("/home/me/backup.tar"), world.far.path("/src"))


CASES: Final = {
    # where ssh goes
    "A folder, to where ssh goes": Case(goes()),
    "A folder, from where ssh goes": Case(comes),
    "Where ssh goes": Case(stored("/home/me/repo/data"), borg),
    "A backup, from where ssh goes": Case(backed_up),
    "A database's dump, from where ssh goes": Case(dumped, dump),
    "A disk's image, from where ssh goes": Case(
        disk_is("here", "/home/me/disk.img", "/dev/sdb"), disks
    ),
    "borg": Case(stored("/home/me/repo/data")),
    "rsync": Case(goes()),
    "git": Case(cloned, project),
    "restic": Case(stored("/home/me/restic/data"), restic),
    "scp and sftp": Case(copied),
    # between two machines
    "Between two machines": Case(goes()),
    "A key for both": Case(key_is_shared),
    "A key that is spoken": Case(goes(), asks=("Secret: ", "/home/me/words")),
    "A folder": Case(goes()),
    "A folder, compressed": Case(goes()),
    "A file that goes on": Case(archived("backup.tar")),
    "A disk onto a disk": Case(disk_is("far", "/dev/sdc", "/dev/sdb"), disks),
    "A disk's image": Case(disk_is("far", "/home/me/disk.img", "/dev/sdb"), disks),
    "A disk's image, compressed": Case(unpacked, disks),
    "Checksums": Case(summed),
    "A program that answers": Case(answers("sorted", "alpha\nbeta\ngamma\n")),
    "A pipeline that answers": Case(answers("counted", "1 alpha\n1 beta\n1 gamma\n")),
    # many callers
    "A program for each caller": Case(sum_is_told),
    "A file that is sent every night": Case(archived("night.tar")),
    # other ways
    "Two programs on one machine": Case(answered),
    "A command that connects": Case(archived("src.tar")),
    "A tunnel of ssh": Case(archived("src.tar")),
    "A tunnel of ssh between Unix sockets": Case(archived("src.tar")),
    # while it runs
    "A listener in the background": Case(archived("folder.tar")),
    "Every night, by cron": Case(both_backed_up, nightly),
    "An image every night, by cron": Case(
        disk_is("far", "/home/me/disk.img", "/dev/sdb"), disks, root=True
    ),
    "A long line": Case(goes()),
    "Two ways to the net": Case(by_both, two_ways),
    "A limit of the rate": Case(limited),
    "A percentage": Case(goes()),
    "A log for programs": Case(logged),
}
