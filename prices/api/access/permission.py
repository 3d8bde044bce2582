"""What a call may do."""

from typing import TYPE_CHECKING, cast

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from prices.access.rights import needs_keys
from prices.api.access.authentication import Caller
from prices.models.api_client import Scope

if TYPE_CHECKING:
    # At run time it is not there yet: it imports this.
    from rest_framework.views import APIView

# A cache must not give one caller's answer to another.
_NOT_SHARED = "Authorization, X-API-Key, Cookie"


class ScopePermission(BasePermission):
    """Lets a call through whose caller has the scope that the view names as `scope`, or else `read`."""

    def has_permission(self, request: Request, view: "APIView") -> bool:
        """Return True. Raises MissingScopeError."""
        if needs_keys():
            caller = cast(Caller, request.auth)
            if caller.allowance is not None:
                view.headers.update(caller.allowance.headers)
            view.headers["Vary"] = _NOT_SHARED
            caller.access.require(getattr(view, "scope", Scope.READ))
        return True
