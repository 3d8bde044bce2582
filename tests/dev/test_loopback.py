"""This machine is added to what a shell keeps from its proxy."""

import pytest

from dev.loopback import keep_from_proxies


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "intern.example, localhost"}, "intern.example,localhost,127.0.0.1,::1"),
        ({"no_proxy": "*"}, "*"),
    ],
)
def test_loopback_is_kept_from_proxies(given: dict[str, str], expected: str) -> None:
    keep_from_proxies(given)
    assert {given["no_proxy"], given["NO_PROXY"]} == {expected}
