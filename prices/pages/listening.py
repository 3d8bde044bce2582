"""Where this process takes connections, asked of the kernel: a setting or a command line may say another."""

import os
import socket
import stat
from ipaddress import ip_address


def listens_on_loopback_only() -> bool:
    """Return whether all sockets at which this process takes connections are of loopback addresses.

    False where there is none, as it cannot be told then who passes requests on, or one of another family: a
    proxy asks at a Unix socket for whomever.
    """
    hosts = listening_hosts()
    return bool(hosts) and all(_is_loopback(host) for host in hosts)


def listening_hosts() -> set[str]:
    """Return the addresses of this process's listening sockets; of other families than IP, the family's name.

    Linux and macOS list what a process has open; elsewhere the set is empty.
    """
    try:
        descriptors = [int(name) for name in os.listdir("/dev/fd")]  # noqa: PTH208 - no files
    except OSError:
        return set()
    return {host for each in descriptors if (host := _listening_host(each)) is not None}


def _listening_host(descriptor: int) -> str | None:
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return None
        # Of a copy, which is closed: the socket itself goes on.
        with socket.socket(fileno=os.dup(descriptor)) as found:
            if not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return None
            is_ip = found.family in {socket.AF_INET, socket.AF_INET6}
            return str(found.getsockname()[0]) if is_ip else found.family.name
    except OSError:
        # Closed since the look, by another thread.
        return None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
