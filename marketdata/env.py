"""Settings from the environment: read loudly, each secret also from a file.

`NAME_FILE`, where set, is the path of a file that holds the value of `NAME`, and wins over it. Values are
taken as they are: a `$` in a password names no other variable. Every reader raises ImproperlyConfigured with
the variable's name where its value cannot be used.
"""

import re
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from django.core.exceptions import ImproperlyConfigured
from environ import FileAwareEnv
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from providers.rate_limits.limits import parse_limits

env = FileAwareEnv()

# Blank, a comment, or what django-environ reads; it would print any other line, secrets and all.
_LINE = re.compile(r"\s*|#.*|(export )?[A-Za-z_0-9]+=.*")
_POSTGRESQL = re.compile(r"(postgres|postgresql|psql|pgsql)://")
_BLANK = re.compile(r"[\s\x00-\x1f]")
# Redis keeps a time for each request of a window.
_MOST_COUNTED = 100_000
_HOST = re.compile(r"[a-z0-9._:-]+")
_PROXY_SCHEMES = frozenset({"http", "https", "socks5", "socks5h"})
_PROXY = "http://user:password@host:port"
_DATABASE = "postgres://user:password@host:port/name"


def load_env_files(base_dir: Path) -> None:
    """Read `.data/env` (of a `make run` under way), then `.env` (the user's); what is set already wins."""
    for path in (base_dir / ".data" / "env", base_dir / ".env"):
        if path.is_file():
            _check_lines(path)
            env.read_env(path, encoding="utf-8-sig")


def env_text(name: str, default: str = "") -> str:
    """Return the variable's text without surrounding white space; an empty one is as good as none."""
    try:
        # Not env.str: it takes "$WORD" for the name of another variable.
        return str(env.ENVIRON.get(name, "")).strip() or default
    except OSError as error:
        message = f"{name}_FILE names a file that cannot be read: {error.strerror}"
        raise ImproperlyConfigured(message) from error
    except UnicodeDecodeError:
        raise ImproperlyConfigured(f"{name}_FILE names a file that is not UTF-8 text") from None


def env_required(name: str, *, hint: str) -> str:
    """Return the variable's text; without one the start ends here, with `hint` telling what to do."""
    value = env_text(name)
    if not value:
        raise ImproperlyConfigured(f"{name} is not set. {hint}")
    return value


def env_int(name: str, default: int, *, minimum: int, maximum: int = 2**31) -> int:
    """Return a whole number between `minimum` and `maximum`, both included."""
    text = env_text(name, str(default))
    try:
        value = int(text)
    except ValueError:
        value = None
    if value is None or not minimum <= value <= maximum:
        raise ImproperlyConfigured(f"{name} must be a whole number from {minimum} to {maximum}, not {text!r}")
    return value


def env_bool(name: str, *, default: bool) -> bool:
    """Return true for 1, true, yes, on; false for 0, false, no, off."""
    text = env_text(name, str(default)).lower()
    if text not in {"1", "true", "yes", "on", "0", "false", "no", "off"}:
        raise ImproperlyConfigured(f"{name} must be true or false, not {text!r}")
    return text in {"1", "true", "yes", "on"}


def env_list(name: str, default: str = "") -> list[str]:
    """Return the parts of a comma-separated value, without white space and empty parts."""
    return [part.strip() for part in env_text(name, default).split(",") if part.strip()]


def env_origins(name: str) -> list[str]:
    """Return origins as browsers send them, such as https://example.org; or ["*"]: any."""
    origins = env_list(name)
    for origin in origins:
        if origins != ["*"] and not _is_origin(origin):
            raise ImproperlyConfigured(
                f"{name} cannot hold {origin!r}: write each origin as a browser sends it, https://host or"
                " http://host:port in lower case and without a path, or * alone for any"
            )
    return origins


