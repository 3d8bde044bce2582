"""Whom a call is from: the key that it sends, or a session of the admin."""

import ipaddress
from dataclasses import dataclass
from typing import Any, cast

from django.http import HttpRequest
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.request import Request

from prices.access.generation import generation_key
from prices.access.key_cache import keep_key, kept_key
from prices.access.keys import InvalidKeyError, find_key
from prices.access.rights import FULL_ACCESS, Access, needs_keys
from prices.api.access.throttle import Allowance, address_rule, count_request, key_rule
from prices.clock import recent_now
from prices.models.api_client import Scope

_BEARER = "bearer "
# Whoever has one of these addresses has the others, too.
_OWN_NETWORK_BITS = 64
_VIEWER = Access(frozenset({Scope.READ}))


class KeyRequiredError(Exception):
    """The call has neither a key nor a session."""


@dataclass(frozen=True, slots=True)
class Caller:
    """What whoever calls may do, and what is left of the requests that are answered."""

    access: Access
    allowance: Allowance | None = None


_ANYBODY = Caller(FULL_ACCESS)


class KeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer KEY`, `X-API-Key: KEY`, or the session of a user of the admin."""

    def authenticate(self, request: Request) -> tuple[Any, Caller]:
        """Return the user of a session or None, and the caller.

        Where the service is open that is anybody. Raises KeyRequiredError, InvalidKeyError, ThrottledError,
        and DRF's PermissionDenied where a session's request lacks the CSRF token.
        """
        if not needs_keys():
            return None, _ANYBODY
        try:
            return self._identify(request)
        except (KeyRequiredError, InvalidKeyError):
            count_request("address", _network(request.META["REMOTE_ADDR"]), address_rule())
            raise

    def _identify(self, request: Request) -> tuple[Any, Caller]:
        sent = sent_key(request._request)
        if sent is not None:
            return None, _caller_of_key(sent)
        access = session_access(request._request)
        if access is None:
            raise KeyRequiredError
        SessionAuthentication().enforce_csrf(request)
        user = request._request.user
        counted = count_request("user", str(user.pk), key_rule())
        return user, Caller(access, counted.allowance)


def _caller_of_key(text: str) -> Caller:
    """Count a call of the key and return its caller; the table is read where the key is not kept."""
    kept = kept_key(text)
    found, generation = kept or (find_key(text), None)
    counted = count_request("key", str(found.id), key_rule(), generation_key=generation_key())
    is_just_read = kept is None and not counted.generation
    is_as_kept = generation is not None and counted.generation == generation
    if not is_just_read and (not is_as_kept or found.is_over(recent_now())):
        # Now that the generation is read.
        found = find_key(text)
        if counted.generation:
            keep_key(text, found, counted.generation)
    return Caller(found.access, counted.allowance)


def access_of(request: Request) -> Access:
    """Return what the caller of a request may do."""
    return cast(Caller, request.auth).access


def session_access(request: HttpRequest) -> Access | None:
    """Return what a request may do by its session alone; None where it needs a key and has no session."""
    if not needs_keys():
        return FULL_ACCESS
    user = request.user
    if not (user.is_active and user.is_staff):
        return None
    # In the admin, too, whoever may change jobs may change all of them.
    return FULL_ACCESS if user.has_perm("prices.change_polljob") else _VIEWER


def sent_key(request: HttpRequest) -> str | None:
    """Return the key of the request; None where it sends none. Other schemes are a proxy's."""
    authorization = request.META.get("HTTP_AUTHORIZATION", "")
    is_bearer = authorization[: len(_BEARER)].lower() == _BEARER
    # An empty one is none: of a variable that is not set, or a proxy.
    sent = {
        authorization[len(_BEARER) :].strip() if is_bearer else "",
        request.META.get("HTTP_X_API_KEY", ""),
    } - {""}
    if len(sent) > 1:
        raise InvalidKeyError("is another one in Authorization than in X-API-Key")
    return sent.pop() if sent else None


def _network(address: str) -> str:
    """Return what an address counts for: itself, or the network of an IPv6 host."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        # A socket that has none.
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, _OWN_NETWORK_BITS), strict=False))
