"""What a caller may do, and which jobs are the caller's."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from django.conf import settings
from django.db.models import Q

from prices.models.api_client import Scope


class MissingScopeError(Exception):
    """The caller may not do this: `needed` is the scope that it takes, `scopes` are the caller's."""

    def __init__(self, needed: Scope, scopes: Iterable[Scope]) -> None:
        super().__init__(needed)
        self.needed = needed
        self.scopes = sorted(scopes)


@dataclass(frozen=True, slots=True)
class Access:
    """What a caller may do; `client_id` is None for one who has no key: a session, or an open service."""

    scopes: frozenset[Scope]
    client_id: UUID | None = None

    def require(self, scope: Scope) -> None:
        """Raise MissingScopeError where the caller has neither the scope nor `admin`."""
        if scope not in self.scopes and Scope.ADMIN not in self.scopes:
            raise MissingScopeError(scope, self.scopes)

    @property
    def is_of_all_jobs(self) -> bool:
        """Whether the jobs of all clients are this caller's to see and to change."""
        return Scope.ADMIN in self.scopes

    def owns(self, client_id: UUID | None) -> bool:
        """Return whether a job of this client is the caller's. Those of none are everybody's."""
        return self.is_of_all_jobs or client_id is None or client_id == self.client_id

    @property
    def own_jobs(self) -> Q:
        """The condition that a job of `poll_jobs` meets which `owns` is true of."""
        if self.is_of_all_jobs:
            return Q()
        return Q(client=None) | Q(client=self.client_id)


def needs_keys() -> bool:
    """Return whether a call needs a key or a session; else whoever reaches the service may call it."""
    return bool(settings.API_AUTH == "keys")


FULL_ACCESS = Access(frozenset({Scope.ADMIN}))
