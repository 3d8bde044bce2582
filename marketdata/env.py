"""Settings from the environment: read loudly, each secret also from a file.

`NAME_FILE`, where set, is the path of a file that holds the value of `NAME`, and wins over it.
Every reader raises ImproperlyConfigured with the variable's name where its value cannot be used.
"""

from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from environ import FileAwareEnv

from providers.limits import parse_limits

env = FileAwareEnv()

_POSTGRESQL = frozenset({"postgres", "postgresql", "psql", "pgsql"})
_DATABASE = "postgres://user:password@host:port/name"


def load_env_files(base_dir: Path) -> None:
    """Read `.data/env` (of a `make run` under way), then `.env` (the user's); what is set already wins."""
    for path in (base_dir / ".data" / "env", base_dir / ".env"):
        if path.is_file():
            env.read_env(path)


def env_text(name: str, default: str = "") -> str:
    """Give the variable's text without surrounding white space; an empty one is as good as none."""
    try:
        return str(env.str(name, default="")).strip() or default
    except OSError as error:
        message = f"{name}_FILE names a file that cannot be read: {error.strerror}"
        raise ImproperlyConfigured(message) from error


def env_required(name: str, *, hint: str) -> str:
    """Give the variable's text; without one the start ends here, with `hint` telling what to do."""
    value = env_text(name)
    if not value:
        raise ImproperlyConfigured(f"{name} is not set. {hint}")
    return value


def env_int(name: str, default: int, *, minimum: int, maximum: int = 2**31) -> int:
    """Give a whole number between `minimum` and `maximum`, both included."""
    text = env_text(name, str(default))
    try:
        value = int(text)
    except ValueError:
        value = None
    if value is None or not minimum <= value <= maximum:
        raise ImproperlyConfigured(f"{name} must be a whole number from {minimum} to {maximum}, not {text!r}")
    return value


def env_bool(name: str, *, default: bool) -> bool:
    """Give true for 1, true, yes, on; false for 0, false, no, off."""
    text = env_text(name, str(default)).lower()
    if text not in {"1", "true", "yes", "on", "0", "false", "no", "off"}:
        raise ImproperlyConfigured(f"{name} must be true or false, not {text!r}")
    return text in {"1", "true", "yes", "on"}


def env_list(name: str, default: str = "") -> list[str]:
    """Give the parts of a comma-separated value, without white space and empty parts."""
    return [part.strip() for part in env_text(name, default).split(",") if part.strip()]


def env_choice(name: str, default: str, *, allowed: tuple[str, ...]) -> str:
    """Give one of `allowed`."""
    value = env_text(name, default)
    if value not in allowed:
        raise ImproperlyConfigured(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
    return value


def env_database(name: str, *, hint: str) -> dict[str, Any]:
    """Give what Django has to know of a PostgreSQL server; no error shows the value: it holds a password."""
    url = env_required(name, hint=hint)
    # Before it is parsed: of another scheme the parser warns with all parts of the address.
    if url.partition("://")[0] not in _POSTGRESQL:
        raise ImproperlyConfigured(f"{name} must begin with postgres:// ({_DATABASE})")
    try:
        found: dict[str, Any] = env.db_url_config(url)
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} cannot be read: write {_DATABASE}") from error
    if not found["NAME"]:
        raise ImproperlyConfigured(f"{name} names no database: write {_DATABASE}")
    return found


def env_budget(name: str, default: str) -> str:
    """Give a request budget as written, such as "1/1s,25/1d"."""
    value = env_text(name, default)
    try:
        parse_limits(value)
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} cannot be used: {error}") from error
    return value
