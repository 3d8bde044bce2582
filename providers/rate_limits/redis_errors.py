"""What keeps Redis from doing what it was asked, for people."""

import re

import redis

# Where in a script it was, and what of a command was sent: that may be a password.
_BEYOND_THE_WORDS = re.compile(
    r" script:( [0-9a-f]+,)? on @user_script.*|, with args beginning with.*", re.DOTALL
)
# A fault in Lua names its line first; what Redis refuses to a script names it last.
_FAULT_IN_LUA = re.compile(r"user_script:\d+: |Error compiling script")


def redis_problem(error: BaseException) -> str:
    """Return `answers: …` with the first sentence of Redis' own words, or `cannot be reached`.

    `error` is a RedisError, or one that was raised from it.
    """
    answer = _answer_in(error)
    return f"answers: {answer}" if answer else "cannot be reached"


def is_script_fault(error: redis.ResponseError) -> bool:
    """Return whether a Lua script is at fault, rather than what Redis allows just now."""
    return _FAULT_IN_LUA.search(str(error)) is not None


def _answer_in(error: BaseException | None) -> str | None:
    while error is not None and not isinstance(error, redis.RedisError):
        error = error.__cause__ or error.__context__
    if error is None or not (isinstance(error, redis.ResponseError) or error.status_code):
        return None
    words = _BEYOND_THE_WORDS.sub("", str(error)).partition(". ")[0].rstrip(".")
    # The client cuts off the codes that it knows.
    return words if error.status_code in {None, "ERR"} else f"{error.status_code} {words}"
