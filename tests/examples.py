"""How property tests run: how many examples they try, and that none is failed for being slow."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "tests",
    # How long an example takes says nothing on a machine that does other work as well.
    deadline=None,
    # Fixtures are made once for all examples of a test, which sees to it that none leaves anything behind.
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.function_scoped_fixture,
        HealthCheck.data_too_large,
    ],
)
settings.load_profile("tests")

ALL_EXAMPLES = os.environ.get("ALL_EXAMPLES") == "1"


def examples(number: int) -> int:
    """Return how many of `number` examples a test tries: a third, in `make soak` all of them."""
    return number if ALL_EXAMPLES else number // 3
