"""One run at a time in a checkout, and one run on a port."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dev.checkout import UsageError, check_port, read_port, take_lock
from dev.embedded.ports import HOST

HOLDER = """
import fcntl, json, os, sys, time
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
lock.write(json.dumps({"pid": int(sys.argv[2]), "url": "http://127.0.0.1:8000"}))
lock.flush()
print("held", flush=True)
sys.stdin.read()
"""


def nothing() -> None:
    pass


@pytest.mark.parametrize(("text", "port"), [("", 8000), ("8001", 8001), ("65535", 65535), ("1", 1)])
def test_read_port_good_value(text: str, port: int) -> None:
    assert read_port(text) == port


@pytest.mark.parametrize("text", ["0", "65536", "-1", "80.5", "http", "٣", "9" * 5000])
def test_read_port_bad_value_names_the_variable_and_the_range(text: str) -> None:
    with pytest.raises(UsageError, match="PORT must be a whole number from 1 to 65535"):
        read_port(text)


def test_read_port_of_another_variable_has_a_default_of_its_own() -> None:
    assert read_port("", variable="STREAM_PORT", default=8001) == 8001
    with pytest.raises(UsageError, match="STREAM_PORT must be"):
        read_port("0", variable="STREAM_PORT", default=8001)


def test_check_port_taken_names_its_holder_and_a_free_port() -> None:
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(UsageError) as caught:
            check_port(port)
    assert f"Port {port} is taken by " in str(caught.value)
    assert f"(process {os.getpid()})" in str(caught.value)
    assert "make run" in str(caught.value)


def test_check_port_of_a_server_that_shares_it_is_taken() -> None:
    with socket.create_server((HOST, 0), reuse_port=True) as server, pytest.raises(UsageError):
        check_port(server.getsockname()[1])


def test_take_lock_held_by_a_living_run_gives_its_address(tmp_path: Path) -> None:
    with hold(tmp_path / "lock", pid=os.getpid()) as holder:
        with pytest.raises(UsageError, match=rf"http://127.0.0.1:8000 \(process {os.getpid()}\)"):
            take_lock(tmp_path, url="", check=nothing)
        holder.communicate()


def test_take_lock_waits_for_the_remains_of_a_dead_run(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    with hold(tmp_path / "lock", pid=dead.pid) as holder:
        checks = 0

        def check() -> None:
            nonlocal checks
            checks += 1
            if checks == 3:
                holder.communicate()

        take_lock(tmp_path, url="http://here", check=check).close()
    assert checks == 3
    assert "http://here" in (tmp_path / "lock").read_text()


def hold(lock: Path, *, pid: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, lock, str(pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process
