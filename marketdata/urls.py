"""Every address of the service."""

from django.contrib import admin
from django.templatetags.static import static
from django.urls import include, path, re_path
from django.views.decorators.http import require_safe
from django.views.generic import RedirectView

from marketdata.system_page import system
from marketdata.views import livez, readyz
from prices.api.views.docs import DocsView, SchemaView
from prices.api.views.stream import misdirected

urlpatterns = [
    # A browser asks for it where an answer is no page that names another one.
    path("favicon.ico", RedirectView.as_view(url=static("pages/favicon.svg"))),
    re_path(r"^pages/system/?$", system, name="system"),
    path("", include("prices.pages.urls")),
    path("", include("prices.api.urls")),
    re_path(r"^prices/stream/?$", misdirected, name="stream"),
    re_path(r"^api/schema/?$", SchemaView.as_view(), name="schema"),
    re_path(r"^docs/?$", require_safe(DocsView.as_view()), name="docs"),
    re_path(r"^livez/?$", livez, name="livez"),
    re_path(r"^readyz/?$", readyz, name="readyz"),
    path("admin", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
]

handler400 = "prices.api.errors.bad_request"
handler404 = "prices.api.errors.plain_problem"
handler500 = "prices.api.errors.server_error"
