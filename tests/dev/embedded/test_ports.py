"""Ports are kept, and lie where no outgoing connection can take them."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dev.embedded.ports import HIGHEST, HOST, LOWEST, is_free, kept_port
from dev.guardian import ROOT


def test_kept_port_is_the_same_at_the_next_start(tmp_path: Path) -> None:
    port = kept_port(tmp_path / "port")
    assert LOWEST <= port <= HIGHEST
    assert kept_port(tmp_path / "port") == port


def test_kept_port_taken_is_replaced_and_the_new_one_kept(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as server:
        taken = server.getsockname()[1]
        (tmp_path / "port").write_text(str(taken))
        port = kept_port(tmp_path / "port")
        assert port != taken
        assert kept_port(tmp_path / "port") == port


@pytest.mark.parametrize("text", ["", "no number"])
def test_kept_port_unreadable_file_is_replaced(tmp_path: Path, text: str) -> None:
    (tmp_path / "port").write_text(text)
    assert kept_port(tmp_path / "port") == int((tmp_path / "port").read_text())


def test_is_free_with_connections_that_are_still_closing() -> None:
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection((HOST, port))
        accepted, _ = server.accept()
        # The side that closes first keeps the port in TIME_WAIT.
        accepted.close()
        client.close()
        assert not is_free(port)
    assert is_free(port)


def test_ports_chosen_at_once_differ() -> None:
    choose = "from dev.embedded.ports import free_port; print(free_port(), free_port(), free_port())"
    command = [sys.executable, "-c", choose]
    neighbours = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    chosen = [port for process in neighbours for port in process.communicate(timeout=60)[0].split()]
    assert len(set(chosen)) == 24
