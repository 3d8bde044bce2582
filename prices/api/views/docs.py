"""The calls as OpenAPI, and as a page to try them on."""

from typing import Any

from django.contrib.auth.views import redirect_to_login
from django.urls import reverse
from drf_spectacular.renderers import OpenApiJsonRenderer2
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView

from prices.api.access.authentication import KeyRequiredError
from prices.api.errors import problem_page
from prices.api.problems import problem_for

# Known to drf-spectacular once it is imported.
from prices.api.schema.access import KeyScheme

__all__ = ["DocsView", "KeyScheme", "SchemaView"]


class SchemaView(SpectacularAPIView):
    """GET /api/schema."""

    renderer_classes = [OpenApiJsonRenderer2]


class DocsView(SpectacularSwaggerView):
    """GET /docs."""

    url_name = "schema"

    def handle_exception(self, error: Exception) -> Any:
        """Send a browser without a session to the admin's login, from where it comes back."""
        if isinstance(error, KeyRequiredError):
            return redirect_to_login(self.request.get_full_path(), reverse("admin:login"))
        # Not rendered as a page, for which DRF would ask once more who calls.
        found = problem_for(error)
        if found is None:
            raise error
        page = problem_page(found.status, found.name, found.detail, **found.more)
        for name, value in found.headers.items():
            page[name] = value
        return page
