"""Requests to this machine never go through a proxy."""

from collections.abc import MutableMapping

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def keep_from_proxies(environment: MutableMapping[str, str]) -> None:
    """Add this machine to what the variables of a shell keep from its proxy, in both spellings."""
    given = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    names = [name.strip() for name in given.split(",") if name.strip()]
    # A star alone means all; beside other names it means nothing.
    text = "*" if names == ["*"] else ",".join(dict.fromkeys([*names, *LOOPBACK]))
    environment.update(no_proxy=text, NO_PROXY=text)
