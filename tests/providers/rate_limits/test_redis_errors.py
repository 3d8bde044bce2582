"""What Redis answers is told in its own words, and nothing else with it."""

import pytest
import redis
from kombu.exceptions import OperationalError

from providers.rate_limits.redis_errors import is_script_fault, redis_problem

MISCONF = "MISCONF Valkey is configured to save RDB snapshots. Commands that may modify are disabled."


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (redis.ConnectionError("Error 111 connecting"), "cannot be reached"),
        (redis.TimeoutError("Timeout reading"), "cannot be reached"),
        (redis.AuthenticationError("no", status_code="WRONGPASS"), "answers: WRONGPASS no"),
        (redis.BusyLoadingError("loading", status_code="LOADING"), "answers: LOADING loading"),
        (
            redis.ConnectionError("max number of clients reached", status_code="ERR"),
            "answers: max number of clients reached",
        ),
        (redis.ResponseError(MISCONF), "answers: MISCONF Valkey is configured to save RDB snapshots"),
        (
            redis.OutOfMemoryError("not allowed. script: on @user_script:1.", status_code="OOM"),
            "answers: OOM not allowed",
        ),
    ],
)
def test_problem_is_redis_own_words(error: redis.RedisError, problem: str) -> None:
    assert redis_problem(error) == problem


def test_password_in_an_answer_is_not_told() -> None:
    text = "unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `default`, `secret`"
    assert redis_problem(redis.ResponseError(text, status_code="ERR")) == "answers: unknown command `HELLO`"


def test_problem_is_found_below_what_was_raised_from_it() -> None:
    error = OperationalError("readonly")
    error.__cause__ = redis.ReadOnlyError("no writes", status_code="READONLY")
    assert redis_problem(error) == "answers: READONLY no writes"


def test_fault_of_a_script_is_told_from_what_is_refused_to_it() -> None:
    assert is_script_fault(redis.ResponseError("user_script:1: attempt to index a nil value"))
    assert not is_script_fault(redis.ResponseError("WRONGTYPE a wrong kind script: on @user_script:1."))