def env_choice(name: str, default: str, *, allowed: tuple[str, ...]) -> str:
    """Return one of `allowed`."""
    value = env_text(name, default)
    if value not in allowed:
        raise ImproperlyConfigured(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
    return value


def env_database(name: str, *, hint: str) -> dict[str, Any]:
    """Return Django's settings of a PostgreSQL server, read by libpq's own rules.

    No error shows the value, nor its cause: it holds a password.
    """
    url = env_required(name, hint=hint)
    if not _POSTGRESQL.match(url):
        raise ImproperlyConfigured(f"{name} must begin with postgres:// ({_DATABASE})")
    try:
        found = conninfo_to_dict(_POSTGRESQL.sub("postgres://", url))
    except ProgrammingError:
        raise ImproperlyConfigured(f"{name} cannot be read: write {_DATABASE}") from None
    ports = str(found.get("port", "")).split(",")
    if not all(port.isascii() and port.isdigit() for port in ports if port):
        raise ImproperlyConfigured(f"{name} cannot be read, its port is no number: write {_DATABASE}")
    if not found.get("dbname"):
        raise ImproperlyConfigured(f"{name} names no database: write {_DATABASE}")
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    return {
        "ENGINE": "django.db.backends.postgresql",
        **{key: found.pop(parameter, "") for key, parameter in names.items()},
        "OPTIONS": found,
    }


def env_budget(name: str, default: str) -> str:
    """Return a request budget as written, such as "1/1s,25/1d"."""
    value = env_text(name, default)
    try:
        parse_limits(value)
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} cannot be used: {error}") from error
    return value


def env_rate(name: str, default: str) -> str:
    """Return a limit of requests as written, such as "6000/1m", or none."""
    value = env_text(name, default)
    try:
        limits = parse_limits(value)
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} cannot be used: {error}") from error
    if len(limits) > 1 or any(limit.requests > _MOST_COUNTED for limit in limits):
        raise ImproperlyConfigured(
            f"{name} must be one limit of at most {_MOST_COUNTED} requests, as {default}, not {value!r}"
        )
    return value


def env_proxy(name: str) -> str:
    """Return the url of a proxy, with a scheme; empty where there is none.

    No error shows the value, nor its cause: it may hold a password.
    """
    url = env_text(name)
    if not url:
        return ""
    if "://" not in url:
        url = f"http://{url}"
    try:
        is_usable = _is_proxy(urlsplit(url)) and not _BLANK.search(url)
    except ValueError:
        is_usable = False
    if not is_usable:
        raise ImproperlyConfigured(f"{name} cannot be read: write {_PROXY}, with %xx for special characters")
    return url


def env_certificates(name: str) -> str:
    """Return the absolute path of a file of certificates in PEM; empty where there is none."""
    path = env_text(name)
    if not path:
        return ""
    try:
        certificates = Path(path).read_text(encoding="latin-1")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=certificates)
    except OSError as error:
        # Of the certificates, too: SSLError is one.
        raise ImproperlyConfigured(
            f"{name} names a file that cannot be used: {_ssl_reason(error)}"
        ) from error
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} names a file that holds no certificate in PEM") from error
    return str(Path(path).absolute())


def _is_origin(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:
        return False
    # Browsers leave out the scheme's own port.
    ports = {"http": ":80", "https": ":443"}
    is_usual = _HOST.fullmatch(parts.hostname or "") and parts.scheme in ports and ports[parts.scheme] != port
    host = f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname
    return bool(is_usual) and text == f"{parts.scheme}://{host}{port}"


def _is_proxy(parts: SplitResult) -> bool:
    is_server = parts.scheme in _PROXY_SCHEMES and parts.hostname and parts.port
    return bool(is_server) and parts.path in {"", "/"} and not (parts.query or parts.fragment)


def _ssl_reason(error: OSError) -> str:
    is_of_content = isinstance(error, ssl.SSLError)
    return "it holds no certificate in PEM" if is_of_content else error.strerror or "it cannot be read"


def _check_lines(path: Path) -> None:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise ImproperlyConfigured(f"{path.name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ImproperlyConfigured(f"{path.name} is not UTF-8 text") from None
    for number, line in enumerate(lines, start=1):
        if not _LINE.fullmatch(line):
            raise ImproperlyConfigured(
                f"{path.name}, line {number}: write NAME=value, without blanks before the ="
            )
