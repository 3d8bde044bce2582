"""manage.py api_key: keys of the REST API: created, listed, revoked."""

import re
from argparse import ArgumentParser, ArgumentTypeError
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from django.core.management.base import BaseCommand, CommandError

from prices.access.keys import (
    LONGEST_NAME,
    PREFIX_LENGTH,
    UnknownKeyError,
    create_key,
    read_client_name,
    revoke_key,
)
from prices.access.rights import needs_keys
from prices.api.renderers import time
from prices.clock import database_now
from prices.management.examples import add_examples
from prices.management.tables import console_on, key_table
from prices.models import ApiKey, Scope
from prices.models.api_client import SCOPES_IN_WORDS

_DAYS = re.compile(r"([1-9][0-9]{0,4})d")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class Command(BaseCommand):
    help = (
        "Create, list and revoke keys of the REST API, which are asked for where API_AUTH is keys. A client"
        " may have several keys, and its jobs are all of theirs: to change a key, create the next one, hand"
        " it over, revoke the former. Exit 0: done, 1: there is no such key, 2: wrong usage."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take what to do, and with which."""
        add_examples(
            parser,
            "api_key create dashboard --scopes read",
            "api_key create trading --scopes read,jobs --expires 90d",
            "api_key list",
            "api_key revoke mdk_4fT0bVq2LxYa",
        )
        actions = parser.add_subparsers(dest="action", required=True, metavar="create|list|revoke")
        creating = actions.add_parser("create", help="Create a key. It is shown once.")
        creating.add_argument("client", type=_name, help="Whose it is; a new name is a new client.")
        creating.add_argument(
            "--scopes",
            type=_scopes,
            default=[Scope.READ],
            help=f"What it opens, with commas between: {SCOPES_IN_WORDS}. Without it: read.",
        )
        creating.add_argument(
            "--expires",
            type=_end,
            help="When it ends: days from now, as 90d, or a date (its begin, UTC). Without it: never.",
        )
        listing = actions.add_parser("list", help="Show all keys, those that open nothing any more, too.")
        listing.add_argument("--json", action="store_true", help="Answer in JSON.")
        revoking = actions.add_parser("revoke", help="Let keys open nothing from now on.")
        revoking.add_argument(
            "prefixes",
            nargs="+",
            metavar="PREFIX",
            type=_prefix,
            help=f"Its first {PREFIX_LENGTH} characters, or all of it.",
        )

    def handle(self, *, action: str, **options: Any) -> None:
        """Do it."""
        getattr(self, f"_{action}")(**options)

    def _create(
        self, *, client: str, scopes: list[Scope], expires: timedelta | datetime | None, **options: Any
    ) -> None:
        now = database_now()
        end = now + expires if isinstance(expires, timedelta) else expires
        if end is not None and end <= now:
            raise CommandError("--expires: is in the past.", returncode=2)
        made = create_key(client, scopes, expires_at=end)
        # The key alone goes where a script reads it.
        self.stdout.write(made.text)
        until = "with no end" if end is None else f"until {end:%Y-%m-%d %H:%M} UTC"
        whose = "the new client" if made.is_new_client else "the client"
        self.stderr.write(
            f"A key of {whose} {client}, for {', '.join(scopes)}, {until}."
            " It is shown this once: keep it now."
        )
        if not needs_keys():
            self.stderr.write("Nobody is asked for it yet: API_AUTH is open. Set API_AUTH=keys.")

    def _list(self, *, json: bool, **options: Any) -> None:
        keys = list(ApiKey.objects.select_related("client").order_by("client__name", "-id"))
        if json:
            self.stdout.write(msgspec.json.encode([_as_json(key) for key in keys]).decode())
        elif keys:
            console_on(self.stdout).print(key_table(keys, now=database_now()))
        else:
            self.stdout.write("No keys.")

    def _revoke(self, *, prefixes: list[str], **options: Any) -> None:
        unknown = [prefix for prefix in prefixes if not ApiKey.objects.filter(prefix=prefix).exists()]
        if unknown:
            raise CommandError(
                f"There is no key {', '.join(unknown)}. Nothing was revoked. Name each key by its first"
                f" {PREFIX_LENGTH} characters, as `api_key list` shows them."
            )
        for prefix in prefixes:
            try:
                key = revoke_key(prefix)
            except UnknownKeyError as error:
                raise CommandError(f"There is no key {prefix}.") from error
            self.stdout.write(
                f"{key.prefix}  revoked at {key.revoked_at:%Y-%m-%d %H:%M:%S} UTC: {key.client}"
            )


def _as_json(key: ApiKey) -> dict[str, Any]:
    return {
        "client": key.client.name,
        "prefix": key.prefix,
        "scopes": key.scopes,
        "created_at": time(key.created_at),
        "expires_at": time(key.expires_at),
        "last_used_at": time(key.last_used_at),
        "revoked_at": time(key.revoked_at),
    }


def _name(text: str) -> str:
    try:
        return read_client_name(text)
    except ValueError as error:
        raise ArgumentTypeError(f"a name has 1 to {LONGEST_NAME} printable characters") from error


def _prefix(text: str) -> str:
    return text[:PREFIX_LENGTH]


def _scopes(text: str) -> list[Scope]:
    try:
        return [Scope(part.strip()) for part in text.split(",")]
    except ValueError as error:
        allowed = ", ".join(Scope.values)
        raise ArgumentTypeError(f"{text!r} is not one or more of {allowed}, with commas between") from error


def _end(text: str) -> timedelta | datetime:
    if days := _DAYS.fullmatch(text):
        return timedelta(days=int(days[1]))
    try:
        if _DATE.fullmatch(text):
            return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        pass
    raise ArgumentTypeError(f"{text!r} is neither days such as 90d nor a date such as 2027-01-31")
