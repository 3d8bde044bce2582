"""Every address of the service."""

from django.contrib import admin
from django.urls import include, path, re_path
from django.views.decorators.http import require_safe
from django.views.generic import RedirectView
from drf_spectacular.renderers import OpenApiJsonRenderer2
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView

from marketdata.views import front_page, livez, readyz

urlpatterns = [
    path("", front_page, name="front_page"),
    path("", include("prices.api.urls")),
    re_path(
        r"^api/schema/?$", SpectacularAPIView.as_view(renderer_classes=[OpenApiJsonRenderer2]), name="schema"
    ),
    re_path(r"^docs/?$", require_safe(SpectacularSwaggerView.as_view(url_name="schema")), name="docs"),
    re_path(r"^livez/?$", livez, name="livez"),
    re_path(r"^readyz/?$", readyz, name="readyz"),
    path("admin", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
]

handler400 = "prices.api.errors.bad_request"
handler404 = "prices.api.errors.plain_problem"
handler500 = "prices.api.errors.server_error"
