"""What becomes of the file of a socket that listens."""

from __future__ import annotations

import socket
from pathlib import Path

from bpipe.net.bound import Bound, identity


def listen(path: Path) -> Bound:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(path))
    sock.listen()
    return Bound([sock], str(path), path=str(path), identity=identity(str(path)))


def test_it_goes_with_its_sockets(tmp_path: Path) -> None:
    bound = listen(tmp_path / "s")
    bound.close()
    assert not (tmp_path / "s").exists()
    assert bound.sockets[0].fileno() < 0


def test_that_of_a_successor_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = listen(path)
    path.rename(tmp_path / "aside")  # so that its number is not given again
    successor = listen(path)
    first.close()
    assert path.is_socket()
    successor.close()
    assert not path.exists()


def test_one_that_has_gone_is_no_matter(tmp_path: Path) -> None:
    bound = listen(tmp_path / "s")
    (tmp_path / "s").unlink()
    assert identity(str(tmp_path / "s")) is None
    bound.close()
